//! A player's thread: it reads lines, parses them as commands and posts these to the event loop.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use crate::core::protocol::{Command, LineReader, LineTooLong};
use crate::limits::connection_policy::{CommandRate, ConnectionPolicy, DisconnectReason};
use crate::operation::clock;
use crate::shell::connection::{FAREWELL_TIME, TcpConnection};
use crate::shell::event_channel::{Event, EventSender, LoopGone};
use crate::time::{RunningTime, Timestamp};

/// How many bytes a thread reads at once. A longer line comes in several pieces.
const READ_SIZE: usize = 1024;

/// The longest single wait if there is a deadline. A wait that takes much longer shows that the process stood still.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How many bytes are read and thrown away after the player was told why its connection is closed.
const MAX_DISCARDED: usize = 256 * 1024;

/// Why a player's thread has stopped reading.
enum StopReason {
    /// The player has closed the connection, or it broke.
    PlayerLeft,
    /// The server closes it.
    Disconnect(DisconnectReason),
    /// The event loop has ended, and with it the server.
    LoopGone,
}

impl From<LoopGone> for StopReason {
    fn from(LoopGone: LoopGone) -> Self {
        Self::LoopGone
    }
}

impl From<DisconnectReason> for StopReason {
    fn from(reason: DisconnectReason) -> Self {
        Self::Disconnect(reason)
    }
}

impl From<LineTooLong> for StopReason {
    fn from(LineTooLong: LineTooLong) -> Self {
        Self::Disconnect(DisconnectReason::LineTooLong)
    }
}

/// The body of a player's thread: reads until the connection ends, and posts its end even after a panic.
pub(crate) fn run(connection: &TcpConnection, events: &EventSender) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let end = Reader::new(connection, events).read_to_end();
        if let StopReason::Disconnect(reason) = end
            && events.post(Event::Disconnect(connection.id, reason)).is_ok()
        {
            discard(connection.stream());
        }
    }));
    if outcome.is_err() {
        log::error!("the thread of {} panicked; its connection is closed", connection.peer);
        connection.disconnect();
    }
    // If the loop is gone, nobody needs to know.
    let _ = events.post(Event::Disconnected(connection.id));
}

/// Reads from one player's connection.
///
/// It has a clock of its own. Time in which the process stood still does not count: what the player sent meanwhile was
/// not read.
struct Reader<'a> {
    connection: &'a TcpConnection,
    events: &'a EventSender,
    time: RunningTime,
    policy: ConnectionPolicy,
    lines: LineReader,
}

impl<'a> Reader<'a> {
    fn new(connection: &'a TcpConnection, events: &'a EventSender) -> Self {
        let time = RunningTime::new(clock::now());
        let policy = ConnectionPolicy::new(Timestamp::START);
        Self { connection, events, time, policy, lines: LineReader::default() }
    }

    fn read_to_end(mut self) -> StopReason {
        let mut buffer = [0; READ_SIZE];
        loop {
            let handled = self.read(&mut buffer).and_then(|length| self.handle(&buffer[..length]));
            if let Err(end) = handled {
                return end;
            }
        }
    }

    /// Waits for bytes, at most until the policy's deadline. Returns how many came; zero means: try again.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StopReason> {
        let mut stream = self.connection.stream();
        let wait = self.check_deadline()?;
        let read = stream.set_read_timeout(wait).and_then(|()| stream.read(buffer));
        self.time.advance(clock::now(), wait.unwrap_or(Duration::MAX));
        match read {
            Ok(0) => Err(StopReason::PlayerLeft),
            Ok(length) => Ok(length),
            Err(error) => self.handle_error(&error),
        }
    }

    /// How long the next read may wait; `None` is without a limit.
    ///
    /// # Errors
    /// The reason to disconnect the player, if the deadline has passed.
    fn check_deadline(&mut self) -> Result<Option<Duration>, DisconnectReason> {
        let now = self.now();
        let Some((deadline, reason)) = self.policy.deadline(self.connection.is_registered()) else {
            return Ok(None);
        };
        let left = deadline.since(now);
        if left.is_zero() { Err(reason) } else { Ok(Some(left.min(LONGEST_WAIT))) }
    }

    /// Zero bytes if the wait is over; else why reading stops.
    fn handle_error(&self, error: &io::Error) -> Result<usize, StopReason> {
        use ErrorKind::{HostUnreachable, Interrupted, NetworkUnreachable, TimedOut, WouldBlock};
        let kind = error.kind();
        if [WouldBlock, Interrupted].contains(&kind) {
            // A process that was stopped and continues is interrupted (signal(7)).
            Ok(0)
        } else if [TimedOut, HostUnreachable, NetworkUnreachable].contains(&kind) {
            // Keepalive or TCP_USER_TIMEOUT (tcp(7)), or a router that knows no way to the player.
            Err(DisconnectReason::Vanished.into())
        } else {
            log::debug!("connection from {} broke: {error}", self.connection.peer);
            Err(StopReason::PlayerLeft)
        }
    }

    fn handle(&mut self, mut bytes: &[u8]) -> Result<(), StopReason> {
        while let Some(line) = self.lines.next_line(&mut bytes)? {
            self.policy.record_line_end();
            self.handle_line(&line)?;
        }
        let now = self.now();
        self.policy.record_bytes(self.lines.is_incomplete(), now);
        Ok(())
    }

    fn handle_line(&mut self, line: &[u8]) -> Result<(), StopReason> {
        // Empty lines count too, though nobody answers them.
        let now = self.now();
        let rate = self.policy.count_command(now);
        if rate == CommandRate::FarOver {
            return Err(DisconnectReason::TooManyCommands.into());
        }
        let Some(command) = Command::parse(line) else {
            return Ok(());
        };
        let (player, received) = (self.connection.id, clock::now());
        let event = if rate == CommandRate::Within {
            Event::Command { player, command: Box::new(command), received }
        } else {
            Event::RateLimitedCommand { player, kind: command.kind(), received }
        };
        Ok(self.events.post(event)?)
    }

    /// The time now, after work that does not wait.
    fn now(&mut self) -> Timestamp {
        self.time.advance(clock::now(), Duration::ZERO)
    }
}

/// Keeps a connection open until the player has read why it is closed, and reads on meanwhile.
///
/// Closing a socket with unread data sends a reset, which can overtake the answer. If a player sends more than
/// [`MAX_DISCARDED`], the rest stays unread, and the reset comes after [`FAREWELL_TIME`].
fn discard(mut stream: &TcpStream) {
    let deadline = clock::now() + FAREWELL_TIME;
    let mut buffer = [0; READ_SIZE];
    let mut discarded = 0;
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        if discarded >= MAX_DISCARDED {
            thread::park_timeout(left);
            continue;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => discarded += length,
        }
    }
}
