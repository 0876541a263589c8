//! The relays: which pairs of players exist, which ports they have, and which datagrams pass between them.
//!
//! - [`RelayTable`] holds the pairs. It gives them ports and decides what happens to a datagram.
//! - [`Latch`] holds a player's address as seen at one port.
//! - [`PortPool`] holds the ports that are free or reserved.
//! - [`Offer`] says what of a pair the kernel may forward by itself.

mod latch;
mod life;
mod offer;
mod pair;
mod party;
mod port_map;
mod ports;
mod sources;
mod sprayers;
mod table;

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::label::labels;
use crate::limits::relay::RelayLimits;

pub use latch::{
    ANY_IP_WINDOW, CLAIMING_DATAGRAMS, GAP_WHILE_SETTLING, LONGEST_GAP, Latch, REBINDING_DATAGRAMS,
    SETTLING_TIME, SILENCE_BEFORE_LATCHING, TAKE_BACK_WINDOW,
};
pub use offer::{Judge, KernelTraffic, Offer};
pub use party::{PairPorts, Party};
pub use port_map::PortMap;
pub use ports::PortPool;
pub use sources::{SOURCE_MEMORY, SOURCES_PER_PORT};
pub use sprayers::{SPRAYED_OTHERS, SPRAYING_WINDOW, WATCHED_SOURCES};
pub use table::{ClosedPair, NoRelay, RegisteredPartner, RelaySnapshot, RelayTable};

/// A UDP port of the server for relays. In a pair, each player has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelayPort(pub u16);

impl fmt::Display for RelayPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the shell must do with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it on unchanged.
    Forward {
        /// The port to send it from: the sender's port of the pair.
        via: RelayPort,
        /// The address at which the receiver was last seen.
        to: SocketAddr,
    },
    /// Drop it and count the reason.
    Drop(DropReason),
}

labels! {
    /// Why a datagram was not relayed.
    pub enum DropReason {
        /// The port belongs to no pair.
        NoPair = "no-pair",
        /// No player can have the source address: port 0, a multicast address, one of the server's own sockets.
        InvalidSource = "invalid-source",
        /// The source's IP is not the partner's.
        WrongIp = "wrong-ip",
        /// The source is another port of the partner's IP, and cannot be the partner.
        WrongPort = "wrong-port",
        /// Neither player's registered address has the IP of its connection.
        Unconfirmed = "unconfirmed",
        /// The receiver has not been heard yet, and was sent as much as an unheard player may be sent, or for as long.
        ReceiverUnheard = "receiver-unheard",
        /// The host is silent towards its askers, and they send more than a silent host may be sent.
        SilentHost = "silent-host",
        /// The host has many pairs, and their askers send it more together than a host may be sent.
        HostBandwidth = "host-bandwidth",
        /// The receiver has been silent for the idle time.
        ReceiverSilent = "receiver-silent",
        /// The sender is over the rate limit of its direction of the pair.
        PairBandwidth = "pair-bandwidth",
        /// All relays together are over the server's rate limit.
        GlobalBandwidth = "global-bandwidth",
        /// The pair is older than its lifetime.
        LifetimeDuration = "lifetime-duration",
        /// The pair has carried more than it may in its life.
        LifetimeTraffic = "lifetime-traffic",
        /// The kernel's send buffer was full.
        SendBufferFull = "send-buffer-full",
        /// The datagram is too large for the receiver's address family or for the path.
        TooLarge = "too-large",
        /// The kernel refused to send: no route, a firewall.
        SendFailed = "send-failed",
    }
}

impl DropReason {
    /// The relay's own limit that was reached, if that is the reason.
    pub const fn limit(self) -> Option<RelayLimit> {
        match self {
            Self::PairBandwidth => Some(RelayLimit::Bandwidth),
            Self::LifetimeDuration => Some(RelayLimit::Lifetime),
            Self::LifetimeTraffic => Some(RelayLimit::Traffic),
            Self::NoPair
            | Self::InvalidSource
            | Self::WrongIp
            | Self::WrongPort
            | Self::Unconfirmed
            | Self::ReceiverUnheard
            | Self::SilentHost
            | Self::HostBandwidth
            | Self::ReceiverSilent
            | Self::GlobalBandwidth
            | Self::SendBufferFull
            | Self::TooLarge
            | Self::SendFailed => None,
        }
    }
}

labels! {
    /// A limit of one relay. Its players are told when it is reached.
    pub enum RelayLimit {
        /// Bytes per second in one direction.
        Bandwidth = "bandwidth",
        /// Time since the introduction.
        Lifetime = "lifetime",
        /// Bytes in both directions since the introduction.
        Traffic = "traffic",
    }
}

labels! {
    /// Latching (RFC 7362): which sources may become a player's address at a relay port.
    pub enum Latching {
        /// The registered IP with any port ("restricted latching").
        SameIp = "same-ip",
        /// Also another IP, if it is the first that is heard and comes soon after the introduction.
        Any = "any",
        /// Only the registered address.
        Off = "off",
    }
}

/// The settings of the relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// How much they may carry.
    pub limits: RelayLimits,
    /// Which sources may become a player's address.
    pub latching: Latching,
}

/// The addresses of the server's own UDP sockets. No relay ever sends to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    ips: HashSet<IpAddr>,
    has_loopback: bool,
    ports: HashSet<u16>,
}

impl OwnAddresses {
    /// Each of the machine's `ips` with each of the server's UDP `ports`.
    pub fn new(
        ips: impl IntoIterator<Item = IpAddr>,
        ports: impl IntoIterator<Item = u16>,
    ) -> Self {
        let (ips, ports) = (ips.into_iter().collect(), ports.into_iter().collect());
        Self { ips, has_loopback: false, ports }
    }

    /// The same and the whole loopback network. A server that is bound to every address is reached there too.
    pub fn and_loopback(self) -> Self {
        Self { has_loopback: true, ..self }
    }

    /// The machine's IPs.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.ips.iter().copied()
    }

    /// Replaces the machine's IPs, which change with its interfaces.
    pub fn set_ips(&mut self, ips: impl IntoIterator<Item = IpAddr>) {
        self.ips = ips.into_iter().collect();
    }

    /// The server has no socket at this port any more.
    pub fn close_port(&mut self, port: RelayPort) {
        self.ports.remove(&port.0);
    }

    /// Whether `source` can be a player's address.
    pub fn allows(&self, source: SocketAddr) -> bool {
        let ip = source.ip();
        let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        let is_own_ip = self.ips.contains(&ip) || (self.has_loopback && ip.is_loopback());
        let is_own = is_own_ip && self.ports.contains(&source.port());
        source.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast && !is_own
    }
}
