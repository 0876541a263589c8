//! The table of connections and registered players. It finds a player by connection, OpenID or PrivateID.

mod snapshot;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::core::id::{ConnectionId, IdScheme, OpenId, PlayerId, PrivateId, Random};
use crate::core::relay::Party;
use crate::limits::bounds::Bound;
use crate::limits::network::Network;
use crate::limits::network_rate::NetworkRateLimiter;
use crate::limits::rates::{
    ADDRESS_CHANGES, INTRODUCTIONS, REPETITION_INTERVAL, UNCONFIRMED_CONNECTS, WRONG_OPEN_IDS,
};
use crate::limits::share::RateShares;
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

pub use snapshot::PlayersSnapshot;

/// How many random ids are tried at most until one is unused.
pub const MAX_DRAWS: usize = 100;

/// The lowest external port that a player can have. Lower ports belong to services; routers do not use them for
/// players.
const FIRST_PLAYERS_PORT: u16 = 1024;

/// A TCP connection that the core was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// The IP that it comes from. It cannot be forged.
    pub from: IpAddr,
    /// The player that registered on it, if any.
    pub player: Option<PlayerId>,
}

/// One registered player. The protocol calls every player a host, clients too.
#[derive(Clone, Debug)]
pub struct Player {
    /// Its id, apart from its connection.
    pub id: PlayerId,
    /// The connection on which it gets its replies.
    pub connection: ConnectionId,
    /// The IP that this connection comes from.
    pub connected_from: IpAddr,
    /// The join code.
    pub open_id: OpenId,
    /// The secret with which it registers its address.
    pub private_id: PrivateId,
    /// Its external address, once it is registered.
    pub address: Option<SocketAddr>,
    /// How many players were introduced to it lately, in all and by network.
    introductions: RateShares,
    /// How often its address has changed lately.
    address_changes: TokenBucket,
    /// How often it has registered the same address lately.
    /// When its relays last heard that it had repeated its PrivateID.
    last_repetition: Option<Timestamp>,
}

impl Player {
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
    fn can_be_at(&self, source: SocketAddr) -> bool {
        let [own, other] = [self.connected_from, source.ip()].map(Network::from);
        let is_reachable = other.is_public() || !own.is_public();
        own == other || (is_reachable && source.port() >= FIRST_PLAYERS_PORT)
    }
}

/// Why a host was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// No connected host has that OpenID.
    Unknown,
    /// The network has named too many wrong OpenIDs. It is not told whether this one exists.
    TooManyGuesses,
}

/// No unused id was found in [`MAX_DRAWS`] draws.
#[derive(Debug, PartialEq, Eq)]
pub struct IdsExhausted;

/// What a datagram at the registrar changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressRegistration {
    /// The player registered its first address.
    First(PlayerId, OpenId),
    /// The player registered another address than before.
    Changed(PlayerId, OpenId),
    /// The player registered the same address again. Its id, unless its relays heard of that less than
    /// [`REPETITION_INTERVAL`] ago.
    Repeated(Option<PlayerId>),
    /// The player has changed its address too often lately. The old address stays.
    TooManyChanges,
    /// The player, whose connection comes from that IP, cannot have this address. Most likely it is forged.
    Implausible(OpenId, IpAddr),
    /// No player has that PrivateID, or no player can have that address.
    Unknown,
}

/// All connections, and the players that have registered on them.
///
/// Invariant: all maps name the same players, and each OpenID belongs to one player.
///
/// The time of a look-up does not tell how much of a guessed PrivateID is right. The map hashes the whole guess with a
/// random key and compares it only with ids that have a similar hash. An attacker cannot choose such a guess.
#[derive(Debug)]
pub struct Players {
    scheme: IdScheme,
    next_id: PlayerId,
    connections: HashMap<ConnectionId, ConnectionInfo>,
    players: HashMap<PlayerId, Player>,
    by_open_id: HashMap<OpenId, PlayerId>,
    by_private_id: HashMap<PrivateId, PlayerId>,
    wrong_open_ids: NetworkRateLimiter,
    unconfirmed_connects: NetworkRateLimiter,
}

impl Players {
    /// A table without connections and players.
    pub fn new(scheme: IdScheme) -> Self {
        Self {
            scheme,
            next_id: PlayerId::MIN,
            connections: HashMap::new(),
            players: HashMap::new(),
            by_open_id: HashMap::new(),
            by_private_id: HashMap::new(),
            wrong_open_ids: NetworkRateLimiter::new(WRONG_OPEN_IDS),
            unconfirmed_connects: NetworkRateLimiter::new(UNCONFIRMED_CONNECTS),
        }
    }

    /// Sets how the ids look of players that register from now on.
    pub fn set_scheme(&mut self, scheme: IdScheme) {
        self.scheme = scheme;
    }

    /// Adds a connection that was accepted.
    pub fn add_connection(&mut self, connection: ConnectionId, from: IpAddr) {
        self.connections.insert(connection, ConnectionInfo { from, player: None });
    }

    /// Removes a connection that has ended. Returns the player that was on it, whose ids are not in use any more.
    pub fn remove_connection(&mut self, connection: ConnectionId) -> Option<Player> {
        let player = self.players.remove(&self.connections.remove(&connection)?.player?)?;
        self.by_open_id.remove(&player.open_id);
        self.by_private_id.remove(&player.private_id);
        Some(player)
    }

    /// Gives the player on a connection its ids. On a second call it gets the same ids.
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
        let known = self.connections[&connection];
        let id = match known.player {
            Some(id) => id,
            None => {
                let player = self.new_player(connection, known.from, random)?;
                self.insert(player)
            }
        };
        Ok(&self.players[&id])
    }

    fn new_player(
        &self,
        connection: ConnectionId,
        connected_from: IpAddr,
        random: &mut impl Random,
    ) -> Result<Player, IdsExhausted> {
        let open_id = (0..MAX_DRAWS)
            .map(|_| self.scheme.open.sample(random))
            .find(|id| !self.by_open_id.contains_key(id))
            .ok_or(IdsExhausted)?;
        let private_id = (0..MAX_DRAWS)
            .map(|_| self.scheme.private_alphabet.sample(self.scheme.private_length, random))
            .find(|text| !self.by_private_id.contains_key(text.as_str()))
            .ok_or(IdsExhausted)?;
        Ok(Player {
            id: self.next_id,
            connection,
            connected_from,
            open_id,
            private_id: PrivateId::new(&private_id),
            address: None,
            introductions: RateShares::new(INTRODUCTIONS),
            address_changes: TokenBucket::default(),
            last_repetition: None,
        })
    }

    fn insert(&mut self, player: Player) -> PlayerId {
        let id = player.id;
        self.next_id = self.next_id.max(PlayerId(id.0 + 1));
        let connection = ConnectionInfo { from: player.connected_from, player: Some(id) };
        self.connections.insert(player.connection, connection);
        self.by_open_id.insert(player.open_id.clone(), id);
        self.by_private_id.insert(player.private_id.clone(), id);
        self.players.insert(id, player);
        id
    }

    /// Sets `source` as the external address of the player with that PrivateID, if it can be there.
    pub fn register_address(
        &mut self,
        private_id: &str,
        source: SocketAddr,
        now: Timestamp,
    ) -> AddressRegistration {
        let Some(id) = self.by_private_id.get(private_id) else {
            return AddressRegistration::Unknown;
        };
        let player = self.players.get_mut(id).expect("the maps name the same players");
        if !player.can_be_at(source) {
            return AddressRegistration::Implausible(player.open_id.clone(), player.connected_from);
        }
        let is_first = player.address.is_none();
        if player.address == Some(source) {
            let last = player.last_repetition;
            if last.is_some_and(|last| now.since(last) < REPETITION_INTERVAL) {
                return AddressRegistration::Repeated(None);
            }
            player.last_repetition = Some(now);
            return AddressRegistration::Repeated(Some(*id));
        }
        if !is_first && !player.address_changes.try_acquire(ADDRESS_CHANGES, now) {
            return AddressRegistration::TooManyChanges;
        }
        player.address = Some(source);
        let open_id = player.open_id.clone();
        if is_first {
            AddressRegistration::First(*id, open_id)
        } else {
            AddressRegistration::Changed(*id, open_id)
        }
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

    /// Finds the player with that OpenID, for a player in `network` who names it.
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
        let Some(player) = self.by_open_id.get(open_id) else {
            self.wrong_open_ids.charge(network, now);
            return Err(NotFound::Unknown);
        };
        Ok(&self.players[player])
    }

    /// Checks that a player of `network` may be introduced to the host.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn check_introduction(
        &self,
        host: PlayerId,
        network: Network,
        now: Timestamp,
    ) -> Result<(), Bound> {
        let has_room = self.players[&host].introductions.has_room(network, now);
        if has_room { Ok(()) } else { Err(Bound::Introductions) }
    }

    /// Counts that a player of `network` was introduced to the host.
    pub fn record_introduction(&mut self, host: PlayerId, network: Network, now: Timestamp) {
        if let Some(host) = self.players.get_mut(&host) {
            host.introductions.charge(network, 1.0, now);
        }
    }

    /// Counts a `connect` of a player of `network` whose address may be forged.
    ///
    /// # Errors
    /// The bound that is reached. Then nothing is counted.
    pub fn count_unconfirmed_connect(
        &mut self,
        network: Network,
        now: Timestamp,
    ) -> Result<(), Bound> {
        let is_allowed = self.unconfirmed_connects.try_acquire(network, now);
        if is_allowed { Ok(()) } else { Err(Bound::UnconfirmedConnects) }
    }

    /// Forgets the networks that have all their tokens back. Looks at each network.
    pub fn forget_networks(&mut self, now: Timestamp) {
        self.wrong_open_ids.forget_idle(now);
        self.unconfirmed_connects.forget_idle(now);
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
        self.by_open_id.len()
    }

    /// How many PrivateIDs are in use.
    pub fn private_ids(&self) -> usize {
        self.by_private_id.len()
    }

    /// How many players are registered.
    pub fn len(&self) -> usize {
        self.players.len()
    }

    /// Whether no player is registered.
    pub fn is_empty(&self) -> bool {
        self.players.is_empty()
    }

    /// Checks what must always hold, for tests and simulations.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        assert_eq!(self.by_open_id.len(), self.players.len(), "an OpenID for each player");
        assert_eq!(self.by_private_id.len(), self.players.len(), "a PrivateID for each player");
        for (id, player) in &self.players {
            assert!(*id == player.id && *id < self.next_id);
            assert_eq!(self.by_open_id.get(&player.open_id), Some(id));
            assert_eq!(self.by_private_id.get(&player.private_id), Some(id));
            assert_eq!(self.connections[&player.connection].player, Some(*id));
        }
        let on_connections = self.connections.values().filter(|c| c.player.is_some()).count();
        assert_eq!(on_connections, self.players.len(), "a connection for each player");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::core::id::testing::Seeded;
    use crate::core::id::{Alphabet, OpenIdScheme};

    fn players(open_id_length: usize) -> (Players, Seeded) {
        let alphabet: Alphabet = "abcd".parse().unwrap();
        let scheme = IdScheme {
            open: OpenIdScheme::characters(String::new(), alphabet.clone(), open_id_length),
            private_alphabet: alphabet,
            private_length: 20,
        };
        (Players::new(scheme), Seeded::new(1))
    }

    fn home() -> IpAddr {
        IpAddr::from([192, 0, 2, 1])
    }

    fn register(
        players: &mut Players,
        connection: u64,
        random: &mut Seeded,
    ) -> Result<Player, IdsExhausted> {
        players.add_connection(ConnectionId(connection), home());
        players.register(ConnectionId(connection), random).cloned()
    }

    #[test]
    fn a_second_registration_gives_the_same_ids() {
        let (mut players, mut random) = players(8);
        let first = register(&mut players, 1, &mut random).unwrap();
        let again = players.register(ConnectionId(1), &mut random).unwrap();
        assert_eq!((&first.open_id, &first.private_id), (&again.open_id, &again.private_id));
        assert_eq!(players.len(), 1);
    }

    #[test]
    fn open_ids_are_unique_until_there_are_no_more() {
        let (mut players, mut random) = players(1);
        for player in 0..4 {
            register(&mut players, player, &mut random).unwrap();
        }
        assert_eq!(register(&mut players, 4, &mut random).unwrap_err(), IdsExhausted);
        players.remove_connection(ConnectionId(2)).unwrap();
        register(&mut players, 5, &mut random).unwrap();
    }

    #[test]
    fn an_address_is_first_then_repeated_then_changed() {
        let (mut players, mut random) = players(8);
        let host = register(&mut players, 1, &mut random).unwrap();
        let (here, there) = ("192.0.2.1:1000".parse().unwrap(), "192.0.2.1:1001".parse().unwrap());
        let secret = host.private_id.reveal();
        let id = host.open_id.clone();
        assert_eq!(
            players.register_address(secret, here, Timestamp::START),
            AddressRegistration::First(host.id, id.clone())
        );
        assert_eq!(
            players.register_address(secret, here, Timestamp::START),
            AddressRegistration::Repeated(Some(host.id))
        );
        assert_eq!(
            players.register_address(secret, here, Timestamp::START),
            AddressRegistration::Repeated(None),
            "too soon after the last"
        );
        for (millis, is_told) in [(1999, false), (2000, true), (2100, false)] {
            let now = Timestamp::START + Duration::from_millis(millis);
            assert_eq!(
                players.register_address(secret, here, now),
                AddressRegistration::Repeated(is_told.then_some(host.id)),
                "after {millis} ms"
            );
        }
        assert_eq!(
            players.register_address(secret, there, Timestamp::START),
            AddressRegistration::Changed(host.id, id)
        );
        assert_eq!(
            players.register_address("abcd", here, Timestamp::START),
            AddressRegistration::Unknown
        );
        assert_eq!(players.by_connection(ConnectionId(1)).unwrap().address, Some(there));
    }

    #[test]
    fn address_changes_have_a_rate_limit() {
        let (mut players, mut random) = players(8);
        let host = register(&mut players, 1, &mut random).unwrap();
        let mut register_from = |port: u16, millis: u64| {
            let now = Timestamp::START + Duration::from_millis(millis);
            let source = SocketAddr::new([192, 0, 2, 1].into(), port);
            players.register_address(host.private_id.reveal(), source, now)
        };
        register_from(1000, 0);
        let moved = (0..100)
            .filter(|n| matches!(register_from(2000 + n, 0), AddressRegistration::Changed(..)));
        assert_eq!(moved.count(), 20, "a burst");
        assert_eq!(register_from(9999, 0), AddressRegistration::TooManyChanges);
        assert_eq!(
            register_from(2019, 0),
            AddressRegistration::Repeated(Some(host.id)),
            "the last address that was accepted"
        );
        assert!(matches!(register_from(9999, 500), AddressRegistration::Changed(..)));
    }

    #[test]
    fn a_forged_source_does_not_reach_services_or_the_servers_own_network() {
        let (mut players, mut random) = players(8);
        let inside = IpAddr::from([10, 0, 0, 7]);
        let connected_from = [home(), inside];
        for (player, sources) in [
            (0, ["192.0.2.1:53 +", "192.0.2.9:53 -", "192.0.2.9:1024 +", "10.0.0.2:5353 -"]),
            (1, ["10.0.0.7:53 +", "10.0.0.2:53 -", "10.0.0.2:5353 +", "192.0.2.9:5353 +"]),
        ] {
            let from = connected_from[player];
            let player = ConnectionId(player as u64);
            players.add_connection(player, from);
            let host = players.register(player, &mut random).unwrap().clone();
            for (second, source) in (0..).zip(sources) {
                let now = Timestamp::START + Duration::from_secs(second);
                let (source, sign) = source.split_once(' ').unwrap();
                let secret = host.private_id.reveal();
                let registration = players.register_address(secret, source.parse().unwrap(), now);
                let is_refused = matches!(registration, AddressRegistration::Implausible(..));
                assert_eq!(is_refused, sign == "-", "{source}");
            }
        }
    }

    #[test]
    fn one_network_cannot_use_up_a_hosts_introductions() {
        let (mut players, mut random) = players(8);
        let [stranger, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|ip| IpAddr::from(ip).into());
        let host = register(&mut players, 1, &mut random).unwrap().id;
        let mut introduce = |network, now| {
            let is_allowed = players.check_introduction(host, network, now).is_ok();
            if is_allowed {
                players.record_introduction(host, network, now);
            }
            u32::from(is_allowed)
        };
        let (mut of_stranger, mut of_other) = (0, 0);
        for tenth in 0..600 {
            let now = Timestamp::START + Duration::from_millis(100 * tenth);
            for _ in 0..10 {
                of_stranger += introduce(stranger, now);
            }
            // One a second, after all those of the stranger.
            if tenth % 10 == 9 {
                of_other += introduce(other, now);
            }
        }
        assert_eq!(of_other, 60, "none is refused");
        assert!((370..=430).contains(&of_stranger), "{of_stranger}: most of what all may have");
    }

    #[test]
    fn a_player_that_leaves_loses_both_ids_at_once() {
        let (mut players, mut random) = players(8);
        let host = register(&mut players, 1, &mut random).unwrap();
        players.remove_connection(ConnectionId(1)).unwrap();
        let found = players.find(&host.open_id, home().into(), Timestamp::START);
        assert_eq!(found.err(), Some(NotFound::Unknown));
        let here = "192.0.2.1:1000".parse().unwrap();
        assert_eq!(
            players.register_address(host.private_id.reveal(), here, Timestamp::START),
            AddressRegistration::Unknown
        );
        assert!(players.is_empty());
    }
}
