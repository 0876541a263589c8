//! The port-range hop: a sample of the relay ports, and which of them answer.
//!
//! A stateful firewall on the server hides closed ports: after the server has sent from a port to an address, datagrams
//! from there get in as answers. So only datagrams of *fresh* sockets count, to which the server has never sent. The
//! server takes them for the player whose IP they have (see [`Latch`](noray::core::relay::Latch)), as long as the
//! registered socket is silent. There are three turns:
//!
//! 1. [`FRESH`]: all fresh sockets send. What arrives came through an open port.
//! 2. [`ASKERS`]: the askers' registered sockets send too, which opens the asker's own router for the host's
//!    datagrams. It also shows how that router maps: a registered socket takes its place back at once if it is
//!    still seen at the registered address, and is dropped if it is not.
//! 3. [`HOSTS`]: the hosts' registered sockets send too. If a pair was silent until now and is heard in this
//!    turn, its port towards the host is open and its port towards the asker is closed.

use std::collections::BTreeMap;
use std::time::Duration;

use noray::config::units::PortList;
use serde_json::json;

use super::HopResult;
use super::bots::Bots;
use super::exchange::{End, Exchange, Link, Pace, Purpose, Tag};
use super::introductions::{Crowd, gather};
use super::report::{Finding, Hop, Mark};
use super::router::Votes;

/// Eight bots are 28 pairs with 56 ports.
const MAX_BOTS: usize = 8;

/// The sample takes at most an eighth of the range.
const SHARE: usize = 8;

/// Three bots have 6 ports: for a range that may not be the server's.
const FEW_BOTS: usize = 3;

/// A turn lasts 0.9 s at most. It ends as soon as all is known.
const TURN: Pace =
    Pace { rounds: 4, every: Duration::from_millis(100), after: Duration::from_millis(500) };

/// The turns. The text at the head of this module explains them.
const FRESH: u8 = 0;
const ASKERS: u8 = 1;
const HOSTS: u8 = 2;

/// Up to 4 stretches are shown by their ends. If the ports alternate more than that, they are listed one by one.
const MAX_STRETCHES: usize = 4;

/// How many ports of a list are shown.
const MAX_LISTED: usize = 12;

/// How many bots to sample with, so that a small server keeps most of its ports. Few, if `range` is not the server's.
fn size(range: &PortList, given: Link) -> usize {
    if !given.ports.iter().all(|port| range.contains(*port)) {
        return FEW_BOTS;
    }
    let most = range.as_slice().len() / SHARE;
    (2..=MAX_BOTS).rev().find(|bots| bots * (bots - 1) <= most).unwrap_or(0)
}

/// A turn, with what is known about the server.
#[derive(Clone, Copy, Debug)]
struct Turn {
    number: u8,
    /// Whether the server takes what fresh sockets send. If not, the registered ones send in every turn.
    takes_fresh: bool,
}

impl Turn {
    fn run(self, exchange: &mut Exchange<'_>) {
        let links = 0..exchange.links.len() as u8;
        exchange.run(
            TURN,
            |exchange, round| {
                let is_left = |link: &u8| self.number != HOSTS || !self.is_known(exchange, *link);
                links.clone().filter(is_left).flat_map(|link| self.due(link, round)).collect()
            },
            |exchange| links.clone().all(|link| self.is_known(exchange, link)),
        );
    }

    /// The registered socket goes a round ahead: while it is in its place, what the fresh one sends is dropped. (In the
    /// same round it could be overtaken by the fresh one, which the server's kernel may forward by itself.)
    fn due(self, link: u8, round: u32) -> Vec<Tag> {
        let mut due = Vec::new();
        for (end, from_turn) in [(End::Asker, ASKERS), (End::Host, HOSTS)] {
            let tag = |purpose| Tag { purpose, link, end, number: self.number };
            let says_hello = !self.takes_fresh || self.number >= from_turn;
            if says_hello {
                due.push(tag(Purpose::Hello));
            }
            if self.takes_fresh && !(says_hello && round == 0) {
                due.push(tag(Purpose::Fresh));
            }
        }
        due
    }

    /// Whether there is nothing more to learn from the link in this turn.
    fn is_known(self, exchange: &Exchange<'_>, link: u8) -> bool {
        let any = any_heard(exchange, link, self.number);
        if !self.takes_fresh {
            any == [true; 2]
        } else if self.number == FRESH {
            is_whole(exchange, link)
        } else if self.number == ASKERS && is_whole(exchange, link) {
            // Which of them comes says how the router maps.
            [Purpose::Hello, Purpose::Fresh]
                .iter()
                .any(|purpose| exchange.has_heard(link, End::Asker, *purpose, ASKERS..=ASKERS))
        } else {
            any.contains(&true)
        }
    }

    /// Whether the port to which the asker sends is open, and the one to which the host sends.
    fn are_open(self, exchange: &Exchange<'_>, link: u8) -> [bool; 2] {
        let heard =
            |purpose| End::BOTH.map(|end| exchange.has_heard(link, end, purpose, FRESH..=HOSTS));
        if !self.takes_fresh {
            return heard(Purpose::Hello);
        }
        if any_heard(exchange, link, ASKERS) == [false; 2] {
            return [any_heard(exchange, link, HOSTS).contains(&true), false];
        }
        heard(Purpose::Fresh)
    }

    /// Which ports were tried, and which of them answer.
    fn tried(self, exchange: &Exchange<'_>) -> BTreeMap<u16, bool> {
        let mut tried = BTreeMap::new();
        for (link, index) in exchange.links.iter().zip(0..) {
            for (port, is_open) in link.ports.into_iter().zip(self.are_open(exchange, index)) {
                // An old server gives a player the same port for all its partners.
                *tried.entry(port).or_insert(false) |= is_open;
            }
        }
        tried
    }

    /// What the links say about the caller's router.
    fn votes(self, exchange: &Exchange<'_>) -> Votes {
        let mut votes = Votes::default();
        for link in 0..exchange.links.len() as u8 {
            let asker = |purpose| exchange.has_heard(link, End::Asker, purpose, ASKERS..=ASKERS);
            if !self.takes_fresh {
                // Such a server takes nothing but the registered address.
                votes.same += any_heard(exchange, link, HOSTS).iter().filter(|any| **any).count();
            } else if is_whole(exchange, link) {
                let is_same = asker(Purpose::Hello);
                votes.same += usize::from(is_same);
                votes.other += usize::from(!is_same && asker(Purpose::Fresh));
            }
        }
        votes
    }
}

/// Whether both ports of a link have let fresh sockets in, in the first turn.
fn is_whole(exchange: &Exchange<'_>, link: u8) -> bool {
    End::BOTH.iter().all(|end| exchange.has_heard(link, *end, Purpose::Fresh, FRESH..=FRESH))
}

/// Whether anything of the asker has come through until the end of a turn, and whether anything of the host has.
fn any_heard(exchange: &Exchange<'_>, link: u8, turn: u8) -> [bool; 2] {
    End::BOTH.map(|end| {
        let mut purposes = [Purpose::Hello, Purpose::Fresh].into_iter();
        purposes.any(|purpose| exchange.has_heard(link, end, purpose, FRESH..=turn))
    })
}

/// Tries ports all over the range, all at once.
pub(super) fn try_ports(
    bots: &mut Bots,
    given: Link,
    range: &PortList,
    votes: &mut Votes,
) -> HopResult<()> {
    let size = size(range, given);
    let crowd = if size < 2 {
        Err(format!("{range} is too small a range to try more of it"))
    } else {
        gather(bots, size).map_err(|why| format!("no more ports could be tried: {why}"))
    };
    let crowd = crowd.map_err(|seen| Finding::ok(Hop::Range, seen).marked(Mark::Note))?;
    let is_old = !bots.answers_errors;
    let mut exchange = Exchange::new(bots, &crowd.links);
    let mut turn = Turn { number: FRESH, takes_fresh: !is_old };
    for number in [FRESH, ASKERS, HOSTS] {
        turn.number = number;
        turn.run(&mut exchange);
    }
    if !is_old && !exchange.has_heard_any(Purpose::Fresh) && exchange.has_heard_any(Purpose::Hello)
    {
        // It does not latch: as with an old server there is nothing but the registered sockets to go by.
        turn.takes_fresh = false;
        turn.run(&mut exchange);
    }
    let sampled = turn.votes(&exchange);
    votes.same += sampled.same;
    votes.other += sampled.other;
    let mut finding = finding(&turn.tried(&exchange), &crowd, range);
    if is_old {
        finding = finding.and_remedy(
            "An old server gives its ports in order, so these are neighbours: the rest of the range \
             is not tried.",
        );
    }
    if sampled.other > sampled.same && finding.mark == Mark::Warn {
        finding = finding.and_remedy(
            "Your router is symmetric, which hides the open port of a pair whose other one is closed: \
             probe from another line to see the exact parts.",
        );
    }
    Ok((finding, ()))
}

fn finding(tried: &BTreeMap<u16, bool>, crowd: &Crowd, range: &PortList) -> Finding {
    let ports = |wanted: bool| -> Vec<u16> {
        tried.iter().filter(|(_, answers)| **answers == wanted).map(|(port, _)| *port).collect()
    };
    let (answering, silent) = (ports(true), ports(false));
    let end = |port: Option<&u16>| port.copied().unwrap_or_default();
    let (first, last) = (end(tried.keys().next()), end(tried.keys().next_back()));
    let count = tried.len();
    let finding = if silent.is_empty() {
        Finding::ok(Hop::Range, format!("all {count} relay ports tried answer ({first}-{last})"))
    } else if answering.is_empty() {
        let seen = format!("none of {count} relay ports tried answers ({first}-{last})");
        let remedy = format!("As above: open {range}/udp, in both firewalls.");
        Finding::fail(Hop::Range, seen, remedy)
    } else {
        let (seen, remedy) = division(tried, range);
        let seen = format!("of {count} relay ports tried, {seen}");
        Finding::fail(Hop::Range, seen, remedy).marked(Mark::Warn)
    };
    let failed = crowd.failed;
    let finding = finding.with_facts(json!({
        "answering": answering,
        "silent": silent,
        "pairs_without_a_relay": failed,
    }));
    match &crowd.why_failed {
        Some(why) => finding.note(format!("{failed} pairs got no relay and were not tried: {why}")),
        None => finding,
    }
}

/// Which parts of the range answer, in words, and what helps.
fn division(tried: &BTreeMap<u16, bool>, range: &PortList) -> (String, String) {
    let ports: Vec<(u16, bool)> = tried.iter().map(|(port, answers)| (*port, *answers)).collect();
    let stretches: Vec<&[(u16, bool)]> = ports.chunk_by(|a, b| a.1 == b.1).collect();
    if stretches.len() <= MAX_STRETCHES {
        let shown: Vec<String> = stretches.into_iter().map(stretch).collect();
        let remedy = format!(
            "The firewall is open for a part of the relay ports only. Open all of {range}/udp, in the \
             server's firewall and in the provider's."
        );
        return (shown.join(", "), remedy);
    }
    let list = |wanted| {
        let ports: Vec<String> = ports
            .iter()
            .filter(|(_, answers)| *answers == wanted)
            .map(|(port, _)| port.to_string())
            .collect();
        match ports.get(MAX_LISTED..) {
            Some(more @ [_, ..]) => {
                format!("{} and {} more", ports[..MAX_LISTED].join(", "), more.len())
            }
            Some([]) | None => ports.join(", "),
        }
    };
    let seen = format!("these answer: {}; these do not: {}", list(true), list(false));
    let remedy = format!(
        "Single ports between others are silent. Do other programs have them (the warning at the \
         server's start names them), or do the firewalls list ports one by one? All of {range}/udp \
         must be open. A line that loses much looks the same: probe again."
    );
    (seen, remedy)
}

/// Neighbours in the sample that all answer, or all do not.
fn stretch(ports: &[(u16, bool)]) -> String {
    match ports {
        [(port, true)] => format!("{port} answers"),
        [(port, false)] => format!("{port} does not"),
        [(first, true), .., (last, _)] => format!("{first}-{last} answer"),
        [(first, false), .., (last, _)] => format!("{first}-{last} do not"),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_leaves_a_small_server_most_of_its_ports() {
        let given = Link { bots: [1, 0], ports: [1, 2] };
        for (ports, bots) in [(15, 0), (16, 2), (47, 2), (48, 3), (447, 7), (448, 8), (2049, 8)] {
            assert_eq!(size(&(1..=ports).collect(), given), bots, "{ports}");
        }
        assert_eq!(size(&(1000..=3000).collect(), given), FEW_BOTS, "other ports");
    }

    fn seen(tried: &[(u16, bool)]) -> String {
        let (seen, remedy) = division(&tried.iter().copied().collect(), &(100..=199).collect());
        assert!(remedy.contains("100-199/udp"), "{remedy}");
        seen
    }

    #[test]
    fn stretches_are_shown_by_their_ends() {
        let (yes, no) = (true, false);
        let cases: [(&[(u16, bool)], &str); 4] = [
            (&[(100, yes), (120, yes), (150, no), (190, no)], "100-120 answer, 150-190 do not"),
            (&[(100, no), (150, yes), (190, yes)], "100 does not, 150-190 answer"),
            (
                &[(1, yes), (2, no), (3, yes), (4, no), (5, yes)],
                "these answer: 1, 3, 5; these do not: 2, 4",
            ),
            (&[], ""),
        ];
        for (tried, text) in cases {
            assert_eq!(seen(tried), text);
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let tried: Vec<(u16, bool)> = (100..160).map(|port| (port, port % 2 == 0)).collect();
        let seen = seen(&tried);
        assert!(seen.contains(", 122 and 18 more; these do not: 101, "), "{seen}");
    }
}
