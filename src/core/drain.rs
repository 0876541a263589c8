//! When a server that is to end may do so without cutting off a game.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// For how long no relay may have carried anything before the games are taken to be over. Games send several times
/// a second.
pub const QUIET: Duration = Duration::from_secs(5);

/// A server that begins nothing new and waits for its relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    deadline: Timestamp,
}

impl Drain {
    /// Begins now and lasts for `timeout` at most.
    pub fn new(timeout: Duration, now: Timestamp) -> Self {
        Self { deadline: now + timeout }
    }

    /// When the server may end, if no relay carries anything any more: not later than now, if it may end at once.
    /// `last_forwarded` is when any relay last carried something, `None` without relays.
    pub fn next_check(&self, last_forwarded: Option<Timestamp>) -> Timestamp {
        last_forwarded.map_or(Timestamp::START, |last| self.deadline.min(last + QUIET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::START + Duration::from_secs(secs)
    }

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn without_relays_or_with_quiet_ones_it_is_over_at_once() {
        for last in [None, Some(at(100)), Some(at(95))] {
            assert!(Drain::new(TIMEOUT, at(105)).next_check(last) <= at(105), "{last:?}");
        }
    }

    #[test]
    fn it_waits_until_all_relays_were_quiet() {
        let drain = Drain::new(TIMEOUT, at(100));
        assert_eq!(drain.next_check(Some(at(100))), at(105));
        assert_eq!(drain.next_check(Some(at(103))), at(108));
    }

    #[test]
    fn relays_that_never_rest_are_cut_off_at_the_timeout() {
        let drain = Drain::new(TIMEOUT, at(100));
        for now in (100..150).step_by(5) {
            assert!(drain.next_check(Some(at(now))) <= at(130), "{now}");
        }
    }
}
