//! Datagrams of bots to each other through relay ports: sent in rounds, echoed, and noted when they are heard.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use noray::operation::clock;

use super::bots::{Arrival, Bots, Socket};
use super::datagram::{Purpose, Side, Tag, Token};

/// Two introduced bots, each at the index of its [`Side`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) bots: [usize; 2],
    /// The relay port to which each sends.
    pub(super) ports: [u16; 2],
}

/// When is sent, and until when is waited at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How often is sent.
    pub(super) rounds: u32,
    /// From one round to the next.
    pub(super) every: Duration,
    /// How long is waited after the last one.
    pub(super) after: Duration,
}

/// What was sent through some links, and what of it was heard at the other side.
pub(super) struct Play<'a> {
    bots: &'a mut Bots,
    pub(super) links: &'a [Link],
    token: Token,
    /// When each was sent first, and when each was heard first.
    sent: BTreeMap<Tag, Instant>,
    heard: BTreeMap<Tag, Instant>,
}

impl<'a> Play<'a> {
    /// # Panics
    /// If the kernel has no random bytes, which does not happen.
    pub(super) fn new(bots: &'a mut Bots, links: &'a [Link]) -> Self {
        let mut token = [0; 8];
        getrandom::fill(&mut token).expect("the kernel always has random bytes");
        let (sent, heard) = (BTreeMap::new(), BTreeMap::new());
        Self { bots, links, token: Token(token), sent, heard }
    }

    /// In each round, counted from 0, sends what is `due`, in that order; ends when `is_done`, or when the pace says.
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
                self.sent.entry(tag).or_insert_with(clock::now);
                self.send(tag, tag.side);
            }
            let is_last = round + 1 == pace.rounds;
            let after = if is_last { pace.after } else { Duration::ZERO };
            let end = start + pace.every * (round + 1) + after;
            while !is_done(self)
                && let Some(arrival) = self.bots.receive(end)
            {
                self.hear(&arrival);
            }
        }
    }

    /// Whether the other side has heard one of these of that side.
    pub(super) fn has_heard(
        &self,
        link: u8,
        side: Side,
        purpose: Purpose,
        mut numbers: RangeInclusive<u8>,
    ) -> bool {
        numbers.any(|number| self.heard.contains_key(&Tag { purpose, link, side, number }))
    }

    /// Whether anything of that purpose was heard anywhere.
    pub(super) fn has_heard_any(&self, purpose: Purpose) -> bool {
        self.heard.keys().any(|tag| tag.purpose == purpose)
    }

    /// The times there and back of a side's pings whose echoes came back.
    pub(super) fn times(&self, side: Side) -> Vec<Duration> {
        let echoes = self.heard.iter().filter(|(tag, _)| tag.purpose == Purpose::Echo);
        let own = echoes.filter(|(tag, _)| tag.side == side);
        let time = |(tag, heard): (&Tag, &Instant)| {
            Some(*heard - *self.sent.get(&Tag { purpose: Purpose::Ping, ..*tag })?)
        };
        own.filter_map(time).collect()
    }

    /// Sends from a side to its relay port.
    fn send(&self, tag: Tag, side: Side) {
        let link = self.links[usize::from(tag.link)];
        let is_fresh = tag.purpose == Purpose::Fresh;
        let socket = if is_fresh { Socket::Fresh } else { Socket::Registered };
        let (bot, port) = (link.bots[side as usize], link.ports[side as usize]);
        // A refusal counts as lost on the way.
        let _ = self.bots.send((bot, socket), &self.token.encode(tag), port);
    }

    fn hear(&mut self, arrival: &Arrival) {
        let Ok((source, payload)) = &arrival.result else { return };
        let Some(tag) = self.token.decode(payload) else { return };
        let Some(link) = self.links.get(usize::from(tag.link)) else { return };
        let at = if tag.purpose == Purpose::Echo { tag.side } else { tag.side.other() };
        if source.ip() != self.bots.server.ip() || arrival.bot != link.bots[at as usize] {
            return;
        }
        self.heard.entry(tag).or_insert_with(clock::now);
        if tag.purpose == Purpose::Ping {
            self.send(Tag { purpose: Purpose::Echo, ..tag }, at);
        }
    }
}
