//! Holds no rule: binds the ports, starts the threads, and takes all of it down again. What `main` and every test
//! use.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use crate::config::Config;
use crate::config::units::{ByteSize, PortList};
use crate::limits::admission::Caps;
use crate::operation::machine::{self, Asked, Machine, Needs};
use crate::operation::metrics::{Metrics, PortState};
use crate::operation::os;
use crate::operation::supervisor::Supervisor;
use crate::shell::accept_loop::AcceptLoop;
use crate::shell::acceptor::Acceptor;
use crate::shell::admission::ConnectionTable;
use crate::shell::event_loop::EventLoop;
use crate::shell::events::{Event, EventSender};
use crate::shell::http::{self, Endpoint};
use crate::shell::sockets::{Sockets, Unbound};

/// Descriptors for everything that is neither a player nor a relay port: 12 as measured, refused connections 16, requests 17
/// and what each of these reads.
const SPARE_FILES: u64 = 64;

/// Why the server could not start.
#[derive(Debug)]
pub enum StartError {
    /// The port for players cannot be listened on.
    Socket(SocketAddr, io::Error),
    /// The registrar's port cannot be bound.
    Registrar(SocketAddr, io::Error),
    /// The kernel has no epoll instance, descriptor or thread left.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address, error) => {
                let remedy = SOCKET.remedy(error);
                write!(f, "cannot listen for players on {address}/tcp: {error}; {remedy}")
            }
            Self::Registrar(address, error) => {
                let remedy = REGISTRAR.remedy(error);
                write!(f, "cannot bind the registrar to {address}/udp: {error}; {remedy}")
            }
            Self::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// One of the server's ports, in the words of the person who has to free it.
struct PortKeys {
    host: &'static str,
    port: &'static str,
    /// The option of ss(8) that shows who has such ports.
    ss: &'static str,
}

const SOCKET: PortKeys =
    PortKeys { host: "NORAY_SOCKET_HOST", port: "NORAY_SOCKET_PORT", ss: "-ltnp" };
const REGISTRAR: PortKeys =
    PortKeys { host: "NORAY_UDP_HOST", port: "NORAY_UDP_REGISTRAR_PORT", ss: "-lunp" };
const HTTP: PortKeys = PortKeys { host: "NORAY_HTTP_HOST", port: "NORAY_HTTP_PORT", ss: "-ltnp" };

impl PortKeys {
    fn remedy(&self, error: &io::Error) -> String {
        let Self { host, port, ss } = self;
        let kind = error.kind();
        if kind == ErrorKind::AddrInUse {
            format!("`ss {ss}` shows which program has the port, {port} sets another")
        } else if kind == ErrorKind::AddrNotAvailable {
            format!("no interface of this machine has that address, set {host}")
        } else if kind == ErrorKind::PermissionDenied {
            format!("ports below 1024 need a privilege, set {port} to a higher one")
        } else {
            format!("check {host} and {port}")
        }
    }
}

/// Makes room for all files that a server of this configuration opens: to be called while the process has one thread.
pub fn make_room_for_files(config: &Config) {
    let wanted = config.relay_ports.as_slice().len() + config.max_connections;
    let allowed = usize::try_from(os::raise_open_file_limit()).unwrap_or(usize::MAX);
    os::make_room_for_files(allowed.min(wanted + SPARE_FILES as usize));
}

/// A server with all its ports, not yet running.
pub struct Server {
    event_loop: EventLoop,
    handle: ServerHandle,
    acceptor: Arc<Acceptor>,
    http: Option<Arc<Acceptor>>,
    addresses: Addresses,
    supervisor: Supervisor,
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For players.
    pub socket: SocketAddr,
    /// For external addresses.
    pub registrar: SocketAddr,
    /// For metrics and health, unless that port was taken.
    pub http: Option<SocketAddr>,
    /// The relay ports that were bound.
    pub relay_ports: PortList,
}

/// Steers a running server from another thread.
#[derive(Clone)]
pub struct ServerHandle {
    events: EventSender,
    table: Arc<ConnectionTable>,
    room: Room,
    metrics: Arc<Metrics>,
}

impl ServerHandle {
    /// Puts another configuration in force, all but its addresses and ports; returns once it is. Live relays go on.
    pub fn reload(&self, config: &Config) {
        self.metrics.has_reload_failed.set(0);
        self.table.set_caps(self.room.caps(config));
        let (done, is_done) = crossbeam_channel::bounded(1);
        if self.events.post(Event::Reload(Box::new(config.clone()), done)).is_ok() {
            // Fails if the server ends instead.
            let _ = is_done.recv();
        }
    }

    /// Notes that a reload changed nothing, because the configuration was wrong.
    pub fn note_failed_reload(&self) {
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

/// Bytes for everything that is no player: 8 MiB at start, and relays, waiting log lines and a crowd that leaves.
const SPARE_MEMORY: u64 = 16 << 20;

/// What a player takes at most: 10 KiB of the process, 25 KiB of the kernel for its thread and socket (measured), a
/// line of 4 KiB, and socket buffers.
const MEMORY_OF_PLAYER: u64 = 64 << 10;

/// Mappings of memory for everything that is no player.
const SPARE_MAPPINGS: u64 = 1024;

/// A thread's stack, the one on which it handles signals, and a guard page below each. Without them a thread does not
/// fail to start, but ends the process.
const MAPPINGS_OF_PLAYER: u64 = 4;

/// Fewer players than these are not worth a server: it takes them and hopes for the best.
const MIN_PLAYERS: u64 = 64;

/// How many players there can be, by what each of them needs.
#[derive(Clone)]
struct Room(Vec<Share>);

/// For how many players something suffices.
#[derive(Clone)]
struct Share {
    players: usize,
    /// How much there is, and what helps.
    why: String,
}

impl Room {
    /// What the machine does not tell is enough.
    fn new(
        open_files: u64,
        relay_ports: usize,
        memory: Option<u64>,
        mappings: Option<u64>,
    ) -> Self {
        let share =
            |players, why| Share { players: usize::try_from(players).unwrap_or(usize::MAX), why };
        let files = share(
            open_files.saturating_sub(relay_ports as u64 + SPARE_FILES),
            format!("{open_files} files may be open; raise LimitNOFILE= (systemd) or `ulimit -Hn`"),
        );
        let memory = memory.map(|bytes| {
            let players = bytes.saturating_sub(SPARE_MEMORY) / MEMORY_OF_PLAYER;
            let bytes = ByteSize(bytes);
            let why = format!(
                "there are {bytes} of memory; raise MemoryMax= (systemd) or take a larger machine"
            );
            share(players.max(MIN_PLAYERS), why)
        });
        let mappings = mappings.map(|mappings| {
            let players = mappings.saturating_sub(SPARE_MAPPINGS) / MAPPINGS_OF_PLAYER;
            let why = format!(
                "the kernel allows {mappings} mappings of memory; raise `sysctl vm.max_map_count`"
            );
            share(players.max(MIN_PLAYERS), why)
        });
        Self([Some(files), memory, mappings].into_iter().flatten().collect())
    }

    fn caps(&self, config: &Config) -> Caps {
        let wanted = config.max_connections;
        Caps::new(self.connections(wanted), wanted, config.max_connections_per_ip)
    }

    /// How many connections there may be, at most as many as are wanted. A player beyond the descriptors would wait in
    /// the backlog and never hear that the server is full; one beyond the memory or the mappings would end it.
    fn connections(&self, wanted: usize) -> usize {
        for Share { players, why } in self.0.iter().filter(|share| share.players < wanted) {
            log::warn!(
                "only {players} of NORAY_MAX_CONNECTIONS={wanted} players can connect: {why}"
            );
        }
        self.0.iter().map(|share| share.players).fold(wanted, usize::min)
    }
}

impl Server {
    /// Raises the limit on open files and binds every port. Relay ports that cannot be had are left out, and so
    /// is the HTTP port, each with a warning in the log. The log tells what listens where, and what the machine
    /// lacks. What happens is counted in `metrics`.
    ///
    /// # Errors
    /// [`StartError`] if players could not be served at all.
    pub fn bind(config: &Config, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let open_files = os::raise_open_file_limit();
        let socket = config.socket_address();
        let acceptor =
            Acceptor::for_players(socket).map_err(|error| StartError::Socket(socket, error))?;
        let acceptor = Arc::new(acceptor);

        let registrar = config.registrar_address();
        let max_relays = max_relays(open_files, config.max_connections as u64);
        let wanted = config.relay_ports.as_slice();
        let (sockets, unbound) = Sockets::bind(registrar, wanted, max_relays)
            .map_err(|error| StartError::Registrar(registrar, error))?;
        let bound: PortList = sockets.relay_ports().iter().map(|port| port.0).collect();
        warn_of_unbound(&unbound, wanted.len(), open_files);

        let http = bind_http(config.http_address());

        let addresses = Addresses {
            socket: acceptor.local_addr().map_err(StartError::System)?,
            registrar: sockets.registrar_address(),
            http: http.as_ref().and_then(|acceptor| acceptor.local_addr().ok()),
            relay_ports: bound,
        };
        let relay_ports = addresses.relay_ports.as_slice().len();
        let room =
            Room::new(open_files, relay_ports, machine::memory_limit(), machine::max_mappings());
        let caps = room.caps(config);
        tell_start(&addresses, wanted.len(), open_files, caps);
        warn_of_shortcomings(&addresses, sockets.registrar_buffer(), caps);

        metrics.relay_ports.of(PortState::Unbindable).set(wanted.len() - relay_ports);
        // Twice the connections: each may have a command and its end under way.
        let channel_size = 2 * caps.connections + 64;
        let (event_loop, events) = EventLoop::new(
            config,
            sockets,
            Arc::clone(&acceptor),
            Arc::clone(&metrics),
            channel_size,
        )
        .map_err(StartError::System)?;
        let table = Arc::new(ConnectionTable::new(caps, Arc::clone(&metrics)));
        let handle = ServerHandle { events, table, room, metrics };
        Ok(Self {
            event_loop,
            handle,
            acceptor,
            http,
            addresses,
            supervisor: Supervisor::default(),
        })
    }

    /// Has `supervisor` told how the server does.
    pub fn set_supervisor(&mut self, supervisor: &Supervisor) {
        self.event_loop.set_supervisor(supervisor.clone());
        self.supervisor = supervisor.clone();
    }

    /// Where the server listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What steers the server once it runs.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until [`ServerHandle::shut_down`] or the end of a [`ServerHandle::drain`]; then every player is
    /// disconnected and every thread joined.
    ///
    /// # Errors
    /// [`StartError::System`] if a thread cannot be started or `poll` fails.
    pub fn run(self) -> Result<(), StartError> {
        let Self { event_loop, handle, acceptor, http, addresses, supervisor } = self;
        let ServerHandle { events, table, metrics, .. } = handle;
        let accept_loop = AcceptLoop::new(acceptor, Arc::clone(&table), events.clone());
        let mut threads = vec![spawn_behind("listener", move || accept_loop.run())?];
        if let Some(acceptor) = http.clone() {
            let relay_ports = addresses.relay_ports.as_slice().len();
            let endpoint = Endpoint { metrics, events, table, relay_ports };
            threads.push(spawn_behind("http", move || http::run(&acceptor, &endpoint))?);
        }
        supervisor.ready();
        // A loop that fails leaves threads that nobody can wake: they end with the process.
        event_loop.run().map_err(StartError::System)?;
        if let Some(acceptor) = http {
            acceptor.close();
        }
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a thread had panicked");
            }
        }
        Ok(())
    }
}

/// Starts a thread that lets the event loop go first, and so do those that it starts.
fn spawn_behind(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, StartError> {
    let body = || {
        os::step_back();
        body();
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(StartError::System)
}

/// How many relay ports may be bound so that a quarter of the descriptors, or as many as there may be players,
/// remain for players.
fn max_relays(open_files: u64, max_connections: u64) -> usize {
    let for_players = max_connections.min(open_files / 4);
    usize::try_from(open_files.saturating_sub(for_players + SPARE_FILES)).unwrap_or(usize::MAX)
}

fn tell_start(addresses: &Addresses, wanted_relays: usize, open_files: u64, caps: Caps) {
    let Addresses { socket, registrar, http, relay_ports } = addresses;
    log::info!("players: {socket}/tcp, registrar: {registrar}/udp");
    let bound = relay_ports.as_slice().len();
    log::info!("relays: {bound} of {wanted_relays} ports, {relay_ports}/udp");
    log::info!("room: {} players, {open_files} open files", caps.connections);
    if let Some(http) = http {
        log::info!("metrics and health: http://{http}/metrics");
    }
}

fn warn_of_shortcomings(addresses: &Addresses, receive_buffer: Asked, caps: Caps) {
    let Asked { asked, got } = receive_buffer;
    log::info!("receive buffer of the registrar: {got} of {asked} bytes");
    let relay_ports = addresses.relay_ports.as_slice().iter().copied();
    let needs = Needs {
        udp_host: addresses.registrar.ip(),
        udp_ports: relay_ports.chain([addresses.registrar.port()]).collect(),
        connections: caps.connections,
        receive_buffer,
    };
    let [players, registrar] = [addresses.socket.ip(), addresses.registrar.ip()];
    if players.is_ipv6() && registrar.is_ipv4() {
        log::warn!(
            "players connect by IPv6 and cannot register by it, and two of them who register by IPv4 cannot be relayed: \
             set NORAY_UDP_HOST=::"
        );
    }
    for shortcoming in Machine::read().shortcomings(&needs) {
        log::warn!("{shortcoming}");
    }
}

fn warn_of_unbound(unbound: &Unbound, wanted: usize, open_files: u64) {
    if let Some(error) = &unbound.last_error {
        let ports: PortList = unbound.taken.iter().copied().collect();
        log::warn!(
            "{} of {wanted} relay ports cannot be bound and are left out: {ports} ({error}); if other \
             programs have them, keep the ports free with `sysctl -w \
             net.ipv4.ip_local_reserved_ports=RANGE` and restart, or set NORAY_UDP_RELAY_PORTS",
            unbound.taken.len()
        );
    }
    if unbound.beyond_open_files > 0 {
        log::warn!(
            "{} of {wanted} relay ports are left out: only {open_files} files may be open; raise \
             LimitNOFILE= (systemd) or `ulimit -Hn`",
            unbound.beyond_open_files
        );
    }
}

/// Metrics are not worth an outage: without their port the relay serves on.
fn bind_http(address: SocketAddr) -> Option<Arc<Acceptor>> {
    match TcpListener::bind(address) {
        Ok(listener) => Some(Arc::new(Acceptor::new(listener))),
        Err(error) => {
            log::warn!(
                "no metrics and no health: cannot listen on {address}/tcp: {error}; {}",
                HTTP.remedy(&error)
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relay_ports_leave_descriptors_for_players() {
        assert_eq!(max_relays(1_000_000, 4096), 1_000_000 - 4096 - 64);
        assert_eq!(max_relays(1024, 4096), 1024 - 256 - 64);
        assert_eq!(max_relays(10, 4096), 0);
    }

    #[test]
    fn there_are_no_more_players_than_the_machine_suffices_for() {
        let possible = |memory, mappings| Room::new(1024, 100, memory, mappings).connections(4096);
        assert_eq!(possible(Some(1 << 40), Some(65_530)), 1024 - 100 - 64);
        assert_eq!(Room::new(1024, 100, None, None).connections(100), 100);
        assert_eq!(possible(Some(48 << 20), None), 512);
        assert_eq!(possible(Some(1 << 20), None), 64);
        assert_eq!(possible(None, Some(2024)), 250);
    }
}
