//! The server: it binds the ports, starts the threads, and ends them. `main` and the tests use it.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::bounded;

use crate::config::{Config, MAX_CONNECTIONS};
use crate::core::id::ConnectionId;
use crate::core::relay::RelayPort;
use crate::kernel::Opened;
use crate::operation::capacity::{self, Capacity};
use crate::operation::metrics::{Metrics, PortState};
use crate::operation::supervisor::Supervisor;
use crate::operation::warnings::Warnings;
use crate::operation::{clock, os, threads};
use crate::shell::accept_loop::{AcceptLoop, Adopted};
use crate::shell::acceptor::{Acceptor, listen_for_players};
use crate::shell::connection::{SharedConnection, TcpConnection};
use crate::shell::connection_table::ConnectionTable;
use crate::shell::event_channel::Event;
use crate::shell::event_loop::{EventLoop, Resumed};
use crate::shell::halt::Halt;
use crate::shell::handover::{Arrival, PlayerConnection};
use crate::shell::http::{self, Endpoint, Requests};
use crate::shell::kernel_path::KernelSwitch;
use crate::shell::own_ips;
use crate::shell::reader_state::ReaderState;
use crate::shell::refused::RefusedConnections;
use crate::shell::sockets::{Sockets, bind_relays};
use crate::shell::startup;

pub use crate::shell::server_handle::ServerHandle;
use crate::shell::server_handle::{ReloadError, caps};
pub use crate::shell::startup::{Addresses, StartError};

/// A server with all its ports, not yet running.
pub struct Server {
    event_loop: EventLoop,
    handle: ServerHandle,
    acceptor: Acceptor,
    http: Option<Acceptor>,
    addresses: Addresses,
    supervisor: Supervisor,
    warnings: Arc<Warnings>,
    halt: Halt,
    adopted: Adopted,
    /// The kernel's path, if it is to be used.
    opened: Option<Opened>,
    missing: Option<ReloadError>,
}

/// The ports of a server.
struct Parts {
    players: Acceptor,
    http: Option<Acceptor>,
    sockets: Sockets,
}

impl Parts {
    fn addresses(&self) -> Addresses {
        Addresses {
            socket: self.players.local_addr(),
            registrar: self.sockets.registrar_address(),
            http: self.http.as_ref().map(Acceptor::local_addr),
            relay_ports: self.sockets.relay_ports().iter().map(|port| port.0).collect(),
        }
    }
}

impl Server {
    /// Raises the limit on open files and binds every port. Relay ports and an HTTP port that cannot be bound are left
    /// out, with a warning in the log. The log says what listens where, and what the machine lacks. The server counts in
    /// `metrics`.
    ///
    /// # Errors
    /// [`StartError`] if players could not be served at all.
    pub fn bind(config: &Config, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let open_files = os::raise_open_file_limit();
        let socket = config.socket_address();
        let players = listen_for_players(socket).and_then(Acceptor::new);
        let players = players.map_err(|error| StartError::Socket(socket, error))?;

        let registrar = config.registrar_address();
        let max_relay_ports = capacity::max_relay_ports(open_files, config.max_connections);
        let wanted = config.relay_ports.as_slice();
        let (sockets, unbound) = Sockets::bind(registrar, wanted, max_relay_ports)
            .map_err(|error| StartError::Registrar(registrar, error))?;
        startup::warn_of_unbound(&unbound, wanted.len(), open_files);

        let parts = Parts { players, http: bind_http(config.http_address()), sockets };
        let addresses = parts.addresses();
        let capacity = Capacity::of_machine(open_files, addresses.relay_ports.as_slice().len());
        let caps = caps(&capacity, config);
        capacity.warn_if_below(config.max_connections);
        startup::log_addresses(&addresses, wanted.len(), open_files, caps.connections);
        startup::warn_of_private_host(config);
        let buffer = parts.sockets.registrar_buffer();
        startup::warn_of_shortcomings(&addresses, buffer, caps.connections);
        let table = Arc::new(ConnectionTable::new(caps, Arc::clone(&metrics)));
        Self::assemble(config, metrics, parts, capacity, table, clock::now(), None)
    }

    /// Goes on with what another process has handed over. The server counts on in `metrics`.
    ///
    /// # Errors
    /// If the parts do not fit together, or the kernel has no descriptor left. Then all that was handed over is lost.
    pub fn adopt(
        config: &Config,
        metrics: Arc<Metrics>,
        arrival: Arrival,
    ) -> Result<Self, StartError> {
        let Arrival {
            manifest,
            players,
            http,
            registrar,
            relays,
            connections,
            refused,
            remains,
            ..
        } = arrival;
        let failed = StartError::System;
        metrics.restore(&manifest.metrics);
        metrics.has_reload_failed.set(0);
        let in_use: BTreeSet<RelayPort> = manifest.core.ports_of_pairs().collect();
        let is_used =
            |port: RelayPort| config.relay_ports.contains(port.0) || in_use.contains(&port);
        let mut relays: Vec<_> = relays.into_iter().filter(|(port, _)| is_used(*port)).collect();
        let open_files = os::raise_open_file_limit();
        relays.extend(bind_missing(config, &relays, open_files));
        let sockets = Sockets::adopt(registrar, relays).map_err(failed)?;
        let http = http.map(Acceptor::new).transpose().map_err(failed)?;
        let parts = Parts { players: Acceptor::new(players).map_err(failed)?, http, sockets };

        let relay_ports = parts.sockets.relay_ports().len();
        let capacity = Capacity::of_machine(open_files, relay_ports);
        capacity.warn_if_below(config.max_connections);
        let table = ConnectionTable::new(caps(&capacity, config), Arc::clone(&metrics));
        let connections: Vec<SharedConnection> = manifest
            .players
            .into_iter()
            .zip(connections)
            .filter_map(|(player, stream)| Some(adopt_connection(player, stream?, &table)))
            .collect();
        table.restore(manifest.admission);
        let next_connection = manifest.next_connection;
        let refused = RefusedConnections::adopt(refused, clock::now());
        let connections_again = connections.clone();
        let adopted = Adopted { next_connection, connections: connections_again, refused, remains };
        let resumed = Resumed { core: manifest.core, connections, next_connection };
        let resumption = Some((resumed, adopted));
        let started = clock::now().checked_sub(manifest.uptime).unwrap_or_else(clock::now);
        Self::assemble(config, metrics, parts, capacity, Arc::new(table), started, resumption)
    }

    fn assemble(
        config: &Config,
        metrics: Arc<Metrics>,
        parts: Parts,
        capacity: Capacity,
        table: Arc<ConnectionTable>,
        started: Instant,
        resumption: Option<(Resumed, Adopted)>,
    ) -> Result<Self, StartError> {
        let addresses = parts.addresses();
        let Parts { players, http, sockets } = parts;
        let wanted = config.relay_ports.as_slice();
        let bound = sockets.relay_ports().iter().filter(|port| config.relay_ports.contains(port.0));
        metrics.relay_ports.of(PortState::Unbindable).set(wanted.len() - bound.count());
        // The former process may have had it open.
        metrics.kernel_path.set(0);
        let kernel = KernelSwitch::new(addresses.registrar.ip(), sockets.relay_ports().len());
        let (opened, missing) = match kernel.open(config) {
            Err(why) if resumption.is_none() => return Err(StartError::KernelPath(why)),
            // Games that were handed over must go on.
            Err(why) => (None, Some(ReloadError::KernelPath(why))),
            Ok(opened) => (opened, None),
        };
        let (resumed, adopted) = resumption.unzip();
        let halt = Halt::new().map_err(StartError::System)?;
        let (event_loop, events) = EventLoop::new(
            config,
            sockets,
            players.control(),
            Arc::clone(&metrics),
            channel_size(&capacity, config),
            halt.clone(),
            resumed,
        )
        .map_err(StartError::System)?;
        let handle = ServerHandle {
            events,
            table,
            capacity,
            metrics,
            requests: Arc::new(Requests::new()),
            http: http.as_ref().map(Acceptor::control),
            started,
            kernel: Arc::new(kernel),
        };
        Ok(Self {
            event_loop,
            handle,
            acceptor: players,
            http,
            addresses,
            supervisor: Supervisor::default(),
            warnings: Arc::default(),
            halt,
            adopted: adopted.unwrap_or_default(),
            opened,
            missing,
        })
    }

    /// What of the configuration is not in force, where that does not keep a server from going on with what was handed over.
    pub fn missing(&self) -> Option<&ReloadError> {
        self.missing.as_ref()
    }

    /// Sets the supervisor that hears about the server's state.
    pub fn set_supervisor(&mut self, supervisor: &Supervisor) {
        self.event_loop.set_supervisor(supervisor.clone());
        self.supervisor = supervisor.clone();
    }

    /// Sets the warnings that the status shows.
    pub fn set_warnings(&mut self, warnings: Arc<Warnings>) {
        self.warnings = warnings;
    }

    /// Where the server listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// A handle that controls the server while it runs.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until [`ServerHandle::shut_down`] or the end of a [`ServerHandle::drain`]. Then it disconnects every player
    /// and joins every thread.
    ///
    /// # Errors
    /// [`StartError::System`] if a thread cannot be started or `poll` fails.
    pub fn run(self) -> Result<(), StartError> {
        let Self {
            mut event_loop,
            handle,
            acceptor,
            http,
            addresses,
            supervisor,
            warnings,
            halt,
            adopted,
            opened,
            missing: _,
        } = self;
        let ServerHandle {
            events,
            table,
            metrics,
            requests,
            started,
            http: http_control,
            kernel,
            ..
        } = handle;
        if let Some(opened) = opened {
            let path = kernel.start(opened, events.clone()).map_err(StartError::System)?;
            event_loop.set_kernel_path(Some(path));
        }
        let mut threads = Vec::new();
        let mut spawn = |name, body: Box<dyn FnOnce() + Send>| {
            let thread =
                threads::spawn_vital_with_low_priority(name, body).map_err(StartError::System)?;
            threads.push(thread);
            Ok(())
        };
        let Addresses { registrar, relay_ports, .. } = addresses;
        let accept_loop =
            AcceptLoop::new(acceptor, Arc::clone(&table), events.clone(), halt, adopted);
        spawn("accept-loop", Box::new(move || accept_loop.run()))?;
        if let Some(acceptor) = http {
            let relay_ports = relay_ports.as_slice().len();
            let events = events.clone();
            let endpoint = Endpoint { metrics, events, table, warnings, relay_ports, started };
            spawn("http", Box::new(move || http::run(acceptor, &endpoint, &requests)))?;
        }
        let (stop, is_stopped) = bounded(0);
        let host = registrar.ip();
        if host.is_unspecified() {
            let events = events.clone();
            let (read, post) =
                (move || own_ips::read(host), move |ips| events.post(Event::OwnIps(ips)));
            spawn("addresses", Box::new(move || own_ips::watch(read, &is_stopped, post)))?;
        }
        supervisor.ready();
        // If the loop fails, these threads end with the process.
        event_loop.run().map_err(StartError::System)?;
        if let Some(control) = http_control {
            control.end();
        }
        drop(stop);
        kernel.end(&events);
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread has panicked");
            }
        }
        Ok(())
    }
}

fn adopt_connection(
    player: PlayerConnection,
    stream: TcpStream,
    table: &ConnectionTable,
) -> SharedConnection {
    let permit = table.adopt(player.peer.ip());
    if player.is_registered {
        permit.mark_registered();
    }
    let reader = ReaderState::restore(player.reader);
    let id = ConnectionId(player.id);
    Arc::new(TcpConnection::adopt(id, stream, player.peer, permit, reader))
}

/// How many events may wait for the loop. There is room for two events of each configured connection, its last command
/// and its end, and for one of each connection that a reload could allow. More would only cost memory.
fn channel_size(capacity: &Capacity, config: &Config) -> usize {
    let configured = capacity.players(config.max_connections);
    64 + (2 * configured).max(capacity.players(MAX_CONNECTIONS))
}

/// Binds the relay ports that were not handed over: another program had them, or their last pair ended a moment ago.
fn bind_missing(
    config: &Config,
    received: &[(RelayPort, UdpSocket)],
    open_files: u64,
) -> Vec<(RelayPort, UdpSocket)> {
    let is_received: BTreeSet<u16> = received.iter().map(|(port, _)| port.0).collect();
    let wanted = config.relay_ports.as_slice();
    let missing = wanted.iter().copied().filter(|port| !is_received.contains(port));
    let max = capacity::max_relay_ports(open_files, config.max_connections);
    let max = max.saturating_sub(received.len());
    let (bound, unbound) = bind_relays(config.udp_host, missing, max);
    startup::warn_of_unbound(&unbound, wanted.len(), open_files);
    bound
}

/// Opens the HTTP port. If that fails, the server runs without it: missing metrics are no reason for an outage.
fn bind_http(address: SocketAddr) -> Option<Acceptor> {
    TcpListener::bind(address)
        .and_then(Acceptor::new)
        .inspect_err(|error| startup::warn_of_missing_http(address, error))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn bind() -> (Server, Config) {
        let host = "127.0.0.1".parse().unwrap();
        let config = Config {
            socket_host: host,
            socket_port: 0,
            http_host: host,
            http_port: 0,
            udp_host: host,
            registrar_port: 0,
            relay_ports: [].into_iter().collect(),
            max_connections: 10,
            ..Config::default()
        };
        (Server::bind(&config, Arc::default()).unwrap(), config)
    }

    #[test]
    fn a_reload_that_the_loop_does_not_take_fails_and_changes_nothing() {
        let (server, config) = bind();
        let handle = server.handle();
        let more = Config { max_connections: 20, ..config };
        let stuck = handle.reload_within(&more, Duration::from_millis(1)).unwrap_err();
        assert!(stuck.to_string().contains("for 1ms"), "{stuck}");
        assert_eq!(handle.metrics.max_connections.value(), 10);
    }

    #[test]
    fn all_players_that_a_reload_may_allow_have_room_in_the_channel() {
        let (server, config) = bind();
        let ServerHandle { events, capacity, .. } = server.handle();
        let all = Config { max_connections: MAX_CONNECTIONS, ..config };
        assert!(events.capacity() > caps(&capacity, &all).connections);
    }
}
