//! Names of the limits on what strangers may use. Each has a counter in the metrics.
//!
//! Reasons to close a connection and to drop a datagram have counters of their own. docs/security.md lists all limits with
//! their values and reasons.

use crate::label::labels;

labels! {
    /// A limit that was reached.
    pub enum Bound {
        /// Connections in all: `NORAY_MAX_CONNECTIONS`, or as many as the machine has room for.
        Connections = "connections",
        /// Connections of one network: its share, or `NORAY_MAX_CONNECTIONS_PER_IP`.
        ConnectionsPerIp = "connections-per-ip",
        /// New connections of one network a second.
        NewConnections = "new-connections-per-ip",
        /// Connections of one network that have not registered.
        UnregisteredPerIp = "unregistered-per-ip",
        /// Threads: the system refused a thread for a player.
        Threads = "threads",
        /// Commands of one connection: [`COMMANDS_PER_SECOND`](crate::limits::connection_policy::COMMANDS_PER_SECOND).
        Commands = "commands",
        /// Wrong OpenIDs from one network: [`WRONG_OPEN_IDS`](crate::limits::rates::WRONG_OPEN_IDS).
        WrongOpenIds = "wrong-oids",
        /// Introductions to one host: [`INTRODUCTIONS`](crate::limits::rates::INTRODUCTIONS).
        Introductions = "introductions",
        /// `connect` of unconfirmed players of one network:
        /// [`UNCONFIRMED_CONNECTS`](crate::limits::rates::UNCONFIRMED_CONNECTS).
        UnconfirmedConnects = "unconfirmed-connects",
        /// Changes of one player's address: [`ADDRESS_CHANGES`](crate::limits::rates::ADDRESS_CHANGES).
        AddressChanges = "moves",
        /// Relays that one network has asked for: its share, or `NORAY_UDP_RELAY_MAX_PER_IP`.
        RelaysPerIp = "relays-per-ip",
        /// Relays in all: `NORAY_UDP_RELAY_PORTS`.
        Relays = "relays",
        /// HTTP requests at the same time.
        Requests = "requests",
        /// Answers of the registrar to datagrams that are no known PrivateID:
        /// [`UNKNOWN_ANSWERS`](crate::limits::rates::UNKNOWN_ANSWERS).
        UnknownAnswers = "unknown-answers",
    }
}
