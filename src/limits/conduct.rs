//! Reads no socket: how a player may behave on its connection.
//!
//! Honest players connect, register at once, and then send a line now and then. What goes beyond that by far costs a
//! thread, a descriptor and the event loop's time, and ends here, before the event loop hears of it.

use crate::label::labels;
use std::time::Duration;

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
    /// Why a connection is closed, besides that the player went away.
    pub enum Misconduct {
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
        /// It is no fault of its own: nothing came back from its machine for too long.
        Vanished = "vanished",
    }
}

impl Misconduct {
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

/// What is to be done with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out.
    Allowed,
    /// Answer that there are too many.
    Refused,
    /// Close the connection.
    Intolerable,
}

/// What one player did so far.
#[derive(Debug)]
pub struct Conduct {
    connected: Timestamp,
    line_begun: Option<Timestamp>,
    commands: TokenBucket,
    refusals: u32,
}

impl Conduct {
    /// Has just connected.
    pub fn new(now: Timestamp) -> Self {
        Self { connected: now, line_begun: None, commands: TokenBucket::default(), refusals: 0 }
    }

    /// Judges one more command.
    pub fn judge_command(&mut self, now: Timestamp) -> Verdict {
        if self.commands.has_tokens(COMMAND_BURST, now) {
            self.commands.charge(1, COMMANDS_PER_SECOND, now);
            self.refusals = self.refusals.saturating_sub(1);
            return Verdict::Allowed;
        }
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS { Verdict::Intolerable } else { Verdict::Refused }
    }

    /// Notes that a line has ended: what is incomplete after it has begun anew.
    pub fn note_line_end(&mut self) {
        self.line_begun = None;
    }

    /// Notes that bytes came, and whether a line is incomplete after them.
    pub fn note_bytes(&mut self, is_incomplete: bool, now: Timestamp) {
        self.line_begun = is_incomplete.then(|| self.line_begun.unwrap_or(now));
    }

    /// When the player's time is over, if it has a limit, and for what.
    pub fn deadline(&self, is_registered: bool) -> Option<(Timestamp, Misconduct)> {
        let registration = (self.connected + REGISTRATION_TIME, Misconduct::Unregistered);
        let line = self.line_begun.map(|begun| (begun + LINE_TIME, Misconduct::HalfLine));
        let registration = (!is_registered).then_some(registration);
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
        for (misconduct, bound) in [
            (Misconduct::Unregistered, format!("{} s", REGISTRATION_TIME.as_secs())),
            (Misconduct::HalfLine, format!("{} s", LINE_TIME.as_secs())),
            (Misconduct::LineTooLong, format!("{} bytes", crate::core::protocol::MAX_LINE)),
            (Misconduct::TooManyCommands, format!("{COMMANDS_PER_SECOND} commands")),
        ] {
            assert!(misconduct.detail().contains(&bound), "{bound}");
        }
    }

    #[test]
    fn an_honest_burst_passes_and_a_steady_stream_is_held_to_the_rate() {
        let mut conduct = Conduct::new(at(0));
        let allowed = |verdict: &Verdict| *verdict == Verdict::Allowed;
        let burst = (0..100).map(|_| conduct.judge_command(at(0)));
        assert_eq!(burst.filter(allowed).count(), 100, "a lobby with a hundred games");
        let stream = (0..1000).map(|tenth| conduct.judge_command(at(1000 + 100 * tenth)));
        assert_eq!(stream.filter(allowed).count(), 1000, "ten a second for ever");
    }

    #[test]
    fn who_goes_on_after_a_hundred_refusals_is_cut_off() {
        let mut conduct = Conduct::new(at(0));
        let verdicts: Vec<Verdict> = (0..202).map(|_| conduct.judge_command(at(0))).collect();
        assert_eq!(verdicts[..100], [Verdict::Allowed; 100]);
        assert_eq!(verdicts[100..200], [Verdict::Refused; 100]);
        assert_eq!(verdicts[200..], [Verdict::Intolerable; 2]);
        let mut patient = Conduct::new(at(0));
        for second in 0..100 {
            let refused = (0..150)
                .filter(|_| patient.judge_command(at(second * 6000)) == Verdict::Intolerable);
            assert_eq!(refused.count(), 0, "each command that passes makes up for a refusal");
        }
    }

    #[test]
    fn who_sends_a_hundred_times_too_much_is_cut_off_at_once() {
        let mut conduct = Conduct::new(at(0));
        // A command that passes every 50 ms, and a hundred more.
        let ends = (0..).find(|round| {
            (0..101).any(|_| conduct.judge_command(at(50 * round)) == Verdict::Intolerable)
        });
        assert!(ends < Some(5), "{ends:?}");
        let mut eager = Conduct::new(at(0));
        let verdicts = (0..10_000).map(|number| eager.judge_command(at(35 * number)));
        let refused = verdicts.inspect(|verdict| assert_ne!(*verdict, Verdict::Intolerable));
        assert!(
            refused.filter(|v| *v == Verdict::Refused).count() > 1000,
            "29 a second, and told so"
        );
    }

    #[test]
    fn a_registration_and_a_line_have_their_time() {
        let mut conduct = Conduct::new(at(5000));
        assert_eq!(conduct.deadline(false), Some((at(35_000), Misconduct::Unregistered)));
        assert_eq!(conduct.deadline(true), None);
        conduct.note_bytes(true, at(6000));
        conduct.note_bytes(true, at(9000));
        assert_eq!(conduct.deadline(true), Some((at(16_000), Misconduct::HalfLine)));
        conduct.note_line_end();
        conduct.note_bytes(true, at(12_000));
        assert_eq!(conduct.deadline(true), Some((at(22_000), Misconduct::HalfLine)), "a new line");
        conduct.note_bytes(false, at(13_000));
        assert_eq!(conduct.deadline(true), None);
        conduct.note_bytes(true, at(30_000));
        assert_eq!(conduct.deadline(false), Some((at(35_000), Misconduct::Unregistered)));
    }
}
