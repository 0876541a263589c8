//! The players that are away: their connections have ended, and their ids are kept for them for a while.

use std::collections::{BTreeSet, HashMap};

use super::{Player, Presence};
use crate::core::id::PlayerId;
use crate::limits::network::Network;
use crate::limits::share::{HardCap, HeldShares};
use crate::time::Timestamp;

/// The players that are away, in the order in which their connections ended. Networks share the room for them, so a
/// crowd that registers and leaves takes nothing from others.
#[derive(Debug)]
pub(super) struct Absences {
    by_time: BTreeSet<(Timestamp, PlayerId)>,
    shares: HeldShares,
}

impl Absences {
    /// Nobody is away. There is room for so many.
    pub(super) fn new(capacity: usize) -> Self {
        Self { by_time: BTreeSet::new(), shares: HeldShares::new(capacity) }
    }

    /// Changes for how many there is room.
    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.shares.set_capacity(capacity);
    }

    /// Whether one more player of that network may be away.
    pub(super) fn has_room(&self, network: Network, cap: HardCap) -> bool {
        self.shares.has_room(network, cap)
    }

    /// A player's connection has ended.
    pub(super) fn begin(&mut self, player: PlayerId, network: Network, now: Timestamp) {
        self.by_time.insert((now, player));
        self.shares.take(network);
    }

    /// A player comes back, or is removed, that is away since then.
    pub(super) fn end(&mut self, player: PlayerId, network: Network, since: Timestamp) {
        let was_away = self.by_time.remove(&(since, player));
        debug_assert!(was_away, "{player:?} is away");
        self.shares.give_back(network);
    }

    /// Who is away for the longest time, and since when.
    pub(super) fn first(&self) -> Option<(Timestamp, PlayerId)> {
        self.by_time.first().copied()
    }

    /// How many are away.
    pub(super) fn len(&self) -> usize {
        self.by_time.len()
    }

    /// Checks that exactly the players that are away are here.
    ///
    /// # Panics
    /// If that does not hold.
    pub(super) fn check_invariants(&self, players: &HashMap<PlayerId, Player>) {
        let mut away = BTreeSet::new();
        for (id, player) in players {
            if let Presence::Away(since) = player.presence {
                away.insert((since, *id));
            }
        }
        assert_eq!(away, self.by_time);
        assert_eq!(self.shares.held(), away.len());
    }
}
