//! Reads no command: accepts players' connections, up to the caps, and starts a thread for each.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::core::id::ConnectionId;
use crate::core::protocol::Reply;
use crate::limits::bounds::Bound;
use crate::limits::network::Network;
use crate::limits::network_rate::NetworkRateLimiter;
use crate::limits::throttle::Throttle;
use crate::limits::token_bucket::RateLimit;
use crate::operation::clock;
use crate::operation::metrics::{Metrics, Table};
use crate::shell::connection::{self, Connection};
use crate::shell::events::{Event, EventSender, LoopGone};
use crate::time::{RunningTime, Timestamp};

/// How many connections the kernel completes before they are accepted: the standard library's 128 makes ten
/// thousand players that reconnect wait for a minute. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A thread's stack. Half of it was never touched; smaller ones cost more memory, not less, and overflow in a
/// panic.
const STACK_SIZE: usize = 64 * 1024;

/// What the kernel may buffer for a player in each direction; by default an unread one parks megabytes.
const SOCKET_BUFFER: usize = 16 * 1024;

/// A player that vanished is noticed after 60 + 3 * 10 s of silence, or after 90 s with data in flight.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(90);

/// How long no connection is accepted after the system refused one, for want of descriptors or threads.
const COOL_DOWN: Duration = Duration::from_millis(100);

/// A listening TCP socket that another thread can close while one waits in `accept`.
pub(crate) struct Acceptor {
    listener: TcpListener,
    is_closed: AtomicBool,
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, is_closed: AtomicBool::new(false) }
    }

    /// Opens the port for players. Accepted connections inherit its options.
    pub(crate) fn for_players(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self::new(socket.into()))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection, or the error that kept one away; `None` once it is closed.
    pub(crate) fn accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = self.listener.accept();
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        if is_closed { None } else { Some(accepted) }
    }

    /// Lets nobody in any more, and wakes who waits in [`Self::accept`].
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // Fails only if that was done before.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}

/// How many new connections one IP may open: each comes with a burst of commands. As many at once as one IP may have, by
/// default, and then those of players who come and go.
pub(crate) const NEW_CONNECTIONS: RateLimit =
    RateLimit { per_second: 50, burst: Duration::from_secs(21) };

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    pub(crate) connections: usize,
    pub(crate) per_ip: usize,
    /// What one IP may have once three quarters of all are in use, so that a few IPs cannot take all.
    pub(crate) per_ip_if_scarce: usize,
    /// How many of one IP may be without a registration, which follows the connection at once.
    pub(crate) unregistered_per_ip: usize,
}

/// What an IP may have of each at the least.
const FEW: usize = 16;

impl Caps {
    /// The last quarter is shared by eight IPs at the least, unless one IP may have all that is `wanted`. A quarter of an
    /// IP's connections may be unregistered: by default 256, a carrier's players who come back after a restart, 1,500 a
    /// second, each of whom needs 150 ms to register.
    pub(crate) fn new(connections: usize, wanted: usize, per_ip: usize) -> Self {
        let per_ip_if_scarce =
            if per_ip >= wanted { per_ip } else { per_ip.min((connections / 32).max(FEW)) };
        Self { connections, per_ip, per_ip_if_scarce, unregistered_per_ip: (per_ip / 4).max(FEW) }
    }
}

/// Who is connected, counted by network.
pub(crate) struct ConnectionTable {
    counts: Mutex<Counts>,
    metrics: Arc<Metrics>,
}

struct Counts {
    caps: Caps,
    connections: usize,
    by_network: HashMap<Network, OfNetwork>,
    new: NetworkRateLimiter,
}

#[derive(Clone, Copy, Default)]
struct OfNetwork {
    connections: usize,
    unregistered: usize,
}

impl ConnectionTable {
    pub(crate) fn new(caps: Caps, metrics: Arc<Metrics>) -> Self {
        metrics.max_connections.set(caps.connections);
        let new = NetworkRateLimiter::new(NEW_CONNECTIONS);
        let counts = Counts { caps, connections: 0, by_network: HashMap::new(), new };
        Self { counts: Mutex::new(counts), metrics }
    }

    /// Replaces the caps. Whoever is connected stays.
    pub(crate) fn set_caps(&self, caps: Caps) {
        self.counts.lock().caps = caps;
        self.metrics.max_connections.set(caps.connections);
    }

    /// Admits one more connection from `ip`.
    ///
    /// # Errors
    /// The cap that is reached.
    fn admit(self: &Arc<Self>, ip: IpAddr, now: Timestamp) -> Result<Permit, Bound> {
        let network = Network::from(ip);
        let mut counts = self.counts.lock();
        let caps = counts.caps;
        let of_network = counts.by_network.get(&network).copied().unwrap_or_default();
        if counts.connections >= caps.connections {
            return Err(Bound::Connections);
        }
        let is_scarce = 4 * counts.connections >= 3 * caps.connections;
        let per_ip = if is_scarce { caps.per_ip_if_scarce } else { caps.per_ip };
        if of_network.connections >= per_ip {
            return Err(Bound::ConnectionsPerIp);
        }
        if of_network.unregistered >= caps.unregistered_per_ip {
            return Err(Bound::UnregisteredPerIp);
        }
        if !counts.new.has_tokens(network, now) {
            return Err(Bound::NewConnections);
        }
        counts.new.charge(network, now);
        let of_network = counts.by_network.entry(network).or_default();
        of_network.connections += 1;
        of_network.unregistered += 1;
        counts.connections += 1;
        self.note_size(&counts);
        Ok(Permit { table: Arc::clone(self), network, is_registered: AtomicBool::new(false) })
    }

    fn note_size(&self, counts: &Counts) {
        self.metrics.tcp_connections.set(counts.connections);
        self.metrics.table_entries.of(Table::ConnectedNetworks).set(counts.by_network.len());
    }
}

/// One connection's place in the table; dropping it frees the place.
pub(crate) struct Permit {
    table: Arc<ConnectionTable>,
    network: Network,
    is_registered: AtomicBool,
}

impl Permit {
    pub(crate) fn is_registered(&self) -> bool {
        self.is_registered.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_registered(&self) {
        if self.is_registered.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut counts = self.table.counts.lock();
        counts
            .by_network
            .get_mut(&self.network)
            .expect("the permit's network is counted")
            .unregistered -= 1;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.table.counts.lock();
        counts.connections -= 1;
        let of_network =
            counts.by_network.get_mut(&self.network).expect("the permit's network is counted");
        of_network.connections -= 1;
        if !self.is_registered.load(Ordering::Relaxed) {
            of_network.unregistered -= 1;
        }
        if of_network.connections == 0 {
            counts.by_network.remove(&self.network);
        }
        self.table.note_size(&counts);
    }
}

/// The body of the listener's thread: accepts until the acceptor is closed, then waits for the players' threads.
pub(crate) fn run(acceptor: &Acceptor, table: &Arc<ConnectionTable>, events: &EventSender) {
    let mut warnings = Throttle::default();
    let mut time = RunningTime::new(clock::now());
    let mut next_id = 0;
    thread::scope(|players| {
        while let Some(accepted) = acceptor.accept() {
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    cool_down(&error, &mut warnings);
                    continue;
                }
            };
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let now = time.advance(clock::now(), Duration::MAX);
            let permit = match table.admit(peer.ip(), now) {
                Ok(permit) => permit,
                Err(bound) => {
                    table.metrics.connections_refused.add_as_only_writer(1);
                    table.metrics.bounds_reached.of(bound).add_as_only_writer(1);
                    refuse(stream);
                    continue;
                }
            };
            let id = ConnectionId(next_id);
            next_id += 1;
            let connection = Arc::new(Connection::new(id, stream, peer, permit));
            if start(players, &connection, events, &mut warnings).is_err() {
                return;
            }
        }
        // If the loop is gone, nobody waits for this.
        let _ = events.post(Event::AcceptorClosed);
    });
}

fn start<'scope>(
    players: &'scope thread::Scope<'scope, '_>,
    connection: &Arc<Connection>,
    events: &EventSender,
    warnings: &mut Throttle,
) -> Result<(), LoopGone> {
    events.post(Event::Connected(Arc::clone(connection)))?;
    let (own, own_events) = (Arc::clone(connection), events.clone());
    let spawned = thread::Builder::new()
        .name("player".to_owned())
        .stack_size(STACK_SIZE)
        .spawn_scoped(players, move || connection::serve(&own, &own_events));
    if let Err(error) = spawned {
        events.post(Event::Refused(connection.id))?;
        cool_down(&error, warnings);
    }
    Ok(())
}

/// After an error that would only come again at once, such as too many open files, waits a little.
fn cool_down(error: &io::Error, warnings: &mut Throttle) {
    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
        return;
    }
    if warnings.is_due(clock::now()) {
        log::warn!(
            "cannot take a player's connection: {error}; too many open files: raise LimitNOFILE=, \
             no resources for a thread: raise TasksMax="
        );
    }
    thread::park_timeout(COOL_DOWN);
}

/// Says why, and closes. What the player has sent so far is read: unread, it would make the close a reset.
fn refuse(mut stream: TcpStream) {
    let answer = Reply::ServerFull.encode();
    let said = stream
        .set_nonblocking(true)
        .and_then(|()| stream.write_all(answer.as_bytes()))
        .and_then(|()| stream.read(&mut [0; 256]));
    if let Err(error) = said {
        log::trace!("a refused connection was not told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn table(connections: usize, per_ip: usize) -> Arc<ConnectionTable> {
        let caps = Caps::new(connections, connections, per_ip);
        Arc::new(ConnectionTable::new(caps, Arc::default()))
    }

    #[test]
    fn caps_hold_in_all_and_per_ip_and_places_come_free() {
        let table = table(3, 2);
        let first = table.admit(ONE, Timestamp::START).unwrap();
        let _second = table.admit(ONE, Timestamp::START).unwrap();
        assert_eq!(table.admit(ONE, Timestamp::START).err(), Some(Bound::ConnectionsPerIp));
        let _third = table.admit(OTHER, Timestamp::START).unwrap();
        assert_eq!(table.admit(OTHER, Timestamp::START).err(), Some(Bound::Connections));
        drop(first);
        let _again = table.admit(ONE, Timestamp::START).unwrap();
        assert_eq!(table.metrics.tcp_connections.value(), 3);
    }

    #[test]
    fn only_so_many_of_one_ip_may_be_without_a_registration() {
        let table = table(4096, 1024);
        let waiting: Vec<_> =
            (0..256).map(|_| table.admit(ONE, Timestamp::START).unwrap()).collect();
        assert_eq!(table.admit(ONE, Timestamp::START).err(), Some(Bound::UnregisteredPerIp));
        assert!(table.admit(OTHER, Timestamp::START).is_ok());
        waiting[0].mark_registered();
        waiting[0].mark_registered();
        let _one_more = table.admit(ONE, Timestamp::START).unwrap();
        assert!(table.admit(ONE, Timestamp::START).is_err());
        drop(waiting);
        assert_eq!(table.counts.lock().by_network[&ONE.into()].unregistered, 1);
    }

    #[test]
    fn when_places_run_short_one_ip_has_few() {
        let table = table(4096, 4095);
        let mut permits = Vec::new();
        let mut now = Timestamp::START;
        let mut admit = |ip| {
            now = now + Duration::from_millis(20);
            let permit = table.admit(ip, now)?;
            permit.mark_registered();
            permits.push(permit);
            Ok(())
        };
        let greedy = (0..4096).take_while(|_| admit(ONE).is_ok()).count();
        assert_eq!(greedy, 3072);
        assert_eq!(admit(ONE), Err(Bound::ConnectionsPerIp));
        let modest = (0..4096).take_while(|_| admit(OTHER).is_ok()).count();
        assert_eq!(modest, 128);
    }

    #[test]
    fn one_ip_may_come_back_at_once_and_then_come_and_go() {
        let table = table(4096, 1024);
        let count = |millis| {
            let now = Timestamp::START + Duration::from_millis(millis);
            (0..2000).filter(|_| table.admit(ONE, now).is_ok()).count()
        };
        assert_eq!(count(0), 1050);
        assert_eq!((count(100), count(1100)), (5, 50));
        assert_eq!(table.admit(ONE, Timestamp::START).err(), Some(Bound::NewConnections));
        assert!(table.admit(OTHER, Timestamp::START).is_ok());
    }

    #[test]
    fn who_lets_one_ip_have_all_gives_it_all() {
        let behind_a_bridge = Caps::new(100, 4096, 4096);
        assert_eq!(
            (behind_a_bridge.per_ip_if_scarce, behind_a_bridge.unregistered_per_ip),
            (4096, 1024)
        );
        let small = Caps::new(64, 4096, 1024);
        assert_eq!((small.per_ip_if_scarce, small.unregistered_per_ip), (16, 256));
        let strict = Caps::new(4096, 4096, 3);
        assert_eq!((strict.per_ip_if_scarce, strict.unregistered_per_ip), (3, 16));
    }

    #[test]
    fn nobody_connected_leaves_nothing_behind() {
        let table = table(1, 1);
        let only = table.admit(ONE, Timestamp::START).unwrap();
        assert!(table.admit(OTHER, Timestamp::START).is_err());
        only.mark_registered();
        drop(only);
        assert!(table.counts.lock().by_network.is_empty());
    }
}
