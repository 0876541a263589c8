//! Decides which pairs exist, and what becomes of a datagram at one of their ports.
//!
//! ```text
//! client C (port 50002)  --to 50001-->    noray  --from 50002-->  host H (port 50001)
//! client C               <--from 50001--  noray  <--to 50002--    host H
//! ```
//!
//! Each player of a pair has a port of its own, at which only its partner may send. What arrives there goes to the
//! player, and leaves from the sender's port: each sees the other at one address and can answer there. A
//! datagram's way is found by the port alone, so its cost does not grow with the number of pairs.

mod snapshot;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::core::id::PlayerId;
use crate::core::relay::pair::{Pair, Role};
use crate::core::relay::{
    Action, DropReason, Latching, OwnAddresses, PortMap, PortPool, RelayLimit, RelayPort,
    RelaySettings,
};
use crate::limits::network::Network;
use crate::limits::relay::charge;
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

pub use snapshot::RelaySnapshot;

/// How often pairs that are over are looked for because a port is needed.
const SWEEP_ON_DEMAND_INTERVAL: Duration = Duration::from_secs(1);

/// One player of an introduction, with its registered external address.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Who it is.
    pub player: PlayerId,
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

    /// The network that its relays count against.
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

/// A pair that is over and has given its ports back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedPair {
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
    settings: RelaySettings,
    own: OwnAddresses,
    ports: PortPool,
    slots: PortMap<Slot>,
    /// How many ports there are, wherever they are.
    size: usize,
    pairs: Vec<Option<Pair>>,
    vacant: Vec<PairIndex>,
    /// Each pair twice: by either player first.
    by_players: BTreeMap<(PlayerId, PlayerId), PairIndex>,
    /// How many pairs each network has asked for, whether its players are still connected or not.
    by_network: HashMap<Network, usize>,
    all_traffic: TokenBucket,
    last_sweep: Timestamp,
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
            by_network: HashMap::new(),
            all_traffic: TokenBucket::default(),
            last_sweep: Timestamp::START,
        }
    }

    /// Replaces the server's own addresses: those of interfaces come and go.
    pub fn set_own_addresses(&mut self, own: OwnAddresses) {
        self.own = own;
    }

    /// Replaces the settings, for the pairs that there are too. Debts by the old rates are forgotten.
    pub fn set_settings(&mut self, settings: RelaySettings) {
        self.settings = settings;
        self.all_traffic = TokenBucket::default();
        for side in self.pairs.iter_mut().flatten().flat_map(|pair| &mut pair.sides) {
            side.bucket = TokenBucket::default();
        }
    }

    /// Decides about a datagram with a payload of `length` bytes that arrived at the port `at`: learns where its
    /// sender is, checks whether it may pass, and charges it.
    pub fn handle_datagram(
        &mut self,
        at: RelayPort,
        source: SocketAddr,
        length: usize,
        now: Timestamp,
    ) -> Action {
        let Some(Slot { pair, owner }) = self.slots.get(at).copied() else {
            return Action::Drop(DropReason::NoPair);
        };
        let pair = self.pairs[pair as usize].as_mut().expect("a slot names a pair");
        let cost = charge(length);
        if let Err(reason) = pair.learn(owner, source, self.settings.latching, &self.own, now) {
            return Action::Drop(reason);
        }
        if let Some(reason) = pair.refusal(owner, cost, &self.settings, now) {
            return Action::Drop(reason);
        }
        let limits = &self.settings.limits;
        if !self.all_traffic.has_tokens(limits.burst, now) {
            return Action::Drop(DropReason::GlobalBandwidth);
        }
        self.all_traffic.charge(cost, limits.global_rate, now);
        let (via, to) = pair.charge(owner, cost, limits, now);
        Action::Forward { via, to }
    }

    /// Opens a pair for the two, or finds the one they have. Pairs that are over are `closed` if their ports are
    /// needed. The pair counts against the asker's network as long as it lives.
    ///
    /// # Errors
    /// [`NoRelay`]; then no pair has been opened.
    pub fn introduce(
        &mut self,
        asker: Party,
        host: Party,
        now: Timestamp,
        closed: &mut Vec<ClosedPair>,
    ) -> Result<Introduction, NoRelay> {
        if self.must_be_confirmed() && !asker.is_confirmed() && !host.is_confirmed() {
            return Err(NoRelay::Unconfirmed);
        }
        if let Some(index) = self.find(asker.player, host.player) {
            let pair = self.pairs[index as usize].as_ref().expect("the index names a pair");
            if !pair.life.is_over(&self.settings.limits, now) {
                return Ok(pair.introduction(asker.player));
            }
            closed.push(self.close(index));
        }
        if self.has_its_share(asker.network()) {
            self.sweep_on_demand(now, closed);
            if self.has_its_share(asker.network()) {
                return Err(NoRelay::NetworkHasItsShare);
            }
        }
        let ports = self.allocate(asker.player, host.player, now, closed)?;
        self.insert(Pair::new([asker, host], ports, now));
        let [asker, host] = ports;
        Ok(Introduction { asker, host, is_new: true })
    }

    fn allocate(
        &mut self,
        asker: PlayerId,
        host: PlayerId,
        now: Timestamp,
        closed: &mut Vec<ClosedPair>,
    ) -> Result<[RelayPort; 2], NoRelay> {
        if let Some(ports) = self.ports.allocate(asker, host) {
            return Ok(ports);
        }
        self.sweep_on_demand(now, closed);
        self.ports.allocate(asker, host).ok_or(NoRelay::Exhausted)
    }

    fn sweep_on_demand(&mut self, now: Timestamp, closed: &mut Vec<ClosedPair>) {
        if now.since(self.last_sweep) >= SWEEP_ON_DEMAND_INTERVAL {
            self.sweep(now, closed);
        }
    }

    /// Whether players whose UDP comes from elsewhere than their connection are under suspicion: unless carriers with
    /// several IPs are to be served.
    pub fn must_be_confirmed(&self) -> bool {
        self.settings.latching != Latching::Any
    }

    /// Whether more than three quarters of the ports carry pairs.
    fn is_scarce(&self) -> bool {
        4 * 2 * self.pairs() > 3 * self.size
    }

    /// Whether few ports are left, and players of the network have asked for as many as it may then have.
    fn has_its_share(&self, network: Network) -> bool {
        let pairs = self.by_network.get(&network).copied().unwrap_or(0);
        self.is_scarce() && pairs >= self.settings.limits.max_per_network
    }

    /// A player registered its address for the first time: a port is reserved for it, if one is free.
    pub fn reserve(&mut self, player: PlayerId) {
        self.ports.reserve(player);
    }

    /// A player registered another address: its pairs follow.
    pub fn handle_address_change(&mut self, player: PlayerId, address: SocketAddr) {
        for (_, index) in self.by_players.range((player, PlayerId::MIN)..=(player, PlayerId::MAX)) {
            let pair = self.pairs[*index as usize].as_mut().expect("the index names a pair");
            pair.handle_address_change(player, address);
        }
    }

    /// A player's connection ended: its reservation ends, its pairs live on until they are idle.
    pub fn handle_departure(&mut self, player: PlayerId) {
        self.ports.cancel(player);
    }

    /// Closes the pairs over which nothing was forwarded for the idle time and those past their lifetime.
    pub fn sweep(&mut self, now: Timestamp, closed: &mut Vec<ClosedPair>) {
        self.last_sweep = now;
        for index in 0..self.pairs.len() {
            let pair = self.pairs[index].as_ref();
            if pair.is_some_and(|pair| pair.life.is_over(&self.settings.limits, now)) {
                let index = PairIndex::try_from(index).expect("there are at most 65536 ports");
                closed.push(self.close(index));
            }
        }
    }

    /// The players that are due to hear that the pair at `at` has reached `limit`: each once a minute.
    ///
    /// Of bandwidth the sender hears, whose datagrams were too many; of the others both.
    pub fn due_notices(
        &mut self,
        at: RelayPort,
        limit: RelayLimit,
        now: Timestamp,
    ) -> [Option<PlayerId>; 2] {
        let Some(Slot { pair, owner }) = self.slots.get(at).copied() else {
            return [None, None];
        };
        let pair = self.pairs[pair as usize].as_mut().expect("a slot names a pair");
        let mut notice = |role: Role| pair.people[role as usize].due_notice(limit, now);
        match limit {
            RelayLimit::Bandwidth => [notice(owner.other()), None],
            RelayLimit::Lifetime | RelayLimit::Traffic => [notice(owner.other()), notice(owner)],
        }
    }

    /// The registered address of the player who may send to `at`, if it was not heard there yet.
    pub fn awaited(&self, at: RelayPort) -> Option<SocketAddr> {
        let Slot { pair, owner } = *self.slots.get(at)?;
        let pair = self.pairs[pair as usize].as_ref().expect("a slot names a pair");
        let sender = &pair.sides[owner.other() as usize];
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

    /// How many entries there are by which a pair is found by its players.
    pub fn partners(&self) -> usize {
        self.by_players.len()
    }

    /// How many networks have asked for the pairs.
    pub fn networks(&self) -> usize {
        self.by_network.len()
    }

    /// The ports that carry no pair.
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
        *self.by_network.entry(pair.network()).or_default() += 1;
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
        let count = self.by_network.get_mut(&pair.network()).expect("each pair is counted");
        *count -= 1;
        if *count == 0 {
            self.by_network.remove(&pair.network());
        }
        let ports = pair.ports();
        for port in ports {
            self.slots.remove(port);
            self.ports.release(port);
        }
        ClosedPair { ports, traffic: pair.life.traffic }
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
            let [a, b] = pair.players();
            assert_ne!(a, b, "two different players");
            assert_eq!(self.find(a, b), Some(index));
            assert_eq!(self.find(b, a), Some(index));
        }
        assert_eq!(self.by_players.len(), 2 * self.pairs(), "nobody has a pair that is gone");
        assert_eq!(self.slots.count(), 2 * self.pairs(), "no slot without a pair");
        assert_eq!(self.by_network.values().sum::<usize>(), self.pairs(), "each pair counts once");
        assert_eq!(seen.len(), self.size, "no port is lost");
    }
}

#[cfg(test)]
mod tests;
