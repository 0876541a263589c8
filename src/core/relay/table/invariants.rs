//! What must always hold of the relays, for tests and simulations.

use std::collections::HashMap;

use super::RelayTable;
use crate::core::relay::RelayPort;

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
        for pair in self.pairs.iter() {
            pair.ports().into_iter().for_each(|port| place(port, "pair"));
        }
        self.pairs.check_invariants();
        for pair in self.pairs.iter() {
            let [_, host] = pair.players();
            let hosted = self.pairs.iter().filter(|other| other.is_hosted_by(host)).count();
            assert_eq!(
                pair.is_in_crowd,
                hosted > self.settings.limits.crowd,
                "{hosted} pairs of one host"
            );
        }
        assert_eq!(self.shares.held(), self.pairs(), "each pair counts once");
        assert_eq!(seen.len(), self.size, "no port is lost");
        let is_in_use = |port| seen.get(port) == Some(&"pair");
        assert!(self.retiring.iter().all(is_in_use), "a port retires with its pair");
    }
}
