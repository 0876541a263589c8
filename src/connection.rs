//! Keeps no state of the game: one player's TCP connection, its reading thread, and writing that never waits.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use nix::libc::MSG_DONTWAIT;
use socket2::SockRef;

use crate::clock;
use crate::events::{Event, EventSender, LoopGone};
use crate::id::ConnectionId;
use crate::listener::Permit;
use crate::protocol::{Command, LineReader, Reply};

/// How much a thread reads at once; a longer line comes in several pieces.
const READ_SIZE: usize = 1024;

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
    let mut reader = LineReader::default();
    let mut buffer = [0; READ_SIZE];
    loop {
        let mut chunk = match (&connection.stream).read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                log::debug!("connection from {} broke: {error}", connection.peer);
                return Ok(());
            }
        };
        loop {
            match reader.next_line(&mut chunk) {
                Ok(Some(line)) => {
                    let Some(command) = Command::parse(&line) else {
                        continue;
                    };
                    let received = clock::now();
                    events.post(Event::Command { player: connection.id, command, received })?;
                }
                Ok(None) => break,
                Err(crate::protocol::LineTooLong) => {
                    events.post(Event::LineTooLong(connection.id))?;
                    discard(&connection.stream, &mut buffer);
                    return Ok(());
                }
            }
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
        match stream.read(buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => discarded += length,
        }
    }
}
