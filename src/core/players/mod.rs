//! The table of connections and registered players. It finds a player by connection, OpenID or PrivateID.

mod absences;
mod address;
mod codes;
mod invariants;
mod limits;
mod player;
mod snapshot;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::id::{ConnectionId, IdScheme, OpenId, PlayerId, PrivateId, Random};
use crate::limits::network::Network;
use crate::limits::network_rate::NetworkRateLimiter;
use crate::limits::rates::{UNCONFIRMED_CONNECTS, WRONG_OPEN_IDS};
use crate::limits::share::{HardCap, HeldShares};
use crate::time::Timestamp;
use absences::Absences;
use codes::Codes;

pub use address::{AddressRegistration, Way};
pub use player::{Ids, MAX_IDS, Player, Presence};
pub use snapshot::PlayersSnapshot;

/// How many random ids are tried at most until one is unused.
pub const MAX_DRAWS: usize = 100;

/// The settings of the table.
#[derive(Clone, Debug)]
pub struct PlayersSettings {
    /// How the ids look of players that register from now on.
    pub id_scheme: IdScheme,
    /// How long the ids of a player are kept for it whose connection has ended.
    pub resume_window: Duration,
    /// How many connections there may be: so many players may be away, and so many further ids may be in use.
    pub max_connections: usize,
    /// How many of these may be of one network, beside its share.
    pub max_per_network: HardCap,
}

/// A TCP connection that the core was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// The IP that it comes from. It cannot be forged.
    pub from: IpAddr,
    /// The player that registered on it, if any.
    pub player: Option<PlayerId>,
}

/// Why a host was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// No player has that OpenID.
    Unknown,
    /// The network has named too many wrong OpenIDs. It is not told whether this one exists.
    TooManyGuesses,
}

/// No unused id was found in [`MAX_DRAWS`] draws.
#[derive(Debug, PartialEq, Eq)]
pub struct IdsExhausted;

/// A player that goes on on another connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Resumption {
    /// The ids by which it was found.
    pub ids: Ids,
    /// The connection that it was on until now, if that had not ended. The table has forgotten it.
    pub replaced: Option<ConnectionId>,
}

/// A player whose connection has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Departure {
    /// The player.
    pub player: PlayerId,
    /// Its join code.
    pub open_id: OpenId,
}

/// All connections, and the players that have registered on them. A player whose connection has ended is away: its ids
/// are kept for it for a while.
///
/// Invariant: all maps name the same players, and each OpenID belongs to one player.
///
/// The time of a look-up does not tell how much of a guessed PrivateID is right. The map hashes the whole guess with a
/// random key and compares it only with ids that have a similar hash. An attacker cannot choose such a guess.
#[derive(Debug)]
pub struct Players {
    settings: PlayersSettings,
    next_id: PlayerId,
    connections: HashMap<ConnectionId, ConnectionInfo>,
    players: HashMap<PlayerId, Player>,
    codes: Codes,
    by_private_id: HashMap<PrivateId, PlayerId>,
    absences: Absences,
    /// The ids that players have beside their newest.
    further_ids: HeldShares,
    wrong_open_ids: NetworkRateLimiter,
    unconfirmed_connects: NetworkRateLimiter,
}

impl Players {
    /// A table without connections and players.
    pub fn new(settings: PlayersSettings) -> Self {
        Self {
            next_id: PlayerId::MIN,
            connections: HashMap::new(),
            players: HashMap::new(),
            codes: Codes::default(),
            by_private_id: HashMap::new(),
            absences: Absences::new(settings.max_connections),
            further_ids: HeldShares::new(settings.max_connections),
            wrong_open_ids: NetworkRateLimiter::new(WRONG_OPEN_IDS),
            unconfirmed_connects: NetworkRateLimiter::new(UNCONFIRMED_CONNECTS),
            settings,
        }
    }

    /// Replaces the settings. Ids that are in use stay.
    pub fn set_settings(&mut self, settings: PlayersSettings) {
        self.absences.set_capacity(settings.max_connections);
        self.further_ids.set_capacity(settings.max_connections);
        self.settings = settings;
    }

    /// Adds a connection that was accepted.
    pub fn add_connection(&mut self, connection: ConnectionId, from: IpAddr) {
        self.connections.insert(connection, ConnectionInfo { from, player: None });
    }

    /// Removes a connection that has ended. Returns the player that was on it. Its ids are kept for it, if there is room.
    pub fn remove_connection(
        &mut self,
        connection: ConnectionId,
        now: Timestamp,
    ) -> Option<Departure> {
        let id = self.connections.remove(&connection)?.player?;
        let player = self.players.get_mut(&id).expect("a connection names a player");
        let (open_id, network) = (player.open_id().clone(), player.connected_from.into());
        let has_room = self.absences.has_room(network, self.settings.max_per_network);
        if has_room && !self.settings.resume_window.is_zero() {
            player.presence = Presence::Away(now);
            self.absences.begin(id, network, now);
        } else {
            self.remove(id);
        }
        Some(Departure { player: id, open_id })
    }

    /// When the next player that is away is forgotten; `None` if all are connected.
    pub fn next_end_of_absence(&self) -> Option<Timestamp> {
        self.absences.first().map(|(since, _)| since + self.settings.resume_window)
    }

    /// Forgets the players that have been away for the resume window. Returns their join codes.
    pub fn forget_absent(&mut self, now: Timestamp) -> Vec<OpenId> {
        let mut forgotten = Vec::new();
        while let Some((since, id)) = self.absences.first()
            && now.since(since) >= self.settings.resume_window
        {
            forgotten.extend(self.remove(id).map(|player| player.open_id().clone()));
        }
        forgotten
    }

    /// Removes a player, whose ids are not valid any more.
    fn remove(&mut self, id: PlayerId) -> Option<Player> {
        let player = self.players.remove(&id)?;
        for ids in &player.ids {
            self.codes.remove(&ids.open_id);
            self.by_private_id.remove(&ids.private_id);
        }
        (0..player.further_ids()).for_each(|_| self.further_ids.give_back(player.network));
        if let Presence::Away(since) = player.presence {
            self.absences.end(id, player.connected_from.into(), since);
        }
        Some(player)
    }

    /// Gives the player on a connection new ids. Earlier ones stay valid, at most [`MAX_IDS`] and as many as are its
    /// network's share.
    ///
    /// # Errors
    /// [`IdsExhausted`] if [`MAX_DRAWS`] random ids were all in use, because ids are too short.
    ///
    /// # Panics
    /// If there is no such connection.
    pub fn register(
        &mut self,
        connection: ConnectionId,
        random: &mut impl Random,
    ) -> Result<&Player, IdsExhausted> {
        let ids = self.draw(random)?;
        let ConnectionInfo { from, player } = self.connections[&connection];
        let id = match player {
            Some(id) => {
                self.add_ids(id, ids);
                id
            }
            None => {
                let player = Player::new(self.next_id, connection, from, ids);
                self.insert(player)
            }
        };
        Ok(&self.players[&id])
    }

    fn draw(&self, random: &mut impl Random) -> Result<Ids, IdsExhausted> {
        let IdScheme { open, private_alphabet, private_length } = &self.settings.id_scheme;
        let spelling = open.spelling();
        let open_id = (0..MAX_DRAWS)
            .map(|_| open.sample(random))
            .find(|id| open.allows(id) && self.codes.is_free(id, spelling))
            .ok_or(IdsExhausted)?;
        let private_id = (0..MAX_DRAWS)
            .map(|_| private_alphabet.sample(*private_length, random))
            .find(|text| !self.by_private_id.contains_key(text.as_str()))
            .ok_or(IdsExhausted)?;
        Ok(Ids { open_id, spelling, private_id: PrivateId::new(&private_id) })
    }

    /// Gives a player further ids. If it may not have more, its oldest are not valid any more.
    fn add_ids(&mut self, id: PlayerId, ids: Ids) {
        self.index(id, &ids);
        let player = self.players.get_mut(&id).expect("a connection names a player");
        player.ids.push(ids);
        let network = player.network;
        if player.ids.len() <= MAX_IDS
            && self.further_ids.has_room(network, self.settings.max_per_network)
        {
            self.further_ids.take(network);
        } else {
            let Ids { open_id, private_id, .. } = player.ids.remove(0);
            self.codes.remove(&open_id);
            self.by_private_id.remove(&private_id);
        }
    }

    /// Lets a player be found by its ids.
    fn index(&mut self, id: PlayerId, ids: &Ids) {
        self.codes.insert(ids.open_id.clone(), ids.spelling, id);
        self.by_private_id.insert(ids.private_id.clone(), id);
    }

    fn insert(&mut self, player: Player) -> PlayerId {
        let id = player.id;
        self.next_id = self.next_id.max(PlayerId(id.0 + 1));
        player.ids.iter().for_each(|ids| self.index(id, ids));
        (0..player.further_ids()).for_each(|_| self.further_ids.take(player.network));
        match player.presence {
            Presence::Connected(connection) => {
                let connection = self.connections.get_mut(&connection);
                connection.expect("a player's connection was added").player = Some(id);
            }
            Presence::Away(since) => {
                self.absences.begin(id, player.connected_from.into(), since);
            }
        }
        self.players.insert(id, player);
        id
    }

    /// Lets the player with that PrivateID go on on a connection. Nobody can know whether its earlier connection still
    /// works, so the newer one always wins. `None` if no player has that PrivateID.
    ///
    /// # Panics
    /// If there is no such connection. If another player is on it, that one must have given it up before.
    pub fn resume(&mut self, connection: ConnectionId, private_id: &str) -> Option<Resumption> {
        let id = *self.by_private_id.get(private_id)?;
        let from = self.connections[&connection].from;
        let player = self.players.get_mut(&id).expect("the maps name the same players");
        let ids = player.ids.iter().find(|ids| ids.private_id.reveal() == private_id).cloned();
        let ids = ids.expect("the maps name the same ids");
        let earlier = std::mem::replace(&mut player.presence, Presence::Connected(connection));
        let left = std::mem::replace(&mut player.connected_from, from);
        let mut replaced = None;
        match earlier {
            Presence::Connected(earlier) if earlier == connection => {}
            Presence::Connected(earlier) => {
                self.connections.remove(&earlier);
                replaced = Some(earlier);
            }
            Presence::Away(since) => self.absences.end(id, left.into(), since),
        }
        self.connections.insert(connection, ConnectionInfo { from, player: Some(id) });
        Some(Resumption { ids, replaced })
    }

    /// Removes the player on a connection, which goes on with another one. Its ids are not kept: nobody has lost it.
    pub fn give_up(&mut self, connection: ConnectionId) -> Option<Departure> {
        let id = self.connections.get_mut(&connection)?.player.take()?;
        let open_id = self.remove(id)?.open_id().clone();
        Some(Departure { player: id, open_id })
    }

    /// The player with that PrivateID.
    pub fn by_private_id(&self, private_id: &str) -> Option<&Player> {
        self.players.get(self.by_private_id.get(private_id)?)
    }

    /// A connection that was added and not removed.
    pub fn connection(&self, connection: ConnectionId) -> Option<ConnectionInfo> {
        self.connections.get(&connection).copied()
    }

    /// The player on a connection, if it has registered.
    pub fn by_connection(&self, connection: ConnectionId) -> Option<&Player> {
        self.players.get(&self.connections.get(&connection)?.player?)
    }

    /// A registered player.
    pub fn by_id(&self, player: PlayerId) -> Option<&Player> {
        self.players.get(&player)
    }

    /// Finds the player with that OpenID, however it is written, for a player in `network` who names it.
    ///
    /// # Errors
    /// If there is no such player, or if the network has named too many wrong OpenIDs.
    pub fn find(
        &mut self,
        open_id: &OpenId,
        network: Network,
        now: Timestamp,
    ) -> Result<&Player, NotFound> {
        if !self.wrong_open_ids.has_tokens(network, now) {
            return Err(NotFound::TooManyGuesses);
        }
        let Some(player) = self.codes.find(open_id) else {
            self.wrong_open_ids.charge(network, now);
            return Err(NotFound::Unknown);
        };
        Ok(&self.players[&player])
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many networks the rate limits for wrong OpenIDs and for unconfirmed `connect` remember.
    pub fn networks(&self) -> usize {
        self.wrong_open_ids.len() + self.unconfirmed_connects.len()
    }

    /// How many OpenIDs are in use.
    pub fn open_ids(&self) -> usize {
        self.codes.len()
    }

    /// How many PrivateIDs are in use.
    pub fn private_ids(&self) -> usize {
        self.by_private_id.len()
    }

    /// How many players are registered and connected.
    pub fn connected(&self) -> usize {
        self.players.len() - self.absences.len()
    }

    /// How many players are away.
    pub fn absent(&self) -> usize {
        self.absences.len()
    }
}

#[cfg(test)]
mod tests;
