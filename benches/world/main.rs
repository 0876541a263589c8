//! As many worlds as fit into the time: `cargo bench --bench world` for a minute, `cargo bench --bench world -- 60` for
//! sixty, `cargo bench --bench world -- 60 4000000` from that seed on, so that every run sees others.
//!
//! `cargo bench --bench world -- until-broken` begins with the first small world and ends with the first broken promise.
//!
//! First it measures how fast a world with 200 players is. In the end it prints what the worlds have covered; what the core
//! can give and no world has shown is a hole, and ends it with status 1, as a broken promise does. `NORAY_SEED=N cargo
//! test --test world -- --nocapture replay` plays the world with that seed again. `tests/world/README.md` tells the rest.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

#[path = "../../tests/world/sim/mod.rs"]
mod world;

mod full_play;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use world::coverage::{Coverage, OF_THE_SHELL};
use world::generate::{FIRST_LARGE, plan};
use world::net::SECOND;
use world::plan::{Plan, What};
use world::random::Rng;
use world::shrink::{shrink, shrink_while};
use world::{Outcome, play};

/// The time after which every hole must be closed. A shorter run tells them, and that is all.
const ENOUGH: Duration = Duration::from_secs(600);

/// What the worlds have come to so far.
#[derive(Default)]
struct Sum {
    worlds: u64,
    /// In nanoseconds.
    time: u128,
    datagrams: u64,
    coverage: Coverage,
    broken: u64,
    /// What fails is shrunk, which takes a while.
    shrinks: bool,
    /// What broke first.
    first: Option<&'static str>,
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "until-broken") {
        return play_until_broken();
    }
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let minutes = numbers.first().copied().unwrap_or(1);
    let first = numbers.get(1).copied().unwrap_or(FIRST_LARGE);
    full_play::measure();
    let (start, mut told) = (Instant::now(), Instant::now());
    let end = start + Duration::from_secs(60 * minutes);
    let mut sum = Sum { shrinks: true, ..Sum::default() };
    for seed in first.. {
        if Instant::now() >= end {
            break;
        }
        sum.play(seed);
        if told.elapsed() >= Duration::from_secs(300) {
            told = Instant::now();
            sum.tell(start.elapsed());
        }
    }
    sum.tell(start.elapsed());
    println!("\n{}", sum.coverage);
    let holes = sum.coverage.holes();
    println!("never seen: {}", if holes.is_empty() { "nothing" } else { "" });
    holes.iter().for_each(|hole| println!("  {hole}"));
    println!("given by the shell alone, and shown by:");
    OF_THE_SHELL.iter().for_each(|(kind, name, test)| println!("  {kind} {name}: {test}"));
    let is_complete = holes.is_empty() || start.elapsed() < ENOUGH;
    if is_complete && sum.broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays worlds for a minute, until the first broken promise.
fn play_until_broken() -> ExitCode {
    let (start, mut sum) = (Instant::now(), Sum { shrinks: false, ..Sum::default() });
    for seed in 0.. {
        if start.elapsed() >= Duration::from_secs(60) {
            break;
        }
        sum.play(seed);
        if let Some(promise) = sum.first {
            println!("{seed} | {:.1} s | {promise}", start.elapsed().as_secs_f64());
            return ExitCode::FAILURE;
        }
    }
    println!("nothing in {} worlds", sum.worlds);
    ExitCode::SUCCESS
}

fn has_handover_that_shows(plan: &Plan) -> bool {
    play(plan).hash != play(&plan.without(|what| matches!(what, What::HandOver))).hash
}

fn tell_shrunk(plan: &Plan) {
    println!("  shrunk: {}", serde_json::to_string(plan).expect("JSON"));
}

impl Sum {
    /// Plays the world with that seed, and now and then once more with handovers.
    fn play(&mut self, seed: u64) {
        let plan = plan(seed);
        let outcome = play(&plan);
        self.record(seed, &plan, &outcome);
        let random = &mut Rng::of(seed, "handover", 0);
        if outcome.violation.is_none() && random.is_hit(200) && !plan.stands_still() {
            let with_handovers = plan.with(&What::HandOver, random);
            let other = play(&with_handovers);
            self.record(seed, &with_handovers, &other);
            if other.violation.is_none() && outcome.hash != other.hash {
                self.broken += 1;
                self.first.get_or_insert("a handover changes nothing");
                println!("seed {seed}: a handover changes something");
                if self.shrinks {
                    tell_shrunk(&shrink_while(&with_handovers, has_handover_that_shows));
                }
            }
        }
    }

    fn record(&mut self, seed: u64, plan: &Plan, outcome: &Outcome) {
        self.worlds += 1;
        self.time += u128::from(outcome.time);
        self.datagrams += outcome.datagrams;
        self.coverage.add(&outcome.coverage);
        if let Some(violation) = &outcome.violation {
            self.broken += 1;
            self.first.get_or_insert(violation.promise);
            let at = violation.at as f64 / SECOND as f64;
            println!("seed {seed}: {}: at {at:.3} s: {}", violation.promise, violation.what);
            if self.shrinks {
                tell_shrunk(&shrink(plan, violation.promise));
            }
        }
    }

    fn tell(&self, elapsed: Duration) {
        let minutes = elapsed.as_secs_f64() / 60.0;
        let days = self.time as f64 / 1e9 / 86_400.0;
        let (worlds, datagrams, broken) = (self.worlds, self.datagrams, self.broken);
        println!(
            "{minutes:6.1} min: {worlds} worlds, {days:.2} days, {datagrams} datagrams, {broken} broken promises"
        );
    }
}
