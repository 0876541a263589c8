//! What holds for every input: the cases in `cases`, which coverage-guided fuzzing found worth keeping, and random
//! ones made from them. `fuzz` holds the same properties for as long as one likes.

mod answers;
mod commands;
mod config;
mod random;
mod registrar;
mod relay_table;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use fastrand::Rng;

/// Inputs beside the kept ones. Each is a kept one that was changed.
const CHANGED: u64 = 2000;

/// Longer than the longest line, so that lines too long are among them.
const MAX_LENGTH: usize = 6000;

#[test]
fn of_lines_and_commands() {
    holds("commands", commands::check);
}

#[test]
fn of_datagrams_at_the_registrar() {
    holds("registrar", registrar::check);
}

#[test]
fn of_configurations() {
    holds("config", config::check);
}

#[test]
fn of_what_servers_answer_to_a_probe() {
    holds("answers", answers::check);
}

#[test]
fn of_what_happens_to_relays() {
    holds("relay_table", relay_table::check);
}

fn holds(name: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/properties/cases").join(name);
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("there are cases")
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    let cases: Vec<Vec<u8>> = cases
        .iter()
        .map(|path| {
            let case = fs::read(path).unwrap();
            check_one(check, &case, &path.display().to_string());
            case
        })
        .collect();
    for seed in 0..CHANGED {
        let mut random = Rng::with_seed(seed);
        let mut input = cases[random.usize(..cases.len())].clone();
        for _ in 0..random.usize(1..8) {
            change(&mut input, &cases, &mut random);
        }
        check_one(check, &input, &format!("seed {seed}"));
    }
}

fn check_one(check: fn(&[u8]), input: &[u8], name: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
        println!("failed: {name}: {}", input.escape_ascii());
        resume_unwind(panic);
    }
}

fn change(input: &mut Vec<u8>, cases: &[Vec<u8>], random: &mut Rng) {
    let at = random.usize(..=input.len());
    match random.u8(..6) {
        0 => input.truncate(at),
        1 => input.insert(at, random.u8(..)),
        2 => drop(input.splice(at.., random.choice(cases).expect("there are cases").clone())),
        3 => input.extend((0..random.usize(..300)).map(|_| random.u8(..))),
        4 => drop(input.splice(at..at, vec![random.u8(..); random.usize(..5000)])),
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
    }
    input.truncate(MAX_LENGTH);
}
