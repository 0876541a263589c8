//! The token bucket behind every rate limit, one number large.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// So often a second on average; at least 1.
    pub per_second: u64,
    /// For how long it may have been saved up: so much time's worth may come at once.
    pub burst: Duration,
}

/// A token bucket that remembers only when it will be full again.
///
/// Rate and depth are the caller's at each call, so that limits can change while buckets live. The depth is given
/// as the time in which an empty bucket fills. A sender passes while the bucket is not empty and may leave it in
/// debt: one large datagram is never undeliverable, and the average holds all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    full_at: Timestamp,
}

impl TokenBucket {
    /// Whether anything is left in a bucket that fills from empty in `depth`.
    pub fn has_tokens(&self, depth: Duration, now: Timestamp) -> bool {
        self.full_at.since(now) < depth
    }

    /// Whether nothing was taken that is not filled again.
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full_at <= now
    }

    /// Takes `amount`, also more than there is; the bucket fills at `rate` a second.
    pub fn charge(&mut self, amount: u64, rate: u64, now: Timestamp) {
        let cost = amount.saturating_mul(NANOS_PER_SECOND).div_ceil(rate);
        self.full_at = Timestamp::from_nanos(self.full_at.max(now).as_nanos().saturating_add(cost));
    }

    /// Takes one, if anything is left; whether it did.
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

    /// Bytes that pass in ten seconds if `size` bytes are offered every `gap`.
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
    fn one_datagram_larger_than_the_bucket_passes_and_is_paid_back() {
        let mut bucket = TokenBucket::default();
        assert!(bucket.has_tokens(DEPTH, at(0)));
        bucket.charge(65_535, RATE, at(0));
        assert!(!bucket.has_tokens(DEPTH, at(0)));
        assert!(!bucket.has_tokens(DEPTH, at(399)));
        assert!(bucket.has_tokens(DEPTH, at(400)));
    }

    #[test]
    fn a_rate_beyond_counting_is_no_limit() {
        let mut bucket = TokenBucket::default();
        for _ in 0..1000 {
            assert!(bucket.has_tokens(DEPTH, at(0)));
            bucket.charge(65_535, u64::MAX, at(0));
        }
    }
}
