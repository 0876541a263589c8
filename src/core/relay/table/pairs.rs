//! The live pairs, found by port and by players.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::core::id::PlayerId;
use crate::core::relay::pair::{Pair, Role};
use crate::core::relay::{PortMap, RelayPort};

/// Where a pair stands among the [`Pairs`], as long as it lives.
pub(super) type PairIndex = u32;

/// All live pairs.
#[derive(Debug)]
pub(in crate::core::relay) struct Pairs {
    slots: PortMap<Slot>,
    pairs: Vec<Option<Pair>>,
    vacant: Vec<PairIndex>,
    /// Each pair has two entries, one with each player first.
    by_players: BTreeMap<(PlayerId, PlayerId), PairIndex>,
}

/// What another process needs to go on with [`Pairs`]. The order of the indices decides which pair a sweep closes first,
/// and so which port is used next.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PairsSnapshot {
    pairs: Vec<Option<Pair>>,
    vacant: Vec<PairIndex>,
}

impl PairsSnapshot {
    /// The pairs.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().flatten()
    }
}

/// The pair that a port belongs to, and which of the two players owns the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    pair: PairIndex,
    owner: Role,
}

impl Pairs {
    /// No pairs, with room for some at each of `ports`.
    pub(super) fn new(ports: &[RelayPort]) -> Self {
        Self {
            slots: PortMap::new(ports.iter().copied()),
            pairs: Vec::new(),
            vacant: Vec::new(),
            by_players: BTreeMap::new(),
        }
    }

    /// All pairs at their indices, and the indices without one, the next to be used last.
    pub(super) fn snapshot(&self) -> PairsSnapshot {
        PairsSnapshot { pairs: self.pairs.clone(), vacant: self.vacant.clone() }
    }

    /// The pairs of a snapshot, at the same indices.
    ///
    /// # Errors
    /// If an index without a pair is not vacant, or the reverse.
    pub(super) fn restore(snapshot: PairsSnapshot, ports: &[RelayPort]) -> Result<Self, String> {
        let PairsSnapshot { pairs, vacant } = snapshot;
        let empty = (0..).zip(&pairs).filter(|(_, pair)| pair.is_none()).map(|(index, _)| index);
        let mut sorted = vacant.clone();
        sorted.sort_unstable();
        if !empty.eq(sorted) {
            return Err("the pairs and the vacant indices do not fit together".to_owned());
        }
        let mut restored = Self::new(ports);
        for (index, pair) in (0..).zip(&pairs) {
            if let Some(pair) = pair {
                restored.index(pair, index);
            }
        }
        Ok(Self { pairs, vacant, ..restored })
    }

    /// The pair that has the port, and which of its players owns it.
    pub(in crate::core::relay) fn at(&self, port: RelayPort) -> Option<(&Pair, Role)> {
        let Slot { pair, owner } = *self.slots.get(port)?;
        Some((self.get(pair).expect("a slot names a pair"), owner))
    }

    /// The same as [`Self::at`], for a change.
    pub(in crate::core::relay) fn at_mut(&mut self, port: RelayPort) -> Option<(&mut Pair, Role)> {
        let Slot { pair, owner } = *self.slots.get(port)?;
        Some((self.pairs[pair as usize].as_mut().expect("a slot names a pair"), owner))
    }

    /// The pair of two players, in either order.
    pub(super) fn find(&self, one: PlayerId, other: PlayerId) -> Option<(PairIndex, &Pair)> {
        let index = *self.by_players.get(&(one, other))?;
        Some((index, self.get(index).expect("the index of players names a pair")))
    }

    /// Tells each pair of a host whether there are more than `crowd` of them.
    /// The asker's ports of those for which that changes are added to `changed`.
    pub(super) fn update_crowd(
        &mut self,
        host: PlayerId,
        crowd: usize,
        changed: &mut Vec<RelayPort>,
    ) {
        let of_host = (host, PlayerId::MIN)..=(host, PlayerId::MAX);
        let indices = self.by_players.range(of_host).map(|(_, index)| *index);
        let is_hosted = |index: &PairIndex| self.get(*index).is_some_and(|p| p.is_hosted_by(host));
        let is_crowd = indices.filter(is_hosted).nth(crowd).is_some();
        self.for_each_of(host, |pair| {
            if pair.is_hosted_by(host) && pair.is_in_crowd != is_crowd {
                pair.is_in_crowd = is_crowd;
                changed.push(pair.ports()[0]);
            }
        });
    }

    /// Does something with each pair of a player.
    pub(super) fn for_each_of(&mut self, player: PlayerId, mut action: impl FnMut(&mut Pair)) {
        for (_, index) in self.by_players.range((player, PlayerId::MIN)..=(player, PlayerId::MAX)) {
            let pair = self.pairs[*index as usize].as_mut();
            action(pair.expect("the index of players names a pair"));
        }
    }

    /// The pair at an index, if there is one.
    pub(super) fn get(&self, index: PairIndex) -> Option<&Pair> {
        self.pairs[index as usize].as_ref()
    }

    /// All indices, also those without a pair.
    pub(super) fn indices(&self) -> Range<PairIndex> {
        0..to_index(self.pairs.len())
    }

    /// All pairs.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().flatten()
    }

    /// All pairs, for a change.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pair> {
        self.pairs.iter_mut().flatten()
    }

    /// How many pairs there are.
    pub(super) fn len(&self) -> usize {
        self.pairs.len() - self.vacant.len()
    }

    /// How many entries the index has that finds a pair by its players.
    pub(super) fn partners(&self) -> usize {
        self.by_players.len()
    }

    /// Adds a pair.
    pub(super) fn insert(&mut self, pair: Pair) {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            to_index(self.pairs.len() - 1)
        });
        self.index(&pair, index);
        self.pairs[index as usize] = Some(pair);
    }

    /// Lets a pair be found at an index.
    fn index(&mut self, pair: &Pair, index: PairIndex) {
        let [a, b] = pair.ports();
        self.slots.insert(a, Slot { pair: index, owner: Role::Asker });
        self.slots.insert(b, Slot { pair: index, owner: Role::Host });
        let [a, b] = pair.players();
        self.by_players.insert((a, b), index);
        self.by_players.insert((b, a), index);
    }

    /// Removes the pair at an index.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn remove(&mut self, index: PairIndex) -> Pair {
        let pair = self.pairs[index as usize].take().expect("only a pair is removed");
        self.vacant.push(index);
        for port in pair.ports() {
            self.slots.remove(port);
        }
        let [a, b] = pair.players();
        self.by_players.remove(&(a, b));
        self.by_players.remove(&(b, a));
        pair
    }

    /// Checks that each pair is found by its ports and players, and nothing else is.
    ///
    /// # Panics
    /// If that does not hold.
    pub(super) fn check_invariants(&self) {
        for index in self.indices() {
            let Some(pair) = self.get(index) else {
                assert!(self.vacant.contains(&index), "index {index} has no pair and is vacant");
                continue;
            };
            for (owner, port) in [Role::Asker, Role::Host].into_iter().zip(pair.ports()) {
                let expected = Slot { pair: index, owner };
                assert_eq!(self.slots.get(port), Some(&expected), "slot of port {port}");
            }
            let [a, b] = pair.players();
            assert_ne!(a, b, "two different players");
            assert_eq!(self.by_players.get(&(a, b)), Some(&index));
            assert_eq!(self.by_players.get(&(b, a)), Some(&index));
        }
        assert_eq!(
            self.by_players.len(),
            2 * self.len(),
            "each pair has two entries, and no other"
        );
        assert_eq!(self.slots.count(), 2 * self.len(), "no slot without a pair");
    }
}

fn to_index(position: usize) -> PairIndex {
    PairIndex::try_from(position).expect("there are at most 65536 ports")
}
