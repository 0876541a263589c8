//! Knows no relay and no wire: who is registered, found by connection, OpenID or PrivateID in one look-up each.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::id::{Alphabet, ConnectionId, OpenId, OpenIdScheme, PrivateId, Random};
use crate::limits::bounds::Bound;
use crate::limits::budgets::{Budget, Budgets};
use crate::limits::network::Network;
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// How often a random id may turn out to be taken before the search is given up.
pub const MAX_DRAWS: usize = 100;

/// How many players may be introduced to one host: each makes it send for seconds. 128 at once, as when a full lobby
/// starts.
pub const INTRODUCTIONS: Budget = Budget { per_second: 8, burst: Duration::from_secs(16) };

/// How many of them one network may ask for: an eighth for long, so that a few strangers do not keep all others away from a
/// host. 64 at once, as when a school joins its teacher.
pub const INTRODUCTIONS_PER_NETWORK: Budget =
    Budget { per_second: 1, burst: Duration::from_secs(64) };

/// How many wrong OpenIDs one network may name. A thousand players behind one carrier's IP who each mistype one in a
/// quarter of an hour are just within it, and 120 at once, as when a whole school mistypes.
pub const WRONG_OIDS: Budget = Budget { per_second: 1, burst: Duration::from_secs(120) };

/// How often players of one network, whose UDP comes from elsewhere, may `connect`. Their address may be forged, and
/// each time a host sends there for seconds. Few are honest: their carrier has several IPs.
pub const UNCONFIRMED_CONNECTS: Budget = Budget { per_second: 1, burst: Duration::from_secs(16) };

/// How often one player's address may change: routers do it seldom, and each of its relays follows.
pub const MOVES: Budget = Budget { per_second: 2, burst: Duration::from_secs(10) };

/// Ports below this are those of services, and no router's external ports.
const FIRST_PLAYERS_PORT: u16 = 1024;

/// How the ids of new players look.
#[derive(Clone, Debug)]
pub struct IdScheme {
    /// The public ids.
    pub open: OpenIdScheme,
    /// The characters of the secret ids.
    pub private_alphabet: Alphabet,
    /// The length of the secret ids, in characters.
    pub private_length: usize,
}

/// One registered player. Every player is a host in the protocol's words, clients too.
#[derive(Clone, Debug)]
pub struct Host {
    /// The join code.
    pub open_id: OpenId,
    /// The secret that the registrar takes.
    pub private_id: PrivateId,
    /// Where the player's connection comes from.
    pub connected_from: IpAddr,
    /// The player's external address, once the registrar has seen it.
    pub address: Option<SocketAddr>,
    /// How many players have been introduced to it lately, in all and by network.
    introductions: TokenBucket,
    introduced_networks: Budgets,
    /// How often its address has changed lately.
    moves: TokenBucket,
}

impl Host {
    /// Whether the player's UDP can come from `source`. From the same network as its connection: yes. From another, only
    /// if that could be a player's on the internet: a forged source must not make the server speak with services, or
    /// with machines that only the server can reach.
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
    /// Too many wrong OpenIDs came from that network to be told whether this one is right.
    TooManyGuesses,
}

/// No unused id was found in [`MAX_DRAWS`] draws.
#[derive(Debug, PartialEq, Eq)]
pub struct IdsExhausted;

/// What an address registration did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The player's first address.
    First(ConnectionId, OpenId),
    /// Another address than before took its place.
    Moved(ConnectionId, OpenId),
    /// Another address, too soon after others: nothing has changed.
    TooManyMoves,
    /// An address where that player cannot be, as one whose connection comes from there: most likely forged.
    Implausible(OpenId, IpAddr),
    /// The same address again.
    Repeated,
    /// Nobody has that PrivateID, or nobody can have that address.
    Unknown,
}

/// The registered players.
///
/// Invariant: the three maps name the same players; OpenIDs are unique among them.
///
/// How long a look-up takes tells nothing of how much of a guessed PrivateID is right: the whole of it goes through a hash
/// with a random key, and is compared only with ids whose hash agrees with its own in part, which nobody can aim at.
#[derive(Debug)]
pub struct Hosts {
    scheme: IdScheme,
    by_connection: HashMap<ConnectionId, Host>,
    by_open_id: HashMap<OpenId, ConnectionId>,
    by_private_id: HashMap<PrivateId, ConnectionId>,
    guesses: Budgets,
    unconfirmed_connects: Budgets,
}

impl Hosts {
    /// Nobody yet.
    pub fn new(scheme: IdScheme) -> Self {
        Self {
            scheme,
            by_connection: HashMap::new(),
            by_open_id: HashMap::new(),
            by_private_id: HashMap::new(),
            guesses: Budgets::new(WRONG_OIDS),
            unconfirmed_connects: Budgets::new(UNCONFIRMED_CONNECTS),
        }
    }

    /// How the ids of players that register from now on look.
    pub fn set_scheme(&mut self, scheme: IdScheme) {
        self.scheme = scheme;
    }

    /// Gives the player, ids, or the same ones again.
    ///
    /// # Errors
    /// [`IdsExhausted`] if the OpenIDs are so short that chance found none that is free.
    pub fn register(
        &mut self,
        player: ConnectionId,
        connected_from: IpAddr,
        random: &mut impl Random,
    ) -> Result<&Host, IdsExhausted> {
        if !self.by_connection.contains_key(&player) {
            let host = self.new_host(connected_from, random)?;
            self.by_open_id.insert(host.open_id.clone(), player);
            self.by_private_id.insert(host.private_id.clone(), player);
            self.by_connection.insert(player, host);
        }
        Ok(&self.by_connection[&player])
    }

    fn new_host(
        &self,
        connected_from: IpAddr,
        random: &mut impl Random,
    ) -> Result<Host, IdsExhausted> {
        let open_id = (0..MAX_DRAWS)
            .map(|_| self.scheme.open.sample(random))
            .find(|id| !self.by_open_id.contains_key(id))
            .ok_or(IdsExhausted)?;
        let private_id = (0..MAX_DRAWS)
            .map(|_| self.scheme.private_alphabet.sample(self.scheme.private_length, random))
            .find(|text| !self.by_private_id.contains_key(text.as_str()))
            .ok_or(IdsExhausted)?;
        Ok(Host {
            open_id,
            private_id: PrivateId::new(&private_id),
            connected_from,
            address: None,
            introductions: TokenBucket::default(),
            introduced_networks: Budgets::new(INTRODUCTIONS_PER_NETWORK),
            moves: TokenBucket::default(),
        })
    }

    /// Notes `source` as the external address of the player with that PrivateID.
    pub fn register_address(
        &mut self,
        private_id: &str,
        source: SocketAddr,
        now: Timestamp,
    ) -> Registration {
        let Some(player) = self.by_private_id.get(private_id) else {
            return Registration::Unknown;
        };
        let host = self.by_connection.get_mut(player).expect("the maps name the same players");
        if !host.can_be_at(source) {
            return Registration::Implausible(host.open_id.clone(), host.connected_from);
        }
        if host.address == Some(source) {
            return Registration::Repeated;
        }
        if host.address.is_none() {
            host.address = Some(source);
            return Registration::First(*player, host.open_id.clone());
        }
        if !host.moves.has_tokens(MOVES.burst, now) {
            return Registration::TooManyMoves;
        }
        host.moves.charge(1, MOVES.per_second, now);
        host.address = Some(source);
        Registration::Moved(*player, host.open_id.clone())
    }

    /// Forgets the player and its ids.
    pub fn remove(&mut self, player: ConnectionId) -> Option<Host> {
        let host = self.by_connection.remove(&player)?;
        self.by_open_id.remove(&host.open_id);
        self.by_private_id.remove(&host.private_id);
        Some(host)
    }

    /// The player of a connection, if it has registered.
    pub fn by_connection(&self, player: ConnectionId) -> Option<&Host> {
        self.by_connection.get(&player)
    }

    /// The connected player with that OpenID, for somebody in `network` who asks for it.
    ///
    /// # Errors
    /// If there is none, or the network has named too many wrong ones.
    pub fn find(
        &mut self,
        open_id: &OpenId,
        network: Network,
        now: Timestamp,
    ) -> Result<(ConnectionId, &Host), NotFound> {
        if !self.guesses.has_left(network, now) {
            return Err(NotFound::TooManyGuesses);
        }
        let Some(player) = self.by_open_id.get(open_id) else {
            self.guesses.charge(network, now);
            return Err(NotFound::Unknown);
        };
        Ok((*player, &self.by_connection[player]))
    }

    /// Whether a player of `network` may be introduced to the host.
    ///
    /// # Errors
    /// The bound that is reached.
    pub fn may_introduce(
        &self,
        host: ConnectionId,
        network: Network,
        now: Timestamp,
    ) -> Result<(), Bound> {
        let host = &self.by_connection[&host];
        if !host.introduced_networks.has_left(network, now) {
            return Err(Bound::IntroductionsPerIp);
        }
        let has_left = host.introductions.has_tokens(INTRODUCTIONS.burst, now);
        if has_left { Ok(()) } else { Err(Bound::Introductions) }
    }

    /// A player of `network` is introduced to the host.
    pub fn note_introduction(&mut self, host: ConnectionId, network: Network, now: Timestamp) {
        if let Some(host) = self.by_connection.get_mut(&host) {
            host.introduced_networks.charge(network, now);
            host.introductions.charge(1, INTRODUCTIONS.per_second, now);
        }
    }

    /// Counts one more `connect` with an address that may be forged, of a player of `network`.
    ///
    /// # Errors
    /// The bound that is reached; then nothing is counted.
    pub fn connect_unconfirmed(&mut self, network: Network, now: Timestamp) -> Result<(), Bound> {
        if !self.unconfirmed_connects.has_left(network, now) {
            return Err(Bound::UnconfirmedConnects);
        }
        self.unconfirmed_connects.charge(network, now);
        Ok(())
    }

    /// Forgets the networks that have used up nothing lately.
    pub fn forget_networks(&mut self, now: Timestamp) {
        self.guesses.forget(now);
        self.unconfirmed_connects.forget(now);
    }

    /// How many entries the tables have: players by OpenID, by PrivateID, and networks that have named wrong OpenIDs or
    /// have unconfirmed players.
    pub fn entries(&self) -> [usize; 3] {
        let networks = self.guesses.len() + self.unconfirmed_connects.len();
        [self.by_open_id.len(), self.by_private_id.len(), networks]
    }

    /// How many players are registered.
    pub fn len(&self) -> usize {
        self.by_connection.len()
    }

    /// Whether nobody is registered.
    pub fn is_empty(&self) -> bool {
        self.by_connection.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::id::testing::Seeded;

    fn hosts(open_id_length: usize) -> (Hosts, Seeded) {
        let alphabet: Alphabet = "abcd".parse().unwrap();
        let scheme = IdScheme {
            open: OpenIdScheme::characters(String::new(), alphabet.clone(), open_id_length),
            private_alphabet: alphabet,
            private_length: 20,
        };
        (Hosts::new(scheme), Seeded::new(1))
    }

    fn home() -> IpAddr {
        IpAddr::from([192, 0, 2, 1])
    }

    #[test]
    fn a_second_registration_gives_the_same_ids() {
        let (mut hosts, mut random) = hosts(8);
        let first = hosts.register(ConnectionId(1), home(), &mut random).unwrap().clone();
        let again = hosts.register(ConnectionId(1), home(), &mut random).unwrap();
        assert_eq!((&first.open_id, &first.private_id), (&again.open_id, &again.private_id));
        assert_eq!(hosts.len(), 1);
    }

    #[test]
    fn open_ids_are_unique_until_there_are_no_more() {
        let (mut hosts, mut random) = hosts(1);
        for player in 0..4 {
            hosts.register(ConnectionId(player), home(), &mut random).unwrap();
        }
        assert_eq!(hosts.register(ConnectionId(4), home(), &mut random).unwrap_err(), IdsExhausted);
        hosts.remove(ConnectionId(2)).unwrap();
        hosts.register(ConnectionId(5), home(), &mut random).unwrap();
    }

    #[test]
    fn addresses_are_first_then_repeated_then_moved() {
        let (mut hosts, mut random) = hosts(8);
        let host = hosts.register(ConnectionId(1), home(), &mut random).unwrap().clone();
        let (here, there) = ("192.0.2.1:1000".parse().unwrap(), "192.0.2.1:1001".parse().unwrap());
        let secret = host.private_id.reveal();
        let id = host.open_id.clone();
        assert_eq!(
            hosts.register_address(secret, here, Timestamp::START),
            Registration::First(ConnectionId(1), id.clone())
        );
        assert_eq!(hosts.register_address(secret, here, Timestamp::START), Registration::Repeated);
        assert_eq!(
            hosts.register_address(secret, there, Timestamp::START),
            Registration::Moved(ConnectionId(1), id)
        );
        assert_eq!(hosts.register_address("abcd", here, Timestamp::START), Registration::Unknown);
        assert_eq!(hosts.by_connection(ConnectionId(1)).unwrap().address, Some(there));
    }

    #[test]
    fn an_address_changes_only_so_often() {
        let (mut hosts, mut random) = hosts(8);
        let host = hosts.register(ConnectionId(1), home(), &mut random).unwrap().clone();
        let mut register = |port: u16, millis: u64| {
            let now = Timestamp::START + Duration::from_millis(millis);
            let source = SocketAddr::new([192, 0, 2, 1].into(), port);
            hosts.register_address(host.private_id.reveal(), source, now)
        };
        register(1000, 0);
        let moved = (0..100).filter(|n| matches!(register(2000 + n, 0), Registration::Moved(..)));
        assert_eq!(moved.count(), 20, "a burst");
        assert_eq!(register(9999, 0), Registration::TooManyMoves);
        assert_eq!(register(2019, 0), Registration::Repeated, "the last that counted");
        assert!(matches!(register(9999, 500), Registration::Moved(..)));
    }

    #[test]
    fn a_forged_source_does_not_lead_to_services_or_into_the_servers_own_network() {
        let (mut hosts, mut random) = hosts(8);
        let inside = IpAddr::from([10, 0, 0, 7]);
        let connected_from = [home(), inside];
        for (player, sources) in [
            (0, ["192.0.2.1:53 +", "192.0.2.9:53 -", "192.0.2.9:1024 +", "10.0.0.2:5353 -"]),
            (1, ["10.0.0.7:53 +", "10.0.0.2:53 -", "10.0.0.2:5353 +", "192.0.2.9:5353 +"]),
        ] {
            let from = connected_from[player];
            let player = ConnectionId(player as u64);
            let host = hosts.register(player, from, &mut random).unwrap().clone();
            for (second, source) in (0..).zip(sources) {
                let now = Timestamp::START + Duration::from_secs(second);
                let (source, sign) = source.split_once(' ').unwrap();
                let secret = host.private_id.reveal();
                let registration = hosts.register_address(secret, source.parse().unwrap(), now);
                let is_refused = matches!(registration, Registration::Implausible(..));
                assert_eq!(is_refused, sign == "-", "{source}");
            }
        }
    }

    #[test]
    fn one_network_uses_up_a_part_of_a_hosts_introductions() {
        let (mut hosts, mut random) = hosts(8);
        let [stranger, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|ip| IpAddr::from(ip).into());
        hosts.register(ConnectionId(1), home(), &mut random).unwrap();
        let mut introduce = |network, now| {
            let is_allowed = hosts.may_introduce(ConnectionId(1), network, now).is_ok();
            if is_allowed {
                hosts.note_introduction(ConnectionId(1), network, now);
            }
            u32::from(is_allowed)
        };
        let (mut of_stranger, mut of_other) = (0, 0);
        for tenth in 0..600 {
            let now = Timestamp::START + Duration::from_millis(100 * tenth);
            for _ in 0..10 {
                of_stranger += introduce(stranger, now);
            }
            // One a second, after all of the stranger's.
            if tenth % 10 == 9 {
                of_other += introduce(other, now);
            }
        }
        assert_eq!(of_other, 60, "all of them");
        assert!((123..=125).contains(&of_stranger), "{of_stranger}: 1 a second and 64 at once");
    }

    #[test]
    fn who_leaves_loses_both_ids_at_once() {
        let (mut hosts, mut random) = hosts(8);
        let host = hosts.register(ConnectionId(1), home(), &mut random).unwrap().clone();
        hosts.remove(ConnectionId(1)).unwrap();
        let found = hosts.find(&host.open_id, home().into(), Timestamp::START);
        assert_eq!(found.err(), Some(NotFound::Unknown));
        let here = "192.0.2.1:1000".parse().unwrap();
        assert_eq!(
            hosts.register_address(host.private_id.reveal(), here, Timestamp::START),
            Registration::Unknown
        );
        assert!(hosts.is_empty());
    }
}
