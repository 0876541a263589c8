#![no_main]

#[path = "../../tests/world/sim/mod.rs"]
mod world;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let plan = world::generate::plan_of_bytes(data);
    let outcome = world::play(&plan);
    if let Some(violation) = outcome.violation {
        panic!("{violation:?} in {}", serde_json::to_string(&plan).expect("JSON"));
    }
});
