//! Judges no router: a crowd of players, introduced each to each, and which of their relay ports answer.
//!
//! A stateful firewall on the server hides closed ports: once the server has sent from a port to somebody, that
//! one's datagrams get in as answers. So what counts is what *fresh* sockets send, which the server has never sent
//! to: it takes them for the player whose IP they have (see [`Latch`](noray::core::relay::Latch)), as long as the registered
//! socket is silent. In turn:
//!
//! 1. all fresh sockets send. What arrives came through an open port;
//! 2. the askers' registered sockets send too, which opens the asker's own router for the host's datagrams. Beside
//!    that it shows how that router maps: a registered socket takes its place back at once if it is still seen at
//!    the registered address, and is dropped if it is not;
//! 3. the hosts' registered sockets send too. Pairs that were mute until now, and are not any more, have an open
//!    port towards the host and a closed one towards the asker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::Outcome;
use super::crowd::Crowd;
use super::division::divide;
use super::join::{Manners, Meeting, Server};
use super::meet::RelayPorts;
use super::payload::{Kind, LENGTH, Tag, Token};
use super::report::{Hop, Mark, Step};
use super::router::Votes;
use super::udp::{Arrival, Exchange, Pace, Sockets};
use noray::config::units::PortList;

/// So many players are 28 pairs with 56 ports.
const MAX_PLAYERS: usize = 8;

/// Of how many ports of the range at most one is taken.
const SHARE: usize = 8;

/// For ports of which nothing is known: 6 of them.
const FEW_PLAYERS: usize = 3;

/// A turn lasts 0.9 s at most, and ends as soon as all is known.
const TURN: Pace =
    Pace { rounds: 4, every: Duration::from_millis(100), after: Duration::from_millis(500) };

/// How many players are in a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(usize);

impl Size {
    /// As many as leave a small server most of its ports; few, if the ports that it gives are not in `range`.
    pub(super) fn of(range: &PortList, given: RelayPorts) -> Self {
        if !given.both().iter().all(|port| range.contains(*port)) {
            return Self(FEW_PLAYERS);
        }
        let most = range.as_slice().len() / SHARE;
        Self((2..=MAX_PLAYERS).rev().find(|players| players * (players - 1) <= most).unwrap_or(0))
    }
}

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Fresh,
    Askers,
    Hosts,
}

/// What arrived of what one player sent to one port.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// By turn.
    fresh: [bool; 3],
    registered: [bool; 3],
}

impl Heard {
    fn fresh_in(self, turn: Turn) -> bool {
        self.fresh[turn as usize]
    }

    fn registered_in(self, turn: Turn) -> bool {
        self.registered[turn as usize]
    }

    fn any_until(self, turn: Turn) -> bool {
        let turns = 0..=turn as usize;
        self.fresh[turns.clone()].contains(&true) || self.registered[turns].contains(&true)
    }
}

/// The exchange of one turn.
struct Playing<'a> {
    crowd: &'a Crowd,
    server: Server,
    token: Token,
    manners: Manners,
    turn: Turn,
    /// For each pair what the asker and what the host sent.
    heard: Vec<[Heard; 2]>,
}

impl Playing<'_> {
    /// Whether both ports of a pair are known to be open.
    fn is_whole(&self, pair: usize) -> bool {
        self.heard[pair].iter().all(|heard| heard.fresh.contains(&true))
    }

    fn has_said_all(&self, pair: usize) -> bool {
        let [asker, host] = self.heard[pair];
        match (self.manners, self.turn) {
            (Manners::Silent, _) => asker.any_until(self.turn) && host.any_until(self.turn),
            (_, Turn::Fresh) => self.is_whole(pair),
            (_, Turn::Askers) if asker.fresh_in(Turn::Fresh) && host.fresh_in(Turn::Fresh) => {
                // Which of them comes says how the router maps.
                asker.registered_in(Turn::Askers) || asker.fresh_in(Turn::Askers)
            }
            (_, Turn::Askers | Turn::Hosts) => {
                asker.any_until(self.turn) || host.any_until(self.turn)
            }
        }
    }

    /// Whether the port to which the asker, and that to which the host sends is open.
    fn answers(&self, pair: usize, has_fresh: bool) -> [bool; 2] {
        let [asker, host] = self.heard[pair];
        if !has_fresh {
            return [asker, host].map(|heard| heard.registered.contains(&true));
        }
        let is_mute = !asker.any_until(Turn::Askers) && !host.any_until(Turn::Askers);
        if is_mute {
            return [asker.any_until(Turn::Hosts) || host.any_until(Turn::Hosts), false];
        }
        [asker, host].map(|heard| heard.fresh.contains(&true))
    }

    /// Whether anything of that kind has arrived anywhere. Of fresh sockets nothing does with
    /// `NORAY_UDP_RELAY_LATCHING=off`, nor with an old server, to which they send nothing.
    fn has_heard(&self, kind: Kind) -> bool {
        self.heard.iter().flatten().any(|heard| {
            let turns = if kind == Kind::Fresh { heard.fresh } else { heard.registered };
            turns.contains(&true)
        })
    }

    /// Which ports were tried, and which of them answer.
    fn tried(&self) -> BTreeMap<u16, bool> {
        let has_fresh = self.has_heard(Kind::Fresh);
        let mut tried = BTreeMap::new();
        for (index, pair) in self.crowd.pairs.iter().enumerate() {
            for (port, answers) in pair.ports().into_iter().zip(self.answers(index, has_fresh)) {
                // An old server gives a player the same port for all its partners.
                *tried.entry(port).or_insert(false) |= answers;
            }
        }
        tried
    }

    fn votes(&self) -> Votes {
        if !self.has_heard(Kind::Fresh) {
            // Such a server takes nothing but the registered address.
            let same = self.heard.iter().flatten().filter(|heard| heard.any_until(Turn::Hosts));
            return Votes { same: same.count(), other: 0 };
        }
        let whole = self.heard.iter().filter(|pair| pair.iter().all(|h| h.fresh_in(Turn::Fresh)));
        let mut votes = Votes::default();
        for [asker, _] in whole {
            if asker.registered_in(Turn::Askers) {
                votes.same += 1;
            } else if asker.fresh_in(Turn::Askers) {
                votes.other += 1;
            }
        }
        votes
    }
}

impl Exchange for Playing<'_> {
    fn send(&mut self, _: u32, sockets: &mut Sockets) {
        for (index, pair) in self.crowd.pairs.iter().enumerate() {
            if self.turn == Turn::Hosts && self.has_said_all(index) {
                continue;
            }
            for (player, port, from_turn) in
                [(pair.asker, pair.to_host, Turn::Askers), (pair.host, pair.to_asker, Turn::Hosts)]
            {
                let member = &self.crowd.members[player];
                let is_old = self.manners == Manners::Silent;
                let send = |kind, socket, sockets: &mut Sockets| {
                    let sender = u8::try_from(player).unwrap_or(u8::MAX);
                    let tag = Tag { kind, sender, port, number: self.turn as u16 };
                    sockets.send(socket, &self.token.encode(tag), self.server.at(port));
                };
                // In this order: of a registered socket in its place, the fresh one is dropped.
                if is_old || self.turn >= from_turn {
                    send(Kind::Hello, member.player.socket, sockets);
                }
                if !is_old {
                    send(Kind::Fresh, member.fresh, sockets);
                }
            }
        }
    }

    fn hear(&mut self, arrival: &Arrival<'_>) -> Option<([u8; LENGTH], SocketAddr)> {
        let Arrival::Datagram { from, payload, .. } = arrival else { return None };
        if from.ip() != self.server.players.ip() {
            return None;
        }
        let tag = self.token.decode(payload)?;
        let (pair, side) = self.crowd.sender(usize::from(tag.sender), tag.port)?;
        let heard = &mut self.heard[pair][side];
        let turns = match tag.kind {
            Kind::Fresh => &mut heard.fresh,
            Kind::Hello => &mut heard.registered,
            Kind::Ping | Kind::Echo => return None,
        };
        *turns.get_mut(usize::from(tag.number))? = true;
        None
    }

    fn is_done(&self) -> bool {
        (0..self.heard.len()).all(|pair| self.has_said_all(pair))
    }
}

/// Tries ports all over the range, all at once.
pub(super) fn try_ports(meeting: &mut Meeting, size: Size, range: &PortList) -> Outcome<Votes> {
    if size.0 < 2 {
        let seen = format!("{range} is too small a range to try more of it");
        return (Step::ok(Hop::Range, seen).marked(Mark::Note), None);
    }
    let crowd = match Crowd::gather(meeting, size.0) {
        Ok(crowd) => crowd,
        Err(why) => {
            let seen = format!("no more ports could be tried: {why}");
            return (Step::ok(Hop::Range, seen).marked(Mark::Note), None);
        }
    };
    let heard = vec![[Heard::default(); 2]; crowd.pairs.len()];
    let (server, token, manners) = (meeting.server, meeting.token, meeting.manners);
    let mut playing = Playing { crowd: &crowd, server, token, manners, turn: Turn::Fresh, heard };
    for turn in [Turn::Fresh, Turn::Askers, Turn::Hosts] {
        playing.turn = turn;
        meeting.sockets.exchange(&mut playing, TURN);
    }
    if !playing.has_heard(Kind::Fresh) && playing.has_heard(Kind::Hello) {
        // It does not latch: as with an old server there is nothing but the registered sockets to go by.
        playing.manners = Manners::Silent;
        meeting.sockets.exchange(&mut playing, TURN);
    }
    let (tried, votes) = (playing.tried(), playing.votes());
    let step = step(&tried, &crowd, range);
    let step = match manners {
        Manners::Answers => step,
        Manners::Silent => step.and_remedy(
            "An old server gives its ports in order, so these are neighbours: the rest of the range \
             is not tried.",
        ),
    };
    let hides = votes.other > votes.same && step.mark == Mark::Warn;
    let step = if hides {
        step.and_remedy(
            "Your router is symmetric, which hides the open port of a pair whose other one is closed: \
             probe from another line to see the exact parts.",
        )
    } else {
        step
    };
    (step, Some(votes))
}

fn step(tried: &BTreeMap<u16, bool>, crowd: &Crowd, range: &PortList) -> Step {
    let answering = tried.values().filter(|answers| **answers).count();
    let ports = |wanted: bool| -> Vec<u16> {
        tried.iter().filter(|(_, answers)| **answers == wanted).map(|(port, _)| *port).collect()
    };
    let facts = json!({
        "answering": ports(true),
        "silent": ports(false),
        "pairs_without_a_relay": crowd.failed,
    });
    let first = tried.keys().next().copied().unwrap_or_default();
    let last = tried.keys().next_back().copied().unwrap_or_default();
    let count = tried.len();
    let step = if answering == count {
        let seen = format!("all {count} relay ports tried answer ({first}-{last})");
        Step::ok(Hop::Range, seen)
    } else if answering == 0 {
        let seen = format!("none of {count} relay ports tried answers ({first}-{last})");
        let remedy = format!("As above: open {range}/udp, in both firewalls.");
        Step::fail(Hop::Range, seen, remedy)
    } else {
        let division = divide(tried, range);
        let seen = format!("of {count} relay ports tried, {}", division.seen);
        Step::fail(Hop::Range, seen, division.remedy).marked(Mark::Warn)
    };
    let step = step.with_facts(facts);
    let Some(why) = &crowd.why_failed else { return step };
    let mark = if step.mark == Mark::Ok { Mark::Note } else { step.mark };
    let failed = crowd.failed;
    step.marked(mark).and_remedy(format!("{failed} pairs got no relay and were not tried: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_leaves_a_small_server_most_of_its_ports() {
        let given = RelayPorts { to_host: 1, to_client: 2 };
        for (ports, players) in [(15, 0), (16, 2), (47, 2), (48, 3), (447, 7), (448, 8), (2049, 8)]
        {
            assert_eq!(Size::of(&(1..=ports).collect(), given), Size(players), "{ports}");
        }
        assert_eq!(Size::of(&(1000..=3000).collect(), given), Size(FEW_PLAYERS), "other ports");
    }
}
