//! How a player may behave on its connection: the times and rates that are allowed, and why a connection is closed.
//!
//! Honest players connect, register at once, and then send a line now and then. A player that goes far beyond that costs a
//! thread, a descriptor and the event loop's time. Its own thread stops it, before the event loop hears of it.

use std::time::Duration;

use crate::label::labels;
use crate::limits::token_bucket::TokenBucket;
use crate::time::Timestamp;

/// How long a connection may be there without a registration: the stock client registers as soon as it is connected.
pub const REGISTRATION_TIME: Duration = Duration::from_secs(30);

/// How long a line may take from its first byte to its last: a line fits into one segment.
pub const LINE_TIME: Duration = Duration::from_secs(10);

/// How many commands per second a player may send on average. A game sends a few in an evening.
pub const COMMANDS_PER_SECOND: u64 = 20;

/// For how long a player may have saved up commands: a burst of 100, as when a lobby asks for all its games.
pub const COMMAND_BURST: Duration = Duration::from_secs(5);

/// How many refusals are answered before the connection is closed; a command that passes makes up for one.
pub const MAX_REFUSALS: u32 = 100;

labels! {
    /// Why the server closes a player's connection.
    pub enum DisconnectReason {
        /// It was not registered within [`REGISTRATION_TIME`].
        Unregistered = "unregistered",
        /// A line was not complete within [`LINE_TIME`].
        HalfLine = "half-line",
        /// A line was longer than [`MAX_LINE`](crate::core::protocol::MAX_LINE).
        LineTooLong = "line-too-long",
        /// It went on sending commands after [`MAX_REFUSALS`] refusals.
        TooManyCommands = "too-many-commands",
        /// It did not read what it was sent.
        SlowReader = "slow-reader",
        /// Its machine or network did not answer for too long.
        Vanished = "vanished",
    }
}

impl DisconnectReason {
    /// What would have been right, for people.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Unregistered => "send register-host within 30 s",
            Self::HalfLine => "end every line within 10 s",
            Self::LineTooLong => "lines have at most 4096 bytes",
            Self::TooManyCommands => "send at most 20 commands a second",
            Self::SlowReader => "read what is sent",
            Self::Vanished => "nothing was heard of you",
        }
    }
}

/// How one more command stands to the allowed rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandRate {
    /// The command is carried out.
    Within,
    /// The command is refused with `rate-limited`.
    Over,
    /// The connection is closed.
    FarOver,
}

/// The limits of one connection, and how much of them it has used up.
#[derive(Debug)]
pub struct ConnectionPolicy {
    connected: Timestamp,
    line_begun: Option<Timestamp>,
    commands: TokenBucket,
    refusals: u32,
}

impl ConnectionPolicy {
    /// For a player that has just connected.
    pub fn new(now: Timestamp) -> Self {
        Self { connected: now, line_begun: None, commands: TokenBucket::default(), refusals: 0 }
    }

    /// Counts one more command against the allowed rate.
    pub fn count_command(&mut self, now: Timestamp) -> CommandRate {
        if self.commands.has_tokens(COMMAND_BURST, now) {
            self.commands.charge(1, COMMANDS_PER_SECOND, now);
            self.refusals = self.refusals.saturating_sub(1);
            return CommandRate::Within;
        }
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS { CommandRate::FarOver } else { CommandRate::Over }
    }

    /// Records that a line has ended. Bytes after it begin a new line, with a time of its own.
    pub fn record_line_end(&mut self) {
        self.line_begun = None;
    }

    /// Records that bytes came, and whether they leave a line incomplete.
    pub fn record_bytes(&mut self, is_incomplete: bool, now: Timestamp) {
        self.line_begun = is_incomplete.then(|| self.line_begun.unwrap_or(now));
    }

    /// When the connection is closed if nothing more comes, and why; `None` while there is no such time.
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
    fn people_are_told_the_bounds_that_hold() {
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
    fn an_honest_burst_passes_and_a_steady_stream_is_held_to_the_rate() {
        let mut policy = ConnectionPolicy::new(at(0));
        let allowed = |rate: &CommandRate| *rate == CommandRate::Within;
        let burst = (0..100).map(|_| policy.count_command(at(0)));
        assert_eq!(burst.filter(allowed).count(), 100, "a lobby with a hundred games");
        let stream = (0..1000).map(|tenth| policy.count_command(at(1000 + 100 * tenth)));
        assert_eq!(stream.filter(allowed).count(), 1000, "ten a second for ever");
    }

    #[test]
    fn who_goes_on_after_a_hundred_refusals_is_cut_off() {
        let mut policy = ConnectionPolicy::new(at(0));
        let rates: Vec<CommandRate> = (0..202).map(|_| policy.count_command(at(0))).collect();
        assert_eq!(rates[..100], [CommandRate::Within; 100]);
        assert_eq!(rates[100..200], [CommandRate::Over; 100]);
        assert_eq!(rates[200..], [CommandRate::FarOver; 2]);
        let mut patient = ConnectionPolicy::new(at(0));
        for second in 0..100 {
            let refused = (0..150)
                .filter(|_| patient.count_command(at(second * 6000)) == CommandRate::FarOver);
            assert_eq!(refused.count(), 0, "each command that passes makes up for a refusal");
        }
    }

    #[test]
    fn who_sends_a_hundred_times_too_much_is_cut_off_at_once() {
        let mut policy = ConnectionPolicy::new(at(0));
        // A command that passes every 50 ms, and a hundred more.
        let ends = (0..).find(|round| {
            (0..101).any(|_| policy.count_command(at(50 * round)) == CommandRate::FarOver)
        });
        assert!(ends < Some(5), "{ends:?}");
        let mut eager = ConnectionPolicy::new(at(0));
        let rates = (0..10_000).map(|number| eager.count_command(at(35 * number)));
        let refused = rates.inspect(|rate| assert_ne!(*rate, CommandRate::FarOver));
        assert!(
            refused.filter(|v| *v == CommandRate::Over).count() > 1000,
            "29 a second, and told so"
        );
    }

    #[test]
    fn a_registration_and_a_line_have_their_time() {
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
