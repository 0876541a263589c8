//! A rate limit that each network has for itself: where a new connection costs nothing, a limit for each connection
//! would be none.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::limits::network::Network;
use crate::limits::token_bucket::{RateLimit, TokenBucket};
use crate::time::Timestamp;

/// From how many networks on those whose buckets are full again are forgotten.
const PRUNE_FROM: usize = 64;

/// A token bucket for each network that has used some of its tokens.
#[derive(Clone, Debug)]
pub struct NetworkRateLimiter {
    limit: RateLimit,
    buckets: HashMap<Network, TokenBucket>,
    prune_at: usize,
}

/// The buckets that are not full.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Used(Vec<(Network, TokenBucket)>);

impl NetworkRateLimiter {
    /// Every network has all its tokens.
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, buckets: HashMap::new(), prune_at: PRUNE_FROM }
    }

    /// Whether the network has tokens left.
    pub fn has_tokens(&self, network: Network, now: Timestamp) -> bool {
        let bucket = self.buckets.get(&network);
        bucket.is_none_or(|bucket| bucket.has_tokens(self.limit.burst, now))
    }

    /// Takes one of the network's tokens.
    pub fn charge(&mut self, network: Network, now: Timestamp) {
        if self.buckets.len() >= self.prune_at {
            self.forget_idle(now);
            self.prune_at = PRUNE_FROM.max(2 * self.buckets.len());
        }
        self.buckets.entry(network).or_default().charge(1, self.limit.per_second, now);
    }

    /// Takes one of the network's tokens, if any is left; whether it did.
    pub fn try_acquire(&mut self, network: Network, now: Timestamp) -> bool {
        let is_allowed = self.has_tokens(network, now);
        if is_allowed {
            self.charge(network, now);
        }
        is_allowed
    }

    /// Forgets the networks that have all their tokens back. Looks at each.
    pub fn forget_idle(&mut self, now: Timestamp) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }

    /// How many networks are remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// What has been used, ordered by network.
    pub fn used(&self) -> Used {
        let mut used: Vec<_> =
            self.buckets.iter().map(|(network, bucket)| (*network, *bucket)).collect();
        used.sort_unstable_by_key(|(network, _)| *network);
        Used(used)
    }

    /// Puts back what [`Self::used`] gave.
    pub fn restore(&mut self, used: Used) {
        self.buckets = used.0.into_iter().collect();
        self.prune_at = PRUNE_FROM.max(2 * self.buckets.len());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::rates::WRONG_OPEN_IDS;

    fn at(secs: u64) -> Timestamp {
        Timestamp::START + Duration::from_secs(secs)
    }

    fn network(number: u32) -> Network {
        std::net::IpAddr::from(number.to_be_bytes()).into()
    }

    /// How many of `tries` wrong OpenIDs a second are answered in `secs` seconds.
    fn answered(tries: u64, secs: u64) -> u64 {
        let mut guesses = NetworkRateLimiter::new(WRONG_OPEN_IDS);
        let mut answered = 0;
        for second in 0..secs {
            for _ in 0..tries {
                if guesses.has_tokens(network(1), at(second)) {
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
        let mut guesses = NetworkRateLimiter::new(WRONG_OPEN_IDS);
        (0..200).for_each(|_| guesses.charge(network(1), at(0)));
        assert!(!guesses.has_tokens(network(1), at(0)));
        assert!(guesses.has_tokens(network(2), at(0)));
    }

    #[test]
    fn networks_that_have_all_of_theirs_are_forgotten() {
        let mut guesses = NetworkRateLimiter::new(WRONG_OPEN_IDS);
        for number in 0..100_000 {
            guesses.charge(network(number), at(u64::from(number) / 100));
        }
        let len = guesses.len();
        assert!(len <= 300, "{len}: a hundred a second, each forgiven after one");
        guesses.forget_idle(at(2000));
        assert!(guesses.is_empty());
    }
}
