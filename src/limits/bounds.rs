//! Holds nobody to anything: the names of the bounds on what strangers may use up, for the metric that counts each.
//!
//! Others have counters of their own: what a connection is closed for
//! ([`Misconduct`](crate::limits::conduct::Misconduct)) and what a relay drops ([`DropReason`](crate::core::relay::DropReason)).
//! The README lists all of them with their values and reasons.

/// Something of which there may be so much and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Connections in all: `NORAY_MAX_CONNECTIONS`, or as many as the machine has room for.
    Connections,
    /// Connections of one network: `NORAY_MAX_CONNECTIONS_PER_IP`.
    ConnectionsPerIp,
    /// New connections of one network a second.
    NewConnections,
    /// Connections of one network that have not registered.
    UnregisteredPerIp,
    /// Threads: the system refused one for a player.
    Threads,
    /// Commands of one connection: [`COMMANDS_PER_SECOND`](crate::limits::conduct::COMMANDS_PER_SECOND).
    Commands,
    /// Wrong OpenIDs from one network: [`WRONG_OIDS`](crate::core::players::WRONG_OIDS).
    WrongOpenIds,
    /// Introductions to one host: [`INTRODUCTIONS`](crate::core::players::INTRODUCTIONS).
    Introductions,
    /// Of them, those that one network asks for:
    /// [`INTRODUCTIONS_PER_NETWORK`](crate::core::players::INTRODUCTIONS_PER_NETWORK).
    IntroductionsPerIp,
    /// `connect` of players whose UDP comes from elsewhere than their connection:
    /// [`UNCONFIRMED_CONNECTS`](crate::core::players::UNCONFIRMED_CONNECTS).
    UnconfirmedConnects,
    /// Changes of one player's address: [`MOVES`](crate::core::players::MOVES).
    Moves,
    /// Relays that players of one network have asked for while few ports are left: `NORAY_UDP_RELAY_MAX_PER_IP`.
    RelaysPerIp,
    /// Relays in all: `NORAY_UDP_RELAY_PORTS`.
    Relays,
    /// Requests for metrics and health at the same time.
    Requests,
    /// Answers to what is no PrivateID:
    /// [`UNKNOWN_ANSWERS_PER_SECOND`](crate::core::registrar::UNKNOWN_ANSWERS_PER_SECOND).
    UnknownAnswers,
}

impl Bound {
    /// All of them, each at the index `self as usize`.
    pub const ALL: [Self; 15] = [
        Self::Connections,
        Self::ConnectionsPerIp,
        Self::NewConnections,
        Self::UnregisteredPerIp,
        Self::Threads,
        Self::Commands,
        Self::WrongOpenIds,
        Self::Introductions,
        Self::IntroductionsPerIp,
        Self::UnconfirmedConnects,
        Self::Moves,
        Self::RelaysPerIp,
        Self::Relays,
        Self::Requests,
        Self::UnknownAnswers,
    ];

    /// The metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerIp => "connections-per-ip",
            Self::NewConnections => "new-connections-per-ip",
            Self::UnregisteredPerIp => "unregistered-per-ip",
            Self::Threads => "threads",
            Self::Commands => "commands",
            Self::WrongOpenIds => "wrong-oids",
            Self::Introductions => "introductions",
            Self::IntroductionsPerIp => "introductions-per-ip",
            Self::UnconfirmedConnects => "unconfirmed-connects",
            Self::Moves => "moves",
            Self::RelaysPerIp => "relays-per-ip",
            Self::Relays => "relays",
            Self::Requests => "requests",
            Self::UnknownAnswers => "unknown-answers",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_stand_at_their_index_and_have_labels_of_their_own() {
        for (index, bound) in Bound::ALL.into_iter().enumerate() {
            assert_eq!(bound as usize, index);
            assert!(Bound::ALL[..index].iter().all(|other| other.label() != bound.label()));
        }
    }
}
