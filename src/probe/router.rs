//! The hop that judges the caller's own router: how it maps, from what the other hops saw.

use serde_json::json;

use super::HopResult;
use super::introductions::Seen;
use super::report::{Finding, Hop, Mark};

/// What relay ports showed about the caller's router: a vote for each pair of ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Votes {
    /// The router used the external port that the registrar had seen.
    pub(super) same: usize,
    /// It used another.
    pub(super) other: usize,
}

/// Says in plain words how the router maps (RFC 4787). This never fails. `None` is seen if players are not told.
pub(super) fn judge(seen: Option<[Seen; 2]>, votes: Votes) -> HopResult<()> {
    let Some(seen) = seen else {
        let text = "does not matter: on this server all players meet through the relay";
        return Ok((Finding::ok(Hop::Router, text), ()));
    };
    let keeps_port = seen.iter().all(|seen| seen.local.port() == seen.external.port());
    let (mapping, mark, text) = if seen.iter().all(|seen| seen.local == seen.external) {
        ("none", Mark::Ok, "no NAT: the server sees this machine's own address")
    } else if votes.same > votes.other && keeps_port {
        let text = "same port everywhere, even your own: most players can punch through to you";
        ("same-port", Mark::Ok, text)
    } else if votes.same > votes.other {
        let text = "same port everywhere: most players can punch through to you";
        ("same-port", Mark::Ok, text)
    } else if votes.other > votes.same {
        let text = "another port for each destination (symmetric): others reach you only through the \
                    relay";
        ("symmetric", Mark::Note, text)
    } else {
        let text =
            "cannot be told from here: that takes relay ports that answer, and some to spare";
        ("unknown", Mark::Note, text)
    };
    let facts = json!({ "mapping": mapping, "keeps_port": keeps_port });
    Ok((Finding::ok(Hop::Router, text).marked(mark).with_facts(facts), ()))
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
            (public, 0, 0, "none"),
            (home, 9, 1, "same-port"),
            (home, 0, 3, "symmetric"),
            (home, 0, 0, "unknown"),
        ];
        for (seen, same, other, mapping) in cases {
            let (finding, ()) = judge(Some(seen), Votes { same, other }).unwrap();
            assert_eq!(finding.facts["mapping"], mapping);
        }
    }
}
