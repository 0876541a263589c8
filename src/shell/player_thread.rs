//! A player's thread: it reads lines, parses them as commands and posts these to the event loop.
//!
//! It waits without reading, and reads only while it holds the [`Gate`]. So a handover that has closed the gate finds all
//! that came either in the kernel or in the reader's state.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use crate::core::protocol::{Command, LineTooLong};
use crate::limits::connection_policy::{CommandRate, DisconnectReason};
use crate::operation::clock;
use crate::shell::connection::{FAREWELL_TIME, TcpConnection};
use crate::shell::event_channel::{Event, EventSender, LoopGone};
use crate::shell::gate::Gate;
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
pub(crate) fn run(connection: &TcpConnection, events: &EventSender, gate: &Gate) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let end = Reader { connection, events, gate }.read_to_end();
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
struct Reader<'a> {
    connection: &'a TcpConnection,
    events: &'a EventSender,
    gate: &'a Gate,
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

    /// Waits until there are bytes, the player has left, or the policy's deadline.
    fn wait(&self) -> Result<(), StopReason> {
        let is_registered = self.connection.is_registered();
        let wait = self.connection.reader().check_deadline(is_registered)?;
        let waited = wait_for_input(self.connection.stream(), wait);
        self.connection.reader().time.advance(clock::now(), wait.unwrap_or(Duration::MAX));
        waited.or_else(|error| self.handle_error(&error))
    }

    /// Reads what is there and posts what it says.
    fn read_and_handle(&self, buffer: &mut [u8]) -> Result<(), StopReason> {
        let _open = self.gate.enter();
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

/// Waits until a read would not wait (poll(2)), for at most `limit`.
fn wait_for_input(stream: &TcpStream, limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.map(|limit| Timespec::try_from(limit).expect("a wait is short"));
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    poll(&mut fds, limit.as_ref())?;
    Ok(())
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
