//! A snapshot of the connections and players, so that another process can go on with them.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Ids, Player, Players, PlayersSettings, Presence};
use crate::core::id::{ConnectionId, PlayerId};
use crate::limits::network::Network;
use crate::limits::network_rate::NetworkRateSnapshot;
use crate::limits::rates::INTRODUCTIONS;
use crate::limits::share::{RateShares, RateSharesSnapshot};
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// All connections and players, and the rate limits that belong to them. It holds secrets.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayersSnapshot {
    next_id: PlayerId,
    /// In ascending order, with where they come from.
    connections: Vec<(ConnectionId, IpAddr)>,
    /// In ascending order of their ids.
    players: Vec<PlayerSnapshot>,
    wrong_open_ids: NetworkRateSnapshot,
    unconfirmed_connects: NetworkRateSnapshot,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PlayerSnapshot {
    id: PlayerId,
    presence: Presence,
    connected_from: IpAddr,
    ids: Vec<Ids>,
    network: Network,
    address: Option<SocketAddr>,
    server_ip: Option<IpAddr>,
    introductions: RateSharesSnapshot,
    address_changes: TokenBucket,
    last_repetition: Option<Timestamp>,
}

impl Players {
    /// A snapshot of these players.
    pub fn snapshot(&self) -> PlayersSnapshot {
        let mut connections: Vec<_> =
            self.connections.iter().map(|(id, connection)| (*id, connection.from)).collect();
        connections.sort_unstable_by_key(|(id, _)| *id);
        let mut players: Vec<_> = self.players.values().map(PlayerSnapshot::of).collect();
        players.sort_unstable_by_key(|player| player.id);
        PlayersSnapshot {
            next_id: self.next_id,
            connections,
            players,
            wrong_open_ids: self.wrong_open_ids.snapshot(),
            unconfirmed_connects: self.unconfirmed_connects.snapshot(),
        }
    }

    /// Restores the players of a snapshot.
    ///
    /// # Errors
    /// If two players share an id or a connection, or a player has no ids or a connection that is missing.
    pub fn restore(snapshot: PlayersSnapshot, settings: PlayersSettings) -> Result<Self, String> {
        let mut players = Self::new(settings);
        for (id, from) in snapshot.connections {
            players.add_connection(id, from);
        }
        for player in snapshot.players {
            if !players.can_have(&player) {
                return Err(format!(
                    "player {:?} has an id or a connection that it cannot have",
                    player.id
                ));
            }
            players.insert(player.into_player());
        }
        players.next_id = players.next_id.max(snapshot.next_id);
        players.wrong_open_ids.restore(snapshot.wrong_open_ids);
        players.unconfirmed_connects.restore(snapshot.unconfirmed_connects);
        Ok(players)
    }

    /// Whether nobody has an id or the connection of that player.
    fn can_have(&self, player: &PlayerSnapshot) -> bool {
        let is_connection_free = match player.presence {
            Presence::Connected(connection) => {
                self.connections.get(&connection).is_some_and(|c| c.player.is_none())
            }
            Presence::Away(_) => true,
        };
        let are_free = player.ids.iter().all(|ids| {
            self.codes.is_free(&ids.open_id, ids.spelling)
                && !self.by_private_id.contains_key(&ids.private_id)
        });
        let is_new = !self.players.contains_key(&player.id);
        is_connection_free && are_free && is_new && !player.ids.is_empty()
    }
}

impl PlayerSnapshot {
    fn of(player: &Player) -> Self {
        Self {
            id: player.id,
            presence: player.presence,
            connected_from: player.connected_from,
            ids: player.ids.clone(),
            network: player.network,
            address: player.address,
            server_ip: player.server_ip,
            introductions: player.introductions.snapshot(),
            address_changes: player.address_changes,
            last_repetition: player.last_repetition,
        }
    }

    fn into_player(self) -> Player {
        let mut introductions = RateShares::new(INTRODUCTIONS);
        introductions.restore(self.introductions);
        Player {
            id: self.id,
            presence: self.presence,
            connected_from: self.connected_from,
            ids: self.ids,
            network: self.network,
            address: self.address,
            server_ip: self.server_ip,
            introductions,
            address_changes: self.address_changes,
            last_repetition: self.last_repetition,
        }
    }
}
