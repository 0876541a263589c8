//! Effects: what the core tells the shell to do, to count and to log.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::id::{ConnectionId, OpenId};
use crate::core::players::{AddressRegistration, Departure};
use crate::core::protocol::{CommandKind, Reply};
use crate::core::relay::{ClosedPair, RelayLimit, RelayPort};
use crate::limits::bounds::Bound;
use crate::limits::connection_policy::DisconnectReason;

/// Effects, in the order in which the shell must carry them out.
pub type Effects = VecDeque<Effect>;

/// One thing that the shell must do, count or log.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write this to a player's connection.
    Tell(ConnectionId, Reply),
    /// End a connection.
    Close(ConnectionId, CloseMode),
    /// Send a datagram from the registrar's socket.
    Answer {
        /// The receiver.
        to: SocketAddr,
        /// The datagram's payload.
        answer: &'static [u8],
    },
    /// The player on this connection has ids now.
    PlayerRegistered(ConnectionId, OpenId),
    /// The player goes on on this connection.
    PlayerResumed(ConnectionId, OpenId),
    /// A registered player's connection has ended.
    PlayerLeft(Departure),
    /// A player did not come back in time: its ids are not valid any more.
    PlayerForgotten(OpenId),
    /// A datagram arrived at the registrar.
    AddressRegistration {
        /// Where it came from.
        source: SocketAddr,
        /// What it changed.
        registration: AddressRegistration,
    },
    /// A pair was opened: two players can be relayed now.
    PairOpened {
        /// The asker's port and the host's port.
        ports: [RelayPort; 2],
        /// The asker and the host.
        players: [OpenId; 2],
    },
    /// Something else than a datagram changed the pair whose asker has this port. What is offered of it to the kernel's
    /// path may have changed.
    PairChanged(RelayPort),
    /// A pair was closed; its ports are free.
    PairClosed(ClosedPair),
    /// A command was answered with an error.
    CommandFailed {
        /// Where it came from.
        connection: ConnectionId,
        /// Which command it was.
        kind: CommandKind,
        /// The error's token on the wire.
        code: &'static str,
    },
    /// Something was refused because this bound was reached.
    BoundReached(Bound),
    /// The core closes a connection for that reason.
    Disconnect(ConnectionId, DisconnectReason),
    /// A player was told that a relay has reached a limit.
    RelayLimitReached {
        /// The port where the datagram arrived.
        at: RelayPort,
        /// The limit.
        limit: RelayLimit,
        /// The player.
        open_id: OpenId,
    },
    /// Several players were heard only from another IP than the registered one: see [`unheard`](crate::core::unheard).
    /// This is the last of them.
    PartnerElsewhere {
        /// The port where its datagram arrived.
        at: RelayPort,
        /// Where its datagram came from.
        source: IpAddr,
        /// The IP that it registered.
        registered: IpAddr,
    },
    /// The relays of several players carry nothing, because neither player is confirmed.
    PlayersUnconfirmed {
        /// The port where the last of their datagrams arrived.
        at: RelayPort,
    },
    /// A drain has started: the server starts nothing new and waits until its relays are quiet.
    DrainStarted {
        /// How many pairs there are.
        pairs: usize,
        /// How long the server waits at most.
        timeout: Duration,
    },
    /// The server may end.
    DrainEnded,
}

/// How a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// Both directions at once. Replies that the player has not received may be lost.
    AtOnce,
    /// Only the direction to the player, after all replies.
    AfterReplies,
}
