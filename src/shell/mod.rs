//! Sockets and threads around the core. They turn what happens into inputs, and carry out the core's effects.
//!
//! | module | question it answers |
//! |---|---|
//! | [`signals`] | what do SIGHUP, SIGTERM and SIGINT do? |
//! | [`server`] | what is bound and started, and what ends it? |
//! | [`server_handle`] | how do other threads control it? |
//! | `startup` | what does the operator read about the start? |
//! | `event_loop` | how do inputs reach the core, and what becomes of its effects? |
//! | `alarm` | how does the event loop wake at a deadline? |
//! | `accept_loop` | which connections are accepted, and who gets a thread? |
//! | `http` | what do metrics, health checks, the status and its page answer? |
//! | `player_thread` | how are a player's lines read, and until when? |
//! | `player_threads` | when have all players' threads ended? |
//! | `event_channel` | how do other threads reach the event loop? |
//! | `refused` | how does a refused player read why? |
//! | `halt` | how do all players' threads end before a handover? |
//! | `connection` | how is a player written to and disconnected? |
//! | [`handover`] | how does another program go on with everything? |
//! | `reader_state` | what is known about what a player sent? |
//! | `sockets` | how is UDP read and written, and which socket is next? |
//! | `packet_info` | at which address of the machine did a datagram arrive? |
//! | `kernel_path` | how is the kernel's path switched on and off? |
//! | `own_ips` | which IPs are the server's own? |
//! | `connection_table` | how do threads share the table of connections? |
//! | `acceptor` | how is a TCP port opened and closed? |
//!
//! A module imports only modules below it in this table. Nothing outside of this room imports it, except `main`.

mod accept_loop;
mod acceptor;
mod alarm;
mod connection;
mod connection_table;
mod event_channel;
mod event_loop;
mod halt;
pub mod handover;
mod http;
mod kernel_path;
mod own_ips;
mod packet_info;
mod player_thread;
mod player_threads;
mod reader_state;
mod refused;
pub mod server;
pub mod server_handle;
pub mod signals;
mod sockets;
mod startup;
