//! The kernel's path: the program itself, and games that it forwards. Needs root, and the feature `kernel`.

mod attaching;
#[path = "../support/harness.rs"]
mod harness;
#[path = "../support/kernel_model.rs"]
mod kernel_model;
mod verdicts;

use std::process::ExitCode;

use harness::tests;

fn main() -> ExitCode {
    harness::run(tests![
        attaching::what_a_killed_process_left_before_linux_6_6_is_removed,
        attaching::other_programs_at_the_interface_stay,
        verdicts::the_program_does_what_the_model_says_on_a_million_frames,
        verdicts::nothing_passes_without_a_fresh_heartbeat,
        verdicts::several_datagrams_in_one_go_up,
    ])
}
