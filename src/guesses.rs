//! Knows no id: how many wrong OpenIDs each network has named lately, and whether it may name more.
//!
//! Short join codes are easy to type and easy to guess. Who has named too many wrong ones is not told any more whether
//! the next one is right. It holds per network, because a new connection costs nothing.

use std::collections::HashMap;
use std::time::Duration;

use crate::network::Network;
use crate::relay::TokenBucket;
use crate::time::Timestamp;

/// How many wrong OpenIDs a second one network may name on average. A thousand players behind one carrier's IP who
/// each mistype one in a quarter of an hour are just within it.
pub const GUESSES_PER_SECOND: u64 = 1;

/// For how long a network may have saved them up: 120, as when a whole school mistypes at once.
pub const GUESS_BURST: Duration = Duration::from_secs(120);

/// From how many networks on those that have been forgiven all are forgotten.
const PRUNE_FROM: usize = 1024;

/// The networks that have named wrong OpenIDs in the last two minutes.
#[derive(Debug)]
pub struct Guesses {
    by_network: HashMap<Network, TokenBucket>,
    prune_at: usize,
}

impl Default for Guesses {
    fn default() -> Self {
        Self { by_network: HashMap::new(), prune_at: PRUNE_FROM }
    }
}

impl Guesses {
    /// Whether the network may name another OpenID.
    pub fn may_guess(&self, network: Network, now: Timestamp) -> bool {
        self.by_network.get(&network).is_none_or(|bucket| bucket.has_tokens(GUESS_BURST, now))
    }

    /// The network has named a wrong one.
    pub fn note_wrong(&mut self, network: Network, now: Timestamp) {
        if self.by_network.len() >= self.prune_at {
            self.forget(now);
            self.prune_at = PRUNE_FROM.max(2 * self.by_network.len());
        }
        self.by_network.entry(network).or_default().charge(1, GUESSES_PER_SECOND, now);
    }

    /// Forgets the networks that have been forgiven all. Looks at each.
    pub fn forget(&mut self, now: Timestamp) {
        self.by_network.retain(|_, bucket| !bucket.is_full(now));
    }

    /// How many networks are remembered.
    pub fn len(&self) -> usize {
        self.by_network.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_network.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::START + Duration::from_secs(secs)
    }

    fn network(number: u32) -> Network {
        std::net::IpAddr::from(number.to_be_bytes()).into()
    }

    /// How many of `tries` wrong guesses a second are answered in `secs` seconds.
    fn answered(tries: u64, secs: u64) -> u64 {
        let mut guesses = Guesses::default();
        let mut answered = 0;
        for second in 0..secs {
            for _ in 0..tries {
                if guesses.may_guess(network(1), at(second)) {
                    guesses.note_wrong(network(1), at(second));
                    answered += 1;
                }
            }
        }
        answered
    }

    #[test]
    fn honest_mistakes_pass_and_a_search_is_slowed_down() {
        assert_eq!(
            answered(1, 3600),
            3600,
            "a thousand players, each of whom errs every 17 minutes"
        );
        assert_eq!(answered(120, 1), 120, "a school at once");
        let hour = answered(1000, 3600);
        assert!((3600..3600 + 121).contains(&hour), "a search: {hour} of 3,600,000");
    }

    #[test]
    fn one_network_does_not_answer_for_another() {
        let mut guesses = Guesses::default();
        (0..200).for_each(|_| guesses.note_wrong(network(1), at(0)));
        assert!(!guesses.may_guess(network(1), at(0)));
        assert!(guesses.may_guess(network(2), at(0)));
    }

    #[test]
    fn forgiven_networks_are_forgotten() {
        let mut guesses = Guesses::default();
        for number in 0..100_000 {
            guesses.note_wrong(network(number), at(u64::from(number) / 100));
        }
        let len = guesses.len();
        assert!(len <= 2 * PRUNE_FROM, "{len}: a hundred a second, each forgiven after one");
        guesses.forget(at(2000));
        assert!(guesses.is_empty());
    }
}
