//! The kernel's monotonic clock beside the core's [`Timestamp`]s, which leave out the time in which the server stood still.

use std::time::Duration;

use crate::time::{Timestamp, nanos};

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
struct Moment {
    kernel: u64,
    core: Timestamp,
}

/// If the core's clock falls behind by more than this between two moments, the server stood still.
const STANDSTILL: Duration = Duration::from_millis(500);

/// Translates between the two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The moment before the latest one.
    earlier: Moment,
    latest: Moment,
}

impl Clocks {
    /// Both clocks show this now.
    pub fn new(kernel: u64, core: Timestamp) -> Self {
        let now = Moment { kernel, core };
        Self { earlier: now, latest: now }
    }

    /// Both clocks show this now. Returns whether the server stood still since the last time.
    pub fn update(&mut self, kernel: u64, core: Timestamp) -> bool {
        self.earlier = self.latest;
        self.latest = Moment { kernel, core };
        let passed = Duration::from_nanos(kernel.saturating_sub(self.earlier.kernel));
        passed > core.since(self.earlier.core) + STANDSTILL
    }

    /// The kernel's time now.
    pub fn kernel(&self) -> u64 {
        self.latest.kernel
    }

    /// The core's time at a past moment of the kernel's clock. While the server stood still, the core's clock did too.
    pub fn to_core(&self, kernel: u64) -> Timestamp {
        let Moment { kernel: at, core } = self.earlier;
        if kernel >= at {
            return (core + Duration::from_nanos(kernel - at)).min(self.latest.core);
        }
        Timestamp::from_nanos(core.as_nanos().saturating_sub(at - kernel))
    }

    /// The core's time at a moment of the kernel's clock that may lie ahead, for buckets.
    pub fn to_core_ahead(&self, kernel: u64) -> Timestamp {
        match kernel.checked_sub(self.latest.kernel) {
            Some(ahead) => self.latest.core + Duration::from_nanos(ahead),
            None => self.to_core(kernel),
        }
    }

    /// The kernel's time at a moment of the core's clock, past or future.
    pub fn to_kernel(&self, core: Timestamp) -> u64 {
        let Moment { kernel, core: at } = self.latest;
        if core >= at {
            kernel.saturating_add(nanos(core.since(at)))
        } else {
            kernel.saturating_sub(nanos(at.since(core)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * SECOND)
    }

    #[test]
    fn both_clocks_go_on_side_by_side() {
        let mut clocks = Clocks::new(100 * SECOND, at(0));
        assert!(!clocks.update(103 * SECOND, at(3)));
        assert_eq!(clocks.to_core(102 * SECOND), at(2));
        assert_eq!(clocks.to_core(99 * SECOND), at(0), "nothing is before the start");
        assert_eq!(
            clocks.to_core(104 * SECOND),
            at(3),
            "what is heard is not heard later than now"
        );
        assert_eq!(clocks.to_core_ahead(104 * SECOND), at(4));
        for seconds in [1, 3, 7] {
            assert_eq!(clocks.to_kernel(at(seconds)), (100 + seconds) * SECOND);
        }
    }

    #[test]
    fn a_standstill_counts_for_what_was_heard_in_it_as_now() {
        let mut clocks = Clocks::new(100 * SECOND, at(10));
        assert!(clocks.update(160 * SECOND, at(11)));
        assert_eq!(clocks.to_core(99 * SECOND), at(9));
        assert_eq!(clocks.to_core(102 * SECOND), at(11));
        assert_eq!(clocks.to_kernel(at(10)), 159 * SECOND);
    }
}
