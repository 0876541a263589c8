//! A listening TCP socket that another thread can close while one waits for a connection.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// How many connections may wait to be accepted. With the standard library's 128, ten thousand players that reconnect
/// wait for a minute. The kernel cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Bytes that the kernel may buffer for a player in each direction. By default, a player that does not read can fill
/// megabytes.
const SOCKET_BUFFER: usize = 16 * 1024;

/// How long no connection is accepted after the system refused one, for lack of descriptors or threads.
pub(crate) const COOL_DOWN: Duration = Duration::from_millis(100);

/// The server notices that a player vanished after 60 + 3 * 10 s of silence, or after 90 s with data in flight.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(90);

/// A listening socket.
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

    /// Sets how long [`Self::accept`] waits; `None` is without a limit. Accepted connections inherit it as their read timeout.
    pub(crate) fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        SockRef::from(&self.listener).set_read_timeout(patience)
    }

    /// The next connection, or the error that kept one away (`WouldBlock` if the time is over); `None` once it is closed.
    pub(crate) fn accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = self.listener.accept();
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        if is_closed { None } else { Some(accepted) }
    }

    /// Accepts nobody any more, and wakes the thread that waits in [`Self::accept`].
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // This fails only if it is closed already.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
    }
}
