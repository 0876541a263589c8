//! Time as a number: [`Timestamp`] for the core and the limits, and [`RunningTime`], which makes it from clock
//! readings.

use std::num::NonZeroU64;
use std::ops::Add;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Nanoseconds in which the server was running, counted from its start.
///
/// Time in which the process stood still does not count (see [`RunningTime`]). So the time between two timestamps is
/// time in which the server could hear its players. 64 bits last for 584 years. An `Option<Timestamp>` has 64 bits
/// too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(NonZeroU64);

impl Timestamp {
    /// The moment at which the server started.
    pub const START: Self = Self(NonZeroU64::MIN);

    /// The timestamp `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(Self::START.0.saturating_add(nanos))
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - Self::START.0.get()
    }

    /// The time from `earlier` to this timestamp. Zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::START
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

/// The nanoseconds of `span`, at most `u64::MAX`.
pub(crate) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// How much longer than announced a wait may take. If it takes longer, the process stood still.
const LATENESS: Duration = Duration::from_secs(1);

/// Turns readings of the clock into [`Timestamp`]s, and leaves out the time in which the process stood still.
///
/// A stopped process or a paused machine does not hear its players. Without this rule, every relay would look idle
/// when the process goes on. The loop announces how long it will wait at most. If the clock then shows a second more
/// than that, the process stood still, and only the announced wait counts.
#[derive(Debug)]
pub struct RunningTime {
    last_reading: Instant,
    now: Timestamp,
}

impl RunningTime {
    /// Starts at [`Timestamp::START`] with a first reading.
    pub fn new(reading: Instant) -> Self {
        Self { last_reading: reading, now: Timestamp::START }
    }

    /// Goes on at `now`, as another process has left it.
    pub fn go_on(reading: Instant, now: Timestamp) -> Self {
        Self { last_reading: reading, now }
    }

    /// The last reading of the clock.
    pub(crate) fn last_reading(&self) -> Instant {
        self.last_reading
    }

    /// The time of `reading`, which was taken after a wait of at most `wait`.
    pub fn advance(&mut self, reading: Instant, wait: Duration) -> Timestamp {
        let elapsed = reading.saturating_duration_since(self.last_reading);
        self.last_reading = reading;
        let stood_still = elapsed > wait.saturating_add(LATENESS);
        let counted = if stood_still { wait } else { elapsed };
        self.now = self.now + counted;
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "nothing else makes an Instant, and the tests use only differences"
    )]
    fn reading() -> Instant {
        Instant::now()
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_wait_within_the_announced_time_counts_in_full() {
        let start = reading();
        let mut time = RunningTime::new(start);
        assert_eq!(time.advance(start + secs(1), secs(5)), Timestamp::START + secs(1));
        assert_eq!(time.advance(start + secs(7), secs(5)), Timestamp::START + secs(7));
    }

    #[test]
    fn after_a_stop_only_the_announced_wait_counts() {
        let start = reading();
        let mut time = RunningTime::new(start);
        assert_eq!(time.advance(start + secs(60), secs(1)), Timestamp::START + secs(1));
        assert_eq!(time.advance(start + secs(61), secs(1)), Timestamp::START + secs(2));
    }

    #[test]
    fn a_clock_that_steps_back_adds_no_time() {
        let start = reading();
        let mut time = RunningTime::new(start + secs(9));
        assert_eq!(time.advance(start, secs(1)), Timestamp::START);
    }
}
