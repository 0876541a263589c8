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
mod pairs;
mod snapshot;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::id::PlayerId;
use crate::core::relay::pair::{Pair, Role};
use crate::core::relay::sources::Sources;
use crate::core::relay::sprayers::{Expected, SPRAYING_WINDOW, Sprayers};
use crate::core::relay::{
    Action, DropReason, Latching, OwnAddresses, PairPorts, Party, PortPool, RelayLimit, RelayPort,
    RelaySettings,
};
use crate::limits::network::Network;
use crate::limits::relay::charged_bytes;
use crate::limits::share::HeldShares;
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

use pairs::{PairIndex, Pairs};
use traffic::{HostTraffic, TotalTraffic};

pub use snapshot::RelaySnapshot;

/// The least time between two sweeps that are done because a port is needed.
const SWEEP_ON_DEMAND_INTERVAL: Duration = Duration::from_secs(1);

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedPair {
    /// Its ports.
    pub ports: [RelayPort; 2],
    /// How many [`charged_bytes`] it carried, both directions together.
    pub traffic: u64,
    /// Those of its ports that are not used any more: they are not among the configured ones.
    pub retired: Vec<RelayPort>,
}

/// All pairs and the ports they use.
///
/// Invariant: every port is in exactly one place: free, reserved, or one side of one pair. A port that retires is only on
/// one side of a pair; it ends with it.
#[derive(Debug)]
pub struct RelayTable {
    pub(super) settings: RelaySettings,
    pub(super) own: OwnAddresses,
    ports: PortPool,
    /// How many ports there are in all, with those that retire.
    size: usize,
    /// The ports of pairs that are not among the configured ones.
    retiring: BTreeSet<RelayPort>,
    pub(super) pairs: Pairs,
    /// The live pairs, by the network that asked for them, also if the asker is not connected any more.
    shares: HeldShares,
    pub(super) total_traffic: TotalTraffic,
    host_traffic: HostTraffic,
    last_sweep: Timestamp,
    /// The sources that were heard lately at ports without a pair.
    early: BTreeMap<RelayPort, Sources>,
    pub(super) sprayers: Sprayers,
    /// Who was expected at the ports of pairs that ended lately, and when they ended.
    former: BTreeMap<RelayPort, (PlayerId, Timestamp)>,
    /// The asker's ports of pairs that changed for another reason than a datagram. Empty between inputs of the core.
    pub(super) changed: Vec<RelayPort>,
}

impl RelayTable {
    /// A table without pairs. All `ports` are free and are used in that order.
    pub fn new(settings: RelaySettings, own: OwnAddresses, ports: &[RelayPort]) -> Self {
        Self {
            settings,
            own,
            ports: PortPool::new(ports.iter().copied()),
            size: ports.len(),
            retiring: BTreeSet::new(),
            pairs: Pairs::new(ports),
            shares: HeldShares::new(ports.len() / 2),
            total_traffic: TotalTraffic::new(&settings.limits),
            host_traffic: HostTraffic::new(&settings.limits),
            last_sweep: Timestamp::START,
            early: BTreeMap::new(),
            sprayers: Sprayers::default(),
            former: BTreeMap::new(),
            changed: Vec::new(),
        }
    }

    /// The addresses of the server's own sockets.
    pub fn own_addresses(&self) -> &OwnAddresses {
        &self.own
    }

    /// Replaces the machine's IPs, which change with its interfaces.
    pub fn set_own_ips(&mut self, ips: impl IntoIterator<Item = IpAddr>) {
        self.own.set_ips(ips);
    }

    /// Replaces the settings, also for live pairs. All token buckets are full afterwards.
    pub fn set_settings(&mut self, settings: RelaySettings) {
        self.settings = settings;
        self.total_traffic = TotalTraffic::new(&settings.limits);
        self.host_traffic = HostTraffic::new(&settings.limits);
        for side in self.pairs.iter_mut().flat_map(|pair| &mut pair.sides) {
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
        let Some((pair, owner)) = self.pairs.at_mut(at) else {
            self.note_early(at, source, now);
            return Action::Drop(DropReason::NoPair);
        };
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
        let network = || pair.network_of(owner.other());
        let to_host = pair.host_rate(owner, now);
        if let Some(to_host) = to_host
            && !self.host_traffic.has_room(to_host, network(), now)
        {
            return Action::Drop(to_host.1.drop_reason());
        }
        let limits = &self.settings.limits;
        if !self.total_traffic.try_charge(network, cost, limits, now) {
            return Action::Drop(DropReason::GlobalBandwidth);
        }
        if let Some(to_host) = to_host {
            self.host_traffic.charge(to_host, network(), cost, now);
        }
        let (via, to) = pair.charge(owner, cost, limits, now);
        Action::Forward { via, to }
    }

    /// Whoever sends to a port before a pair begins there is not one of its players. It may be one of the pair that
    /// ended there, whose game goes on for a while.
    #[cold]
    fn note_early(&mut self, at: RelayPort, source: SocketAddr, now: Timestamp) {
        if self.own.allows(source) {
            let expected = match self.former.get(&at) {
                Some((player, end)) if now.since(*end) < SPRAYING_WINDOW => {
                    Expected::Player(*player)
                }
                Some(_) | None => Expected::Nobody(at),
            };
            self.sprayers.note(source, expected, now);
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
        if let Some((index, pair)) = self.pairs.find(asker.player, host.player) {
            if !pair.life.is_over(&self.settings.limits, now) {
                return Ok(pair.ports_for(asker.player));
            }
            closed.push(self.close(index, now));
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
        self.ports.len() < 2
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
        self.pairs.for_each_of(player, |pair| {
            pair.handle_address_change(player, address);
            self.changed.push(pair.ports()[0]);
        });
    }

    /// Handles that a player goes on on another connection, which comes from that IP.
    pub fn handle_resumption(&mut self, player: PlayerId, connected_from: IpAddr) {
        self.pairs.for_each_of(player, |pair| {
            let was_confirmed = pair.is_confirmed();
            pair.handle_resumption(player, connected_from);
            if pair.is_confirmed() != was_confirmed {
                self.changed.push(pair.ports()[0]);
            }
        });
    }

    /// Handles that a player has repeated its PrivateID from its registered address, as it does when its game does not
    /// hear the other. Each of its addresses that somebody else may have taken must settle again.
    pub fn handle_repetition(&mut self, player: PlayerId, now: Timestamp) {
        self.pairs.for_each_of(player, |pair| pair.handle_repetition(player, now));
    }

    /// Cancels a player's reservation, if it has one. Its pairs go on until they are idle.
    pub fn cancel_reservation(&mut self, player: PlayerId) {
        self.ports.cancel(player);
    }

    /// Closes the pairs that forwarded nothing for the idle timeout, and those that are past their lifetime.
    pub fn sweep(&mut self, now: Timestamp, closed: &mut Vec<ClosedPair>) {
        self.last_sweep = now;
        self.total_traffic.forget_idle(now);
        self.host_traffic.forget_idle(now);
        self.early.retain(|_, sources| sources.forget_old(now));
        self.former.retain(|_, (_, end)| now.since(*end) < SPRAYING_WINDOW);
        for index in self.pairs.indices() {
            let pair = self.pairs.get(index);
            if pair.is_some_and(|pair| pair.life.is_over(&self.settings.limits, now)) {
                closed.push(self.close(index, now));
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
        let Some((pair, owner)) = self.pairs.at_mut(at) else {
            return [None, None];
        };
        let mut notice = |role: Role| pair.members[role as usize].take_due_notice(limit, now);
        match limit {
            RelayLimit::Bandwidth => [notice(owner.other()), None],
            RelayLimit::Lifetime | RelayLimit::Traffic => [notice(owner.other()), notice(owner)],
        }
    }

    /// The player who may send to `at`.
    pub fn partner(&self, at: RelayPort) -> Option<RegisteredPartner> {
        let (pair, owner) = self.pairs.at(at)?;
        let latch = &pair.sides[owner.other() as usize].latch;
        let (registered, is_heard) = (latch.address().ip(), latch.heard().is_some());
        Some(RegisteredPartner { network: pair.network_of(owner.other()), registered, is_heard })
    }

    /// When any pair last forwarded a datagram or was created; `None` without pairs. Looks at every pair.
    pub fn last_forwarded(&self) -> Option<Timestamp> {
        self.pairs.iter().map(|pair| pair.life.forwarded).max()
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// How many entries the index has that finds a pair by its players.
    pub fn partners(&self) -> usize {
        self.pairs.partners()
    }

    /// How many networks have asked for the live pairs.
    pub fn networks(&self) -> usize {
        self.shares.entries()
    }

    /// The ports that belong to no pair.
    pub fn ports(&self) -> &PortPool {
        &self.ports
    }

    fn insert(&mut self, pair: Pair) {
        let [_, host] = pair.players();
        self.shares.take(pair.network());
        self.pairs.insert(pair);
        self.pairs.update_crowd(host, self.settings.limits.crowd, &mut self.changed);
    }

    fn close(&mut self, index: PairIndex, now: Timestamp) -> ClosedPair {
        let pair = self.pairs.remove(index);
        let [asker, host] = pair.players();
        self.former.extend(pair.ports().into_iter().zip([(host, now), (asker, now)]));
        self.shares.give_back(pair.network());
        self.pairs.update_crowd(host, self.settings.limits.crowd, &mut self.changed);
        let ports = pair.ports();
        let mut retired = Vec::new();
        for port in ports {
            if self.retiring.remove(&port) {
                self.former.remove(&port);
                self.own.close_port(port);
                self.size -= 1;
                retired.push(port);
            } else {
                self.ports.release(port);
            }
        }
        if !retired.is_empty() {
            self.shares.set_capacity(self.size / 2);
        }
        ClosedPair { ports, traffic: pair.life.traffic, retired }
    }
}

#[cfg(test)]
mod tests;
