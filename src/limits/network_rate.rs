//! A rate limit for each network. A rate limit for each connection would not help, because a stranger can open many.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::limits::network::Network;
use crate::limits::token_bucket::{RateLimit, TokenBucket};
use crate::time::Timestamp;

/// How many networks are remembered at least before those with a full bucket are forgotten.
const PRUNE_FROM: usize = 64;

/// A rate limiter with a token bucket for each network. A network without an entry has a full bucket.
#[derive(Clone, Debug)]
pub struct NetworkRateLimiter {
    limit: RateLimit,
    buckets: HashMap<Network, TokenBucket>,
    prune_at: usize,
}

/// All buckets of a [`NetworkRateLimiter`], ordered by network.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkRateSnapshot(Vec<(Network, TokenBucket)>);

impl NetworkRateLimiter {
    /// A limiter in which every network has all its tokens.
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, buckets: HashMap::new(), prune_at: PRUNE_FROM }
    }

    /// Whether the network has tokens left.
    pub fn has_tokens(&self, network: Network, now: Timestamp) -> bool {
        let bucket = self.buckets.get(&network);
        bucket.is_none_or(|bucket| bucket.has_tokens(self.limit.burst, now))
    }

    /// Takes a token of the network, also if none is left.
    pub fn charge(&mut self, network: Network, now: Timestamp) {
        if self.buckets.len() >= self.prune_at {
            self.forget_idle(now);
            self.prune_at = PRUNE_FROM.max(2 * self.buckets.len());
        }
        self.buckets.entry(network).or_default().charge(1, self.limit.per_second, now);
    }

    /// Takes a token of the network, if any is left. Returns whether it did.
    pub fn try_acquire(&mut self, network: Network, now: Timestamp) -> bool {
        let is_allowed = self.has_tokens(network, now);
        if is_allowed {
            self.charge(network, now);
        }
        is_allowed
    }

    /// Forgets the networks that have all their tokens back. Looks at each network.
    pub fn forget_idle(&mut self, now: Timestamp) {
        self.buckets.retain(|_, bucket| !bucket.is_full(now));
    }

    /// How many networks are remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no network is remembered.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// A snapshot of the buckets.
    pub fn snapshot(&self) -> NetworkRateSnapshot {
        let mut buckets: Vec<_> =
            self.buckets.iter().map(|(network, bucket)| (*network, *bucket)).collect();
        buckets.sort_unstable_by_key(|(network, _)| *network);
        NetworkRateSnapshot(buckets)
    }

    /// Replaces the buckets with those of a snapshot.
    pub fn restore(&mut self, snapshot: NetworkRateSnapshot) {
        self.buckets = snapshot.0.into_iter().collect();
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

    /// A network names `tries` wrong OpenIDs a second for `secs` seconds. Returns how many are answered.
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
            "a thousand players, each with one mistake in 17 minutes"
        );
        assert_eq!(answered(120, 1), 120, "a whole school at once");
        let hour = answered(1000, 3600);
        assert!((3600..3600 + 121).contains(&hour), "a search: {hour} of 3,600,000");
    }

    #[test]
    fn one_network_uses_no_tokens_of_another() {
        let mut guesses = NetworkRateLimiter::new(WRONG_OPEN_IDS);
        (0..200).for_each(|_| guesses.charge(network(1), at(0)));
        assert!(!guesses.has_tokens(network(1), at(0)));
        assert!(guesses.has_tokens(network(2), at(0)));
    }

    #[test]
    fn networks_with_all_their_tokens_are_forgotten() {
        let mut guesses = NetworkRateLimiter::new(WRONG_OPEN_IDS);
        for number in 0..100_000 {
            guesses.charge(network(number), at(u64::from(number) / 100));
        }
        let len = guesses.len();
        assert!(
            len <= 300,
            "{len}: a hundred new networks a second, each forgotten after about a second"
        );
        guesses.forget_idle(at(2000));
        assert!(guesses.is_empty());
    }
}
