//! The rules of the server, as values without sockets, threads or clocks.

pub mod commands;
pub mod drain;
pub mod id;
pub mod players;
pub mod protocol;
pub mod registrar;
pub mod relay;
