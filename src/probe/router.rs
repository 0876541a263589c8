//! Asks nobody: what the caller's own router does, from what the other hops saw.

use serde_json::json;

use super::Outcome;
use super::join::Manners;
use super::meet::Seen;
use super::relay::Relayed;
use super::report::{Hop, Mark, Step};

/// What relay ports said about the caller's router, each by one pair of the sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Votes {
    /// The router used the external port that the registrar had seen.
    pub(super) same: usize,
    /// It used another.
    pub(super) other: usize,
}

/// How the caller's router maps (RFC 4787).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mapping {
    /// There is none: the server sees the machine's own address.
    NoNat,
    /// One external port for the registrar and the relay.
    Same,
    /// Another for each destination.
    Symmetric,
    /// Nothing said.
    Unknown,
}

impl Mapping {
    fn of(seen: &[Seen; 2], is_relayed: bool, votes: Votes, manners: Manners) -> Self {
        if seen.iter().all(|seen| seen.local == seen.external) {
            return Self::NoNat;
        }
        match manners {
            // An old server relays only what comes from the registered address.
            Manners::Silent if is_relayed => Self::Same,
            Manners::Silent => Self::Unknown,
            Manners::Answers if votes.same > votes.other => Self::Same,
            Manners::Answers if votes.other > votes.same => Self::Symmetric,
            Manners::Answers => Self::Unknown,
        }
    }

    /// As it stands in the JSON.
    fn name(self) -> &'static str {
        match self {
            Self::NoNat => "none",
            Self::Same => "same-port",
            Self::Symmetric => "symmetric",
            Self::Unknown => "unknown",
        }
    }
}

/// In plain words; never a failure.
pub(super) fn judge(
    seen: &[Seen; 2],
    relay: Option<Relayed>,
    votes: Votes,
    manners: Manners,
) -> Outcome<()> {
    let mapping = Mapping::of(seen, relay.is_some(), votes, manners);
    let keeps_port = seen.iter().all(|seen| seen.local.port() == seen.external.port());
    let facts = json!({ "mapping": mapping.name(), "keeps_port": keeps_port });
    let text = match mapping {
        Mapping::NoNat => "no NAT: the server sees this machine's own address",
        Mapping::Same if keeps_port => {
            "same port everywhere, even your own: most players can punch through to you"
        }
        Mapping::Same => "same port everywhere: most players can punch through to you",
        Mapping::Symmetric => {
            "another port for each destination (symmetric): others reach you only through the relay"
        }
        Mapping::Unknown => {
            "cannot be told from here: that takes relay ports that answer, and some to spare"
        }
    };
    let mark = if mapping == Mapping::Symmetric { Mark::Note } else { Mark::Ok };
    let mark = if mapping == Mapping::Unknown { Mark::Note } else { mark };
    (Step::ok(Hop::Router, text).marked(mark).with_facts(facts), Some(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings() {
        let seen = |local: &str, external: &str| {
            let seen = Seen { local: local.parse().unwrap(), external: external.parse().unwrap() };
            [seen; 2]
        };
        let (public, home) = (seen("1.1.1.1:1", "1.1.1.1:1"), seen("10.0.0.1:1", "1.1.1.1:2"));
        let (same, other) = (Votes { same: 9, other: 1 }, Votes { same: 0, other: 3 });
        let (new, old) = (Manners::Answers, Manners::Silent);
        let cases = [
            (public, false, Votes::default(), old, Mapping::NoNat),
            (home, true, same, new, Mapping::Same),
            (home, true, other, new, Mapping::Symmetric),
            (home, true, Votes::default(), new, Mapping::Unknown),
            (home, true, Votes::default(), old, Mapping::Same),
            (home, false, Votes::default(), old, Mapping::Unknown),
        ];
        for (seen, is_relayed, votes, manners, mapping) in cases {
            assert_eq!(Mapping::of(&seen, is_relayed, votes, manners), mapping);
        }
    }
}
