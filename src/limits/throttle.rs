//! Writes no line itself: keeps warnings of one kind to one a minute.

use std::time::{Duration, Instant};

/// How long a warning of one kind is not repeated.
const INTERVAL: Duration = Duration::from_secs(60);

/// Says when a warning of one kind is due again.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    last: Option<Instant>,
}

impl Throttle {
    /// Whether it may be written now; if so, it counts as written.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
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
    fn once_a_minute() {
        let start = crate::operation::clock::now();
        let mut throttle = Throttle::default();
        let due: Vec<u64> = (0..200)
            .filter(|second| throttle.is_due(start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(due, [0, 60, 120, 180]);
    }
}
