//! Knows no limit of its own: how much of something each network has used up lately, and whether it may use more.
//!
//! Limits hold per network where a new connection costs nothing.

use std::collections::HashMap;
use std::time::Duration;

use crate::limits::network::Network;
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// From how many networks on those that have got all of it back are forgotten.
const PRUNE_FROM: usize = 64;

/// How much of something a network may use up.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// So much a second on average.
    pub per_second: u64,
    /// For how long a network may have saved it up.
    pub burst: Duration,
}

/// The networks that have used up some of theirs.
#[derive(Clone, Debug)]
pub struct Budgets {
    budget: Budget,
    by_network: HashMap<Network, TokenBucket>,
    prune_at: usize,
}

impl Budgets {
    /// Nobody has used up anything.
    pub fn new(budget: Budget) -> Self {
        Self { budget, by_network: HashMap::new(), prune_at: PRUNE_FROM }
    }

    /// Whether the network may use up more.
    pub fn has_left(&self, network: Network, now: Timestamp) -> bool {
        let bucket = self.by_network.get(&network);
        bucket.is_none_or(|bucket| bucket.has_tokens(self.budget.burst, now))
    }

    /// The network has used up one.
    pub fn charge(&mut self, network: Network, now: Timestamp) {
        if self.by_network.len() >= self.prune_at {
            self.forget(now);
            self.prune_at = PRUNE_FROM.max(2 * self.by_network.len());
        }
        self.by_network.entry(network).or_default().charge(1, self.budget.per_second, now);
    }

    /// Forgets the networks that have got back all of theirs. Looks at each.
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
    use crate::core::players::WRONG_OIDS;

    fn at(secs: u64) -> Timestamp {
        Timestamp::START + Duration::from_secs(secs)
    }

    fn network(number: u32) -> Network {
        std::net::IpAddr::from(number.to_be_bytes()).into()
    }

    /// How many of `tries` wrong OpenIDs a second are answered in `secs` seconds.
    fn answered(tries: u64, secs: u64) -> u64 {
        let mut guesses = Budgets::new(WRONG_OIDS);
        let mut answered = 0;
        for second in 0..secs {
            for _ in 0..tries {
                if guesses.has_left(network(1), at(second)) {
                    guesses.charge(network(1), at(second));
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
        let mut guesses = Budgets::new(WRONG_OIDS);
        (0..200).for_each(|_| guesses.charge(network(1), at(0)));
        assert!(!guesses.has_left(network(1), at(0)));
        assert!(guesses.has_left(network(2), at(0)));
    }

    #[test]
    fn networks_that_have_all_of_theirs_are_forgotten() {
        let mut guesses = Budgets::new(WRONG_OIDS);
        for number in 0..100_000 {
            guesses.charge(network(number), at(u64::from(number) / 100));
        }
        let len = guesses.len();
        assert!(len <= 300, "{len}: a hundred a second, each forgiven after one");
        guesses.forget(at(2000));
        assert!(guesses.is_empty());
    }
}
