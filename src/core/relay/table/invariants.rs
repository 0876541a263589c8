//! What must always hold of the relays, for tests and simulations.

use std::collections::HashMap;

use super::RelayTable;
use crate::core::relay::RelayPort;
use crate::core::relay::pair::Role;

impl RelayTable {
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
                assert!(self.vacant.contains(&index), "index {index} has no pair and is vacant");
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
        assert_eq!(
            self.by_players.len(),
            2 * self.pairs(),
            "each pair has two entries, and no other entries"
        );
        assert_eq!(self.slots.count(), 2 * self.pairs(), "no slot without a pair");
        assert_eq!(self.shares.held(), self.pairs(), "each pair counts once");
        assert_eq!(seen.len(), self.size, "no port is lost");
    }
}
