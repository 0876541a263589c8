//! What is known about what a player sent: a line that has begun, and how far its connection is within the limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::protocol::LineReader;
use crate::limits::connection_policy::{ConnectionPolicy, DisconnectReason};
use crate::operation::clock;
use crate::time::{RunningTime, Timestamp};

/// The longest single wait if there is a deadline. A wait that takes much longer shows that the process stood still.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What is known about what a player sent.
///
/// It has a clock of its own. Time in which the process stood still does not count: what the player sent meanwhile was
/// not read.
#[derive(Debug)]
pub(crate) struct ReaderState {
    pub(super) time: RunningTime,
    pub(super) policy: ConnectionPolicy,
    pub(super) lines: LineReader,
}

/// What another process needs to go on with a [`ReaderState`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReaderSnapshot {
    now: Timestamp,
    policy: ConnectionPolicy,
    /// The beginning of a line.
    incomplete: Vec<u8>,
}

impl ReaderState {
    /// What another process needs to go on.
    pub(crate) fn snapshot(&mut self) -> ReaderSnapshot {
        let incomplete = self.lines.incomplete().to_vec();
        ReaderSnapshot { now: self.now(), policy: self.policy.clone(), incomplete }
    }

    /// Goes on with a snapshot.
    pub(crate) fn restore(snapshot: ReaderSnapshot) -> Self {
        let ReaderSnapshot { now, policy, incomplete } = snapshot;
        let time = RunningTime::go_on(clock::now(), now);
        Self { time, policy, lines: LineReader::with_incomplete(incomplete) }
    }

    /// For a player that has just connected.
    pub(crate) fn new() -> Self {
        let time = RunningTime::new(clock::now());
        let policy = ConnectionPolicy::new(Timestamp::START);
        Self { time, policy, lines: LineReader::default() }
    }

    /// The time now, after work that does not wait.
    pub(super) fn now(&mut self) -> Timestamp {
        self.time.advance(clock::now(), Duration::ZERO)
    }

    /// How long the next wait may be; `None` is without a limit.
    ///
    /// # Errors
    /// The reason to disconnect the player, if the deadline has passed.
    pub(super) fn check_deadline(
        &mut self,
        is_registered: bool,
    ) -> Result<Option<Duration>, DisconnectReason> {
        let now = self.now();
        let Some((deadline, reason)) = self.policy.deadline(is_registered) else {
            return Ok(None);
        };
        let left = deadline.since(now);
        if left.is_zero() { Err(reason) } else { Ok(Some(left.min(LONGEST_WAIT))) }
    }
}
