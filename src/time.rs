//! Reads no clock: time as the rules see it, a number that the shell hands in.

use std::num::NonZeroU64;
use std::ops::Add;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Nanoseconds in which the server was running, counted from its start.
///
/// Time in which the process stood still is left out (see [`RunningTime`]), so that differences of timestamps
/// are idle times and silences that the players caused. 64 bits last for 584 years. An `Option` of it takes no more.
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

    /// The time from `earlier` to this, zero if `earlier` is the later of the two.
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

/// How much longer than announced a turn of the loop may take before the rest counts as standing still.
const LATENESS: Duration = Duration::from_secs(1);

/// Turns readings of the clock into [`Timestamp`]s, leaving out the time in which the process stood still.
///
/// A stopped process or a paused machine cannot see its players' datagrams; without this, every relay would
/// look idle when it goes on. The loop says before each wait how long it means to wait; what goes beyond that
/// and one second was no wait of its own.
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

    /// The reading of the clock that was handed in last.
    pub(crate) fn last_reading(&self) -> Instant {
        self.last_reading
    }

    /// The time of `reading`, taken after a wait that was to last for at most `wait`.
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
        reason = "an Instant can be had in no other way; only differences count"
    )]
    fn reading() -> Instant {
        Instant::now()
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn time_passes_as_announced() {
        let start = reading();
        let mut time = RunningTime::new(start);
        assert_eq!(time.advance(start + secs(1), secs(5)), Timestamp::START + secs(1));
        assert_eq!(time.advance(start + secs(7), secs(5)), Timestamp::START + secs(7));
    }

    #[test]
    fn a_stop_counts_as_the_announced_wait() {
        let start = reading();
        let mut time = RunningTime::new(start);
        assert_eq!(time.advance(start + secs(60), secs(1)), Timestamp::START + secs(1));
        assert_eq!(time.advance(start + secs(61), secs(1)), Timestamp::START + secs(2));
    }

    #[test]
    fn a_clock_that_steps_back_stands() {
        let start = reading();
        let mut time = RunningTime::new(start + secs(9));
        assert_eq!(time.advance(start, secs(1)), Timestamp::START);
    }
}
