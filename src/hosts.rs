//! Knows no relay and no wire: who is registered, found by connection, OpenID or PrivateID in one look-up each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::guesses::Guesses;
use crate::id::{Alphabet, ConnectionId, OpenId, OpenIdScheme, PrivateId, Random};
use crate::network::Network;
use crate::relay::TokenBucket;
use crate::time::Timestamp;

/// How often a random id may turn out to be taken before the search is given up.
pub const MAX_DRAWS: usize = 100;

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
    pub network: Network,
    /// The player's external address, once the registrar has seen it.
    pub address: Option<SocketAddr>,
    /// How many players have been introduced to it lately.
    introductions: TokenBucket,
}

/// How many players per second may be introduced to one host on average: each makes it send for seconds.
pub const INTRODUCTIONS_PER_SECOND: u64 = 8;

/// For how long a host may have saved them up: 128, as when a full lobby starts.
pub const INTRODUCTION_BURST: Duration = Duration::from_secs(16);

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
    /// The same address again.
    Repeated,
    /// Nobody has that PrivateID, or nobody can have that address.
    Unknown,
}

/// The registered players.
///
/// Invariant: the three maps name the same players; OpenIDs are unique among them.
#[derive(Debug)]
pub struct Hosts {
    scheme: IdScheme,
    by_connection: HashMap<ConnectionId, Host>,
    by_open_id: HashMap<OpenId, ConnectionId>,
    by_private_id: HashMap<PrivateId, ConnectionId>,
    guesses: Guesses,
}

impl Hosts {
    /// Nobody yet.
    pub fn new(scheme: IdScheme) -> Self {
        Self {
            scheme,
            by_connection: HashMap::new(),
            by_open_id: HashMap::new(),
            by_private_id: HashMap::new(),
            guesses: Guesses::default(),
        }
    }

    /// How the ids of players that register from now on look.
    pub fn set_scheme(&mut self, scheme: IdScheme) {
        self.scheme = scheme;
    }

    /// Gives the player, whose connection comes from `network`, ids, or the same ones again.
    ///
    /// # Errors
    /// [`IdsExhausted`] if the OpenIDs are so short that chance found none that is free.
    pub fn register(
        &mut self,
        player: ConnectionId,
        network: Network,
        random: &mut impl Random,
    ) -> Result<&Host, IdsExhausted> {
        if !self.by_connection.contains_key(&player) {
            let host = self.new_host(network, random)?;
            self.by_open_id.insert(host.open_id.clone(), player);
            self.by_private_id.insert(host.private_id.clone(), player);
            self.by_connection.insert(player, host);
        }
        Ok(&self.by_connection[&player])
    }

    fn new_host(&self, network: Network, random: &mut impl Random) -> Result<Host, IdsExhausted> {
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
            network,
            address: None,
            introductions: TokenBucket::default(),
        })
    }

    /// Notes `source` as the external address of the player with that PrivateID.
    pub fn register_address(&mut self, private_id: &str, source: SocketAddr) -> Registration {
        let Some(player) = self.by_private_id.get(private_id) else {
            return Registration::Unknown;
        };
        let host = self.by_connection.get_mut(player).expect("the maps name the same players");
        match host.address.replace(source) {
            None => Registration::First(*player, host.open_id.clone()),
            Some(before) if before == source => Registration::Repeated,
            Some(_) => Registration::Moved(*player, host.open_id.clone()),
        }
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
        if !self.guesses.may_guess(network, now) {
            return Err(NotFound::TooManyGuesses);
        }
        let Some(player) = self.by_open_id.get(open_id) else {
            self.guesses.note_wrong(network, now);
            return Err(NotFound::Unknown);
        };
        Ok((*player, &self.by_connection[player]))
    }

    /// Whether one more player may be introduced to the host now; if so, it counts.
    pub fn may_introduce(&mut self, host: ConnectionId, now: Timestamp) -> bool {
        let Some(host) = self.by_connection.get_mut(&host) else {
            return false;
        };
        let is_allowed = host.introductions.has_tokens(INTRODUCTION_BURST, now);
        if is_allowed {
            host.introductions.charge(1, INTRODUCTIONS_PER_SECOND, now);
        }
        is_allowed
    }

    /// Forgets the networks whose wrong OpenIDs have all been forgiven.
    pub fn forget_guesses(&mut self, now: Timestamp) {
        self.guesses.forget(now);
    }

    /// How many entries the tables have: players by OpenID, by PrivateID, and networks that have guessed.
    pub fn entries(&self) -> [usize; 3] {
        [self.by_open_id.len(), self.by_private_id.len(), self.guesses.len()]
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
    use crate::id::testing::Seeded;

    fn hosts(open_id_length: usize) -> (Hosts, Seeded) {
        let alphabet: Alphabet = "abcd".parse().unwrap();
        let scheme = IdScheme {
            open: OpenIdScheme::characters(String::new(), alphabet.clone(), open_id_length),
            private_alphabet: alphabet,
            private_length: 20,
        };
        (Hosts::new(scheme), Seeded::new(1))
    }

    fn network() -> Network {
        std::net::IpAddr::from([192, 0, 2, 1]).into()
    }

    #[test]
    fn a_second_registration_gives_the_same_ids() {
        let (mut hosts, mut random) = hosts(8);
        let first = hosts.register(ConnectionId(1), network(), &mut random).unwrap().clone();
        let again = hosts.register(ConnectionId(1), network(), &mut random).unwrap();
        assert_eq!((&first.open_id, &first.private_id), (&again.open_id, &again.private_id));
        assert_eq!(hosts.len(), 1);
    }

    #[test]
    fn open_ids_are_unique_until_there_are_no_more() {
        let (mut hosts, mut random) = hosts(1);
        for player in 0..4 {
            hosts.register(ConnectionId(player), network(), &mut random).unwrap();
        }
        assert_eq!(
            hosts.register(ConnectionId(4), network(), &mut random).unwrap_err(),
            IdsExhausted
        );
        hosts.remove(ConnectionId(2)).unwrap();
        hosts.register(ConnectionId(5), network(), &mut random).unwrap();
    }

    #[test]
    fn addresses_are_first_then_repeated_then_moved() {
        let (mut hosts, mut random) = hosts(8);
        let host = hosts.register(ConnectionId(1), network(), &mut random).unwrap().clone();
        let (here, there) = ("192.0.2.1:1000".parse().unwrap(), "192.0.2.1:1001".parse().unwrap());
        let secret = host.private_id.reveal();
        let id = host.open_id.clone();
        assert_eq!(
            hosts.register_address(secret, here),
            Registration::First(ConnectionId(1), id.clone())
        );
        assert_eq!(hosts.register_address(secret, here), Registration::Repeated);
        assert_eq!(hosts.register_address(secret, there), Registration::Moved(ConnectionId(1), id));
        assert_eq!(hosts.register_address("abcd", here), Registration::Unknown);
        assert_eq!(hosts.by_connection(ConnectionId(1)).unwrap().address, Some(there));
    }

    #[test]
    fn who_leaves_loses_both_ids_at_once() {
        let (mut hosts, mut random) = hosts(8);
        let host = hosts.register(ConnectionId(1), network(), &mut random).unwrap().clone();
        hosts.remove(ConnectionId(1)).unwrap();
        let found = hosts.find(&host.open_id, network(), Timestamp::START);
        assert_eq!(found.err(), Some(NotFound::Unknown));
        let here = "192.0.2.1:1000".parse().unwrap();
        assert_eq!(hosts.register_address(host.private_id.reveal(), here), Registration::Unknown);
        assert!(hosts.is_empty());
    }
}
