//! A server's whole life from one seed.

#[path = "sim/mod.rs"]
mod world;

use world::generate::{Size, plan};
use world::play;

#[test]
fn one() {
    let Some(seed) = std::env::var("NORAY_SEED").ok() else { return };
    let plan = plan(seed.parse().unwrap(), Size::SMALL);
    println!("{plan:#?}");
    let outcome = world::World::new(plan.clone(), true).run();
    let text = &outcome.text;
    for line in &text[text.len().saturating_sub(200)..] { println!("{line}"); }
    println!("{:?}", outcome.violation);
}

#[test]
fn some() {
    let mut coverage = world::coverage::Coverage::default();
    let from: u64 = std::env::var("FROM").ok().map_or(0, |s| s.parse().unwrap());
    let n: u64 = std::env::var("N").ok().map_or(50, |s| s.parse().unwrap());
    let mut bad = 0;
    for seed in from..from + n {
        let plan = plan(seed, Size::SMALL);
        let t = std::time::Instant::now();
        let outcome = play(&plan);
        if let Some(v) = &outcome.violation {
            bad += 1;
            println!("seed {seed}: {} at {:.3}: {}", v.promise, v.at as f64 / 1e9, v.what);
        }
        if n < 20 { println!("seed {seed}: {} events {} datagrams {:?} sim {}s", outcome.events, outcome.datagrams, t.elapsed(), outcome.time / 1_000_000_000); }
        coverage.add(&outcome.coverage);
    }
    println!("{coverage}\nbad {bad}\nholes {:?}", coverage.holes());
}
