//! What another process needs to go on with the relays.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::RelayTable;
use crate::core::relay::pair::Pair;
use crate::core::relay::ports::{PoolSnapshot, PortPool};
use crate::core::relay::{OwnAddresses, RelayPort, RelaySettings};
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// All that is to be known of the relays, for another process to go on with.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaySnapshot {
    ports: PoolSnapshot,
    pairs: Vec<Pair>,
    all_traffic: TokenBucket,
    last_sweep: Timestamp,
}

impl RelayTable {
    /// What another process needs to go on with these pairs.
    pub fn snapshot(&self) -> RelaySnapshot {
        RelaySnapshot {
            ports: self.ports.snapshot(),
            pairs: self.pairs.iter().flatten().cloned().collect(),
            all_traffic: self.all_traffic,
            last_sweep: self.last_sweep,
        }
    }

    /// Goes on with the pairs of a snapshot. `ports` are those that can be used now: what the snapshot has beyond
    /// them is given up, what it does not know is free.
    ///
    /// # Errors
    /// What is wrong with the snapshot, if two pairs have one port or a pair's port is not among `ports`.
    pub fn restore(
        snapshot: RelaySnapshot,
        settings: RelaySettings,
        own: OwnAddresses,
        ports: &[RelayPort],
    ) -> Result<Self, String> {
        let mut table = Self::new(settings, own, ports);
        let mut unused: BTreeSet<RelayPort> = ports.iter().copied().collect();
        for pair in snapshot.pairs {
            for port in pair.ports() {
                if !unused.remove(&port) {
                    return Err(format!("port {port} is missing, or has two pairs"));
                }
            }
            table.insert(pair);
        }
        table.ports = PortPool::restore(snapshot.ports, ports, |port| unused.remove(&port));
        table.all_traffic = snapshot.all_traffic;
        table.last_sweep = snapshot.last_sweep;
        Ok(table)
    }
}
