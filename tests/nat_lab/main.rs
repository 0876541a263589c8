//! noray and its players in a laboratory of routers: the real binary, real sockets, real NAT in network namespaces.
//!
//! Needs root, `ip` and `nft`, for the fleet `gdnsd`, and for one fault `strace`; where something is missing, each test
//! prints why it skips.
//! `cargo test --test nat_lab -- --nocapture` prints the matrix and the times to recover.

mod changes;
mod crowds;
mod dns;
mod families;
mod faults;
mod fleet;
mod hijacks;
mod lab;
mod matrix;
mod players;
mod probe;
mod routers;
#[path = "../support/mod.rs"]
mod support;
mod weapons;
