//! The sources that were heard lately at one relay port and do not have the place of the player there.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How many sources are remembered at a port. If more come, the one that was heard longest ago is forgotten.
pub const SOURCES_PER_PORT: usize = 8;

/// How long a source is remembered after its last datagram.
pub const SOURCE_MEMORY: Duration = Duration::from_secs(60);

/// The sources that were heard lately at one port, without the one that has the place. The one that was heard last is
/// at the end. At most [`SOURCES_PER_PORT`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sources(Vec<Source>);

/// A source that does not have the place of the player.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) address: SocketAddr,
    pub(super) first_heard: Timestamp,
    pub(super) last_heard: Timestamp,
    /// The first of the datagrams that came after the last datagram of the one in place.
    pub(super) run_began: Timestamp,
    /// How many they are.
    pub(super) run: u32,
    /// Whether it was there before the pair began, or was a stranger before the player's last registration.
    pub(super) is_early: bool,
}

impl Sources {
    /// Notes a datagram of a source. The one in place was last heard at `holder_heard`. Returns the source.
    pub(super) fn note(
        &mut self,
        address: SocketAddr,
        holder_heard: Option<Timestamp>,
        now: Timestamp,
    ) -> Source {
        self.forget_old(now);
        let mut source = self.take(address).unwrap_or(Source {
            address,
            first_heard: now,
            last_heard: now,
            run_began: now,
            run: 0,
            is_early: false,
        });
        if holder_heard.is_some_and(|heard| source.run_began < heard) {
            source = Source { run_began: now, run: 0, ..source };
        }
        source = Source { last_heard: now, run: source.run.saturating_add(1), ..source };
        self.push(source);
        source
    }

    /// Forgets a source.
    pub(super) fn forget(&mut self, address: SocketAddr) {
        self.0.retain(|source| source.address != address);
    }

    fn take(&mut self, address: SocketAddr) -> Option<Source> {
        let index = self.0.iter().position(|source| source.address == address)?;
        Some(self.0.remove(index))
    }

    fn push(&mut self, source: Source) {
        if self.0.len() == SOURCES_PER_PORT {
            self.0.remove(0);
        }
        self.0.push(source);
    }

    /// Forgets the sources that were last heard longer ago than [`SOURCE_MEMORY`]. Returns whether any is left.
    pub(super) fn forget_old(&mut self, now: Timestamp) -> bool {
        self.0.retain(|source| now.since(source.last_heard) <= SOURCE_MEMORY);
        !self.0.is_empty()
    }

    /// The same sources, all of which were there before the pair began.
    pub(super) fn into_early(mut self, now: Timestamp) -> Self {
        self.forget_old(now);
        self.mark_early(|_| true);
        self
    }

    /// Marks those that `is_early` names.
    pub(super) fn mark_early(&mut self, is_early: impl Fn(&Source) -> bool) {
        for source in &mut self.0 {
            source.is_early |= is_early(source);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START + Duration::from_millis(millis)
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn the_source_that_was_heard_longest_ago_makes_room() {
        let mut sources = Sources::default();
        for port in 1..=8 {
            sources.note(address(port), None, at(port.into()));
        }
        sources.note(address(1), None, at(10));
        sources.note(address(9), None, at(11));
        let ports: Vec<u16> = sources.iter().map(|source| source.address.port()).collect();
        assert_eq!(ports, [3, 4, 5, 6, 7, 8, 1, 9]);
        assert_eq!(sources.note(address(1), None, at(12)).first_heard, at(1));
    }

    #[test]
    fn a_silent_source_is_forgotten_after_a_minute() {
        let mut sources = Sources::default();
        sources.note(address(1), None, at(0));
        assert!(sources.forget_old(at(60_000)));
        assert_eq!(sources.note(address(1), None, at(60_001)).first_heard, at(60_001));
        assert!(!sources.forget_old(at(120_002)));
    }

    #[test]
    fn a_run_begins_anew_when_the_one_in_place_was_heard() {
        let mut sources = Sources::default();
        sources.note(address(1), Some(at(0)), at(100));
        assert_eq!(sources.note(address(1), Some(at(0)), at(200)).run, 2);
        let source = sources.note(address(1), Some(at(250)), at(300));
        assert_eq!((source.run, source.run_began, source.first_heard), (1, at(300), at(100)));
    }
}
