//! A listening TCP socket. One thread waits for its connections; another one can have it refuse them, or end the wait.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

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

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);

/// What to do with connections. A later order replaces an earlier one, and none goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Accept,
    /// Refuse those that wait to be accepted, and then close the port.
    Refuse,
    /// End the wait.
    End,
}

const ORDERS: [Order; 3] = [Order::Accept, Order::Refuse, Order::End];

/// A listening socket, for the thread that accepts.
pub(crate) struct Acceptor {
    /// `None` once the port is closed. A handover borrows it through [`AcceptorControl::listener`].
    listener: Option<Arc<TcpListener>>,
    local: SocketAddr,
    poll: Poll,
    events: Events,
    control: AcceptorControl,
}

/// What an accepting thread has to do next.
pub(crate) enum Accepted {
    /// A connection to serve.
    Connection(TcpStream, SocketAddr),
    /// A connection to refuse: the port is about to be closed.
    Late(TcpStream),
    /// The system gave no connection.
    Failed(io::Error),
}

/// Why a wait for connections is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There may be a connection, or a new order.
    Perhaps,
    /// The time is over.
    Nobody,
    /// Nobody is accepted any more.
    End,
}

/// Controls an [`Acceptor`] from other threads.
#[derive(Clone)]
pub(crate) struct AcceptorControl(Arc<Shared>);

struct Shared {
    listener: Weak<TcpListener>,
    order: AtomicU8,
    waker: Waker,
}

impl Acceptor {
    /// # Errors
    /// If the kernel has no epoll instance or descriptor left.
    pub(crate) fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        let fd = listener.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (local, listener) = (listener.local_addr()?, Arc::new(listener));
        let shared = Shared { listener: Arc::downgrade(&listener), order: AtomicU8::new(0), waker };
        let control = AcceptorControl(Arc::new(shared));
        Ok(Self {
            listener: Some(listener),
            local,
            poll,
            events: Events::with_capacity(2),
            control,
        })
    }

    /// Where it listens.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What other threads control it by.
    pub(crate) fn control(&self) -> AcceptorControl {
        self.control.clone()
    }

    /// Waits until [`Self::accept`] may have something, at most for `patience`; `None` is without a limit. Call this only
    /// after it had nothing.
    pub(crate) fn wait(&mut self, patience: Option<Duration>) -> Waited {
        if self.control.order() == Order::End {
            return Waited::End;
        }
        match self.poll.poll(&mut self.events, patience) {
            Ok(()) if self.events.is_empty() => Waited::Nobody,
            Ok(()) => Waited::Perhaps,
            Err(error) => {
                // A signal may interrupt the wait.
                debug_assert_eq!(error.kind(), ErrorKind::Interrupted);
                Waited::Perhaps
            }
        }
    }

    /// A connection that waits to be accepted; `None` if there is none. If all are refused, the port is closed then.
    pub(crate) fn accept(&mut self) -> Option<Accepted> {
        let order = self.control.order();
        if order == Order::End {
            return None;
        }
        match self.listener.as_ref()?.accept() {
            Ok((stream, _)) if order == Order::Refuse => Some(Accepted::Late(stream)),
            Ok((stream, peer)) => Some(Accepted::Connection(stream, peer)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if order == Order::Refuse {
                    self.listener = None;
                }
                None
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => None,
            Err(error) => Some(Accepted::Failed(error)),
        }
    }
}

/// Opens the port for players. Accepted connections inherit its options.
///
/// # Errors
/// If the port cannot be listened on.
pub(crate) fn listen_for_players(address: SocketAddr) -> io::Result<TcpListener> {
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
    Ok(socket.into())
}

impl AcceptorControl {
    /// Closes the port. Connections that wait to be accepted are refused before.
    pub(crate) fn refuse(&self) {
        self.set(Order::Refuse);
    }

    /// The listening socket, until it is closed.
    pub(crate) fn listener(&self) -> Option<Arc<TcpListener>> {
        self.0.listener.upgrade()
    }

    /// Ends the wait of the accepting thread for good.
    pub(crate) fn end(&self) {
        self.set(Order::End);
    }

    fn set(&self, order: Order) {
        self.0.order.fetch_max(order as u8, Ordering::Relaxed);
        self.wake();
    }

    /// Ends the wait of the accepting thread once.
    pub(crate) fn wake(&self) {
        if let Err(error) = self.0.waker.wake() {
            log::error!("cannot wake the thread that accepts connections: {error}");
        }
    }

    fn order(&self) -> Order {
        ORDERS[usize::from(self.0.order.load(Ordering::Relaxed))]
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn acceptor() -> Acceptor {
        Acceptor::new(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap()
    }

    #[test]
    fn who_waits_is_refused_and_then_the_port_is_closed() {
        let mut acceptor = acceptor();
        let local = acceptor.local_addr();
        let _served = TcpStream::connect(local).unwrap();
        assert!(matches!(acceptor.accept(), Some(Accepted::Connection(..))));
        let _late = [TcpStream::connect(local).unwrap(), TcpStream::connect(local).unwrap()];
        acceptor.control().refuse();
        for _ in 0..2 {
            assert!(matches!(acceptor.accept(), Some(Accepted::Late(_))));
        }
        assert!(acceptor.accept().is_none());
        let refused = TcpStream::connect(local).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        acceptor.control().end();
        acceptor.control().refuse();
        assert_eq!(acceptor.wait(None), Waited::End);
    }

    #[test]
    fn an_order_wakes_the_thread_that_waits() {
        let mut acceptor = acceptor();
        let control = acceptor.control();
        let waiting = thread::spawn(move || while acceptor.wait(None) != Waited::End {});
        control.refuse();
        control.end();
        waiting.join().unwrap();
    }
}
