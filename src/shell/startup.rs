//! What the operator reads about the start: what listens where, what failed, and what the machine lacks, with remedies.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::config::Config;
use crate::config::units::PortList;
use crate::limits::network::is_public;
use crate::operation::machine::{BufferSize, Machine, Needs};
use crate::operation::os;
use crate::shell::sockets::Unbound;

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The TCP port for players.
    pub socket: SocketAddr,
    /// The UDP port where players register their external addresses.
    pub registrar: SocketAddr,
    /// The TCP port for metrics, health and status; `None` if it could not be bound.
    pub http: Option<SocketAddr>,
    /// The UDP ports for relays that were bound.
    pub relay_ports: PortList,
}

/// Why the server could not start.
#[derive(Debug)]
pub enum StartError {
    /// The port for players cannot be listened on.
    Socket(SocketAddr, io::Error),
    /// The registrar's port cannot be bound.
    Registrar(SocketAddr, io::Error),
    /// The kernel's path is required and cannot be used: what is missing.
    KernelPath(String),
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
            Self::KernelPath(why) => write!(
                f,
                "NORAY_KERNEL_PATH is `required`, and the kernel's path cannot be used: {why}; with `auto` the server \
                 would start without it"
            ),
            Self::System(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The keys that set an address of the server, and how to find a program that has it.
struct PortKeys {
    host: &'static str,
    port: &'static str,
    /// The option of ss(8) that shows which programs have such ports.
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

/// Logs where the server listens, and how many players there can be.
pub(crate) fn log_addresses(
    addresses: &Addresses,
    wanted_relays: usize,
    open_files: u64,
    players: usize,
) {
    let Addresses { socket, registrar, http, relay_ports } = addresses;
    log::info!("players: {socket}/tcp, registrar: {registrar}/udp");
    let bound = relay_ports.as_slice().len();
    log::info!("relays: {bound} of {wanted_relays} ports, {relay_ports}/udp");
    log::info!("room: {players} players, {open_files} open files");
    if let Some(http) = http {
        log::info!("metrics and health: http://{http}/metrics; a page for people: http://{http}/");
    }
}

/// Warns of everything that the machine lacks for `players` players.
pub(crate) fn warn_of_shortcomings(
    addresses: &Addresses,
    receive_buffer: BufferSize,
    players: usize,
) {
    let BufferSize { asked, got } = receive_buffer;
    log::info!("receive buffer of the registrar: {got} of {asked} bytes");
    let Addresses { socket, registrar, relay_ports, .. } = addresses;
    let relay_ports = relay_ports.as_slice().iter().copied();
    let needs = Needs {
        udp_host: registrar.ip(),
        udp_ports: relay_ports.chain([registrar.port()]).collect(),
        connections: players,
        receive_buffer,
    };
    if socket.is_ipv6() && registrar.is_ipv4() {
        log::warn!(
            "NORAY_SOCKET_HOST is an IPv6 address and NORAY_UDP_HOST is not: players cannot register by IPv6, and two players \
             who connect by IPv6 and register by IPv4 cannot be relayed; set NORAY_UDP_HOST=::"
        );
    }
    for shortcoming in Machine::read().shortcomings(&needs) {
        log::warn!("{shortcoming}");
    }
}

/// Warns if players will be told an address of this machine that they cannot reach.
pub(crate) fn warn_of_private_host(config: &Config) {
    if !config.relay_only || config.public_host.0.is_some() {
        return;
    }
    let ips = match config.udp_host {
        host if host.is_unspecified() => os::local_ips().unwrap_or_default(),
        host => vec![host],
    };
    if !ips.into_iter().any(is_public) {
        log::warn!(
            "NORAY_RELAY_ONLY tells players this server's address, and this machine has no public one: set \
             NORAY_PUBLIC_HOST to the address or name at which players reach it"
        );
    }
}

/// Warns of relay ports that are left out.
pub(crate) fn warn_of_unbound(unbound: &Unbound, wanted: usize, open_files: u64) {
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

/// Warns that there are no metrics.
pub(crate) fn warn_of_missing_http(address: SocketAddr, error: &io::Error) {
    log::warn!(
        "no metrics and no health checks: cannot listen on {address}/tcp: {error}; {}",
        HTTP.remedy(error)
    );
}
