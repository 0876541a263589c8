//! The one place that reads the clock.

use std::time::Instant;

/// The monotonic clock: 17 ns a reading. The rules never call this; they are handed a
/// [`Timestamp`](crate::time::Timestamp).
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}
