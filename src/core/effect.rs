//! What the core tells the shell to do, to count and to log.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::id::{ConnectionId, OpenId};
use crate::core::players::AddressRegistration;
use crate::core::protocol::{CommandKind, Reply};
use crate::core::relay::{ClosedPair, RelayLimit, RelayPort};
use crate::limits::bounds::Bound;
use crate::limits::connection_policy::DisconnectReason;

/// Effects in the order in which they are to be carried out.
pub type Effects = VecDeque<Effect>;

/// One thing that came of an input.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write this to a player's connection.
    Tell(ConnectionId, Reply),
    /// End a connection.
    Close(ConnectionId, Closing),
    /// Send this from the registrar's socket.
    Answer {
        /// Where to.
        to: SocketAddr,
        /// The datagram's payload.
        answer: &'static [u8],
    },
    /// The player on this connection has ids now.
    PlayerRegistered(ConnectionId, OpenId),
    /// A registered player is gone.
    PlayerLeft(OpenId),
    /// A datagram came to the registrar.
    AddressRegistration {
        /// Where it came from.
        source: SocketAddr,
        /// What it did.
        registration: AddressRegistration,
    },
    /// Two players can be relayed now.
    PairOpened {
        /// The asker's and the host's.
        ports: [RelayPort; 2],
        /// The asker and the host.
        players: [OpenId; 2],
    },
    /// A pair is over; its ports are free.
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
    /// Something was refused because of this bound.
    BoundReached(Bound),
    /// A connection is closed because of what the player did.
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
    /// A datagram came from another IP than that of the partner, who was not heard at that port yet.
    PartnerElsewhere {
        /// The port where it arrived.
        at: RelayPort,
        /// Where it came from.
        source: IpAddr,
        /// Where the partner registered from.
        awaited: IpAddr,
    },
    /// The server begins nothing new and waits for its relays to go quiet.
    DrainStarted {
        /// How many there are.
        pairs: usize,
        /// How long it waits at most.
        timeout: Duration,
    },
    /// The server may end.
    DrainEnded,
}

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// In both directions; what was sent and not read is lost.
    AtOnce,
    /// In the direction to the player, behind what was sent.
    AfterReplies,
}
