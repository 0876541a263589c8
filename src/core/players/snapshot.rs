//! A snapshot of the connections and players, so that another process can go on with them.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{ConnectionInfo, Player, Players};
use crate::core::id::{ConnectionId, IdScheme, OpenId, PlayerId, PrivateId};
use crate::limits::network_rate::NetworkRateSnapshot;
use crate::limits::rates::INTRODUCTIONS;
use crate::limits::share::{RateShares, RateSharesSnapshot};
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// All connections and players, and the rate limits that belong to them. It holds secrets.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayersSnapshot {
    next_id: PlayerId,
    /// In ascending order. The players are in the order of their connections.
    connections: Vec<(ConnectionId, ConnectionInfo)>,
    players: Vec<PlayerSnapshot>,
    wrong_open_ids: NetworkRateSnapshot,
    unconfirmed_connects: NetworkRateSnapshot,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PlayerSnapshot {
    id: PlayerId,
    connection: ConnectionId,
    open_id: OpenId,
    private_id: PrivateId,
    address: Option<SocketAddr>,
    introductions: RateSharesSnapshot,
    address_changes: TokenBucket,
    last_repetition: Option<Timestamp>,
}

impl Players {
    /// A snapshot of these players.
    pub fn snapshot(&self) -> PlayersSnapshot {
        let mut connections: Vec<_> = self.connections.iter().map(|(id, c)| (*id, *c)).collect();
        connections.sort_unstable_by_key(|(id, _)| *id);
        let on = |(_, connection): &(ConnectionId, ConnectionInfo)| connection.player;
        let players =
            connections.iter().filter_map(on).map(|id| PlayerSnapshot::of(&self.players[&id]));
        PlayersSnapshot {
            next_id: self.next_id,
            players: players.collect(),
            connections,
            wrong_open_ids: self.wrong_open_ids.snapshot(),
            unconfirmed_connects: self.unconfirmed_connects.snapshot(),
        }
    }

    /// Restores the players of a snapshot.
    ///
    /// # Errors
    /// If two players share an id or a connection, or a player's connection is missing.
    pub fn restore(snapshot: PlayersSnapshot, scheme: IdScheme) -> Result<Self, String> {
        let mut players = Self::new(scheme);
        for (id, connection) in snapshot.connections {
            players.add_connection(id, connection.from);
        }
        for player in snapshot.players {
            let (id, connection) = (player.id, player.connection);
            let is_free = players.connections.get(&connection).is_some_and(|c| c.player.is_none());
            let is_taken = players.players.contains_key(&id)
                || players.by_open_id.contains_key(&player.open_id)
                || players.by_private_id.contains_key(&player.private_id);
            if is_taken || !is_free {
                return Err(format!("player {id:?} has an id or a connection that it cannot have"));
            }
            let connected_from = players.connections[&connection].from;
            players.insert(player.into_player(connected_from));
        }
        players.next_id = players.next_id.max(snapshot.next_id);
        players.wrong_open_ids.restore(snapshot.wrong_open_ids);
        players.unconfirmed_connects.restore(snapshot.unconfirmed_connects);
        Ok(players)
    }
}

impl PlayerSnapshot {
    fn of(player: &Player) -> Self {
        Self {
            id: player.id,
            connection: player.connection,
            open_id: player.open_id.clone(),
            private_id: player.private_id.clone(),
            address: player.address,
            introductions: player.introductions.snapshot(),
            address_changes: player.address_changes,
            last_repetition: player.last_repetition,
        }
    }

    fn into_player(self, connected_from: IpAddr) -> Player {
        let mut introductions = RateShares::new(INTRODUCTIONS);
        introductions.restore(self.introductions);
        Player {
            id: self.id,
            connection: self.connection,
            connected_from,
            open_id: self.open_id,
            private_id: self.private_id,
            address: self.address,
            introductions,
            address_changes: self.address_changes,
            last_repetition: self.last_repetition,
        }
    }
}
