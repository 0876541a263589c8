//! Inputs: what the shell tells the core, and the core's settings.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::core::host::Host;
use crate::core::id::ConnectionId;
use crate::core::players::{PlayersSettings, Way};
use crate::core::protocol::{Command, CommandKind};
use crate::core::relay::RelaySettings;
use crate::limits::connection_policy::DisconnectReason;

/// What players are told of each other.
#[derive(Clone, Debug)]
pub struct IntroductionSettings {
    /// Whether all players meet through the relay, so that none learns another's IP.
    pub relay_only: bool,
    /// How players reach the server, if its own address is not the right one.
    pub public_host: Option<Host>,
}

/// The core's settings. All of them can change while the server runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the ids of players look, and how long they are kept.
    pub players: PlayersSettings,
    /// What relays may carry, and who may send there.
    pub relay: RelaySettings,
    /// What players are told of each other.
    pub introductions: IntroductionSettings,
    /// How often the core looks for pairs to close.
    pub sweep_interval: Duration,
    /// How long live pairs may go on after a drain starts.
    pub drain_timeout: Duration,
}

/// Something that happened, or that the server must do.
#[derive(Debug)]
pub enum Input<'a> {
    /// A player's connection from that IP was accepted.
    Connected(ConnectionId, IpAddr),
    /// A connection was accepted, but the system gave no thread for it.
    NoThread(ConnectionId),
    /// A player sent a line.
    Command(ConnectionId, &'a Command),
    /// A player sent a command that is over its rate limit.
    RateLimitedCommand(ConnectionId, CommandKind),
    /// Close a connection, for that reason.
    Disconnect(ConnectionId, DisconnectReason),
    /// A connection has ended.
    Disconnected(ConnectionId),
    /// A datagram arrived at the registrar.
    RegistrarDatagram {
        /// Between which addresses it came.
        way: Way,
        /// The datagram's content.
        payload: &'a [u8],
    },
    /// The machine has these IPs now.
    OwnIps(BTreeSet<IpAddr>),
    /// Use other settings from now on.
    Reload(Box<Settings>),
    /// Start nothing new, and end when the relays are quiet.
    Drain,
    /// The time of [`Core::next_deadline`](crate::core::Core::next_deadline) has come.
    Deadline,
}
