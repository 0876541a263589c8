//! Understands no hop: one TCP connection to a server, read with deadlines and in bounds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::answers::Answer;
use noray::core::protocol::{LineReader, LineTooLong};
use noray::operation::clock;

/// How long a write may take: a few short lines, which the kernel's buffer takes at once.
const WRITE_TIME: Duration = Duration::from_secs(2);

/// One player's connection.
pub(super) struct Line {
    stream: TcpStream,
    reader: LineReader,
    /// What was read and is not yet cut into lines: `chunk[next..end]`.
    chunk: [u8; 1024],
    next: usize,
    end: usize,
    has_received: bool,
}

/// Why no answer came.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Nothing in time.
    Silence,
    /// Bytes, but no line in time.
    NoLine,
    /// A line longer than noray's.
    LineTooLong,
    /// The server closed the connection.
    Closed,
    /// The connection broke.
    Broken(io::Error),
}

impl Line {
    /// # Errors
    /// What the system says, [`ErrorKind::TimedOut`] after `patience`.
    pub(super) fn connect(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIME))?;
        let reader = LineReader::default();
        Ok(Self { stream, reader, chunk: [0; 1024], next: 0, end: 0, has_received: false })
    }

    /// The server's address.
    pub(super) fn peer(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// This end's address.
    pub(super) fn local(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends whole lines. A failure shows when the answer is waited for.
    pub(super) fn send(&mut self, lines: &str) {
        // The read that follows tells what happened, and perhaps what the server said before it closed.
        let _ = self.stream.write_all(lines.as_bytes());
    }

    /// The first answer that `pick` takes; those that it does not take are forgotten.
    ///
    /// # Errors
    /// At the deadline, also of a server that goes on talking, or when the connection has ended.
    pub(super) fn wait_for<T>(
        &mut self,
        deadline: Instant,
        mut pick: impl FnMut(Answer) -> Option<T>,
    ) -> Result<T, NoAnswer> {
        loop {
            if let Some(picked) = pick(self.next_answer(deadline)?) {
                return Ok(picked);
            }
        }
    }

    fn next_answer(&mut self, deadline: Instant) -> Result<Answer, NoAnswer> {
        loop {
            let mut rest = &self.chunk[self.next..self.end];
            let line =
                self.reader.next_line(&mut rest).map_err(|LineTooLong| NoAnswer::LineTooLong)?;
            let answer = line.as_deref().map(Answer::parse);
            self.next = self.end - rest.len();
            if clock::now() >= deadline {
                let has_received = self.has_received;
                return Err(if has_received { NoAnswer::NoLine } else { NoAnswer::Silence });
            }
            match answer {
                Some(answer) => return Ok(answer),
                None => self.fill(deadline)?,
            }
        }
    }

    /// Reads what there is, at the latest until the deadline.
    fn fill(&mut self, deadline: Instant) -> Result<(), NoAnswer> {
        let left = deadline.saturating_duration_since(clock::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).map_err(NoAnswer::Broken)?;
        match self.stream.read(&mut self.chunk) {
            Ok(0) => return Err(NoAnswer::Closed),
            Ok(length) => (self.next, self.end, self.has_received) = (0, length, true),
            Err(error) if is_timeout(&error) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Err(NoAnswer::Closed);
            }
            Err(error) => return Err(NoAnswer::Broken(error)),
        }
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
