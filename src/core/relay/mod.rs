//! The rules by which datagrams pass between the two players of a pair.
//!
//! - [`RelayTable`] decides what happens to a datagram and who gets which port,
//! - [`Latch`] follows a player's address as it is seen at one port,
//! - [`PortPool`] knows which ports are free or reserved.

mod latch;
mod pair;
mod port_map;
mod ports;
mod table;

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::label::labels;
use crate::limits::relay::RelayLimits;

pub use latch::{
    ANY_IP_WINDOW, Latch, SEAM, SEAMLESS_ATTEMPTS, SILENCE_BEFORE_LATCHING, TAKE_BACK_WINDOW,
};
pub use port_map::PortMap;
pub use ports::PortPool;
pub use table::{ClosedPair, Introduction, NoRelay, Party, RelaySnapshot, RelayTable};

/// A UDP port of the server that carries one player's side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelayPort(pub u16);

impl fmt::Display for RelayPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is to be done with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send it on, unchanged.
    Forward {
        /// The port that it leaves from: the sender's own of the pair.
        via: RelayPort,
        /// Where the receiver was last seen.
        to: SocketAddr,
    },
    /// Forget it, and count why.
    Drop(DropReason),
}

labels! {
    /// Why a datagram was not relayed.
    pub enum DropReason {
        /// The port carries no pair.
        NoPair = "no-pair",
        /// The source is one that no player can have: port 0, a multicast address, one of the server's own sockets.
        InvalidSource = "invalid-source",
        /// The source's IP is not that of the partner.
        WrongIp = "wrong-ip",
        /// The partner's IP with another port, while the one in place is in use.
        WrongPort = "wrong-port",
        /// Neither player's UDP comes from where its connection does.
        Unconfirmed = "unconfirmed",
        /// The receiver has not been heard yet and has got its allowance.
        ReceiverUnheard = "receiver-unheard",
        /// The receiver has been silent for the idle time.
        ReceiverSilent = "receiver-silent",
        /// The sender is over the rate of one direction of a pair.
        PairBandwidth = "pair-bandwidth",
        /// All relays together are over the server's rate.
        GlobalBandwidth = "global-bandwidth",
        /// The pair is older than it may become.
        LifetimeDuration = "lifetime-duration",
        /// The pair has carried more than it may in its life.
        LifetimeTraffic = "lifetime-traffic",
        /// The kernel's buffer for sending was full.
        SendBufferFull = "send-buffer-full",
        /// The datagram is larger than the receiver's address family or its path takes.
        TooLarge = "too-large",
        /// The kernel refused to send: no route, a firewall.
        SendFailed = "send-failed",
    }
}

impl DropReason {
    /// The limit of its own that a relay has reached, if it was that.
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
            | Self::ReceiverSilent
            | Self::GlobalBandwidth
            | Self::SendBufferFull
            | Self::TooLarge
            | Self::SendFailed => None,
        }
    }
}

labels! {
    /// A limit of one relay, of which its owner is told.
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
    /// Which sources may become a player's address at a relay port (RFC 7362 calls this latching).
    pub enum Latching {
        /// The registered IP with any port ("restricted latching").
        SameIp = "same-ip",
        /// Also any IP, if it is the first that is heard and comes soon after the introduction.
        Any = "any",
        /// Only the registered address.
        Off = "off",
    }
}

/// What of the relays can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelaySettings {
    /// What they may carry.
    pub limits: RelayLimits,
    /// Which sources may become a player's address.
    pub latching: Latching,
}

/// The addresses of the server's own UDP sockets, to which no relay may ever send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    ips: HashSet<IpAddr>,
    has_loopback: bool,
    ports: HashSet<u16>,
}

impl OwnAddresses {
    /// Every combination of the machine's `ips` and the server's UDP `ports`.
    pub fn new(
        ips: impl IntoIterator<Item = IpAddr>,
        ports: impl IntoIterator<Item = u16>,
    ) -> Self {
        let (ips, ports) = (ips.into_iter().collect(), ports.into_iter().collect());
        Self { ips, has_loopback: false, ports }
    }

    /// The same, and all of the loopback network: a server that is bound to every address has those too.
    pub fn and_loopback(self) -> Self {
        Self { has_loopback: true, ..self }
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
