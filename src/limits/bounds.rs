//! Holds nobody to anything: the names of the bounds on what strangers may use up, for the metric that counts each.
//!
//! Others have counters of their own: what a connection is closed for
//! ([`Misconduct`](crate::limits::conduct::Misconduct)) and what a relay drops ([`DropReason`](crate::core::relay::DropReason)).
//! The README lists all of them with their values and reasons.

use crate::label::labels;

labels! {
    /// Something of which there may be so much and no more.
    pub enum Bound {
        /// Connections in all: `NORAY_MAX_CONNECTIONS`, or as many as the machine has room for.
        Connections = "connections",
        /// Connections of one network: `NORAY_MAX_CONNECTIONS_PER_IP`.
        ConnectionsPerIp = "connections-per-ip",
        /// New connections of one network a second.
        NewConnections = "new-connections-per-ip",
        /// Connections of one network that have not registered.
        UnregisteredPerIp = "unregistered-per-ip",
        /// Threads: the system refused one for a player.
        Threads = "threads",
        /// Commands of one connection: [`COMMANDS_PER_SECOND`](crate::limits::conduct::COMMANDS_PER_SECOND).
        Commands = "commands",
        /// Wrong OpenIDs from one network: [`WRONG_OIDS`](crate::core::players::WRONG_OIDS).
        WrongOpenIds = "wrong-oids",
        /// Introductions to one host: [`INTRODUCTIONS`](crate::core::players::INTRODUCTIONS).
        Introductions = "introductions",
        /// Of them, those that one network asks for:
        /// [`INTRODUCTIONS_PER_NETWORK`](crate::core::players::INTRODUCTIONS_PER_NETWORK).
        IntroductionsPerIp = "introductions-per-ip",
        /// `connect` of players whose UDP comes from elsewhere than their connection:
        /// [`UNCONFIRMED_CONNECTS`](crate::core::players::UNCONFIRMED_CONNECTS).
        UnconfirmedConnects = "unconfirmed-connects",
        /// Changes of one player's address: [`MOVES`](crate::core::players::MOVES).
        Moves = "moves",
        /// Relays that players of one network have asked for while few ports are left: `NORAY_UDP_RELAY_MAX_PER_IP`.
        RelaysPerIp = "relays-per-ip",
        /// Relays in all: `NORAY_UDP_RELAY_PORTS`.
        Relays = "relays",
        /// Requests for metrics and health at the same time.
        Requests = "requests",
        /// Answers to what is no PrivateID:
        /// [`UNKNOWN_ANSWERS_PER_SECOND`](crate::core::registrar::UNKNOWN_ANSWERS_PER_SECOND).
        UnknownAnswers = "unknown-answers",
    }
}
