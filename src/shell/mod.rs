//! Sockets and threads around the core.

mod connection;
mod event_loop;
mod events;
mod http;
mod listener;
pub mod poller;
pub mod server;
pub mod signals;
mod sockets;
