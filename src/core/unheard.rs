//! Players that could not be heard: when there are enough of them to advise the operator to relax a setting.
//!
//! Anybody can send to a relay port and be turned away, so a datagram that was dropped is no reason for advice. It is
//! evidence that a player is behind the source if the source sends for a while and to that player's partners alone,
//! and the player itself is not heard meanwhile. The advice needs several such players of different networks.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::relay::RegisteredPartner;
use crate::limits::network::Network;
use crate::time::Timestamp;

/// How many networks must have players that could not be heard.
pub const NETWORKS: usize = 3;

/// For how long a source must go on to be taken for a player. A stock client tries for eight seconds; somebody else's
/// datagram before the player's own one is over by then.
pub const LASTING: Duration = Duration::from_secs(5);

/// How long a source is remembered.
pub const MEMORY: Duration = Duration::from_secs(600);

/// How many sources are remembered. If there are more, the one that came first is forgotten.
pub const MAX_SOURCES: usize = 64;

/// The sources that were turned away lately, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnheardPlayers {
    sources: VecDeque<Source>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    ip: IpAddr,
    since: Timestamp,
    taken_for: TakenFor,
}

/// What a source is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum TakenFor {
    /// Perhaps a player that is connected from this network.
    Candidate(Network),
    /// A player that is connected from this network and cannot be heard.
    Player(Network),
    /// Somebody who was turned away in the place of players of two networks.
    Stranger,
}

impl UnheardPlayers {
    /// Records that the source `ip` was turned away at a port to which `partner` may send. Returns whether there is
    /// reason enough for advice; then it begins anew.
    pub fn record(&mut self, partner: RegisteredPartner, ip: IpAddr, now: Timestamp) -> bool {
        let RegisteredPartner { network, is_heard, .. } = partner;
        self.sources.retain(|source| now.since(source.since) <= MEMORY);
        let Some(source) = self.sources.iter_mut().find(|source| source.ip == ip) else {
            if self.sources.len() >= MAX_SOURCES {
                self.sources.pop_front();
            }
            let taken_for = TakenFor::Candidate(network);
            self.sources.push_back(Source { ip, since: now, taken_for });
            return false;
        };
        let (TakenFor::Candidate(of) | TakenFor::Player(of)) = source.taken_for else {
            return false;
        };
        if of != network {
            source.taken_for = TakenFor::Stranger;
            return false;
        }
        if is_heard || now.since(source.since) < LASTING || source.taken_for == TakenFor::Player(of)
        {
            return false;
        }
        source.taken_for = TakenFor::Player(of);
        let is_enough = self.networks() >= NETWORKS;
        if is_enough {
            self.sources.clear();
        }
        is_enough
    }

    /// How many networks have players that cannot be heard.
    fn networks(&self) -> usize {
        let networks = self.sources.iter().filter_map(|source| match source.taken_for {
            TakenFor::Player(network) => Some(network),
            TakenFor::Candidate(_) | TakenFor::Stranger => None,
        });
        networks.collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second, the last byte of a player's network, that of the source, and whether the player is heard.
    type Turned = (u64, u8, u8, bool);

    /// The indices of the steps after which there is advice.
    fn advice(steps: &[Turned]) -> Vec<usize> {
        let mut unheard = UnheardPlayers::default();
        let mut is_due = |(second, network, source, is_heard): Turned| {
            let network = IpAddr::from([192, 0, 2, network]).into();
            let source = IpAddr::from([203, 0, 113, source]);
            let now = Timestamp::START + Duration::from_secs(second);
            let registered = [192, 0, 2, 1].into();
            unheard.record(RegisteredPartner { network, registered, is_heard }, source, now)
        };
        (0..steps.len()).filter(|index| is_due(steps[*index])).collect()
    }

    const FIRST: [Turned; 3] = [(0, 1, 1, false), (0, 2, 2, false), (0, 3, 3, false)];

    #[test]
    fn players_of_three_networks_that_are_not_heard_for_a_while_are_reason_enough_once() {
        let later = [(4, 1, 1, false), (5, 1, 1, false), (5, 2, 2, false), (6, 3, 3, false)];
        let again = [(7, 1, 1, false), (7, 2, 2, false), (7, 3, 3, false)];
        assert_eq!(advice(&[&FIRST[..], &later, &again].concat()), [6]);
    }

    #[test]
    fn many_sources_of_one_network_are_no_reason() {
        let steps = [0, 5].map(|second| [1, 2, 3, 4].map(|source| (second, 1, source, false)));
        assert!(advice(&steps.concat()).is_empty());
    }

    #[test]
    fn a_source_that_sprays_is_no_reason() {
        let sprayed: Vec<Turned> =
            (0..60).flat_map(|second| [1, 2, 3].map(|of| (second, of, 9, false))).collect();
        assert!(advice(&sprayed).is_empty());
        // It was turned away in the place of a player that is heard, too.
        let later = [(5, 1, 1, false), (5, 2, 2, false), (5, 4, 3, true), (6, 3, 3, false)];
        assert!(advice(&[&FIRST[..], &later].concat()).is_empty());
    }

    #[test]
    fn a_player_that_is_heard_is_no_reason() {
        let later = [(5, 1, 1, false), (5, 2, 2, false), (6, 3, 3, true)];
        assert!(advice(&[&FIRST[..], &later].concat()).is_empty());
    }

    #[test]
    fn sources_are_forgotten_after_a_while_and_when_there_are_too_many() {
        let later = [(601, 1, 1, false), (601, 2, 2, false), (601, 3, 3, false)];
        assert!(advice(&[&FIRST[..], &later].concat()).is_empty());
        let others: Vec<Turned> = (0..64).map(|source| (1, 7, 100 + source, false)).collect();
        let late = [(5, 1, 1, false), (5, 2, 2, false), (5, 3, 3, false)];
        assert!(advice(&[&FIRST[..], &others, &late].concat()).is_empty());
    }
}
