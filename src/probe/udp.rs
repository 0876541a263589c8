//! Understands no datagram: the UDP sockets of all players of a probe, on one thread, with deadlines.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::payload::LENGTH;
use noray::operation::clock;
use noray::shell::poller::Poller;

/// Longer datagrams are cut: none of ours is.
const MAX_DATAGRAM: usize = 512;

/// One socket of a [`Sockets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketId(usize);

/// What came to a socket.
#[derive(Debug)]
pub(super) enum Arrival<'a> {
    /// A datagram.
    Datagram { at: SocketId, from: SocketAddr, payload: &'a [u8] },
    /// What the network says about a datagram that was sent before (ICMP), or this machine's own refusal.
    Trouble { at: SocketId, error: io::Error },
}

/// A conversation of datagrams, as [`Sockets::exchange`] holds it.
pub(super) trait Exchange {
    /// Sends what is due in this round, counted from 0.
    fn send(&mut self, round: u32, sockets: &mut Sockets);

    /// Takes what arrived. What it returns is sent from the same socket.
    fn hear(&mut self, arrival: &Arrival<'_>) -> Option<([u8; LENGTH], SocketAddr)>;

    /// Whether nothing more is to be learnt.
    fn is_done(&self) -> bool;
}

/// When an [`Exchange`] sends, and when it ends at the latest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How often is sent.
    pub(super) rounds: u32,
    /// From one round to the next.
    pub(super) every: Duration,
    /// How long is waited after the last one.
    pub(super) after: Duration,
}

/// Sockets and the one way to wait for all of them.
pub(super) struct Sockets {
    poller: Poller,
    sockets: Vec<Entry>,
    /// Those that have something to tell, in turn, so that a flood at one hides no other.
    readable: VecDeque<usize>,
    buffer: [u8; MAX_DATAGRAM],
}

struct Entry {
    socket: UdpSocket,
    /// The last failure to send, until it is told.
    refusal: Option<io::Error>,
}

impl Sockets {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            sockets: Vec::new(),
            readable: VecDeque::new(),
            buffer: [0; MAX_DATAGRAM],
        })
    }

    /// Opens a socket at a free port of `local`'s address.
    pub(super) fn open(&mut self, mut local: SocketAddr) -> io::Result<SocketId> {
        local.set_port(0);
        let socket = UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        hear_troubles(&socket, local, true)?;
        let index = self.sockets.len();
        self.poller.add(&socket, index as u64)?;
        self.sockets.push(Entry { socket, refusal: None });
        Ok(SocketId(index))
    }

    /// Where the socket is bound.
    pub(super) fn local(&self, id: SocketId) -> io::Result<SocketAddr> {
        self.sockets[id.0].socket.local_addr()
    }

    /// Sends one datagram; a refusal comes back as [`Arrival::Trouble`].
    pub(super) fn send(&mut self, id: SocketId, payload: &[u8], to: SocketAddr) {
        let entry = &mut self.sockets[id.0];
        match entry.socket.send_to(payload, to) {
            Ok(_) => {}
            // As if it were lost on the way.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                entry.forget_troubles();
                entry.refusal = Some(error);
                self.readable.push_back(id.0);
            }
        }
    }

    /// Sends and hears until it is done, or at the latest when the pace says.
    pub(super) fn exchange(&mut self, exchange: &mut impl Exchange, pace: Pace) {
        let mut next = clock::now();
        for round in 0..pace.rounds {
            if exchange.is_done() {
                return;
            }
            exchange.send(round, self);
            next += pace.every;
            let is_last = round + 1 == pace.rounds;
            self.hear_until(exchange, if is_last { next + pace.after } else { next });
        }
    }

    fn hear_until(&mut self, exchange: &mut impl Exchange, deadline: Instant) {
        while !exchange.is_done() {
            let Some(arrival) = self.receive(deadline) else { return };
            let (Arrival::Datagram { at, .. } | Arrival::Trouble { at, .. }) = arrival;
            if let Some((answer, to)) = exchange.hear(&arrival) {
                self.send(at, &answer, to);
            }
        }
    }

    /// What comes next, if it comes before the deadline.
    fn receive(&mut self, deadline: Instant) -> Option<Arrival<'_>> {
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return None;
            }
            let Some(index) = self.readable.pop_front() else {
                self.wait(left);
                continue;
            };
            let (entry, at) = (&mut self.sockets[index], SocketId(index));
            if let Some(error) = entry.refusal.take() {
                return Some(Arrival::Trouble { at, error });
            }
            match entry.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    return Some(Arrival::Datagram { at, from, payload: &self.buffer[..length] });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    entry.forget_troubles();
                    return Some(Arrival::Trouble { at, error });
                }
            }
        }
    }

    fn wait(&mut self, left: Duration) {
        // Refused: the deadline ends it.
        if self.poller.wait_for(left).is_ok() {
            self.readable.extend(self.poller.ready().map(|token| token as usize));
        }
    }
}

impl Entry {
    /// The kernel keeps what ICMP said until it is read, and reports the socket as ready meanwhile. What it means was
    /// told by the call that failed.
    fn forget_troubles(&self) {
        if let Ok(local) = self.socket.local_addr() {
            // A socket that cannot be set is ready too often, and no more.
            let _ = hear_troubles(&self.socket, local, false)
                .and_then(|()| hear_troubles(&self.socket, local, true));
        }
    }
}

/// Whether the kernel tells that nobody listens at the other end (`IP_RECVERR`, ip(7)).
fn hear_troubles(socket: &UdpSocket, local: SocketAddr, is_wanted: bool) -> nix::Result<()> {
    match local {
        SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &is_wanted),
        SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &is_wanted),
    }
}
