#![no_main]

#[path = "../../tests/properties/relay_table.rs"]
mod relay_table;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_table::check(data));
