//! What is measured: a relay in a process of its own, and the sockets of the players that it connects.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use crate::support::{Line, Process, udp_socket_at};

/// A relay process and its players.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) process: Process,
    pub(crate) sockets: Vec<PlayerSocket>,
    /// Two for each pair: to the client and to the host.
    pub(crate) flows: Vec<Flow>,
    /// The players' TCP connections: their ids live as long.
    pub(crate) _lines: Vec<Line>,
}

/// The IP of the player with this number. One IP may not open all connections at once, so each has 500 players.
pub(crate) fn player_ip(player: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, u8::try_from(player / 500).expect("some thousand players"), 1).into()
}

/// A player's socket.
pub(crate) struct PlayerSocket {
    pub(crate) udp: UdpSocket,
    /// Bytes that the relay puts in front of what it brings.
    pub(crate) header: usize,
}

/// One player's way to another.
pub(crate) struct Flow {
    /// The number of the sender's socket.
    pub(crate) from: usize,
    /// The relay's address.
    pub(crate) to: SocketAddr,
    /// A TURN channel, whose number stands in front of each payload.
    pub(crate) channel: Option<u16>,
}

impl PlayerSocket {
    pub(crate) fn new(player: usize, header: usize) -> Self {
        Self { udp: udp_socket_at(player_ip(player)), header }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.udp.local_addr().expect("it is bound")
    }

    /// Forgets what came late, and does not wait for more.
    pub(crate) fn discard(&self) {
        self.udp.set_nonblocking(true).expect("a socket");
        while self.udp.recv(&mut [0; 2048]).is_ok() {}
    }
}
