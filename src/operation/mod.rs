//! What the operator sees of the server, and what the operating system allows it.
//!
//! | module | question it answers |
//! |---|---|
//! | [`capacity`] | how many players and relay ports does the machine have room for? |
//! | [`logging`] | how is a log line written, and when is one left out? |
//! | [`status`] | how does the server do, in figures and words? |
//! | [`warnings`] | which warnings did the log have? |
//! | [`help`] | what does a reason to drop a datagram mean, or a limit that was reached, and what helps? |
//! | `machine` | which limits does the machine have, and how are they raised? |
//! | [`metrics`] | what is counted, and how does Prometheus read it? |
//! | [`threads`] | which threads end the process when they panic? |
//! | [`supervisor`] | what does systemd hear? |
//! | [`reload_request`] | how does `noray reload` hear the outcome? |
//! | `config_file` | which file can be the configuration? |
//! | [`config_source`] | where is the configuration read from? |
//! | `os` | what else does the server ask of the operating system? |
//! | [`clock`] | what time is it? |
//!
//! Imports go to `config`, `limits`, `core`, `time` and `label`, and never to `shell`.

pub mod capacity;
pub mod clock;
mod config_file;
pub mod config_source;
pub mod help;
pub mod logging;
pub(crate) mod machine;
pub mod metrics;
pub(crate) mod os;
pub mod reload_request;
pub mod status;
pub mod supervisor;
pub mod threads;
pub mod warning_limiter;
pub mod warnings;
