//! The server: it binds the ports, starts the threads, and ends them. `main` and the tests use it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::config::units::TimeSpan;
use crate::config::{Config, MAX_CONNECTIONS};
use crate::core::id::ConnectionId;
use crate::core::relay::RelayPort;
use crate::limits::admission::Caps;
use crate::limits::share::HardCap;
use crate::operation::capacity::{self, Capacity};
use crate::operation::logging::Log;
use crate::operation::metrics::{Metrics, PortState};
use crate::operation::supervisor::Supervisor;
use crate::operation::warnings::Warnings;
use crate::operation::{clock, os, threads};
use crate::shell::accept_loop::{AcceptLoop, Adopted};
use crate::shell::acceptor::{Acceptor, AcceptorControl, listen_for_players};
use crate::shell::connection::{SharedConnection, TcpConnection};
use crate::shell::connection_table::ConnectionTable;
use crate::shell::event_channel::{Event, EventSender};
use crate::shell::event_loop::{EventLoop, Resumed};
use crate::shell::gate::Gate;
use crate::shell::handover::{
    self, Arrival, Departure, Manifest, Openings, PlayerConnection, Program,
};
use crate::shell::http::{self, Endpoint, Requests};
use crate::shell::own_addresses;
use crate::shell::player_thread::ReaderState;
use crate::shell::sockets::Sockets;
use crate::shell::startup;

pub use crate::shell::startup::{Addresses, StartError};

/// How long a reload waits for the event loop. It answers within milliseconds unless it is stuck.
pub const RELOAD_PATIENCE: Duration = Duration::from_secs(5);

/// How long requests for metrics may take to end before a handover. Those that take longer are cut off.
const REQUESTS_PATIENCE: Duration = Duration::from_secs(2);

/// What a handover needs to know.
pub(crate) struct HandoverRequest<'a> {
    pub(crate) program: &'a Program,
    /// The configuration in force, and the new one.
    pub(crate) from: &'a Config,
    pub(crate) to: &'a Config,
    /// The configuration file's name and content.
    pub(crate) file: Option<(String, String)>,
    pub(crate) log: Log,
}

/// A server with all its ports, not yet running.
pub struct Server {
    event_loop: EventLoop,
    handle: ServerHandle,
    acceptor: Acceptor,
    http: Option<Acceptor>,
    addresses: Addresses,
    supervisor: Supervisor,
    warnings: Arc<Warnings>,
    adopted: Adopted,
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
        Self::assemble(config, metrics, parts, capacity, table, None)
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
        let Arrival { manifest, players, http, registrar, relays, connections, .. } = arrival;
        let failed = StartError::System;
        metrics.restore(&manifest.metrics);
        metrics.has_reload_failed.set(0);
        let in_use: BTreeSet<RelayPort> = manifest.core.ports_of_pairs().collect();
        let is_used =
            |port: RelayPort| config.relay_ports.contains(port.0) || in_use.contains(&port);
        let relays = relays.into_iter().filter(|(port, _)| is_used(*port)).collect();
        let sockets = Sockets::adopt(registrar, relays).map_err(failed)?;
        let http = http.map(Acceptor::new).transpose().map_err(failed)?;
        let parts = Parts { players: Acceptor::new(players).map_err(failed)?, http, sockets };

        let relay_ports = parts.sockets.relay_ports().len();
        let capacity = Capacity::of_machine(os::raise_open_file_limit(), relay_ports);
        capacity.warn_if_below(config.max_connections);
        let table = ConnectionTable::new(caps(&capacity, config), Arc::clone(&metrics));
        let connections: Vec<SharedConnection> = manifest
            .players
            .into_iter()
            .zip(connections)
            .filter_map(|(player, stream)| Some(adopt_connection(player, stream?, &table)))
            .collect();
        let now = manifest.admission.now;
        table.restore(manifest.admission);
        let next_connection = manifest.next_connection;
        let adopted = Adopted { now, next_connection, connections: connections.clone() };
        let resumed = Resumed { core: manifest.core, connections, next_connection };
        let resumption = Some((resumed, adopted));
        Self::assemble(config, metrics, parts, capacity, Arc::new(table), resumption)
    }

    fn assemble(
        config: &Config,
        metrics: Arc<Metrics>,
        parts: Parts,
        capacity: Capacity,
        table: Arc<ConnectionTable>,
        resumption: Option<(Resumed, Adopted)>,
    ) -> Result<Self, StartError> {
        let addresses = parts.addresses();
        let Parts { players, http, sockets } = parts;
        let wanted = config.relay_ports.as_slice();
        let bound = sockets.relay_ports().iter().filter(|port| config.relay_ports.contains(port.0));
        metrics.relay_ports.of(PortState::Unbindable).set(wanted.len() - bound.count());
        let (resumed, adopted) = resumption.unzip();
        let (event_loop, events) = EventLoop::new(
            config,
            sockets,
            players.control(),
            Arc::clone(&metrics),
            channel_size(&capacity, config),
            resumed,
        )
        .map_err(StartError::System)?;
        let handle = ServerHandle {
            events,
            table,
            capacity,
            metrics,
            gate: Gate::default(),
            requests: Arc::new(Requests::new()),
            http: http.as_ref().map(Acceptor::control),
        };
        Ok(Self {
            event_loop,
            handle,
            acceptor: players,
            http,
            addresses,
            supervisor: Supervisor::default(),
            warnings: Arc::default(),
            adopted: adopted.unwrap_or_default(),
        })
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
        let Self { event_loop, handle, acceptor, http, addresses, supervisor, warnings, adopted } =
            self;
        let ServerHandle { events, table, metrics, gate, requests, http: http_control, .. } =
            handle;
        let mut threads = Vec::new();
        let mut spawn = |name, body: Box<dyn FnOnce() + Send>| {
            let thread =
                threads::spawn_vital_with_low_priority(name, body).map_err(StartError::System)?;
            threads.push(thread);
            Ok(())
        };
        let Addresses { registrar, relay_ports, .. } = addresses;
        let accept_loop =
            AcceptLoop::new(acceptor, Arc::clone(&table), events.clone(), gate, adopted);
        spawn("accept-loop", Box::new(move || accept_loop.run()))?;
        if let Some(acceptor) = http {
            let relay_ports = relay_ports.as_slice().len();
            let (events, started) = (events.clone(), clock::now());
            let endpoint = Endpoint { metrics, events, table, warnings, relay_ports, started };
            spawn("http", Box::new(move || http::run(acceptor, &endpoint, &requests)))?;
        }
        let (stop, is_stopped) = bounded(0);
        if registrar.ip().is_unspecified() {
            let read =
                move || own_addresses::read(registrar, relay_ports.as_slice().iter().copied());
            spawn("addresses", Box::new(move || own_addresses::watch(read, &is_stopped, &events)))?;
        }
        supervisor.ready();
        // If the loop fails, these threads end with the process.
        event_loop.run().map_err(StartError::System)?;
        if let Some(control) = http_control {
            control.end();
        }
        drop(stop);
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread has panicked");
            }
        }
        Ok(())
    }
}

/// Controls a running server from another thread.
#[derive(Clone)]
pub struct ServerHandle {
    events: EventSender,
    table: Arc<ConnectionTable>,
    capacity: Capacity,
    metrics: Arc<Metrics>,
    gate: Gate,
    requests: Arc<Requests>,
    http: Option<AcceptorControl>,
}

/// The event loop has not taken a new configuration in time.
#[derive(Debug)]
pub struct LoopStuck(Duration);

impl fmt::Display for LoopStuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patience = TimeSpan(self.0);
        write!(
            f,
            "the event loop has not taken the new configuration for {patience}; restart noray"
        )
    }
}

impl std::error::Error for LoopStuck {}

impl ServerHandle {
    /// Puts a new configuration in force, except its addresses and ports, and waits until that is done. Live relays go on.
    ///
    /// # Errors
    /// [`LoopStuck`] if the event loop does not answer within [`RELOAD_PATIENCE`].
    pub fn reload(&self, config: &Config) -> Result<(), LoopStuck> {
        self.reload_within(config, RELOAD_PATIENCE)
    }

    fn reload_within(&self, config: &Config, patience: Duration) -> Result<(), LoopStuck> {
        let deadline = clock::now() + patience;
        let (done, is_done) = bounded(1);
        let event = Event::Reload(Box::new(config.clone()), done);
        let is_posted = self.events.post_within(event, patience).is_ok();
        // If the loop ends instead, nobody needs the configuration any more.
        if !is_posted || is_done.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            return Err(LoopStuck(patience));
        }
        self.capacity.warn_if_below(config.max_connections);
        self.table.set_caps(caps(&self.capacity, config));
        self.metrics.has_reload_failed.set(0);
        Ok(())
    }

    /// Executes the program anew, which goes on with everything under the configuration `to`. It returns only if that is
    /// refused.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub(crate) fn hand_over(&self, request: HandoverRequest<'_>) -> Result<Infallible, String> {
        let HandoverRequest { program, from, to, file, log } = request;
        let openings = Openings::open(from, to)?;
        handover::check_room()?;
        program
            .check(self.rehearsal(file.clone())?.into_file().map_err(|error| error.to_string())?)?;
        let _paused = self.requests.pause(REQUESTS_PATIENCE);
        let departure = Departure {
            program: program.clone(),
            file,
            openings,
            gate: self.gate.clone(),
            table: Arc::clone(&self.table),
            http: self.http.clone(),
            log,
        };
        let (refused, is_refused) = bounded(1);
        let event = Event::HandOver(Box::new(departure), refused);
        let stuck = || LoopStuck(RELOAD_PATIENCE).to_string();
        self.events.post_within(event, RELOAD_PATIENCE).map_err(|_| stuck())?;
        Err(is_refused.recv_timeout(RELOAD_PATIENCE).unwrap_or_else(|_| stuck()))
    }

    /// A manifest without sockets, by which a program can tell whether it could take over.
    fn rehearsal(&self, file: Option<(String, String)>) -> Result<Manifest, String> {
        let (answer, answered) = bounded(1);
        let stuck = || LoopStuck(RELOAD_PATIENCE).to_string();
        let event = Event::Snapshot(answer);
        self.events.post_within(event, RELOAD_PATIENCE).map_err(|_| stuck())?;
        let core = answered.recv_timeout(RELOAD_PATIENCE).map_err(|_| stuck())?;
        Ok(Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            file,
            core: *core,
            metrics: self.metrics.values(),
            admission: self.table.snapshot(),
            sockets: Vec::new(),
            players: Vec::new(),
            next_connection: 0,
        })
    }

    /// Sets the gauge of a failed reload, until one goes well.
    pub fn record_failed_reload(&self) {
        self.metrics.has_reload_failed.set(1);
    }

    /// Begins nothing new and ends the server once its relays are quiet.
    pub fn drain(&self) {
        let _ = self.events.post(Event::Drain);
    }

    /// Ends the server. Does nothing if it has ended.
    pub fn shut_down(&self) {
        let _ = self.events.post(Event::Shutdown);
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

fn caps(capacity: &Capacity, config: &Config) -> Caps {
    let wanted = config.max_connections;
    let connections = capacity.players(wanted);
    // As many as were wanted are all of them, also on a machine that has room for fewer.
    let per_ip = config.max_connections_per_ip;
    let per_ip = if per_ip.is_share_of_all(wanted) { HardCap(Some(connections)) } else { per_ip };
    Caps { connections, per_ip }
}

/// How many events may wait for the loop. There is room for two events of each configured connection, its last command
/// and its end, and for one of each connection that a reload could allow. More would only cost memory.
fn channel_size(capacity: &Capacity, config: &Config) -> usize {
    let configured = capacity.players(config.max_connections);
    64 + (2 * configured).max(capacity.players(MAX_CONNECTIONS))
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
