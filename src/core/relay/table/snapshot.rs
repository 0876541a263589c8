//! A snapshot of the relays, so that another process can go on with them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::RelayTable;
use super::pairs::{Pairs, PairsSnapshot};
use super::traffic::{HostTrafficSnapshot, TotalTrafficSnapshot};
use crate::core::id::PlayerId;
use crate::core::relay::pair::Pair;
use crate::core::relay::ports::{PoolSnapshot, PortPool};
use crate::core::relay::sources::Sources;
use crate::core::relay::sprayers::Sprayers;
use crate::core::relay::{OwnAddresses, RelayPort, RelaySettings};
use crate::time::Timestamp;

/// All pairs, the port pool, the rate limits of the relays, and the sources that are no players.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaySnapshot {
    ports: PoolSnapshot,
    pairs: PairsSnapshot,
    total_traffic: TotalTrafficSnapshot,
    host_traffic: HostTrafficSnapshot,
    last_sweep: Timestamp,
    early: BTreeMap<RelayPort, Sources>,
    sprayers: Sprayers,
    former: BTreeMap<RelayPort, (PlayerId, Timestamp)>,
}

impl RelayTable {
    /// A snapshot of this table.
    pub fn snapshot(&self) -> RelaySnapshot {
        RelaySnapshot {
            ports: self.ports.snapshot(),
            pairs: self.pairs.snapshot(),
            total_traffic: self.total_traffic.snapshot(),
            host_traffic: self.host_traffic.snapshot(),
            last_sweep: self.last_sweep,
            early: self.early.clone(),
            sprayers: self.sprayers.clone(),
            former: self.former.clone(),
        }
    }
}

impl RelaySnapshot {
    /// All ports of pairs.
    pub fn ports_of_pairs(&self) -> impl Iterator<Item = RelayPort> {
        self.pairs.iter().flat_map(Pair::ports)
    }
}

impl RelayTable {
    /// Restores a table from a snapshot. `ports` are the ports that can be used now. Free and reserved ports of the
    /// snapshot that are not among them are dropped. A pair's port that is not among them retires: it is used until the
    /// pair ends. Ports that the snapshot does not have are free.
    ///
    /// # Errors
    /// If two pairs have the same port, or an index is wrong.
    pub fn restore(
        snapshot: RelaySnapshot,
        settings: RelaySettings,
        own: OwnAddresses,
        ports: &[RelayPort],
    ) -> Result<Self, String> {
        let configured: BTreeSet<RelayPort> = ports.iter().copied().collect();
        let mut unused = configured.clone();
        let mut retiring = BTreeSet::new();
        for port in snapshot.ports_of_pairs() {
            if !unused.remove(&port) && (configured.contains(&port) || !retiring.insert(port)) {
                return Err(format!("port {port} has two pairs"));
            }
        }
        let all: Vec<RelayPort> = ports.iter().chain(&retiring).copied().collect();
        let mut table = Self::new(settings, own, &all);
        snapshot.pairs.iter().for_each(|pair| table.shares.take(pair.network()));
        table.retiring = retiring;
        table.pairs = Pairs::restore(snapshot.pairs, &all)?;
        table.ports = PortPool::restore(snapshot.ports, ports, |port| unused.remove(&port));
        table.total_traffic.restore(snapshot.total_traffic);
        table.host_traffic.restore(snapshot.host_traffic);
        table.last_sweep = snapshot.last_sweep;
        table.early = snapshot.early;
        table.sprayers = snapshot.sprayers;
        table.former = snapshot.former;
        Ok(table)
    }
}
