//! A limiter for log warnings of one kind: at most one is written in a minute.

use std::time::{Duration, Instant};

/// The least time between two warnings of one kind.
const INTERVAL: Duration = Duration::from_secs(60);

/// Remembers when a warning of one kind was last written.
#[derive(Debug, Default)]
pub(crate) struct WarningLimiter {
    last: Option<Instant>,
}

impl WarningLimiter {
    /// Returns whether the warning may be written now. If it may, it counts as written.
    pub(crate) fn try_acquire(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_allowed_once_a_minute() {
        let start = crate::operation::clock::now();
        let mut limiter = WarningLimiter::default();
        let allowed: Vec<u64> = (0..200)
            .filter(|second| limiter.try_acquire(start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(allowed, [0, 60, 120, 180]);
    }
}
