//! One registered player.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::core::id::{ConnectionId, OpenId, PlayerId, PrivateId, Spelling};
use crate::core::relay::Party;
use crate::limits::network::Network;
use crate::limits::rates::INTRODUCTIONS;
use crate::limits::share::RateShares;
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// The lowest external port that a player can have. Lower ports belong to services; routers do not use them for
/// players.
const FIRST_PLAYERS_PORT: u16 = 1024;

/// How many pairs of ids a player may have at once. With one more, the oldest are not valid any more.
pub const MAX_IDS: usize = 16;

/// Two ids that a player got together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The join code.
    pub open_id: OpenId,
    /// How people may write it.
    pub(super) spelling: Spelling,
    /// The secret with which the player registers its address and resumes.
    pub private_id: PrivateId,
}

/// Where a player is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// It gets its replies on this connection.
    Connected(ConnectionId),
    /// Its connection ended then. It may come back.
    Away(Timestamp),
}

/// One registered player. The protocol calls every player a host, clients too.
#[derive(Clone, Debug)]
pub struct Player {
    /// Its id, apart from its connection.
    pub id: PlayerId,
    /// Whether it is connected.
    pub presence: Presence,
    /// The IP that its connection comes from, or came from last.
    pub connected_from: IpAddr,
    /// All its ids that are valid, the newest last. There is always one.
    pub(super) ids: Vec<Ids>,
    /// The network of its first connection. Its further ids count for that.
    pub(super) network: Network,
    /// Its external address, once it is registered.
    pub address: Option<SocketAddr>,
    /// The server's address at which its PrivateID arrived last.
    pub server_ip: Option<IpAddr>,
    /// How many players were introduced to it lately, in all and by network.
    pub(super) introductions: RateShares,
    /// How often its address has changed lately.
    pub(super) address_changes: TokenBucket,
    /// When its relays last heard that it had repeated its PrivateID.
    pub(super) last_repetition: Option<Timestamp>,
}

impl Player {
    /// A player that registers on a connection.
    pub(super) fn new(id: PlayerId, connection: ConnectionId, from: IpAddr, ids: Ids) -> Self {
        Self {
            id,
            presence: Presence::Connected(connection),
            connected_from: from,
            ids: vec![ids],
            network: from.into(),
            address: None,
            server_ip: None,
            introductions: RateShares::new(INTRODUCTIONS),
            address_changes: TokenBucket::default(),
            last_repetition: None,
        }
    }

    /// The ids that it got last.
    pub fn ids(&self) -> &Ids {
        self.ids.last().expect("a player has ids")
    }

    /// Its newest join code, by which the log names it.
    pub fn open_id(&self) -> &OpenId {
        &self.ids().open_id
    }

    /// How many ids it has beside the newest.
    pub(super) fn further_ids(&self) -> usize {
        self.ids.len() - 1
    }

    /// Its connection; `None` while it is away.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self.presence {
            Presence::Connected(connection) => Some(connection),
            Presence::Away(_) => None,
        }
    }

    /// The player as a party of an introduction, if its address is registered.
    pub fn as_party(&self) -> Option<Party> {
        let address = self.address?;
        Some(Party { player: self.id, address, connected_from: self.connected_from })
    }

    /// Whether the player's UDP can come from `source`.
    ///
    /// It can come from the network of its connection. From another network, it can come if a player on the internet
    /// could have that address. So a forged source does not make the server send to services, or to machines that only
    /// the server can reach.
    pub(super) fn can_be_at(&self, source: SocketAddr) -> bool {
        let [own, other] = [self.connected_from, source.ip()].map(Network::from);
        let is_reachable = other.is_public() || !own.is_public();
        own == other || (is_reachable && source.port() >= FIRST_PLAYERS_PORT)
    }
}
