//! The kernel's path: the program itself, and games that it forwards. Needs root, and the feature `kernel`.

#[path = "../support/harness.rs"]
mod harness;
#[path = "../support/kernel_model.rs"]
mod kernel_model;
mod verdicts;

use std::process::ExitCode;

use harness::tests;

fn main() -> ExitCode {
    harness::run(tests![
        verdicts::the_program_does_what_the_model_says_on_a_million_frames,
        verdicts::nothing_passes_without_a_fresh_heartbeat,
        verdicts::several_datagrams_in_one_go_up,
    ])
}
