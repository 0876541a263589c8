//! Ends nothing itself: when a server that is to end may do so without cutting off a game.

use std::time::Duration;

use crate::time::Timestamp;

/// For how long no relay may have carried anything before the games are taken to be over. Games send several times
/// a second.
pub(crate) const QUIET: Duration = Duration::from_secs(5);

/// A server that begins nothing new and waits for its relays.
#[derive(Debug)]
pub(crate) struct Drain {
    deadline: Timestamp,
    end: Timestamp,
}

impl Drain {
    /// Begins now and lasts for `timeout` at most. `last_forwarded` is when any relay last carried something,
    /// `None` without relays.
    pub(crate) fn new(
        timeout: Duration,
        last_forwarded: Option<Timestamp>,
        now: Timestamp,
    ) -> Self {
        let mut drain = Self { deadline: now + timeout, end: now };
        drain.end = drain.expected_end(last_forwarded);
        drain
    }

    /// When [`Self::is_over`] may have something new to say.
    pub(crate) fn next_look(&self) -> Timestamp {
        self.end
    }

    /// Whether the server may end.
    pub(crate) fn is_over(&mut self, last_forwarded: Option<Timestamp>, now: Timestamp) -> bool {
        self.end = self.expected_end(last_forwarded);
        now >= self.end
    }

    fn expected_end(&self, last_forwarded: Option<Timestamp>) -> Timestamp {
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
            let mut drain = Drain::new(TIMEOUT, last, at(105));
            assert!(drain.next_look() <= at(105));
            assert!(drain.is_over(last, at(105)), "{last:?}");
        }
    }

    #[test]
    fn it_waits_until_all_relays_were_quiet() {
        let mut drain = Drain::new(TIMEOUT, Some(at(100)), at(100));
        assert_eq!(drain.next_look(), at(105));
        assert!(!drain.is_over(Some(at(103)), at(105)));
        assert_eq!(drain.next_look(), at(108));
        assert!(drain.is_over(Some(at(103)), at(108)));
    }

    #[test]
    fn relays_that_never_rest_are_cut_off_at_the_timeout() {
        let mut drain = Drain::new(TIMEOUT, Some(at(100)), at(100));
        for now in (105..130).step_by(5) {
            assert!(!drain.is_over(Some(at(now)), at(now)), "{now}");
            assert!(drain.next_look() <= at(130));
        }
        assert!(drain.is_over(Some(at(130)), at(130)));
    }
}
