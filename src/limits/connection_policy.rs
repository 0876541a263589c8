//! The limits of one player's connection: how long it may be unregistered, how fast it may send commands, and why it
//! is closed.
//!
//! An honest player connects, registers at once, and then sends few lines. The player's thread checks these limits, so
//! a player that sends far too much costs the event loop little time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::label::labels;
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// How long a connection may be unregistered. The stock client registers as soon as it is connected.
pub const REGISTRATION_TIME: Duration = Duration::from_secs(30);

/// How long a line may take from its first byte to its last. A normal line fits into one segment.
pub const LINE_TIME: Duration = Duration::from_secs(10);

/// How many commands a second a player may send on average. A game sends a few in an evening.
pub const COMMANDS_PER_SECOND: u64 = 20;

/// For how long a player can save up commands. This allows a burst of 100: a lobby asks for all its games at once.
pub const COMMAND_BURST: Duration = Duration::from_secs(5);

/// How many refused commands are answered before the connection is closed. Each command that passes cancels one
/// refusal.
pub const MAX_REFUSALS: u32 = 100;

labels! {
    /// Why the server closes a player's connection.
    pub enum DisconnectReason {
        /// The player did not register within [`REGISTRATION_TIME`].
        Unregistered = "unregistered",
        /// A line was not complete within [`LINE_TIME`].
        HalfLine = "half-line",
        /// A line was longer than [`MAX_LINE`](crate::core::protocol::MAX_LINE).
        LineTooLong = "line-too-long",
        /// The player went on after [`MAX_REFUSALS`] refused commands.
        TooManyCommands = "too-many-commands",
        /// The player did not read its replies.
        SlowReader = "slow-reader",
        /// The player goes on on another connection.
        Replaced = "replaced",
        /// The player's machine or network did not answer for too long.
        Vanished = "vanished",
    }
}

impl DisconnectReason {
    /// What the player should do, for people.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Unregistered => "send register-host within 30 s",
            Self::HalfLine => "end every line within 10 s",
            Self::LineTooLong => "lines have at most 4096 bytes",
            Self::TooManyCommands => "send at most 20 commands a second",
            Self::SlowReader => "read what is sent",
            Self::Replaced => "you go on on another connection",
            Self::Vanished => "nothing was heard of you",
        }
    }
}

/// Whether a command is within the rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandRate {
    /// The command is carried out.
    Within,
    /// The command is refused with `rate-limited`.
    Over,
    /// The connection is closed with [`DisconnectReason::TooManyCommands`].
    FarOver,
}

/// The limits of one connection, and what it has used of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionPolicy {
    connected: Timestamp,
    line_begun: Option<Timestamp>,
    commands: TokenBucket,
    refusals: u32,
}

impl ConnectionPolicy {
    /// A policy for a player that has just connected.
    pub fn new(now: Timestamp) -> Self {
        Self { connected: now, line_begun: None, commands: TokenBucket::default(), refusals: 0 }
    }

    /// Counts a command against the rate limit.
    pub fn count_command(&mut self, now: Timestamp) -> CommandRate {
        if self.commands.has_tokens(COMMAND_BURST, now) {
            self.commands.charge(1, COMMANDS_PER_SECOND, now);
            self.refusals = self.refusals.saturating_sub(1);
            return CommandRate::Within;
        }
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS { CommandRate::FarOver } else { CommandRate::Over }
    }

    /// Records that a line has ended. The next bytes begin a new line, with a time of its own.
    pub fn record_line_end(&mut self) {
        self.line_begun = None;
    }

    /// Records that bytes came, and whether a line is incomplete after them.
    pub fn record_bytes(&mut self, is_incomplete: bool, now: Timestamp) {
        self.line_begun = is_incomplete.then(|| self.line_begun.unwrap_or(now));
    }

    /// When and why the connection is closed if nothing more comes; `None` if it may stay.
    pub fn deadline(&self, is_registered: bool) -> Option<(Timestamp, DisconnectReason)> {
        let registration = (self.connected + REGISTRATION_TIME, DisconnectReason::Unregistered);
        let registration = (!is_registered).then_some(registration);
        let line = self.line_begun.map(|begun| (begun + LINE_TIME, DisconnectReason::HalfLine));
        [registration, line].into_iter().flatten().min_by_key(|(deadline, _)| *deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::START + Duration::from_millis(millis)
    }

    #[test]
    fn the_texts_name_the_right_limits() {
        for (reason, bound) in [
            (DisconnectReason::Unregistered, format!("{} s", REGISTRATION_TIME.as_secs())),
            (DisconnectReason::HalfLine, format!("{} s", LINE_TIME.as_secs())),
            (DisconnectReason::LineTooLong, format!("{} bytes", crate::core::protocol::MAX_LINE)),
            (DisconnectReason::TooManyCommands, format!("{COMMANDS_PER_SECOND} commands")),
        ] {
            assert!(reason.detail().contains(&bound), "{bound}");
        }
    }

    #[test]
    fn an_honest_burst_and_a_slow_stream_pass() {
        let mut policy = ConnectionPolicy::new(at(0));
        let allowed = |rate: &CommandRate| *rate == CommandRate::Within;
        let burst = (0..100).map(|_| policy.count_command(at(0)));
        assert_eq!(burst.filter(allowed).count(), 100, "a lobby asks for a hundred games");
        let stream = (0..1000).map(|tenth| policy.count_command(at(1000 + 100 * tenth)));
        assert_eq!(stream.filter(allowed).count(), 1000, "ten a second are within the rate");
    }

    #[test]
    fn a_player_that_goes_on_after_a_hundred_refusals_is_disconnected() {
        let mut policy = ConnectionPolicy::new(at(0));
        let rates: Vec<CommandRate> = (0..202).map(|_| policy.count_command(at(0))).collect();
        assert_eq!(rates[..100], [CommandRate::Within; 100]);
        assert_eq!(rates[100..200], [CommandRate::Over; 100]);
        assert_eq!(rates[200..], [CommandRate::FarOver; 2]);
        let mut patient = ConnectionPolicy::new(at(0));
        for second in 0..100 {
            let refused = (0..150)
                .filter(|_| patient.count_command(at(second * 6000)) == CommandRate::FarOver);
            assert_eq!(refused.count(), 0, "each command that passes cancels a refusal");
        }
    }

    #[test]
    fn a_player_that_sends_a_hundred_times_too_much_is_disconnected_soon() {
        let mut policy = ConnectionPolicy::new(at(0));
        // Every 50 ms one command passes and a hundred are refused.
        let ends = (0..).find(|round| {
            (0..101).any(|_| policy.count_command(at(50 * round)) == CommandRate::FarOver)
        });
        assert!(ends < Some(5), "{ends:?}");
        let mut eager = ConnectionPolicy::new(at(0));
        let rates = (0..10_000).map(|number| eager.count_command(at(35 * number)));
        let refused = rates.inspect(|rate| assert_ne!(*rate, CommandRate::FarOver));
        assert!(
            refused.filter(|v| *v == CommandRate::Over).count() > 1000,
            "29 a second are too many, but the player is not disconnected"
        );
    }

    #[test]
    fn a_registration_and_a_line_have_a_time_limit() {
        let mut policy = ConnectionPolicy::new(at(5000));
        assert_eq!(policy.deadline(false), Some((at(35_000), DisconnectReason::Unregistered)));
        assert_eq!(policy.deadline(true), None);
        policy.record_bytes(true, at(6000));
        policy.record_bytes(true, at(9000));
        assert_eq!(policy.deadline(true), Some((at(16_000), DisconnectReason::HalfLine)));
        policy.record_line_end();
        policy.record_bytes(true, at(12_000));
        assert_eq!(
            policy.deadline(true),
            Some((at(22_000), DisconnectReason::HalfLine)),
            "a new line"
        );
        policy.record_bytes(false, at(13_000));
        assert_eq!(policy.deadline(true), None);
        policy.record_bytes(true, at(30_000));
        assert_eq!(policy.deadline(false), Some((at(35_000), DisconnectReason::Unregistered)));
    }
}
