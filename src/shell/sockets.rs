//! The server's UDP sockets, and the queue of those that may have something to read. Nothing here waits.
//!
//! mio is edge-triggered: it reports a socket when datagrams come, not for as long as there are some. A reported
//! socket therefore joins the queue and is read until a read finds it empty. If it has more than one turn's worth, it
//! goes to the queue's end, so that a flooded port delays nobody.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::core::relay::{OwnAddresses, PortMap, RelayPort};
use crate::operation::machine::BufferSize;
use crate::shell::own_ips;
use crate::shell::packet_info::{self, Datagram};

/// Bytes that may wait at the registrar: what a thousand players send at once after a restart. A relay port has only one
/// sender, so it keeps the kernel's default, which holds more than a second's worth at the default rate.
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
            Self::Registrar => Token(0),
            Self::Relay(port) => Token(port.0.into()),
        }
    }

    /// The socket of a token, which must be one that [`Sockets::register`] gave.
    pub(crate) fn from_token(token: Token) -> Self {
        match u16::try_from(token.0).expect("a socket's token is a port or 0") {
            0 => Self::Registrar,
            port => Self::Relay(RelayPort(port)),
        }
    }
}

/// The outcome of reading one datagram.
pub(crate) enum Received {
    /// A datagram is in the buffer.
    Datagram(Datagram),
    /// There is none.
    Nothing,
    /// An error of this socket alone.
    Failed(io::Error),
}

/// The outcome of sending one datagram.
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

/// A bound socket.
struct BoundSocket {
    socket: UdpSocket,
    /// Whether it is in [`Sockets::ready`].
    is_ready: bool,
}

/// The registrar's socket and one for each relay port.
pub(crate) struct Sockets {
    registrar: BoundSocket,
    registrar_address: SocketAddr,
    registrar_buffer: BufferSize,
    relays: PortMap<BoundSocket>,
    relay_ports: Vec<RelayPort>,
    /// The sockets that may have something to read, each once. The longest unread is first.
    ready: VecDeque<SocketId>,
    /// Whether IPv4 addresses are written as IPv6 ones on these sockets.
    is_ipv6: bool,
}

impl Sockets {
    /// Binds the registrar and as many of the relay ports as possible, at most `max_relays`.
    ///
    /// # Errors
    /// If the registrar's port cannot be bound.
    pub(crate) fn bind(
        registrar: SocketAddr,
        relay_ports: &[u16],
        max_relays: usize,
    ) -> io::Result<(Self, Unbound)> {
        let socket = bind_registrar(registrar)?;
        let (relays, unbound) =
            bind_relays(registrar.ip(), relay_ports.iter().copied(), max_relays);
        Ok((Self::adopt(socket, relays)?, unbound))
    }

    /// Takes over sockets that are bound: the registrar's and those of relay ports.
    ///
    /// # Errors
    /// If the kernel does not tell the registrar's address.
    pub(crate) fn adopt(
        registrar: std::net::UdpSocket,
        relays: Vec<(RelayPort, std::net::UdpSocket)>,
    ) -> io::Result<Self> {
        let registrar_address = registrar.local_addr()?;
        let registrar = BoundSocket::new(registrar);
        let registrar_buffer = receive_buffer(&registrar.socket)?;
        let mut relay_ports: Vec<RelayPort> = relays.iter().map(|(port, _)| *port).collect();
        relay_ports.sort_unstable();
        let mut map = PortMap::new(relay_ports.iter().copied());
        relays.into_iter().for_each(|(port, socket)| map.insert(port, BoundSocket::new(socket)));
        Ok(Self {
            registrar,
            registrar_address,
            registrar_buffer,
            relays: map,
            relay_ports,
            ready: VecDeque::new(),
            is_ipv6: registrar_address.is_ipv6(),
        })
    }

    /// Closes a relay port that is not used any more.
    pub(crate) fn close(&mut self, port: RelayPort) {
        self.relays.remove(port);
        self.relay_ports.retain(|other| *other != port);
        self.ready.retain(|id| *id != SocketId::Relay(port));
    }

    /// All sockets with their addresses, the registrar's first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (SocketId, SocketAddr, BorrowedFd<'_>)> {
        let relays = self.relay_ports.iter().copied().map(SocketId::Relay);
        let all = [SocketId::Registrar].into_iter().chain(relays);
        all.filter_map(|id| {
            let mut at = self.registrar_address;
            if let SocketId::Relay(port) = id {
                at.set_port(port.0);
            }
            Some((id, at, self.socket(id)?.as_fd()))
        })
    }

    /// Has mio report every socket to which something comes.
    ///
    /// # Errors
    /// If the kernel has no memory left.
    pub(crate) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        let relays = self.relay_ports.iter().copied().map(SocketId::Relay);
        let all: Vec<SocketId> = relays.chain([SocketId::Registrar]).collect();
        for id in all {
            let socket = &mut self.bound_mut(id).expect("it was bound").socket;
            registry.register(socket, id.token(), Interest::READABLE)?;
        }
        Ok(())
    }

    /// Queues a socket that may have something to read: mio reports it, or it was not read until it was empty. A socket
    /// that is queued already keeps its place.
    pub(crate) fn queue(&mut self, id: SocketId) {
        let Some(bound) = self.bound_mut(id) else { return };
        if !std::mem::replace(&mut bound.is_ready, true) {
            self.ready.push_back(id);
        }
    }

    /// Takes from the queue the socket that waited longest. Read it until nothing is left, or queue it again: mio does
    /// not report the same datagrams twice.
    pub(crate) fn next_ready(&mut self) -> Option<SocketId> {
        let id = self.ready.pop_front()?;
        self.bound_mut(id).expect("only bound ones are queued").is_ready = false;
        Some(id)
    }

    /// How many sockets are queued.
    pub(crate) fn ready_count(&self) -> usize {
        self.ready.len()
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
    pub(crate) fn registrar_buffer(&self) -> BufferSize {
        self.registrar_buffer
    }

    /// The addresses of all these sockets now. If the kernel does not report the machine's IPs, the log has a warning.
    pub(crate) fn own_addresses(&self) -> OwnAddresses {
        let ips = own_ips::read(self.registrar_address.ip()).unwrap_or_else(|error| {
            log::warn!(
                "cannot read the machine's addresses, so a relay may send to the server itself: {error}; set \
                 NORAY_UDP_HOST to the address that players use"
            );
            BTreeSet::new()
        });
        let ports = self.relay_ports.iter().map(|port| port.0);
        let own = OwnAddresses::new(ips, ports.chain([self.registrar_address.port()]));
        if self.bound_ip().is_none() { own.and_loopback() } else { own }
    }

    /// Reads one datagram. The source is an IPv4 address if the sender's is one, whatever the socket's family. Where it
    /// arrived is only told of a datagram at the registrar.
    pub(crate) fn receive(&self, id: SocketId, buffer: &mut [u8]) -> Received {
        match id {
            SocketId::Registrar => self.receive_registration(buffer),
            SocketId::Relay(port) => self.receive_at_relay(port, buffer),
        }
    }

    fn receive_registration(&self, buffer: &mut [u8]) -> Received {
        match packet_info::receive(&self.registrar.socket, buffer) {
            Ok(Datagram { length, source, arrived_at }) => Received::Datagram(Datagram {
                length,
                source: canonical(source),
                arrived_at: arrived_at.or(self.bound_ip()),
            }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
            Err(error) => Received::Failed(error),
        }
    }

    /// The one address that these sockets are bound to.
    fn bound_ip(&self) -> Option<IpAddr> {
        let ip = self.registrar_address.ip();
        (!ip.is_unspecified()).then_some(ip)
    }

    fn receive_at_relay(&self, port: RelayPort, buffer: &mut [u8]) -> Received {
        let Some(BoundSocket { socket, .. }) = self.relays.get(port) else {
            return Received::Nothing;
        };
        match recvfrom(socket, buffer, RecvFlags::empty()) {
            Ok((length, _, source)) => {
                let source = source.expect("a datagram has a source");
                let source = SocketAddr::try_from(source).expect("of the socket's family");
                let source = canonical(source);
                Received::Datagram(Datagram { length, source, arrived_at: None })
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
        let bound = match id {
            SocketId::Registrar => Some(&self.registrar),
            SocketId::Relay(port) => self.relays.get(port),
        };
        bound.map(|bound| &bound.socket)
    }

    fn bound_mut(&mut self, id: SocketId) -> Option<&mut BoundSocket> {
        match id {
            SocketId::Registrar => Some(&mut self.registrar),
            SocketId::Relay(port) => self.relays.get_mut(port),
        }
    }

    /// The address in the form that these sockets need.
    fn for_kernel(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(ip) if self.is_ipv6 => {
                SocketAddrV6::new(ip.to_ipv6_mapped(), address.port(), 0, 0).into()
            }
            IpAddr::V4(_) | IpAddr::V6(_) => address,
        }
    }
}

/// The address in the form that the core knows. An IPv4 address is one even if an IPv6 socket reports it. An IPv6 address
/// has no flow label, but keeps its scope: without it, nothing could be sent to a link-local address (RFC 4007).
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    let SocketAddr::V6(v6) = address else { return address };
    match v6.ip().to_ipv4_mapped() {
        Some(ip) => SocketAddr::new(ip.into(), v6.port()),
        None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
    }
}

impl BoundSocket {
    fn new(socket: std::net::UdpSocket) -> Self {
        Self { socket: UdpSocket::from_std(socket), is_ready: false }
    }
}

/// Binds the registrar's socket, with a receive buffer of [`REGISTRAR_BUFFER`]; the kernel cuts it to `net.core.rmem_max`.
///
/// # Errors
/// If the port cannot be bound.
pub(crate) fn bind_registrar(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = bind_udp(address)?;
    SockRef::from(&socket).set_recv_buffer_size(REGISTRAR_BUFFER)?;
    if address.ip().is_unspecified() {
        packet_info::enable(&socket, address.is_ipv6())?;
    }
    Ok(socket)
}

fn receive_buffer(socket: &UdpSocket) -> io::Result<BufferSize> {
    // The kernel doubles the size for its own bookkeeping, and reports the double (socket(7)).
    Ok(BufferSize { asked: REGISTRAR_BUFFER, got: SockRef::from(socket).recv_buffer_size()? / 2 })
}

/// Binds as many of the relay ports as possible, at most `max`.
pub(crate) fn bind_relays(
    host: IpAddr,
    ports: impl IntoIterator<Item = u16>,
    max: usize,
) -> (Vec<(RelayPort, std::net::UdpSocket)>, Unbound) {
    let mut bound = Vec::new();
    let mut unbound = Unbound::default();
    for port in ports {
        if bound.len() == max {
            unbound.beyond_open_files += 1;
            continue;
        }
        match bind_udp(SocketAddr::new(host, port)) {
            Ok(socket) => bound.push((RelayPort(port), socket)),
            Err(error) => {
                unbound.taken.push(port);
                unbound.last_error = Some(error);
            }
        }
    }
    (bound, unbound)
}

/// Binds a UDP socket that never waits.
///
/// # Errors
/// If the port cannot be bound.
pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    /// The registrar and at least two relay ports, at free ports of the loopback interface.
    fn bound() -> Sockets {
        let ports: Vec<u16> = (40_000..40_064).collect();
        let registrar = SocketAddr::from(([127, 0, 0, 1], 0));
        Sockets::bind(registrar, &ports, 2).unwrap().0
    }

    fn send(to: SocketAddr, count: usize) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..count {
            socket.send_to(b"x", to).unwrap();
        }
    }

    fn queued(sockets: &mut Sockets) -> Vec<SocketId> {
        std::iter::from_fn(|| sockets.next_ready()).collect()
    }

    #[test]
    fn a_token_stands_for_one_socket() {
        for id in [SocketId::Registrar, SocketId::Relay(RelayPort(u16::MAX))] {
            assert_eq!(SocketId::from_token(id.token()), id);
        }
    }

    #[test]
    fn a_socket_is_reported_when_something_comes_and_read_until_it_is_empty() {
        let mut sockets = bound();
        let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(4));
        sockets.register(poll.registry()).unwrap();
        let mut buffer = [0; 8];
        for _ in 0..2 {
            send(sockets.registrar_address(), 3);
            poll.poll(&mut events, None).unwrap();
            let reported: Vec<Token> = events.iter().map(|event| event.token()).collect();
            assert_eq!(reported, [SocketId::Registrar.token()]);
            for _ in 0..3 {
                let received = sockets.receive(SocketId::Registrar, &mut buffer);
                assert!(matches!(received, Received::Datagram(Datagram { length: 1, .. })));
            }
            assert!(matches!(sockets.receive(SocketId::Registrar, &mut buffer), Received::Nothing));
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            assert!(events.is_empty());
        }
    }

    #[test]
    fn sockets_are_read_in_order_and_queued_once() {
        let mut sockets = bound();
        let [first, second] = [0, 1].map(|index| SocketId::Relay(sockets.relay_ports()[index]));
        for id in [first, second, first] {
            sockets.queue(id);
        }
        assert_eq!(sockets.ready_count(), 2);
        assert_eq!(sockets.next_ready(), Some(first));
        sockets.queue(first);
        assert_eq!(queued(&mut sockets), [second, first]);
        assert_eq!(sockets.ready_count(), 0);
    }
}
