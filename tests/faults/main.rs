//! What befalls a machine in the middle of a game: the real binary with a live relayed pair, which must play on.
//!
//! Each test does to a running process what operators and kernels do to it, and finds out by itself whether it can do
//! so here; where something is missing, it prints why it skips. All of them run as root with Debian's `faketime` and
//! `strace`; `prlimit` and `setpriv` are util-linux's.

mod clock;
mod game;
mod limits;
mod log;
mod memory;
mod panics;
mod standstill;
#[path = "../support/mod.rs"]
mod support;
