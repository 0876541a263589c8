//! The token bucket: a rate limit that stores a single number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A rate limit: how often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// How often in a second, on average; at least 1.
    pub per_second: u64,
    /// How large a burst may be: as much as the rate allows in this time.
    pub burst: Duration,
}

/// A token bucket that stores only when it will be full again.
///
/// The caller gives rate and depth with each call, so limits can change while buckets live. The depth is the time in
/// which an empty bucket fills. A sender may send while the bucket is not empty, and may leave it in debt. So a bucket
/// never blocks a large datagram for ever, and the average rate still holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    full_at: Timestamp,
}

impl TokenBucket {
    /// Whether the bucket has tokens left. An empty bucket fills in `depth`.
    pub fn has_tokens(&self, depth: Duration, now: Timestamp) -> bool {
        self.full_at.since(now) < depth
    }

    /// Whether the bucket is full.
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full_at <= now
    }

    /// Takes `amount` tokens, also more than are left. The bucket fills with `rate` tokens a second; at least 1.
    pub fn charge(&mut self, amount: u64, rate: u64, now: Timestamp) {
        let cost = amount.saturating_mul(NANOS_PER_SECOND).div_ceil(rate);
        self.full_at = Timestamp::from_nanos(self.full_at.max(now).as_nanos().saturating_add(cost));
    }

    /// When the bucket will be full.
    pub fn full_at(&self) -> Timestamp {
        self.full_at
    }

    /// The bucket is full no earlier than that: somebody else has charged it.
    pub fn raise(&mut self, full_at: Timestamp) {
        self.full_at = self.full_at.max(full_at);
    }

    /// Takes a token, if any is left. Returns whether it did.
    pub fn try_acquire(&mut self, limit: RateLimit, now: Timestamp) -> bool {
        let is_allowed = self.has_tokens(limit.burst, now);
        if is_allowed {
            self.charge(1, limit.per_second, now);
        }
        is_allowed
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const DEPTH: Duration = Duration::from_millis(100);
    const RATE: u64 = 131_072;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START + Duration::from_millis(millis)
    }

    /// How many bytes pass in ten seconds if `size` bytes come every `gap`.
    fn passed(size: u64, gap: Duration) -> u64 {
        let mut bucket = TokenBucket::default();
        let (mut now, mut passed) = (Timestamp::START, 0);
        while now < at(10_000) {
            if bucket.has_tokens(DEPTH, now) {
                bucket.charge(size, RATE, now);
                passed += size;
            }
            now = now + gap;
        }
        passed
    }

    #[test]
    fn the_average_holds_for_small_and_large_datagrams() {
        for (size, gap) in [(100, 50), (1228, 500), (65_535, 10_000), (28, 10)] {
            let passed = passed(size, Duration::from_micros(gap));
            let allowed = RATE * 10 + RATE / 10 + size;
            assert!(passed <= allowed, "{size} bytes: {passed} of {allowed}");
            assert!(passed + 2 * size >= RATE * 10, "{size} bytes: only {passed}");
        }
    }

    #[test]
    fn a_sender_under_the_rate_loses_nothing() {
        let gap = Duration::from_millis(10);
        assert_eq!(passed(1300, gap), 1300 * 1000);
    }

    #[test]
    fn a_datagram_larger_than_the_bucket_passes_and_leaves_a_debt() {
        let mut bucket = TokenBucket::default();
        assert!(bucket.has_tokens(DEPTH, at(0)));
        bucket.charge(65_535, RATE, at(0));
        assert!(!bucket.has_tokens(DEPTH, at(0)));
        assert!(!bucket.has_tokens(DEPTH, at(399)));
        assert!(bucket.has_tokens(DEPTH, at(400)));
    }

    #[test]
    fn the_largest_rate_is_no_limit() {
        let mut bucket = TokenBucket::default();
        for _ in 0..1000 {
            assert!(bucket.has_tokens(DEPTH, at(0)));
            bucket.charge(65_535, u64::MAX, at(0));
        }
    }
}
