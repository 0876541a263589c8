//! Sources that send to the relay ports of many players: nobody's game does that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::id::PlayerId;
use crate::core::relay::RelayPort;
use crate::time::Timestamp;

/// At how many others' ports a source must have been heard within [`SPRAYING_WINDOW`] to be a sprayer.
pub const SPRAYED_OTHERS: usize = 3;

/// All that is known of sources is forgotten after this time.
pub const SPRAYING_WINDOW: Duration = Duration::from_secs(60);

/// How many sources are watched in a [`SPRAYING_WINDOW`]. Sources that come later are never sprayers: sources can be
/// forged, and a full table must shut out nobody.
pub const WATCHED_SOURCES: usize = 4096;

/// Whose datagrams are expected at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Expected {
    /// The partner of the port's owner; for a while also after their pair has ended.
    Player(PlayerId),
    /// Nobody's, because the port belongs to no pair.
    Nobody(RelayPort),
}

/// For each source, whose datagrams were expected at the ports where it was heard.
///
/// A source is a *sprayer* for a player if it was heard where three others were expected. A host whose router has
/// given it a new mapping is heard at the ports of all its partners, but the same player is expected at all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sprayers {
    began: Timestamp,
    sources: BTreeMap<SocketAddr, [Option<Expected>; SPRAYED_OTHERS + 1]>,
}

impl Sprayers {
    /// Notes that `source` was heard where `expected` was expected. Returns whether it is a sprayer there.
    pub(super) fn note(&mut self, source: SocketAddr, expected: Expected, now: Timestamp) -> bool {
        if now.since(self.began) >= SPRAYING_WINDOW {
            self.sources.clear();
            self.began = now;
        }
        if self.sources.len() >= WATCHED_SOURCES && !self.sources.contains_key(&source) {
            return false;
        }
        let heard = self.sources.entry(source).or_default();
        if !heard.contains(&Some(expected))
            && let Some(vacant) = heard.iter_mut().find(|known| known.is_none())
        {
            *vacant = Some(expected);
        }
        heard.iter().flatten().filter(|known| **known != expected).count() >= SPRAYED_OTHERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: ([u8; 4], u16) = ([192, 0, 2, 1], 1000);

    fn player(id: u64) -> Expected {
        Expected::Player(PlayerId(id))
    }

    #[test]
    fn a_source_at_the_ports_of_three_others_is_a_sprayer() {
        let mut sprayers = Sprayers::default();
        let mut note = |expected, seconds| {
            let now = Timestamp::START + Duration::from_secs(seconds);
            sprayers.note(SOURCE.into(), expected, now)
        };
        assert!(!note(player(1), 0) && !note(player(1), 0) && !note(player(2), 1));
        assert!(!note(Expected::Nobody(RelayPort(7)), 2), "two others");
        assert!(note(player(3), 3));
        assert!(note(player(1), 59), "three others");
        assert!(!note(player(3), 60), "all is forgotten");
    }

    #[test]
    fn a_full_table_shuts_out_nobody() {
        let mut sprayers = Sprayers::default();
        for number in 0..u32::try_from(WATCHED_SOURCES).unwrap() {
            sprayers.note((number.to_be_bytes(), 1).into(), player(1), Timestamp::START);
        }
        let is_sprayer =
            (1..10).any(|id| sprayers.note(SOURCE.into(), player(id), Timestamp::START));
        assert!(!is_sprayer);
        assert_eq!(sprayers.sources.len(), WATCHED_SOURCES);
    }
}
