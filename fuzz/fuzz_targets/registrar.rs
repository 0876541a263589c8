#![no_main]

#[path = "../../tests/properties/registrar.rs"]
mod registrar;

libfuzzer_sys::fuzz_target!(|data: &[u8]| registrar::check(data));
