//! A rate limit for each network. A rate limit for each connection would not help, because a stranger can open many.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::limits::network::Network;
use crate::limits::pruning::Pruning;
use crate::limits::share::{Prefix, prefixes};
use crate::limits::token_bucket::{RateLimit, TokenBucket};
use crate::time::Timestamp;

/// A rate limiter with a token bucket for each network. A network without an entry has a full bucket.
///
/// An IPv6 /56 has a bucket of its own with four times the rate, and a /48 with sixteen times: whoever has a /48 has
/// 65,536 /64s, but one /64 alone must not use up what its neighbours have.
#[derive(Clone, Debug)]
pub struct NetworkRateLimiter {
    limit: RateLimit,
    buckets: HashMap<Prefix, TokenBucket>,
    pruning: Pruning,
}

/// All buckets of a [`NetworkRateLimiter`], ordered by network.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRateSnapshot {
    buckets: Vec<(Prefix, TokenBucket)>,
    pruning: Pruning,
}

impl NetworkRateLimiter {
    /// A limiter in which every network has all its tokens.
    pub fn new(limit: RateLimit) -> Self {
        Self { limit, buckets: HashMap::new(), pruning: Pruning::default() }
    }

    /// Whether the network has tokens left, and each larger one around it.
    pub fn has_tokens(&self, network: Network, now: Timestamp) -> bool {
        prefixes(network).all(|(prefix, _)| {
            let bucket = self.buckets.get(&prefix);
            bucket.is_none_or(|bucket| bucket.has_tokens(self.limit.burst, now))
        })
    }

    /// Takes a token of the network, also if none is left.
    pub fn charge(&mut self, network: Network, now: Timestamp) {
        if self.pruning.is_due(self.buckets.len()) {
            self.forget_idle(now);
            self.pruning.note(self.buckets.len(), usize::MAX);
        }
        for (prefix, _) in prefixes(network) {
            let per_second = self.limit.per_second * rate_factor(prefix);
            self.buckets.entry(prefix).or_default().charge(1, per_second, now);
        }
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

    /// How many networks are remembered, with the larger ones around them.
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
            self.buckets.iter().map(|(prefix, bucket)| (*prefix, *bucket)).collect();
        buckets.sort_unstable_by_key(|(prefix, _)| *prefix);
        NetworkRateSnapshot { buckets, pruning: self.pruning }
    }

    /// Replaces the buckets with those of a snapshot.
    pub fn restore(&mut self, snapshot: NetworkRateSnapshot) {
        self.buckets = snapshot.buckets.into_iter().collect();
        self.pruning = snapshot.pruning;
    }
}

/// How many times the rate of a /64 a prefix has: each eight bits less give four times as much.
fn rate_factor((_, bits): Prefix) -> u64 {
    1 << ((64 - bits) / 4)
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
    fn whoever_has_many_ipv6_networks_has_little_more() {
        let guesses_of = |network: fn(u128) -> u128| {
            let mut guesses = NetworkRateLimiter::new(WRONG_OPEN_IDS);
            let all = (0..10_000).map(|n| {
                let bits = 0x2001_0db8 << 96 | network(n) << 64;
                std::net::IpAddr::from(bits.to_be_bytes()).into()
            });
            all.filter(|of| guesses.try_acquire(*of, at(0))).count()
        };
        assert_eq!(guesses_of(|_| 0), 120, "a /64");
        assert_eq!(guesses_of(|n| n % 256), 4 * 120, "a /56");
        assert_eq!(guesses_of(|n| n), 16 * 120, "a /48");
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
