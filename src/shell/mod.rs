//! Sockets and threads around the core.

mod accept_loop;
mod acceptor;
mod admission;
mod alarm;
mod connection;
mod event_loop;
mod events;
mod http;
mod own_addresses;
mod player_thread;
mod refused;
pub mod server;
pub mod signals;
mod sockets;
mod startup;
