//! How large the core's tables are, for metrics and for tests.

use crate::core::Core;

/// How many entries the core's tables have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSizes {
    /// Connections.
    pub connections: usize,
    /// Registered players that are connected.
    pub players: usize,
    /// Registered players that are away.
    pub absent: usize,
    /// OpenIDs in use.
    pub open_ids: usize,
    /// PrivateIDs in use.
    pub private_ids: usize,
    /// Entries of the rate limits for wrong OpenIDs and for `connect` of unconfirmed players: one for each network.
    pub limited_networks: usize,
    /// Relayed pairs.
    pub pairs: usize,
    /// Entries of the index that finds a pair by its players: two for each pair.
    pub partners: usize,
    /// Networks that have asked for the live pairs.
    pub relay_networks: usize,
    /// Relay ports that are free.
    pub free_ports: usize,
    /// Relay ports that are reserved.
    pub reserved_ports: usize,
}

impl Core {
    /// How many entries the tables have.
    pub fn table_sizes(&self) -> TableSizes {
        TableSizes {
            connections: self.players.connections(),
            players: self.players.connected(),
            absent: self.players.absent(),
            open_ids: self.players.open_ids(),
            private_ids: self.players.private_ids(),
            limited_networks: self.players.networks(),
            pairs: self.relays.pairs(),
            partners: self.relays.partners(),
            relay_networks: self.relays.networks(),
            free_ports: self.relays.ports().free(),
            reserved_ports: self.relays.ports().reserved(),
        }
    }
}
