//! A player's thread: it reads lines, parses them as commands and posts these to the event loop.
//!
//! It ends before a handover, when the [`Halt`] is called. Then all that came is either in the kernel or in the reader's state,
//! and another thread goes on with it.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

use crate::core::protocol::{Command, LineTooLong};
use crate::limits::connection_policy::{CommandRate, DisconnectReason};
use crate::operation::clock;
use crate::shell::connection::{FAREWELL_TIME, SharedConnection, TcpConnection};
use crate::shell::event_channel::{Event, EventSender, LoopGone};
use crate::shell::halt::Halt;
use crate::shell::reader_state::ReaderState;

/// How many bytes a thread reads at once. A longer line comes in several pieces.
const READ_SIZE: usize = 1024;

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
    /// The halt was called: another thread goes on.
    Halted,
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

/// The body of a player's thread: reads until the connection ends, and posts its end even after a panic. If the halt is
/// called it ends without a word.
pub(crate) fn run(connection: &SharedConnection, events: &EventSender, halt: &Halt) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let end = Reader { connection, events, halt }.read_to_end();
        if let StopReason::Disconnect(reason) = end
            && events.post(Event::Disconnect(connection.id, reason)).is_ok()
        {
            discard(connection, halt);
        }
        end
    }));
    match outcome {
        Ok(StopReason::Halted) => return,
        Ok(StopReason::PlayerLeft | StopReason::Disconnect(_) | StopReason::LoopGone) => {}
        Err(_) => {
            log::error!("the thread of {} panicked; its connection is closed", connection.peer);
            connection.disconnect();
        }
    }
    // If the loop is gone, nobody needs to know.
    let _ = events.post(Event::Disconnected(connection.id));
}

/// Reads from one player's connection.
struct Reader<'a> {
    connection: &'a TcpConnection,
    events: &'a EventSender,
    halt: &'a Halt,
}

impl<'a> Reader<'a> {
    fn read_to_end(&self) -> StopReason {
        let mut buffer = [0; READ_SIZE];
        loop {
            if let Err(end) = self.wait().and_then(|()| self.read_and_handle(&mut buffer)) {
                return end;
            }
        }
    }

    /// Waits until there are bytes, the player has left, the policy's deadline, or the halt.
    fn wait(&self) -> Result<(), StopReason> {
        let is_registered = self.connection.is_registered();
        let wait = self.connection.reader().check_deadline(is_registered)?;
        let waited = self.halt.wait_for_input(self.connection.stream(), wait);
        self.connection.reader().time.advance(clock::now(), wait.unwrap_or(Duration::MAX));
        if self.halt.is_called() {
            return Err(StopReason::Halted);
        }
        waited.or_else(|error| self.handle_error(&error))
    }

    /// Reads what is there and posts what it says.
    fn read_and_handle(&self, buffer: &mut [u8]) -> Result<(), StopReason> {
        match receive_now(self.connection.stream(), buffer) {
            Ok(0) => Err(StopReason::PlayerLeft),
            Ok(length) => self.handle(&mut self.connection.reader(), &buffer[..length]),
            Err(error) => self.handle_error(&error),
        }
    }

    /// Nothing if the wait is over; else why reading stops.
    fn handle_error(&self, error: &io::Error) -> Result<(), StopReason> {
        use ErrorKind::{HostUnreachable, Interrupted, NetworkUnreachable, TimedOut, WouldBlock};
        let kind = error.kind();
        if [WouldBlock, Interrupted].contains(&kind) {
            // A process that was stopped and continues is interrupted (signal(7)).
            Ok(())
        } else if [TimedOut, HostUnreachable, NetworkUnreachable].contains(&kind) {
            // Keepalive or TCP_USER_TIMEOUT (tcp(7)), or a router that knows no way to the player.
            Err(DisconnectReason::Vanished.into())
        } else {
            log::debug!("connection from {} broke: {error}", self.connection.peer);
            Err(StopReason::PlayerLeft)
        }
    }

    fn handle(&self, state: &mut ReaderState, mut bytes: &[u8]) -> Result<(), StopReason> {
        while let Some(line) = state.lines.next_line(&mut bytes)? {
            state.policy.record_line_end();
            self.handle_line(state, &line)?;
        }
        let now = state.now();
        state.policy.record_bytes(state.lines.is_incomplete(), now);
        Ok(())
    }

    fn handle_line(&self, state: &mut ReaderState, line: &[u8]) -> Result<(), StopReason> {
        // Empty lines count too, though nobody answers them.
        let now = state.now();
        let rate = state.policy.count_command(now);
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
}

/// Reads what is there; `WouldBlock` if there is nothing.
fn receive_now(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let (_, length) = recv(stream, buffer, RecvFlags::DONTWAIT)?;
    Ok(length)
}

/// Keeps a connection open until the player has read why it is closed, and reads on meanwhile.
///
/// Closing a socket with unread data sends a reset, which can overtake the answer. If a player sends more than
/// [`MAX_DISCARDED`], the rest stays unread, and the reset comes after [`FAREWELL_TIME`].
///
/// If the halt is called, the connection is left to whoever goes on.
fn discard(connection: &SharedConnection, halt: &Halt) {
    let deadline = clock::now() + FAREWELL_TIME;
    let (stream, mut buffer, mut discarded) = (connection.stream(), [0; READ_SIZE], 0);
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return;
        }
        let waited = if discarded < MAX_DISCARDED {
            halt.wait_for_input(stream, Some(left))
        } else {
            halt.wait(left)
        };
        if halt.is_called() {
            halt.leave(Arc::clone(connection));
            return;
        }
        if waited.is_err() || discarded >= MAX_DISCARDED {
            continue;
        }
        match receive_now(stream, &mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(length) => discarded += length,
        }
    }
}
