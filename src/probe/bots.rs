//! The players that a probe plays: their ids, their UDP sockets, and the one wait for all of these sockets.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll};
use nix::sys::socket::{setsockopt, sockopt};
use noray::core::id::{OpenId, PrivateId};
use noray::operation::clock;

use super::answers::Answer;
use super::control::{ControlConnection, NoAnswer};

/// Bytes of a datagram that are read. The probe sends none that is longer.
const MAX_DATAGRAM: usize = 512;

/// The indexes of the first two bots. Those of the crowd come after them.
pub(super) const HOST: usize = 0;
pub(super) const CLIENT: usize = 1;

/// One player, with two UDP sockets at the address that its connection has.
pub(super) struct Bot {
    pub(super) control: ControlConnection,
    pub(super) oid: OpenId,
    pub(super) pid: PrivateId,
    /// Where the registered socket is bound.
    pub(super) local: SocketAddr,
    sockets: [UdpSocket; 2],
}

/// Which of a bot's two sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    /// The one whose address the server is told.
    Registered,
    /// The one whose address the server is not told.
    Fresh,
}

impl Bot {
    /// Gets ids from the server, and opens UDP sockets.
    pub(super) fn join(
        mut control: ControlConnection,
        patience: Duration,
    ) -> Result<Self, NoAnswer> {
        control.send("register-host\n");
        let mut oid = None;
        let (oid, pid) = control.wait_for(clock::now() + patience, |answer| match answer {
            Answer::SetOid(id) => {
                oid = Some(id);
                None
            }
            Answer::SetPid(pid) => oid.take().map(|oid| Ok((oid, pid))),
            Answer::Foreign(text) => Some(Err(NoAnswer::Foreign(text))),
            Answer::Connect(..)
            | Answer::ConnectRelay(_)
            | Answer::Echo
            | Answer::Refused(_)
            | Answer::RelayLimit(_)
            | Answer::Nothing => None,
        })??;
        let sockets = [open_udp(control.local)?, open_udp(control.local)?];
        Ok(Self { control, oid, pid, local: sockets[0].local_addr()?, sockets })
    }
}

fn open_udp(mut local: SocketAddr) -> io::Result<UdpSocket> {
    local.set_port(0);
    let socket = UdpSocket::bind(local)?;
    // Without IP_RECVERR (ip(7)) the kernel does not report that nobody listens at the other end.
    match local {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(socket)
}

/// What came to a bot by UDP.
pub(super) struct Arrival {
    /// Its index.
    pub(super) bot: usize,
    /// The source and the content, or what the network says (ICMP) about a datagram that was sent before.
    pub(super) result: io::Result<(SocketAddr, Vec<u8>)>,
}

/// All bots of a probe, and the server that they play at.
pub(super) struct Bots {
    /// Where TCP reached the server. Its UDP ports have the same IP.
    pub(super) server: SocketAddr,
    pub(super) registrar_port: u16,
    /// Whether the server says why it does not do what was asked; the older one in JavaScript does not.
    pub(super) answers_errors: bool,
    pub(super) all: Vec<Bot>,
    poll: Poll,
    events: Events,
    /// The socket that was read last.
    last: usize,
}

impl Bots {
    pub(super) fn new(server: SocketAddr, registrar_port: u16) -> io::Result<Self> {
        Ok(Self {
            server,
            registrar_port,
            answers_errors: false,
            all: Vec::new(),
            poll: Poll::new()?,
            events: Events::with_capacity(16),
            last: 0,
        })
    }

    pub(super) fn add(&mut self, mut bot: Bot) -> io::Result<()> {
        for socket in &mut bot.sockets {
            self.poll.registry().register(socket, mio::Token(0), Interest::READABLE)?;
        }
        self.all.push(bot);
        Ok(())
    }

    /// A UDP port of the server.
    pub(super) fn at(&self, port: u16) -> SocketAddr {
        let mut address = self.server;
        address.set_port(port);
        address
    }

    /// Sends one datagram to a port of the server.
    ///
    /// # Errors
    /// What the system refuses. A full buffer is no error: the datagram counts as lost on the way.
    pub(super) fn send(
        &self,
        (bot, socket): (usize, Socket),
        payload: &[u8],
        port: u16,
    ) -> io::Result<()> {
        let to = self.at(port);
        match self.all[bot].sockets[socket as usize].send_to(payload, to) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// What comes next, if it comes before the deadline. The sockets are read in turn, so that a flood at one does not
    /// hide the others.
    pub(super) fn receive(&mut self, deadline: Instant) -> Option<Arrival> {
        let mut buffer = [0; MAX_DATAGRAM];
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return None;
            }
            for _ in 0..2 * self.all.len() {
                self.last = (self.last + 1) % (2 * self.all.len());
                let bot = self.last / 2;
                let received = self.all[bot].sockets[self.last % 2].recv_from(&mut buffer);
                if received.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                    continue;
                }
                let result = received.map(|(length, from)| (from, buffer[..length].to_vec()));
                return Some(Arrival { bot, result });
            }
            // This is edge-triggered: it wakes for what comes after the sockets were read empty. If it fails, the
            // deadline ends the loop.
            let _ = self.poll.poll(&mut self.events, Some(left));
        }
    }
}
