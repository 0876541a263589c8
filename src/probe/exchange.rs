//! Datagrams of bots to each other through relay ports: sent in rounds, echoed, and noted when they are heard.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use noray::operation::clock;

use super::bots::{Arrival, Bots, Socket};

/// What a datagram is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// To be heard, from the registered socket.
    Hello,
    /// To be heard, from a socket that the server has not seen before.
    Fresh,
    /// To be echoed.
    Ping,
    /// A ping's echo.
    Echo,
}

/// One of two introduced bots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// The one that asked for the introduction: a game's client.
    Asker,
    /// The other.
    Host,
}

impl End {
    /// Each at the index `self as usize`.
    pub(super) const BOTH: [Self; 2] = [Self::Asker, Self::Host];

    /// The partner's.
    pub(super) fn other(self) -> Self {
        Self::BOTH[1 - self as usize]
    }
}

/// What a datagram's content says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag {
    /// What it is for.
    pub(super) purpose: Purpose,
    /// Which of the introductions it belongs to.
    pub(super) link: u8,
    /// The end that sent it, or that sent the ping that it echoes.
    pub(super) end: End,
    /// Which one of several.
    pub(super) number: u8,
}

/// Two introduced bots, each at the index of its [`End`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) bots: [usize; 2],
    /// The relay port to which each sends.
    pub(super) ports: [u16; 2],
}

/// How often datagrams are sent, and how long they are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) rounds: u32,
    /// From one round to the next.
    pub(super) every: Duration,
    /// How much longer they are waited for after the last round.
    pub(super) after: Duration,
}

/// The content of a datagram: 8 random bytes, the same in all of an [`Exchange`], and 4 for its [`Tag`].
type Payload = [u8; 12];

/// What was sent through some links, and what of it was heard at the other end.
pub(super) struct Exchange<'a> {
    bots: &'a mut Bots,
    pub(super) links: &'a [Link],
    random: [u8; 8],
    /// When each was sent first. Any other content is a stray, and is ignored.
    sent: BTreeMap<Payload, (Tag, Instant)>,
    /// When each was heard first.
    heard: BTreeMap<Tag, Instant>,
}

impl<'a> Exchange<'a> {
    /// Nothing was sent yet.
    ///
    /// # Panics
    /// If the kernel has no random bytes, which does not happen.
    pub(super) fn new(bots: &'a mut Bots, links: &'a [Link]) -> Self {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the kernel always has random bytes");
        Self { bots, links, random, sent: BTreeMap::new(), heard: BTreeMap::new() }
    }

    /// Sends what is `due` in each round (the first is round 0), in that order. Ends when `is_done`, or when the pace
    /// says so.
    pub(super) fn run(
        &mut self,
        pace: Pace,
        due: impl Fn(&Self, u32) -> Vec<Tag>,
        is_done: impl Fn(&Self) -> bool,
    ) {
        let start = clock::now();
        for round in 0..pace.rounds {
            if is_done(self) {
                return;
            }
            for tag in due(self, round) {
                self.send(tag, tag.end);
            }
            let is_last = round + 1 == pace.rounds;
            let after = if is_last { pace.after } else { Duration::ZERO };
            let deadline = start + pace.every * (round + 1) + after;
            while !is_done(self)
                && let Some(arrival) = self.bots.receive(deadline)
            {
                self.hear(&arrival);
            }
        }
    }

    /// Whether a datagram of `end` with one of these numbers was heard at the other end.
    pub(super) fn has_heard(
        &self,
        link: u8,
        end: End,
        purpose: Purpose,
        mut numbers: RangeInclusive<u8>,
    ) -> bool {
        numbers.any(|number| self.heard.contains_key(&Tag { purpose, link, end, number }))
    }

    /// Whether anything of that purpose was heard anywhere.
    pub(super) fn has_heard_any(&self, purpose: Purpose) -> bool {
        self.heard.keys().any(|tag| tag.purpose == purpose)
    }

    /// The times there and back of an end's pings whose echoes came back.
    pub(super) fn times(&self, end: End) -> Vec<Duration> {
        let echoes = self.heard.iter().filter(|(tag, _)| tag.purpose == Purpose::Echo);
        let own = echoes.filter(|(tag, _)| tag.end == end);
        let time = |(tag, heard): (&Tag, &Instant)| {
            let ping = self.payload(Tag { purpose: Purpose::Ping, ..*tag });
            self.sent.get(&ping).map(|(_, sent)| *heard - *sent)
        };
        own.filter_map(time).collect()
    }

    fn payload(&self, tag: Tag) -> Payload {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.random);
        bytes[8..].copy_from_slice(&[tag.purpose as u8, tag.link, tag.end as u8, tag.number]);
        bytes
    }

    /// Sends from one end to its relay port.
    fn send(&mut self, tag: Tag, end: End) {
        let link = self.links[usize::from(tag.link)];
        let is_fresh = tag.purpose == Purpose::Fresh;
        let socket = if is_fresh { Socket::Fresh } else { Socket::Registered };
        let (bot, port) = (link.bots[end as usize], link.ports[end as usize]);
        let payload = self.payload(tag);
        self.sent.entry(payload).or_insert_with(|| (tag, clock::now()));
        // A refusal counts as lost on the way.
        let _ = self.bots.send((bot, socket), &payload, port);
    }

    fn hear(&mut self, arrival: &Arrival) {
        let Ok((source, payload)) = &arrival.result else { return };
        let Some((tag, _)) = self.sent.get(payload.as_slice()).copied() else { return };
        let link = self.links[usize::from(tag.link)];
        let at = if tag.purpose == Purpose::Echo { tag.end } else { tag.end.other() };
        if source.ip() != self.bots.server.ip() || arrival.bot != link.bots[at as usize] {
            return;
        }
        self.heard.entry(tag).or_insert_with(clock::now);
        if tag.purpose == Purpose::Ping {
            self.send(Tag { purpose: Purpose::Echo, ..tag }, at);
        }
    }
}
