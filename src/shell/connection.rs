//! Keeps no state of the game: one player's TCP connection, its reading thread, and writing that never waits.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use nix::libc::MSG_DONTWAIT;
use socket2::SockRef;

use crate::core::id::ConnectionId;
use crate::core::protocol::{Command, LineReader, LineTooLong, Reply};
use crate::limits::conduct::{Conduct, Misconduct, Verdict};
use crate::operation::clock;
use crate::shell::events::{Event, EventSender, LoopGone};
use crate::shell::listener::Permit;
use crate::time::{RunningTime, Timestamp};

/// How much a thread reads at once; a longer line comes in several pieces.
const READ_SIZE: usize = 1024;

/// How long a thread waits at once where there is a deadline, so that time in which it stood still can be told.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How much is read and thrown away after a line too long, so that the answer is not lost to a reset.
const MAX_DISCARDED: usize = 256 * 1024;

/// For how long that goes on at most.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Why a reply did not reach a player.
pub(crate) enum SendError {
    /// The player does not read.
    BufferFull,
    /// The connection is broken; its thread will notice.
    Broken,
}

/// A connection that two threads hold: its own, and the event loop.
pub(crate) type SharedConnection = Arc<Connection>;

/// One player's connection. Its thread reads; only the event loop writes.
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    stream: TcpStream,
    permit: Permit,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        stream: TcpStream,
        peer: SocketAddr,
        permit: Permit,
    ) -> Self {
        Self { id, peer, stream, permit }
    }

    /// Writes a reply without waiting. What the player takes only in part counts as not taken.
    pub(crate) fn send(&self, reply: &Reply) -> Result<(), SendError> {
        let text = reply.encode();
        match SockRef::from(&self.stream).send_with_flags(text.as_bytes(), MSG_DONTWAIT) {
            Ok(sent) if sent == text.len() => Ok(()),
            Ok(_) => Err(SendError::BufferFull),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(SendError::BufferFull),
            Err(_) => Err(SendError::Broken),
        }
    }

    /// Ends the connection in both directions, which also wakes its thread.
    pub(crate) fn disconnect(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Ends the direction to the player, after what was sent.
    pub(crate) fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub(crate) fn is_registered(&self) -> bool {
        self.permit.is_registered()
    }

    /// The player has registered, and no longer counts as one that has not.
    pub(crate) fn mark_registered(&self) {
        self.permit.mark_registered();
    }
}

/// The body of a player's thread: reads until the connection ends, and says so even if it panics.
pub(crate) fn serve(connection: &Connection, events: &EventSender) {
    let outcome = catch_unwind(AssertUnwindSafe(|| read_commands(connection, events)));
    if outcome.is_err() {
        log::error!("the handler of {} panicked, its connection is closed", connection.peer);
        connection.disconnect();
    }
    // If the loop is gone there is nobody left to tell.
    let _ = events.post(Event::Disconnected(connection.id));
}

fn read_commands(connection: &Connection, events: &EventSender) -> Result<(), LoopGone> {
    let mut buffer = [0; READ_SIZE];
    if let Err(misconduct) = read_until_misconduct(connection, events, &mut buffer)? {
        events.post(Event::Misconduct(connection.id, misconduct))?;
        discard(&connection.stream, &mut buffer);
    }
    Ok(())
}

fn read_until_misconduct(
    connection: &Connection,
    events: &EventSender,
    buffer: &mut [u8],
) -> Result<Result<(), Misconduct>, LoopGone> {
    let mut reader = LineReader::default();
    let mut watch = Watch::start();
    let mut conduct = Conduct::new(watch.now());
    loop {
        let deadline = conduct.deadline(connection.is_registered());
        let mut chunk = match watch.read(&connection.stream, buffer, deadline) {
            Read::Bytes(0) => return Ok(Ok(())),
            Read::Bytes(length) => &buffer[..length],
            Read::Nothing => continue,
            Read::Overdue(misconduct) => {
                // It may have registered while this thread waited.
                if conduct.deadline(connection.is_registered()) == deadline {
                    return Ok(Err(misconduct));
                }
                continue;
            }
            Read::Failed(error) if is_lost(&error) => return Ok(Err(Misconduct::Vanished)),
            Read::Failed(error) => {
                log::debug!("connection from {} broke: {error}", connection.peer);
                return Ok(Ok(()));
            }
        };
        loop {
            let line = match reader.next_line(&mut chunk) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(LineTooLong) => return Ok(Err(Misconduct::LineTooLong)),
            };
            conduct.note_line_end();
            // Empty lines count too, though nobody answers them.
            let verdict = conduct.judge_command(watch.now());
            if verdict == Verdict::Intolerable {
                return Ok(Err(Misconduct::TooManyCommands));
            }
            let Some(command) = Command::parse(&line) else {
                continue;
            };
            let (player, received) = (connection.id, clock::now());
            events.post(match verdict {
                Verdict::Allowed => Event::Command { player, command, received },
                Verdict::Refused | Verdict::Intolerable => {
                    Event::TooFast { player, kind: command.kind(), received }
                }
            })?;
        }
        conduct.note_bytes(reader.is_incomplete(), watch.now());
    }
}

/// Whether keepalive or TCP_USER_TIMEOUT ended the connection (tcp(7)), or a router on the way said that it is of no use.
fn is_lost(error: &io::Error) -> bool {
    [ErrorKind::TimedOut, ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable]
        .contains(&error.kind())
}

/// The thread's own clock, and reading with a deadline by it.
///
/// Time in which the process stood still counts for nothing: what the player sent meanwhile lies unread.
struct Watch(RunningTime);

/// What came out of reading.
enum Read {
    /// So many bytes; none at the end of the stream.
    Bytes(usize),
    /// None yet.
    Nothing,
    /// None in time.
    Overdue(Misconduct),
    Failed(io::Error),
}

impl Watch {
    fn start() -> Self {
        Self(RunningTime::new(clock::now()))
    }

    /// The time after work that never waits for long.
    fn now(&mut self) -> Timestamp {
        self.0.advance(clock::now(), Duration::ZERO)
    }

    fn read(
        &mut self,
        mut stream: &TcpStream,
        buffer: &mut [u8],
        deadline: Option<(Timestamp, Misconduct)>,
    ) -> Read {
        let wait = match deadline {
            None => None,
            Some((deadline, misconduct)) => {
                let left = deadline.since(self.now());
                if left.is_zero() {
                    return Read::Overdue(misconduct);
                }
                Some(left.min(LONGEST_WAIT))
            }
        };
        if let Err(error) = stream.set_read_timeout(wait) {
            return Read::Failed(error);
        }
        let read = io::Read::read(&mut stream, buffer);
        self.0.advance(clock::now(), wait.unwrap_or(Duration::MAX));
        match read {
            Ok(length) => Read::Bytes(length),
            // Stopped and continued, a process is interrupted (signal(7)).
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) =>
            {
                Read::Nothing
            }
            Err(error) => Read::Failed(error),
        }
    }
}

/// Reads on for a moment: closing with unread data would send a reset, which can overtake the answer.
fn discard(mut stream: &TcpStream, buffer: &mut [u8]) {
    let deadline = clock::now() + DISCARD_TIME;
    let mut discarded = 0;
    while discarded < MAX_DISCARDED {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return;
        }
        match io::Read::read(&mut stream, buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => discarded += length,
        }
    }
}
