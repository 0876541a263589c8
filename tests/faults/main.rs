//! What befalls a machine in the middle of a game: the real binary with a live relayed pair, which must play on.
//!
//! Each test does to a running process what operators and kernels do to it, and finds out by itself whether it can do
//! so here; one that misses something shows as ignored, with the reason. All of them run as root with Debian's `faketime` and
//! `strace`; `prlimit` and `setpriv` are util-linux's.

mod clock;
mod game;
#[path = "../support/harness.rs"]
mod harness;
mod limits;
mod log;
mod memory;
mod panics;
mod standstill;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use harness::tests;

fn main() -> ExitCode {
    harness::run(tests![
        clock::a_clock_that_jumps_by_years_changes_nothing,
        limits::players_beyond_the_open_files_wait_and_are_served_once_there_are_more,
        limits::players_beyond_the_threads_hear_that_the_server_is_full_until_others_leave,
        log::a_pipe_that_nobody_reads_costs_lines_and_nothing_else,
        log::without_a_place_for_the_log_everything_else_works,
        memory::players_beyond_the_memory_hear_that_the_server_is_full,
        panics::a_handler_that_panics_takes_its_own_connection_with_it_and_nothing_else,
        panics::a_thread_of_the_servers_own_that_panics_ends_the_process_for_systemd_to_restart_it,
        standstill::a_minute_of_standing_still_costs_no_relay_and_no_player,
    ])
}
