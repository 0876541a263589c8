#![no_main]

#[path = "../../tests/properties/commands.rs"]
mod commands;
#[path = "../../tests/properties/random.rs"]
mod random;

libfuzzer_sys::fuzz_target!(|data: &[u8]| commands::check(data));
