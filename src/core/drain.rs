//! The drain: how long a server that must end still waits for its relays, so that it cuts off no game.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::effect::{Effect, Effects};
use crate::core::{Core, CoreTask};
use crate::time::Timestamp;

/// When no relay has carried anything for this time, all games are over. Games send several times a second.
pub const QUIET_TIME: Duration = Duration::from_secs(5);

/// A drain that has started. The server starts nothing new and waits for its relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    deadline: Timestamp,
}

impl Drain {
    /// A drain that starts now and lasts for `timeout` at most.
    pub fn new(timeout: Duration, now: Timestamp) -> Self {
        Self { deadline: now + timeout }
    }

    /// When the server ends at the latest.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// The time at which the server may end, if no relay carries anything until then. A time in the past means: at
    /// once.
    ///
    /// `last_forwarded` is when any relay last carried something; `None` without relays.
    pub fn next_check(&self, last_forwarded: Option<Timestamp>) -> Timestamp {
        last_forwarded.map_or(Timestamp::START, |last| self.deadline.min(last + QUIET_TIME))
    }
}

impl Core {
    /// Starts a drain, unless one has started.
    pub(super) fn start_to_drain(&mut self, now: Timestamp, effects: &mut Effects) {
        if self.is_draining() {
            return;
        }
        let timeout = self.settings.drain_timeout;
        let drain = Drain::new(timeout, now);
        self.deadlines.set(CoreTask::EndOfDrain, drain.next_check(self.relays.last_forwarded()));
        self.drain = Some(drain);
        effects.push_back(Effect::DrainStarted { pairs: self.relays.pairs(), timeout });
    }

    /// Ends the drain, if the relays are quiet or it has lasted long enough.
    pub(super) fn check_drain(&mut self, now: Timestamp, effects: &mut Effects) {
        let Some(drain) = &self.drain else { return };
        let next_check = drain.next_check(self.relays.last_forwarded());
        if next_check > now {
            self.deadlines.set(CoreTask::EndOfDrain, next_check);
        } else {
            effects.push_back(Effect::DrainEnded);
        }
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
    fn without_relays_or_with_quiet_relays_the_drain_is_over_at_once() {
        for last in [None, Some(at(100)), Some(at(95))] {
            assert!(Drain::new(TIMEOUT, at(105)).next_check(last) <= at(105), "{last:?}");
        }
    }

    #[test]
    fn the_drain_waits_until_all_relays_are_quiet() {
        let drain = Drain::new(TIMEOUT, at(100));
        assert_eq!(drain.next_check(Some(at(100))), at(105));
        assert_eq!(drain.next_check(Some(at(103))), at(108));
    }

    #[test]
    fn busy_relays_are_cut_off_at_the_timeout() {
        let drain = Drain::new(TIMEOUT, at(100));
        for now in (100..150).step_by(5) {
            assert!(drain.next_check(Some(at(now))) <= at(130), "{now}");
        }
    }
}
