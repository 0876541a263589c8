#![no_main]

#[path = "../../tests/properties/commands.rs"]
mod commands;

libfuzzer_sys::fuzz_target!(|data: &[u8]| commands::check(data));
