//! The one place that reads the clock.

use std::time::Instant;

/// Reads the monotonic clock, in 17 ns. The core never calls this: the shell passes it a
/// [`Timestamp`](crate::time::Timestamp).
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now() -> Instant {
    Instant::now()
}
