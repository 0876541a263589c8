//! Understands no datagram: the UDP sockets of all players of a probe, on one thread, with deadlines.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use nix::sys::socket::{setsockopt, sockopt};

use super::payload::LENGTH;
use crate::clock;

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
    poll: Poll,
    events: Events,
    sockets: Vec<Entry>,
    /// Those that may have something to read, in turn, so that a flood at one hides no other.
    readable: VecDeque<usize>,
    buffer: [u8; MAX_DATAGRAM],
}

struct Entry {
    socket: UdpSocket,
    is_readable: bool,
    /// The last failure to send, until it is told.
    refusal: Option<io::Error>,
}

impl Sockets {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(64),
            sockets: Vec::new(),
            readable: VecDeque::new(),
            buffer: [0; MAX_DATAGRAM],
        })
    }

    /// Opens a socket at a free port of `local`'s address.
    pub(super) fn open(&mut self, mut local: SocketAddr) -> io::Result<SocketId> {
        local.set_port(0);
        let mut socket = UdpSocket::bind(local)?;
        // Otherwise the kernel keeps to itself that nobody listens at the other end.
        match local {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        let index = self.sockets.len();
        self.poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
        self.sockets.push(Entry { socket, is_readable: false, refusal: None });
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
                entry.refusal = Some(error);
                self.mark_readable(id.0);
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
                self.readable.push_back(index);
                return Some(Arrival::Trouble { at, error });
            }
            match entry.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    self.readable.push_back(index);
                    return Some(Arrival::Datagram { at, from, payload: &self.buffer[..length] });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => entry.is_readable = false,
                Err(error) => {
                    self.readable.push_back(index);
                    return Some(Arrival::Trouble { at, error });
                }
            }
        }
    }

    fn wait(&mut self, left: Duration) {
        // Interrupted or refused: the deadline ends it either way.
        if self.poll.poll(&mut self.events, Some(left)).is_err() {
            return;
        }
        let indexes: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        indexes.into_iter().for_each(|index| self.mark_readable(index));
    }

    fn mark_readable(&mut self, index: usize) {
        let entry = &mut self.sockets[index];
        if !std::mem::replace(&mut entry.is_readable, true) {
            self.readable.push_back(index);
        }
    }
}
