//! A server's whole life from one seed: simulated players, routers, lines, strangers and an operator round the real rules,
//! and a judge who knows only what was sent and what the pages promise. `tests/world/README.md` says how it is built.
//!
//! `NORAY_SEED=17 cargo test --test world -- --nocapture replay` plays one world again with a readable trace.

#[path = "../support/harness.rs"]
mod harness;
#[path = "sim/mod.rs"]
mod world;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use harness::{ignore, run, tests};
use world::coverage::OF_THE_SHELL;
use world::generate::{FIRST_LARGE, plan};
use world::net::SECOND;
use world::plan::{Deed, Plan, What};
use world::random::Rng;
use world::shrink::{shrink, shrink_while};
use world::{Outcome, play, play_and_tell};

/// The worlds of each run.
const WORLDS: u64 = 300;

/// How many lines of the trace a failure shows.
const LAST_LINES: usize = 60;

fn main() -> ExitCode {
    run(tests![
        hundreds_of_worlds_keep_every_promise,
        the_same_seed_gives_the_same_trace,
        a_handover_changes_nothing,
        a_reload_of_what_is_in_force_changes_nothing,
        what_the_shell_alone_gives_has_a_test,
        kept_cases_keep_every_promise,
        a_failing_plan_is_shrunk_to_what_is_needed,
        replay,
    ])
}

fn hundreds_of_worlds_keep_every_promise() {
    let mut datagrams = 0;
    for seed in 0..WORLDS {
        let plan = plan(seed);
        let outcome = play(&plan);
        expect_peace(&format!("seed {seed}"), &plan, &outcome);
        datagrams += outcome.datagrams;
    }
    println!("{WORLDS} worlds, {datagrams} datagrams");
}

fn the_same_seed_gives_the_same_trace() {
    for seed in 1000..1020 {
        let plan = plan(seed);
        let [one, other] = [play(&plan), play(&plan)];
        assert_eq!((one.hash, one.events), (other.hash, other.events), "seed {seed}");
        let different = world::generate::plan(seed + 1);
        assert_ne!(play(&different).hash, one.hash, "the hash tells worlds apart");
    }
}

/// Whether and when the program is executed anew shows nowhere in what the server does. In worlds that stand still it
/// shows: how much of that time counts depends on when the loop turned last.
fn a_handover_changes_nothing() {
    for seed in 2000..2080 {
        let plan = plan(seed).without(|what| matches!(what, What::StandStill { .. }));
        let with = plan.with(&What::HandOver, &mut Rng::of(seed, "handover", 0));
        expect_the_same(&format!("seed {seed}"), &plan, &with);
    }
}

/// A reload begins the limits on traffic anew, so it shows only where somebody is at a limit.
fn a_reload_of_what_is_in_force_changes_nothing() {
    let mut compared = 0;
    for seed in 3000..3100 {
        let mut plan = plan(seed).without(|what| matches!(what, What::Reload(_)));
        plan.strangers.clear();
        if play(&plan).coverage.has_reached_rates() {
            continue;
        }
        compared += 1;
        let reload = What::Reload(plan.config.clone());
        let with = plan.with(&reload, &mut Rng::of(seed, "reload", 0));
        expect_the_same(&format!("seed {seed}"), &plan, &with);
    }
    assert!(compared >= 40, "only {compared} worlds without limits");
}

/// Both plans lead to the same trace.
fn expect_the_same(name: &str, plan: &Plan, other: &Plan) {
    let [one, another] = [plan, other].map(play);
    expect_peace(name, plan, &one);
    expect_peace(name, other, &another);
    if one.hash == another.hash {
        return;
    }
    let texts = [plan, other].map(|plan| play_and_tell(plan, true).text);
    let different = texts[0].iter().zip(&texts[1]).position(|(one, other)| one != other);
    let from = different.unwrap_or(0).saturating_sub(3);
    let [one, other] = texts.map(|text| text.into_iter().skip(from).take(8).collect::<Vec<_>>());
    panic!("{name}: {one:#?} with, and without {other:#?}");
}

fn what_the_shell_alone_gives_has_a_test() {
    for (kind, name, test) in OF_THE_SHELL {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(test);
        let text = fs::read_to_string(path).expect("the test's file");
        assert!(text.contains(name), "{kind} {name} in {test}");
    }
}

/// Worlds that have shown a fault of the server, as JSON in `tests/world/cases`. Where there is a handover, it shows
/// nowhere.
fn kept_cases_keep_every_promise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/world/cases");
    for case in fs::read_dir(folder).expect("the folder") {
        let path = case.expect("a file").path();
        let name = path.display().to_string();
        let text = fs::read_to_string(&path).expect("UTF-8");
        let plan: Plan = serde_json::from_str(&text).expect("a plan");
        expect_peace(&name, &plan, &play(&plan));
        if !plan.stands_still() {
            let without = plan.without(|what| matches!(what, What::HandOver));
            expect_the_same(&name, &plan, &without);
        }
    }
}

fn a_failing_plan_is_shrunk_to_what_is_needed() {
    let has_moves = |plan: &Plan| plan.strangers.iter().any(|other| other.deed == Deed::Moves);
    let large = (FIRST_LARGE..).map(plan).find(has_moves).expect("one");
    let small = shrink_while(&large, has_moves);
    assert_eq!(small.strangers.len(), 1);
    assert_eq!((small.players.len(), small.acts.len(), small.sites.len()), (0, 0, 1));
    assert!(small.config.is_empty());
}

fn replay() {
    let Some(plan) = plan_to_replay() else { ignore("NORAY_SEED is not set") };
    let outcome = play_and_tell(&plan, true);
    println!("{}", serde_json::to_string_pretty(&plan).expect("JSON"));
    outcome.text.iter().for_each(|line| println!("{line}"));
    println!("{}", outcome.coverage);
    expect_peace(&format!("seed {}", plan.seed), &plan, &outcome);
}

/// The plan of a seed, or one in a file.
#[expect(
    clippy::disallowed_methods,
    reason = "what to replay comes from the person at the keyboard"
)]
fn plan_to_replay() -> Option<Plan> {
    let wanted = std::env::var("NORAY_SEED").ok()?;
    let of_file = |path: &str| {
        let text = fs::read_to_string(path).expect("NORAY_SEED is a number, or the name of a file");
        serde_json::from_str(&text).expect("a plan")
    };
    Some(wanted.parse().map_or_else(|_| of_file(&wanted), plan))
}

/// Shows a broken promise with the smallest plan that breaks it.
fn expect_peace(name: &str, plan: &Plan, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    let small = shrink(plan, violation.promise);
    let told = play_and_tell(&small, true);
    let from = told.text.len().saturating_sub(LAST_LINES);
    told.text[from..].iter().for_each(|line| println!("{line}"));
    println!("{}", serde_json::to_string_pretty(&small).expect("JSON"));
    if let Some(again) = &told.violation {
        println!("shrunk: at {:.3} s: {}", again.at as f64 / SECOND as f64, again.what);
    }
    panic!(
        "{name}: {}: at {:.3} s: {}; to see it, NORAY_SEED=N cargo test --test world -- --nocapture replay",
        violation.promise,
        violation.at as f64 / SECOND as f64,
        violation.what
    );
}
