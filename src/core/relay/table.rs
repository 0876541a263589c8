//! The table of relayed pairs and their ports. It decides what happens to a datagram at one of the ports.
//!
//! ```text
//! client C (port 50002)  --to 50001-->    noray  --from 50002-->  host H (port 50001)
//! client C               <--from 50001--  noray  <--to 50002--    host H
//! ```
//!
//! Each player of a pair has a port of its own, to which only its partner may send. A datagram at that port goes to
//! the player, and it leaves from the sender's port. So each player sees the other at one address and can answer
//! there. The port alone tells where a datagram goes, so its cost does not grow with the number of pairs.

mod invariants;
mod snapshot;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::id::PlayerId;
use crate::core::relay::pair::{Pair, Role};
use crate::core::relay::sources::Sources;
use crate::core::relay::sprayers::{Expected, Sprayers};
use crate::core::relay::{
    Action, DropReason, Latching, OwnAddresses, PortMap, PortPool, RelayLimit, RelayPort,
    RelaySettings,
};
use crate::limits::network::Network;
use crate::limits::rates::SILENT_HOST;
use crate::limits::relay::charged_bytes;
use crate::limits::share::{HeldShares, RateShares};
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

pub use snapshot::RelaySnapshot;

/// The least time between two sweeps that are done because a port is needed.
const SWEEP_ON_DEMAND_INTERVAL: Duration = Duration::from_secs(1);

/// One player of an introduction, with its registered external address.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Its id.
    pub player: PlayerId,
    /// Its address as the registrar saw it.
    pub address: SocketAddr,
    /// The IP that its connection comes from. It cannot be forged.
    pub connected_from: IpAddr,
}

impl Party {
    /// Whether its registered address has the IP of its connection, and so is not forged.
    pub fn is_confirmed(&self) -> bool {
        self.connected_from == self.address.ip()
    }

    /// The network of its connection.
    pub fn network(&self) -> Network {
        self.connected_from.into()
    }
}

/// The ports of a pair, as the asker sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairPorts {
    /// The asker's port, to which the host sends.
    pub asker: RelayPort,
    /// The host's port, to which the asker sends.
    pub host: RelayPort,
    /// Whether the pair is new. If not, the two players had it already.
    pub is_new: bool,
}

/// Why no pair was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRelay {
    /// There are not two ports that are free or reserved.
    Exhausted,
    /// The asker's network has its share of the pairs.
    NetworkHasItsShare,
    /// Neither player is confirmed.
    Unconfirmed,
}

/// The player that may send to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisteredPartner {
    /// The network of its connection.
    pub network: Network,
    /// The IP where it was last heard at that port. Until then, the one that it registered.
    pub registered: IpAddr,
    /// Whether it was heard at that port since the introduction or its last registration.
    pub is_heard: bool,
}

/// A pair that is over and has given its ports back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedPair {
    /// Its ports.
    pub ports: [RelayPort; 2],
    /// How many [`charged_bytes`] it carried, both directions together.
    pub traffic: u64,
}

/// All pairs and the ports they use.
///
/// Invariant: every port is in exactly one place: free, reserved, or one side of one pair.
#[derive(Debug)]
pub struct RelayTable {
    settings: RelaySettings,
    own: OwnAddresses,
    ports: PortPool,
    slots: PortMap<Slot>,
    /// How many ports there are in all.
    size: usize,
    pairs: Vec<Option<Pair>>,
    vacant: Vec<PairIndex>,
    /// Each pair has two entries, one with each player first.
    by_players: BTreeMap<(PlayerId, PlayerId), PairIndex>,
    /// The live pairs, by the network that asked for them, also if the asker is not connected any more.
    shares: HeldShares,
    all_traffic: TokenBucket,
    /// What each network sent while little of `all_traffic` was left.
    traffic_shares: RateShares,
    /// What each network sent to hosts that were silent.
    silent_hosts: BTreeMap<PlayerId, RateShares>,
    last_sweep: Timestamp,
    /// The sources that were heard lately at ports without a pair.
    early: BTreeMap<RelayPort, Sources>,
    sprayers: Sprayers,
}

type PairIndex = u32;

/// The pair that a port belongs to, and which of the two players owns the port.
#[derive(Clone, Copy, Debug)]
struct Slot {
    pair: PairIndex,
    owner: Role,
}

impl RelayTable {
    /// A table without pairs. All `ports` are free and are used in that order.
    pub fn new(settings: RelaySettings, own: OwnAddresses, ports: &[RelayPort]) -> Self {
        Self {
            settings,
            own,
            ports: PortPool::new(ports.iter().copied()),
            slots: PortMap::new(ports.iter().copied()),
            size: ports.len(),
            pairs: Vec::new(),
            vacant: Vec::new(),
            by_players: BTreeMap::new(),
            shares: HeldShares::new(ports.len() / 2),
            all_traffic: TokenBucket::default(),
            traffic_shares: RateShares::new(settings.limits.shared_limit()),
            silent_hosts: BTreeMap::new(),
            last_sweep: Timestamp::START,
            early: BTreeMap::new(),
            sprayers: Sprayers::default(),
        }
    }

    /// Replaces the server's own addresses, which change when an interface changes.
    pub fn set_own_addresses(&mut self, own: OwnAddresses) {
        self.own = own;
    }

    /// Replaces the settings, also for live pairs. All token buckets are full afterwards.
    pub fn set_settings(&mut self, settings: RelaySettings) {
        self.settings = settings;
        self.all_traffic = TokenBucket::default();
        self.traffic_shares.set_limit(settings.limits.shared_limit());
        for side in self.pairs.iter_mut().flatten().flat_map(|pair| &mut pair.sides) {
            side.bucket = TokenBucket::default();
        }
    }

    /// Decides what happens to a datagram that arrived at the port `at` with a payload of `length` bytes. It learns
    /// the sender's address, checks whether the datagram may pass, and charges it.
    pub fn handle_datagram(
        &mut self,
        at: RelayPort,
        source: SocketAddr,
        length: usize,
        now: Timestamp,
    ) -> Action {
        let Some(Slot { pair, owner }) = self.slots.get(at).copied() else {
            self.note_early(at, source, now);
            return Action::Drop(DropReason::NoPair);
        };
        let pair = self.pairs[pair as usize].as_mut().expect("a slot names a pair");
        let cost = charged_bytes(length);
        if !pair.hear_current(owner, source, now) {
            let latching = self.settings.latching;
            let heard =
                pair.hear_other(owner, source, latching, &self.own, &mut self.sprayers, now);
            if let Err(reason) = heard {
                return Action::Drop(reason);
            }
        }
        pair.note_sender_heard(owner, now);
        if let Some(reason) = pair.refusal(owner, cost, &self.settings, now) {
            return Action::Drop(reason);
        }
        if let Some(host) = pair.silent_host(owner, now) {
            let shares =
                self.silent_hosts.entry(host).or_insert_with(|| RateShares::new(SILENT_HOST));
            let network = pair.network_of(owner.other());
            if !shares.has_room(network, now) {
                return Action::Drop(DropReason::SilentHost);
            }
            shares.charge(network, cost as f64, now);
        }
        let limits = &self.settings.limits;
        // While more than half of the bucket is left, nobody is held to a share, and nothing is charged.
        if !self.all_traffic.has_tokens(limits.burst / 2, now) {
            let network = pair.network_of(owner.other());
            let has_share = self.traffic_shares.has_room(network, now);
            if !has_share || !self.all_traffic.has_tokens(limits.burst, now) {
                return Action::Drop(DropReason::GlobalBandwidth);
            }
            self.traffic_shares.charge(network, cost as f64, now);
        }
        self.all_traffic.charge(cost, limits.global_rate, now);
        let (via, to) = pair.charge(owner, cost, limits, now);
        Action::Forward { via, to }
    }

    /// Whoever sends to a port before a pair begins there is not one of its players.
    #[cold]
    fn note_early(&mut self, at: RelayPort, source: SocketAddr, now: Timestamp) {
        if self.own.allows(source) {
            self.sprayers.note(source, Expected::Nobody(at), now);
            self.early.entry(at).or_default().note(source, None, now);
        }
    }

    /// Opens a pair for the two players, or finds their live one. The pair counts for the asker's network as long as
    /// it lives. If ports are needed, pairs that are over are closed and added to `closed`.
    ///
    /// # Errors
    /// The reason why no pair was opened.
    pub fn introduce(
        &mut self,
        asker: Party,
        host: Party,
        now: Timestamp,
        closed: &mut Vec<ClosedPair>,
    ) -> Result<PairPorts, NoRelay> {
        if self.must_be_confirmed() && !asker.is_confirmed() && !host.is_confirmed() {
            return Err(NoRelay::Unconfirmed);
        }
        if let Some(index) = self.find(asker.player, host.player) {
            let pair = self.pairs[index as usize].as_ref().expect("the index names a pair");
            if !pair.life.is_over(&self.settings.limits, now) {
                return Ok(pair.ports_for(asker.player));
            }
            closed.push(self.close(index));
        }
        if self.is_full() || self.has_its_share(asker.network()) {
            self.sweep_on_demand(now, closed);
        }
        if self.is_full() {
            return Err(NoRelay::Exhausted);
        }
        if self.has_its_share(asker.network()) {
            return Err(NoRelay::NetworkHasItsShare);
        }
        let ports = self.ports.allocate(asker.player, host.player);
        let ports = ports.expect("the table is not full");
        let early = ports.map(|port| self.early.remove(&port).unwrap_or_default().into_early(now));
        self.insert(Pair::new([asker, host], ports, early, now));
        let [asker, host] = ports;
        Ok(PairPorts { asker, host, is_new: true })
    }

    fn sweep_on_demand(&mut self, now: Timestamp, closed: &mut Vec<ClosedPair>) {
        if now.since(self.last_sweep) >= SWEEP_ON_DEMAND_INTERVAL {
            self.sweep(now, closed);
        }
    }

    /// Whether a player must be confirmed to be trusted. It need not be under [`Latching::Any`], which serves carriers
    /// that use several IPs for one player.
    pub fn must_be_confirmed(&self) -> bool {
        self.settings.latching != Latching::Any
    }

    /// Whether no two ports are left.
    fn is_full(&self) -> bool {
        2 * (self.pairs() + 1) > self.size
    }

    fn has_its_share(&self, network: Network) -> bool {
        !self.shares.has_room(network, self.settings.limits.max_per_network)
    }

    /// Reserves a port for a player, if one is free.
    pub fn reserve(&mut self, player: PlayerId) {
        self.ports.reserve(player);
    }

    /// Handles that a player has registered another address. Its pairs send there from now on.
    pub fn handle_address_change(&mut self, player: PlayerId, address: SocketAddr) {
        self.for_each_pair(player, |pair| pair.handle_address_change(player, address));
    }

    /// Handles that a player has repeated its PrivateID from its registered address, as it does when its game does not
    /// hear the other. Each of its addresses that somebody else may have taken must settle again.
    pub fn handle_repetition(&mut self, player: PlayerId, now: Timestamp) {
        self.for_each_pair(player, |pair| pair.handle_repetition(player, now));
    }

    fn for_each_pair(&mut self, player: PlayerId, action: impl Fn(&mut Pair)) {
        for (_, index) in self.by_players.range((player, PlayerId::MIN)..=(player, PlayerId::MAX)) {
            action(self.pairs[*index as usize].as_mut().expect("the index names a pair"));
        }
    }

    /// Cancels a player's reservation, if it has one. Its pairs go on until they are idle.
    pub fn cancel_reservation(&mut self, player: PlayerId) {
        self.ports.cancel(player);
    }

    /// Closes the pairs that forwarded nothing for the idle timeout, and those that are past their lifetime.
    pub fn sweep(&mut self, now: Timestamp, closed: &mut Vec<ClosedPair>) {
        self.last_sweep = now;
        self.silent_hosts.retain(|_, shares| {
            shares.forget_idle(now);
            shares.entries() > 0
        });
        self.early.retain(|_, sources| sources.forget_old(now));
        for index in 0..self.pairs.len() {
            let pair = self.pairs[index].as_ref();
            if pair.is_some_and(|pair| pair.life.is_over(&self.settings.limits, now)) {
                let index = PairIndex::try_from(index).expect("there are at most 65536 ports");
                closed.push(self.close(index));
            }
        }
    }

    /// Returns the players who must be told that the pair at `at` has reached `limit`, and counts them as told. Each
    /// player is told of a limit at most once a minute.
    ///
    /// Only the sender is told of bandwidth, because it sent too much. Both players are told of the other limits.
    pub fn take_due_notices(
        &mut self,
        at: RelayPort,
        limit: RelayLimit,
        now: Timestamp,
    ) -> [Option<PlayerId>; 2] {
        let Some(Slot { pair, owner }) = self.slots.get(at).copied() else {
            return [None, None];
        };
        let pair = self.pairs[pair as usize].as_mut().expect("a slot names a pair");
        let mut notice = |role: Role| pair.members[role as usize].take_due_notice(limit, now);
        match limit {
            RelayLimit::Bandwidth => [notice(owner.other()), None],
            RelayLimit::Lifetime | RelayLimit::Traffic => [notice(owner.other()), notice(owner)],
        }
    }

    /// The player who may send to `at`.
    pub fn partner(&self, at: RelayPort) -> Option<RegisteredPartner> {
        let Slot { pair, owner } = *self.slots.get(at)?;
        let pair = self.pairs[pair as usize].as_ref().expect("a slot names a pair");
        let latch = &pair.sides[owner.other() as usize].latch;
        let (registered, is_heard) = (latch.address().ip(), latch.heard().is_some());
        Some(RegisteredPartner { network: pair.network_of(owner.other()), registered, is_heard })
    }

    /// When any pair last forwarded a datagram or was created; `None` without pairs. Looks at every pair.
    pub fn last_forwarded(&self) -> Option<Timestamp> {
        self.pairs.iter().flatten().map(|pair| pair.life.forwarded).max()
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> usize {
        self.pairs.len() - self.vacant.len()
    }

    /// How many entries the index has that finds a pair by its players.
    pub fn partners(&self) -> usize {
        self.by_players.len()
    }

    /// How many networks have asked for the live pairs.
    pub fn networks(&self) -> usize {
        self.shares.entries()
    }

    /// The ports that belong to no pair.
    pub fn ports(&self) -> &PortPool {
        &self.ports
    }

    fn find(&self, one: PlayerId, other: PlayerId) -> Option<PairIndex> {
        self.by_players.get(&(one, other)).copied()
    }

    fn insert(&mut self, pair: Pair) {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            PairIndex::try_from(self.pairs.len() - 1).expect("there are at most 65536 ports")
        });
        let [a, b] = &pair.sides;
        self.slots.insert(a.port, Slot { pair: index, owner: Role::Asker });
        self.slots.insert(b.port, Slot { pair: index, owner: Role::Host });
        self.shares.take(pair.network());
        let [a, b] = pair.players();
        self.by_players.insert((a, b), index);
        self.by_players.insert((b, a), index);
        self.pairs[index as usize] = Some(pair);
    }

    fn close(&mut self, index: PairIndex) -> ClosedPair {
        let pair = self.pairs[index as usize].take().expect("only a pair is closed");
        self.vacant.push(index);
        let [a, b] = pair.players();
        self.by_players.remove(&(a, b));
        self.by_players.remove(&(b, a));
        self.shares.give_back(pair.network());
        let ports = pair.ports();
        for port in ports {
            self.slots.remove(port);
            self.ports.release(port);
        }
        ClosedPair { ports, traffic: pair.life.traffic }
    }
}

#[cfg(test)]
mod tests;
