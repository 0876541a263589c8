//! The caller's own router: how it maps, from what the other hops saw.

use serde_json::json;

use super::HopResult;
use super::introductions::Seen;
use super::report::{Finding, Hop, Mark};

/// What relay ports said about the caller's router, a vote for each pair of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Votes {
    /// The router used the external port that the registrar had seen.
    pub(super) same: usize,
    /// It used another.
    pub(super) other: usize,
}

/// How a router maps (RFC 4787).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapping {
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
    fn of(seen: [Seen; 2], votes: Votes) -> Self {
        if seen.iter().all(|seen| seen.local == seen.external) {
            Self::NoNat
        } else if votes.same > votes.other {
            Self::Same
        } else if votes.other > votes.same {
            Self::Symmetric
        } else {
            Self::Unknown
        }
    }
}

/// In plain words; never a failure.
pub(super) fn judge(seen: [Seen; 2], votes: Votes) -> HopResult<()> {
    let keeps_port = seen.iter().all(|seen| seen.local.port() == seen.external.port());
    let (name, mark, text) = match Mapping::of(seen, votes) {
        Mapping::NoNat => ("none", Mark::Ok, "no NAT: the server sees this machine's own address"),
        Mapping::Same if keeps_port => (
            "same-port",
            Mark::Ok,
            "same port everywhere, even your own: most players can punch through to you",
        ),
        Mapping::Same => {
            ("same-port", Mark::Ok, "same port everywhere: most players can punch through to you")
        }
        Mapping::Symmetric => (
            "symmetric",
            Mark::Note,
            "another port for each destination (symmetric): others reach you only through the relay",
        ),
        Mapping::Unknown => (
            "unknown",
            Mark::Note,
            "cannot be told from here: that takes relay ports that answer, and some to spare",
        ),
    };
    let facts = json!({ "mapping": name, "keeps_port": keeps_port });
    Ok((Finding { mark, ..Finding::ok(Hop::Router, text) }.with_facts(facts), ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings() {
        let seen = |local: &str, external: &str| {
            [Seen { local: local.parse().unwrap(), external: external.parse().unwrap() }; 2]
        };
        let (public, home) = (seen("1.1.1.1:1", "1.1.1.1:1"), seen("10.0.0.1:1", "1.1.1.1:2"));
        let cases = [
            (public, 0, 0, Mapping::NoNat),
            (home, 9, 1, Mapping::Same),
            (home, 0, 3, Mapping::Symmetric),
            (home, 0, 0, Mapping::Unknown),
        ];
        for (seen, same, other, mapping) in cases {
            assert_eq!(Mapping::of(seen, Votes { same, other }), mapping);
        }
    }
}
