//! Refused connections, kept open for a moment so that their players can read why.
//!
//! Closing a socket with unread data sends a reset, and so does data that comes after the close. A reset can overtake the
//! answer. So only the direction to the player is ended at first. The socket is closed later, when what came has been read.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use crate::core::protocol::Reply;
use crate::shell::connection::{FAREWELL_TIME, SharedConnection, limit_close};

/// How many connections are kept open that were not admitted. If there are more, the oldest is closed early. Their descriptors
/// are among those that [`capacity`](crate::operation::capacity) sets aside.
const MAX_KEPT: usize = 16;

/// How many times 1 KiB is read before a refused connection is closed: more than its receive buffer holds.
const MAX_READS: usize = 64;

/// Refused connections that are still open, the oldest first.
#[derive(Default)]
pub(crate) struct RefusedConnections {
    kept: VecDeque<(Kept, Instant)>,
}

/// A refused connection.
enum Kept {
    /// A cap was reached, or the server drains.
    NotAdmitted(TcpStream),
    /// It was admitted, and has no thread any more. The event loop has told the player why it is closed, or is about to.
    Admitted(SharedConnection),
}

impl Kept {
    fn stream(&self) -> &TcpStream {
        match self {
            Self::NotAdmitted(stream) => stream,
            Self::Admitted(connection) => connection.stream(),
        }
    }
}

impl RefusedConnections {
    /// Tells the player why it is refused.
    pub(crate) fn refuse(&mut self, stream: TcpStream, why: &Reply, now: Instant) {
        match tell(&stream, why) {
            Ok(()) => {
                if self.kept.len() >= MAX_KEPT {
                    self.kept.pop_front();
                }
                self.kept.push_back((Kept::NotAdmitted(stream), now));
            }
            Err(error) => log::trace!("a refused connection was not told: {error}"),
        }
    }

    /// Keeps an admitted connection open that has no thread (any more).
    pub(crate) fn keep_admitted(&mut self, connection: SharedConnection, now: Instant) {
        self.kept.push_back((Kept::Admitted(connection), now));
    }

    /// Those that another process has handed over.
    pub(crate) fn adopt(streams: Vec<TcpStream>, now: Instant) -> Self {
        let kept = streams.into_iter().map(|stream| (Kept::NotAdmitted(stream), now)).collect();
        Self { kept }
    }

    /// The connections, to hand them over.
    pub(crate) fn streams(&self) -> impl Iterator<Item = &TcpStream> {
        self.kept.iter().map(|(kept, _)| kept.stream())
    }

    /// Closes the connections that were kept for [`FAREWELL_TIME`].
    pub(crate) fn close_overdue(&mut self, now: Instant) {
        let is_overdue = |since: Instant| now.saturating_duration_since(since) >= FAREWELL_TIME;
        while self.kept.front().is_some_and(|(_, since)| is_overdue(*since)) {
            self.kept.pop_front();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl Drop for Kept {
    /// Reads what came, so that closing the socket sends no reset.
    fn drop(&mut self) {
        let mut stream = self.stream();
        limit_close(stream);
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        for _ in 0..MAX_READS {
            // There is no more, the player has ended the connection, or it broke.
            if !matches!(stream.read(&mut [0; 1024]), Ok(1..)) {
                return;
            }
        }
    }
}

fn tell(mut stream: &TcpStream, why: &Reply) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.write_all(why.encode().as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;
    use crate::operation::clock;

    /// Both ends of a connection: the player's and the server's.
    fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let player = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (player, listener.accept().unwrap().0)
    }

    #[test]
    fn refused_players_read_why_and_few_connections_stay_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut refused = RefusedConnections::default();
        let start = clock::now();
        let mut players = Vec::new();
        for number in 0..100 {
            let (mut player, stream) = connect(&listener);
            player.write_all(b"register-host\n").unwrap();
            refused.refuse(stream, &Reply::ServerFull, start + number * Duration::from_millis(10));
            assert!(refused.kept.len() <= MAX_KEPT);
            players.push(player);
        }
        for player in &players {
            let said = io::read_to_string(player).expect("no reset");
            assert_eq!(said, "error server-full try again later\n");
        }
        refused.close_overdue(start + Duration::from_millis(1989));
        assert_eq!(refused.kept.len(), 1);
        refused.close_overdue(start + Duration::from_millis(1990));
        assert!(refused.is_empty());
    }

    #[test]
    fn what_a_refused_player_writes_causes_no_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut refused = RefusedConnections::default();
        let (mut player, stream) = connect(&listener);
        refused.refuse(stream, &Reply::ServerFull, clock::now());
        for _ in 0..100 {
            player.write_all(b"register-host\n").expect("it is open");
        }
        refused.close_overdue(clock::now() + FAREWELL_TIME);
        let said = io::read_to_string(&player).expect("no reset");
        assert_eq!(said, "error server-full try again later\n");
    }
}
