#![no_main]

#[path = "../../tests/properties/answers.rs"]
mod answers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| answers::check(data));
