//! Decides nothing: the server's UDP sockets, bound, read and written without ever waiting.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::core::relay::{OwnAddresses, PortMap, RelayPort};
use crate::operation::machine::Asked;
use crate::operation::os;
use crate::shell::poller::{Poller, Token};

/// Bytes that may wait at the registrar: what a thousand players send at once after a restart. A relay's port has
/// one sender and the kernel's default, which holds more than a second at the default rate.
const REGISTRAR_BUFFER: usize = 1024 * 1024;

/// One of the server's UDP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketId {
    Registrar,
    Relay(RelayPort),
}

impl SocketId {
    /// A relay's token is its port. No relay has port 0, so that is the registrar's.
    fn token(self) -> Token {
        match self {
            Self::Registrar => 0,
            Self::Relay(port) => port.0.into(),
        }
    }

    /// The socket of a token.
    pub(crate) fn from_token(token: Token) -> Self {
        match u16::try_from(token).expect("every token is a port or 0") {
            0 => Self::Registrar,
            port => Self::Relay(RelayPort(port)),
        }
    }
}

/// What came out of reading one datagram.
pub(crate) enum Received {
    /// A datagram of `length` bytes is in the buffer.
    Datagram { length: usize, source: SocketAddr },
    /// There is none.
    Nothing,
    /// An error of this socket alone.
    Failed(io::Error),
}

/// What came out of sending one datagram.
pub(crate) enum Sent {
    Whole,
    /// The kernel's buffer is full, or the interface's queue.
    BufferFull,
    /// The receiver's address family, or the path, takes no datagram of that size.
    TooLarge,
    Failed(io::Error),
}

/// Why relay ports are missing.
#[derive(Debug, Default)]
pub(crate) struct Unbound {
    /// Ports that another program has, or that may not be bound, with the last error.
    pub(crate) taken: Vec<u16>,
    pub(crate) last_error: Option<io::Error>,
    /// How many were left out so that descriptors remain for players.
    pub(crate) beyond_open_files: usize,
}

/// One socket, and how much is read of it at once.
struct Entry {
    socket: UdpSocket,
    budget: usize,
    /// The last turn in which it had something to read.
    last_turn: u64,
}

/// How many datagrams of one socket are taken in one turn at most.
const MAX_BUDGET: usize = 8;

/// The registrar's socket and one for each relay port.
pub(crate) struct Sockets {
    registrar: Entry,
    registrar_address: SocketAddr,
    registrar_buffer: Asked,
    relays: PortMap<Entry>,
    relay_ports: Vec<RelayPort>,
    /// Whether IPv4 addresses are written as IPv6 ones on these sockets.
    is_ipv6: bool,
}

impl Sockets {
    /// Binds the registrar, and of the relay ports as many as can be had, at most `max_relays`.
    ///
    /// # Errors
    /// If the registrar's port cannot be bound.
    pub(crate) fn bind(
        registrar: SocketAddr,
        relay_ports: &[u16],
        max_relays: usize,
    ) -> io::Result<(Self, Unbound)> {
        let host = registrar.ip();
        let registrar = bind_udp(registrar)?;
        let registrar_address = registrar.socket.local_addr()?;
        let registrar_buffer = widen(&registrar.socket)?;
        let mut relays = PortMap::new(relay_ports.iter().copied().map(RelayPort));
        let mut bound = Vec::new();
        let mut unbound = Unbound::default();
        for port in relay_ports {
            if bound.len() == max_relays {
                unbound.beyond_open_files = relay_ports.len() - bound.len() - unbound.taken.len();
                break;
            }
            match bind_udp(SocketAddr::new(host, *port)) {
                Ok(socket) => {
                    relays.insert(RelayPort(*port), socket);
                    bound.push(RelayPort(*port));
                }
                Err(error) => {
                    unbound.taken.push(*port);
                    unbound.last_error = Some(error);
                }
            }
        }
        let sockets = Self {
            registrar,
            registrar_address,
            registrar_buffer,
            relays,
            relay_ports: bound,
            is_ipv6: host.is_ipv6(),
        };
        Ok((sockets, unbound))
    }

    /// Has `poller` report every socket that has something to read.
    pub(crate) fn register(&self, poller: &Poller) -> io::Result<()> {
        let relays = self.relay_ports.iter().copied().map(SocketId::Relay);
        for id in relays.chain([SocketId::Registrar]) {
            poller.add(self.socket(id).expect("it was bound"), id.token())?;
        }
        Ok(())
    }

    /// How many datagrams may be read of a socket that is ready in this turn: one at first, for most come alone, and
    /// twice as many in each turn in which it is ready again.
    pub(crate) fn budget(&mut self, id: SocketId, turn: u64) -> usize {
        let Some(entry) = self.entry_mut(id) else {
            return 0;
        };
        let is_ready_again = entry.last_turn.wrapping_add(1) == turn;
        entry.budget = if is_ready_again { MAX_BUDGET.min(2 * entry.budget) } else { 1 };
        entry.last_turn = turn;
        entry.budget
    }

    /// The relay ports that are bound, ascending.
    pub(crate) fn relay_ports(&self) -> &[RelayPort] {
        &self.relay_ports
    }

    /// Where the registrar is bound.
    pub(crate) fn registrar_address(&self) -> SocketAddr {
        self.registrar_address
    }

    /// How many bytes may wait at the registrar.
    pub(crate) fn registrar_buffer(&self) -> Asked {
        self.registrar_buffer
    }

    /// The addresses of all these sockets. Of those that are bound to every address, as many as the machine has now.
    pub(crate) fn own_addresses(&self) -> io::Result<OwnAddresses> {
        let host = self.registrar_address.ip();
        let relay_ports = self.relay_ports.iter().map(|port| port.0);
        let ports = relay_ports.chain([self.registrar_address.port()]);
        if host.is_unspecified() {
            Ok(OwnAddresses::new(os::local_ips()?, ports).and_loopback())
        } else {
            Ok(OwnAddresses::new([host], ports))
        }
    }

    /// Reads one datagram. The source is an IPv4 address if the sender's is one, whatever the socket's family.
    pub(crate) fn receive(&self, id: SocketId, buffer: &mut [u8]) -> Received {
        let Some(socket) = self.socket(id) else {
            return Received::Nothing;
        };
        match recvfrom(socket, buffer, RecvFlags::empty()) {
            Ok((length, _, source)) => {
                let source = source.expect("a datagram has a source");
                let source = SocketAddr::try_from(source).expect("of the socket's family");
                let source = SocketAddr::new(source.ip().to_canonical(), source.port());
                Received::Datagram { length, source }
            }
            Err(Errno::WOULDBLOCK) => Received::Nothing,
            Err(error) => Received::Failed(error.into()),
        }
    }

    /// Sends one datagram.
    pub(crate) fn send(&self, id: SocketId, payload: &[u8], to: SocketAddr) -> Sent {
        let Some(socket) = self.socket(id) else {
            return Sent::Failed(ErrorKind::NotConnected.into());
        };
        match sendto(socket, payload, SendFlags::empty(), &self.for_kernel(to)) {
            Ok(_) => Sent::Whole,
            Err(Errno::WOULDBLOCK | Errno::NOBUFS) => Sent::BufferFull,
            Err(Errno::MSGSIZE) => Sent::TooLarge,
            Err(error) => Sent::Failed(error.into()),
        }
    }

    fn socket(&self, id: SocketId) -> Option<&UdpSocket> {
        let entry = match id {
            SocketId::Registrar => Some(&self.registrar),
            SocketId::Relay(port) => self.relays.get(port),
        };
        entry.map(|entry| &entry.socket)
    }

    fn entry_mut(&mut self, id: SocketId) -> Option<&mut Entry> {
        match id {
            SocketId::Registrar => Some(&mut self.registrar),
            SocketId::Relay(port) => self.relays.get_mut(port),
        }
    }

    fn for_kernel(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(ip) if self.is_ipv6 => {
                SocketAddrV6::new(ip.to_ipv6_mapped(), address.port(), 0, 0).into()
            }
            IpAddr::V4(_) | IpAddr::V6(_) => address,
        }
    }
}

/// Asks for a receive buffer of [`REGISTRAR_BUFFER`]; the kernel cuts it to `net.core.rmem_max`.
fn widen(socket: &UdpSocket) -> io::Result<Asked> {
    let socket = SockRef::from(socket);
    socket.set_recv_buffer_size(REGISTRAR_BUFFER)?;
    // socket(7): the kernel doubles what is asked, for its own bookkeeping, and shows the double.
    Ok(Asked { asked: REGISTRAR_BUFFER, got: socket.recv_buffer_size()? / 2 })
}

fn bind_udp(address: SocketAddr) -> io::Result<Entry> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(Entry { socket: socket.into(), budget: 1, last_turn: 0 })
}
