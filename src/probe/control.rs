//! One bot's TCP connection to the server. Every read has a deadline, and a line has a longest length.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use noray::core::protocol::{LineReader, LineTooLong};
use noray::operation::clock;

use super::answers::{Answer, Refusal};

/// How long a write may take: a few short lines, which the kernel's buffer takes at once.
const WRITE_TIME: Duration = Duration::from_secs(2);

/// One bot's connection.
pub(super) struct ControlConnection {
    stream: TcpStream,
    pub(super) server: SocketAddr,
    /// This machine's end.
    pub(super) local: SocketAddr,
    reader: LineReader,
    /// Answers that were read and that nothing has waited for yet.
    answers: VecDeque<Answer>,
    has_received: bool,
}

/// Why the server did not answer as asked.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// This machine, or the connection, failed.
    Broken(io::Error),
    /// The server answered with an error.
    Refused(Refusal),
    /// Another program than noray answers there.
    Foreign(String),
    /// Bytes, but no line in time, or one longer than noray's.
    NoLine,
    /// Nothing in time.
    Silence,
    /// The server closed the connection.
    Closed,
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => error.fmt(f),
            Self::Refused(Refusal { text, .. }) | Self::Foreign(text) => write!(f, "`{text}`"),
            Self::NoLine | Self::Silence | Self::Closed => f.write_str("the server did not answer"),
        }
    }
}

impl ControlConnection {
    /// Connects to the server.
    ///
    /// # Errors
    /// The system's error; [`ErrorKind::TimedOut`] after `patience`.
    pub(super) fn open(server: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, patience)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIME))?;
        Ok(Self {
            server,
            local: stream.local_addr()?,
            stream,
            reader: LineReader::default(),
            answers: VecDeque::new(),
            has_received: false,
        })
    }

    /// Sends whole lines. A failure shows as an answer that does not come.
    pub(super) fn send(&mut self, lines: &str) {
        let _ = self.stream.write_all(lines.as_bytes());
    }

    /// The first answer that `pick` takes; those before it are forgotten.
    ///
    /// # Errors
    /// If the server refuses, if the connection ends, or at the deadline, even if the server goes on talking.
    pub(super) fn wait_for<T>(
        &mut self,
        deadline: Instant,
        mut pick: impl FnMut(Answer) -> Option<T>,
    ) -> Result<T, NoAnswer> {
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(if self.has_received { NoAnswer::NoLine } else { NoAnswer::Silence });
            }
            while let Some(answer) = self.answers.pop_front() {
                if let Answer::Refused(refusal) = answer {
                    return Err(NoAnswer::Refused(refusal));
                }
                if let Some(picked) = pick(answer) {
                    return Ok(picked);
                }
            }
            self.read(left)?;
        }
    }

    /// Waits for bytes, and adds the complete lines among them to the answers.
    fn read(&mut self, patience: Duration) -> Result<(), NoAnswer> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut chunk = [0; 1024];
        let length = match self.stream.read(&mut chunk) {
            Ok(0) => return Err(NoAnswer::Closed),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Err(NoAnswer::Closed);
            }
            Err(error) if is_timeout(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.has_received = true;
        let mut rest = &chunk[..length];
        while let Some(line) =
            self.reader.next_line(&mut rest).map_err(|LineTooLong| NoAnswer::NoLine)?
        {
            self.answers.push_back(Answer::parse(&line));
        }
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
