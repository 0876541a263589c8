//! The pool of relay ports that belong to no pair: those that are free, and those that are reserved for a player.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::core::id::PlayerId;
use crate::core::relay::RelayPort;

/// The relay ports that belong to no pair.
///
/// Free ports form a queue. The port that was freed longest ago is used next, so that late datagrams of an old game do
/// not reach a new game. A reservation keeps a port for a player until its first introduction. It is no promise: when
/// no port is free, the oldest reservation is taken back.
#[derive(Debug, Default)]
pub struct PortPool {
    free: VecDeque<RelayPort>,
    /// The oldest first: each new key is larger than all others.
    reservations: BTreeMap<u64, (PlayerId, RelayPort)>,
    by_player: HashMap<PlayerId, u64>,
    next_reservation: u64,
}

/// The free ports in their order, and the reservations, the oldest first.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    free: Vec<RelayPort>,
    reserved: Vec<(PlayerId, RelayPort)>,
}

impl PortPool {
    /// A pool in which all `ports` are free. They are used in that order.
    pub fn new(ports: impl IntoIterator<Item = RelayPort>) -> Self {
        Self { free: ports.into_iter().collect(), ..Self::default() }
    }

    /// Reserves a free port for the player. Does nothing if it has a reservation, or if no port is free.
    pub fn reserve(&mut self, player: PlayerId) {
        if self.by_player.contains_key(&player) {
            return;
        }
        let Some(port) = self.free.pop_front() else {
            return;
        };
        self.insert_reservation(player, port);
    }

    fn insert_reservation(&mut self, player: PlayerId, port: RelayPort) {
        self.reservations.insert(self.next_reservation, (player, port));
        self.by_player.insert(player, self.next_reservation);
        self.next_reservation += 1;
    }

    /// Cancels the player's reservation, if it has one. The port goes to the end of the queue.
    pub fn cancel(&mut self, player: PlayerId) {
        if let Some(port) = self.take_reservation(player) {
            self.release(port);
        }
    }

    /// Takes a port for each of two players: the player's reserved port, else a free port, else the port of the oldest
    /// reservation. Takes nothing if there are not two ports.
    pub fn allocate(&mut self, first: PlayerId, second: PlayerId) -> Option<[RelayPort; 2]> {
        if self.free.len() + self.reservations.len() < 2 {
            return None;
        }
        // First the reservations of both players: otherwise the oldest one could be the second player's.
        let reserved = [first, second].map(|player| self.take_reservation(player));
        Some(reserved.map(|port| port.unwrap_or_else(|| self.take_any())))
    }

    /// Puts a port of a closed pair at the end of the queue.
    pub fn release(&mut self, port: RelayPort) {
        self.free.push_back(port);
    }

    /// A snapshot of this pool.
    pub fn snapshot(&self) -> PoolSnapshot {
        PoolSnapshot {
            free: self.free.iter().copied().collect(),
            reserved: self.reservations.values().copied().collect(),
        }
    }

    /// Restores a pool from a snapshot. `take` says for a port whether the pool may have it; it must say yes only
    /// once. Those of `ports` that the snapshot does not have are free too.
    pub fn restore(
        snapshot: PoolSnapshot,
        ports: &[RelayPort],
        mut take: impl FnMut(RelayPort) -> bool,
    ) -> Self {
        let mut pool = Self::default();
        for (player, port) in snapshot.reserved {
            if !pool.by_player.contains_key(&player) && take(port) {
                pool.insert_reservation(player, port);
            }
        }
        pool.free = snapshot.free.iter().chain(ports).copied().filter(|port| take(*port)).collect();
        pool
    }

    /// How many ports are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// How many ports are reserved.
    pub fn reserved(&self) -> usize {
        self.reservations.len()
    }

    /// How many ports are in the pool.
    pub fn len(&self) -> usize {
        self.free() + self.reserved()
    }

    /// Whether no port is in the pool.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All ports in the pool, free or reserved.
    pub fn iter(&self) -> impl Iterator<Item = RelayPort> + '_ {
        let reserved = self.reservations.values().map(|(_, port)| *port);
        self.free.iter().copied().chain(reserved)
    }

    fn take_any(&mut self) -> RelayPort {
        self.free.pop_front().unwrap_or_else(|| {
            let (_, (player, port)) =
                self.reservations.pop_first().expect("allocate made sure of two ports");
            self.by_player.remove(&player);
            port
        })
    }

    fn take_reservation(&mut self, player: PlayerId) -> Option<RelayPort> {
        let reservation = self.by_player.remove(&player)?;
        let (_, port) =
            self.reservations.remove(&reservation).expect("both maps have the reservation");
        Some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PlayerId = PlayerId(1);
    const B: PlayerId = PlayerId(2);
    const C: PlayerId = PlayerId(3);

    fn pool(count: u16) -> PortPool {
        PortPool::new((1..=count).map(RelayPort))
    }

    fn ports(a: u16, b: u16) -> Option<[RelayPort; 2]> {
        Some([RelayPort(a), RelayPort(b)])
    }

    #[test]
    fn freed_ports_are_used_last() {
        let mut pool = pool(4);
        assert_eq!(pool.allocate(A, B), ports(1, 2));
        pool.release(RelayPort(2));
        pool.release(RelayPort(1));
        assert_eq!(pool.allocate(A, B), ports(3, 4));
        assert_eq!(pool.allocate(A, B), ports(2, 1));
    }

    #[test]
    fn a_reservation_is_used_by_the_first_introduction_only() {
        let mut pool = pool(6);
        pool.reserve(A);
        pool.reserve(A);
        pool.reserve(B);
        assert_eq!((pool.free(), pool.reserved()), (4, 2));
        assert_eq!(pool.allocate(B, A), ports(2, 1));
        assert_eq!(pool.allocate(B, A), ports(3, 4));
    }

    #[test]
    fn the_oldest_reservation_is_taken_back_but_not_the_partners() {
        let mut pool = pool(3);
        for player in [B, C, A] {
            pool.reserve(player);
        }
        assert_eq!(pool.allocate(A, B), ports(3, 1));
        assert_eq!(pool.allocate(A, B), None, "one port is not enough");
        assert_eq!(pool.reserved(), 1, "a failed call takes nothing");
        pool.release(RelayPort(1));
        assert_eq!(pool.allocate(A, B), ports(1, 2), "C's reservation is taken back");
        pool.cancel(C);
        assert_eq!((pool.free(), pool.reserved()), (0, 0), "C has no reservation any more");
    }

    #[test]
    fn a_cancelled_reservation_goes_to_the_end_of_the_queue() {
        let mut pool = pool(3);
        pool.reserve(A);
        pool.cancel(A);
        assert_eq!(pool.allocate(A, B), ports(2, 3));
        assert_eq!(pool.iter().collect::<Vec<_>>(), [RelayPort(1)]);
    }
}
