//! Owns no socket and sees no payload: which pairs exist, and what becomes of a datagram at one of their ports.
//!
//! ```text
//! client C (port 50002)  --to 50001-->    noray  --from 50002-->  host H (port 50001)
//! client C               <--from 50001--  noray  <--to 50002--    host H
//! ```
//!
//! Each player of a pair has a port of its own, at which only its partner may send. What arrives there goes to the
//! player, and leaves from the sender's port: each sees the other at one address and can answer there. A
//! datagram's way is found by the port alone, so its cost does not grow with the number of pairs.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::id::ConnectionId;
use crate::core::relay::pair::{Pair, Role, receiver_and_sender};
use crate::core::relay::{
    Action, DropReason, Latching, Limit, Limits, OwnAddresses, PortMap, PortPool, RelayPort, charge,
};
use crate::limits::network::Network;
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// How often pairs that are over are looked for because a port is needed.
const SWEEP_ON_DEMAND_INTERVAL: Duration = Duration::from_secs(1);

/// One player of an introduction, with its registered external address.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Who it is.
    pub player: ConnectionId,
    /// Where the registrar saw it.
    pub address: SocketAddr,
    /// Where its connection comes from, which cannot be forged.
    pub connected_from: IpAddr,
}

impl Party {
    /// Whether its UDP comes from where its connection does, and so is not forged.
    pub fn is_confirmed(&self) -> bool {
        self.connected_from == self.address.ip()
    }

    /// Whom its relays count against.
    pub fn network(&self) -> Network {
        self.connected_from.into()
    }
}

/// The ports of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The asker's port, where the host sends to.
    pub asker: RelayPort,
    /// The host's port, where the asker sends to.
    pub host: RelayPort,
    /// Whether the pair was opened just now.
    pub is_new: bool,
}

/// Why no pair was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRelay {
    /// No two ports were free or could be taken back.
    Exhausted,
    /// Few ports are left, and players of the asker's network have their share.
    NetworkHasItsShare,
    /// Neither player's UDP comes from where its connection does.
    Unconfirmed,
}

/// A pair that was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freed {
    /// Its ports.
    pub ports: [RelayPort; 2],
    /// [`charge`]d bytes that it carried, both directions together.
    pub traffic: u64,
}

/// All pairs and the ports they use.
///
/// Invariant: every port is in exactly one place: free, reserved, or one side of one pair.
#[derive(Debug)]
pub struct RelayTable {
    limits: Limits,
    own: OwnAddresses,
    ports: PortPool,
    slots: PortMap<Slot>,
    /// How many ports there are, wherever they are.
    size: usize,
    pairs: Vec<Option<Pair>>,
    vacant: Vec<PairIndex>,
    partners: HashMap<ConnectionId, HashMap<ConnectionId, PairIndex>>,
    /// How many pairs each network has asked for, whether its players are still connected or not.
    by_network: HashMap<Network, usize>,
    all_traffic: TokenBucket,
    last_sweep: Timestamp,
    freed: VecDeque<Freed>,
}

type PairIndex = u32;

/// Where a port's pair is, and whose of the two the port is.
#[derive(Clone, Copy, Debug)]
struct Slot {
    pair: PairIndex,
    owner: Role,
}

impl RelayTable {
    /// No pairs; `ports` are all free, to be used in that order.
    pub fn new(limits: Limits, own: OwnAddresses, ports: &[RelayPort]) -> Self {
        Self {
            limits,
            own,
            ports: PortPool::new(ports.iter().copied()),
            slots: PortMap::new(ports.iter().copied()),
            size: ports.len(),
            pairs: Vec::new(),
            vacant: Vec::new(),
            partners: HashMap::new(),
            by_network: HashMap::new(),
            all_traffic: TokenBucket::default(),
            last_sweep: Timestamp::START,
            freed: VecDeque::new(),
        }
    }

    /// Replaces the server's own addresses: those of interfaces come and go.
    pub fn set_own_addresses(&mut self, own: OwnAddresses) {
        self.own = own;
    }

    /// Replaces the limits, for the pairs that there are too. Nobody owes what was too much by the old ones.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.all_traffic = TokenBucket::default();
        for side in self.pairs.iter_mut().flatten().flat_map(|pair| &mut pair.sides) {
            side.bucket = TokenBucket::default();
        }
    }

    /// Decides about a datagram with a payload of `length` bytes that arrived at the port `at`.
    pub fn handle_datagram(
        &mut self,
        at: RelayPort,
        source: SocketAddr,
        length: usize,
        now: Timestamp,
    ) -> Action {
        let Some(slot) = self.slots.get(at).copied() else {
            return Action::Drop(DropReason::NoPair);
        };
        let pair = self.pairs[slot.pair as usize].as_mut().expect("a slot names a pair");
        let limits = &self.limits;
        let cost = charge(length);

        let refusal = pair.refusal(limits).or_else(|| pair.life.refusal(limits, now));
        let (receiver, sender) = receiver_and_sender(&mut pair.sides, slot.owner);
        if let Err(reason) = sender.latch.accept(source, limits.latching, &self.own, now) {
            return Action::Drop(reason);
        }
        let refusal = refusal
            .or_else(|| receiver.refusal_to_receive(cost, limits, now))
            .or_else(|| sender.refusal_to_send(limits, now))
            .or_else(|| refusal_of_all(&self.all_traffic, limits, now));
        if let Some(reason) = refusal {
            return Action::Drop(reason);
        }

        self.all_traffic.charge(cost, limits.global_rate, now);
        sender.bucket.charge(cost, limits.pair_rate, now);
        if receiver.latch.heard().is_none() {
            receiver.sent_unheard += u32::try_from(cost).expect("it was within the allowance");
        }
        pair.life.forwarded = now;
        pair.life.traffic += cost;
        Action::Forward { via: sender.port, to: receiver.latch.address() }
    }

    /// Opens a pair for the two, or finds the one they have. Pairs that are over are freed if their ports are
    /// needed. The pair counts against the asker's network as long as it lives.
    ///
    /// # Errors
    /// [`NoRelay`]; then no pair has been opened.
    pub fn introduce(
        &mut self,
        asker: Party,
        host: Party,
        now: Timestamp,
    ) -> Result<Introduction, NoRelay> {
        if self.must_be_confirmed() && !asker.is_confirmed() && !host.is_confirmed() {
            return Err(NoRelay::Unconfirmed);
        }
        if let Some(index) = self.find(asker.player, host.player) {
            let pair = self.pairs[index as usize].as_ref().expect("partners name a pair");
            if !pair.life.is_over(&self.limits, now) {
                return Ok(pair.introduction(asker.player));
            }
            self.free(index);
        }
        if self.has_its_share(asker.network()) {
            self.sweep_on_demand(now);
            if self.has_its_share(asker.network()) {
                return Err(NoRelay::NetworkHasItsShare);
            }
        }
        let ports = self.allocate(asker.player, host.player, now)?;
        self.insert(Pair::new([asker, host], ports, now));
        let [asker, host] = ports;
        Ok(Introduction { asker, host, is_new: true })
    }

    fn allocate(
        &mut self,
        asker: ConnectionId,
        host: ConnectionId,
        now: Timestamp,
    ) -> Result<[RelayPort; 2], NoRelay> {
        if let Some(ports) = self.ports.allocate(asker, host) {
            return Ok(ports);
        }
        self.sweep_on_demand(now);
        self.ports.allocate(asker, host).ok_or(NoRelay::Exhausted)
    }

    fn sweep_on_demand(&mut self, now: Timestamp) {
        if now.since(self.last_sweep) >= SWEEP_ON_DEMAND_INTERVAL {
            self.sweep(now);
        }
    }

    /// Whether players whose UDP comes from elsewhere than their connection are under suspicion: unless carriers with
    /// several IPs are to be served.
    pub fn must_be_confirmed(&self) -> bool {
        self.limits.latching != Latching::Any
    }

    /// Whether more than three quarters of the ports carry pairs.
    fn is_scarce(&self) -> bool {
        4 * 2 * self.pairs() > 3 * self.size
    }

    /// Whether few ports are left, and players of the network have asked for as many as it may then have.
    fn has_its_share(&self, network: Network) -> bool {
        let pairs = self.by_network.get(&network).copied().unwrap_or(0);
        self.is_scarce() && pairs >= self.limits.max_per_network
    }

    /// A player registered its address for the first time: a port is reserved for it, if one is free.
    pub fn reserve(&mut self, player: ConnectionId) {
        self.ports.reserve(player);
    }

    /// A player registered another address: its pairs follow.
    pub fn handle_move(&mut self, player: ConnectionId, address: SocketAddr) {
        for index in self.partners.get(&player).into_iter().flat_map(HashMap::values) {
            let pair = self.pairs[*index as usize].as_mut().expect("partners name a pair");
            pair.handle_move(player, address);
        }
    }

    /// A player's connection ended: its reservation ends, its pairs live on until they are idle.
    pub fn handle_departure(&mut self, player: ConnectionId) {
        self.ports.cancel(player);
    }

    /// Frees the pairs over which nothing was forwarded for the idle time and those past their lifetime.
    pub fn sweep(&mut self, now: Timestamp) {
        self.last_sweep = now;
        for index in 0..self.pairs.len() {
            let pair = self.pairs[index].as_ref();
            if pair.is_some_and(|pair| pair.life.is_over(&self.limits, now)) {
                self.free(PairIndex::try_from(index).expect("there are at most 65536 ports"));
            }
        }
    }

    /// A pair that was freed since the last call, the earliest first.
    pub fn poll_freed(&mut self) -> Option<Freed> {
        self.freed.pop_front()
    }

    /// Whom to tell that the pair at `at` has reached `limit`: each player once a minute.
    ///
    /// Of bandwidth the sender is told, whose datagrams were too many; of the others both.
    pub fn poll_notices(
        &mut self,
        at: RelayPort,
        limit: Limit,
        now: Timestamp,
    ) -> [Option<ConnectionId>; 2] {
        let Some(slot) = self.slots.get(at).copied() else {
            return [None, None];
        };
        let pair = self.pairs[slot.pair as usize].as_mut().expect("a slot names a pair");
        let mut tell = |role: Role| pair.people[role as usize].tell(limit, now);
        match limit {
            Limit::Bandwidth => [tell(slot.owner.other()), None],
            Limit::Lifetime | Limit::Traffic => [tell(slot.owner.other()), tell(slot.owner)],
        }
    }

    /// The registered address of the player who may send to `at`, if it was not heard there yet.
    pub fn awaited(&self, at: RelayPort) -> Option<SocketAddr> {
        let slot = self.slots.get(at)?;
        let pair = self.pairs[slot.pair as usize].as_ref().expect("a slot names a pair");
        let sender = &pair.sides[slot.owner.other() as usize];
        sender.latch.heard().is_none().then(|| sender.latch.address())
    }

    /// When a datagram was last forwarded in any of the pairs, or two players introduced; `None` without pairs.
    /// Looks at every pair.
    pub fn last_forwarded(&self) -> Option<Timestamp> {
        self.pairs.iter().flatten().map(|pair| pair.life.forwarded).max()
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> usize {
        self.pairs.len() - self.vacant.len()
    }

    /// How many entries the tables beside pairs and ports have: players that have partners, and networks that have
    /// asked.
    pub fn entries(&self) -> [usize; 2] {
        [self.partners.len(), self.by_network.len()]
    }

    /// The ports that carry no pair.
    pub fn ports(&self) -> &PortPool {
        &self.ports
    }

    fn find(&self, one: ConnectionId, other: ConnectionId) -> Option<PairIndex> {
        self.partners.get(&one)?.get(&other).copied()
    }

    fn insert(&mut self, pair: Pair) {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            PairIndex::try_from(self.pairs.len() - 1).expect("there are at most 65536 ports")
        });
        let [a, b] = &pair.sides;
        self.slots.insert(a.port, Slot { pair: index, owner: Role::Asker });
        self.slots.insert(b.port, Slot { pair: index, owner: Role::Host });
        *self.by_network.entry(pair.network()).or_default() += 1;
        let [a, b] = &*pair.people;
        self.partners.entry(a.player).or_default().insert(b.player, index);
        self.partners.entry(b.player).or_default().insert(a.player, index);
        self.pairs[index as usize] = Some(pair);
    }

    fn free(&mut self, index: PairIndex) {
        let pair = self.pairs[index as usize].take().expect("only a pair is freed");
        self.vacant.push(index);
        let [a, b] = &*pair.people;
        for (player, partner) in [(a.player, b.player), (b.player, a.player)] {
            let partners = self.partners.get_mut(&player).expect("each side has a partner");
            partners.remove(&partner);
            if partners.is_empty() {
                self.partners.remove(&player);
            }
        }
        let count = self.by_network.get_mut(&pair.network()).expect("each pair is counted");
        *count -= 1;
        if *count == 0 {
            self.by_network.remove(&pair.network());
        }
        let ports = pair.sides.each_ref().map(|side| side.port);
        for port in ports {
            self.slots.remove(port);
            self.ports.release(port);
        }
        self.freed.push_back(Freed { ports, traffic: pair.life.traffic });
    }

    /// Checks what must always hold, for tests and simulations.
    ///
    /// # Panics
    /// If it does not.
    pub fn check_invariants(&self) {
        let mut seen: HashMap<RelayPort, &str> = HashMap::new();
        let mut place = |port, name| {
            assert_eq!(seen.insert(port, name), None, "port {port} is in a second place: {name}");
        };
        self.ports.iter().for_each(|port| place(port, "pool"));
        for (index, pair) in (0..).zip(&self.pairs) {
            let Some(pair) = pair else {
                assert!(self.vacant.contains(&index), "empty place {index} is vacant");
                continue;
            };
            for (owner, side) in [Role::Asker, Role::Host].into_iter().zip(&pair.sides) {
                place(side.port, "pair");
                let slot = self.slots.get(side.port).expect("the port of a pair has a slot");
                assert_eq!((slot.pair, slot.owner), (index, owner), "slot of port {}", side.port);
            }
            let [a, b] = &*pair.people;
            assert_ne!(a.player, b.player, "two different players");
            assert_eq!(self.find(a.player, b.player), Some(index));
            assert_eq!(self.find(b.player, a.player), Some(index));
        }
        let known: usize = self.partners.values().map(HashMap::len).sum();
        assert_eq!(known, 2 * self.pairs(), "nobody is partner in a pair that is gone");
        assert_eq!(self.slots.count(), 2 * self.pairs(), "no slot without a pair");
        assert_eq!(self.by_network.values().sum::<usize>(), self.pairs(), "each pair counts once");
        assert_eq!(seen.len(), self.size, "no port is lost");
    }
}

fn refusal_of_all(
    all_traffic: &TokenBucket,
    limits: &Limits,
    now: Timestamp,
) -> Option<DropReason> {
    (!all_traffic.has_tokens(limits.burst, now)).then_some(DropReason::GlobalBandwidth)
}

#[cfg(test)]
mod tests;
