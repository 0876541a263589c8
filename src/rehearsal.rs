//! A rehearsal before a handover: this program serves for a moment at a loopback address of its own, and two bots play there.
//!
//! The process that serves keeps the permissions that it was started with (a unit's sandbox, a container's). So the rehearsal
//! makes every kind of system call that serving needs. What is forbidden fails here, where nothing is lost yet.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;

use noray::config::Config;
use noray::shell::server::Server;

use crate::probe;

/// More than the two that the bots need: another program could have one.
const RELAY_PORTS: std::ops::Range<u16> = 20_000..20_008;

/// Serves for a moment.
///
/// # Errors
/// What does not work.
pub(crate) fn run() -> Result<(), String> {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 128 | high, low, 1).into();
    let config = Config {
        socket_host: ip,
        socket_port: 0,
        http_host: ip,
        http_port: 0,
        udp_host: ip,
        registrar_port: 0,
        relay_ports: RELAY_PORTS.collect(),
        ..Config::default()
    };
    let server = Server::bind(&config, Arc::default()).map_err(|error| error.to_string())?;
    let (addresses, handle) = (server.addresses().clone(), server.handle());
    let serving = thread::Builder::new().name("rehearsal".to_owned()).spawn(|| server.run());
    let serving = serving.map_err(|error| format!("cannot start a thread: {error}"))?;
    let played = probe::try_silently(addresses.socket, addresses.registrar, addresses.relay_ports);
    handle.shut_down();
    match serving.join() {
        Ok(served) => served.map_err(|error| error.to_string()).and(played),
        Err(_) => Err("the event loop has panicked".to_owned()),
    }
}
