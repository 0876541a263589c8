#![no_main]

#[path = "../../tests/properties/registrar.rs"]
mod registrar;
#[path = "../../tests/properties/random.rs"]
mod random;

libfuzzer_sys::fuzz_target!(|data: &[u8]| registrar::check(data));
