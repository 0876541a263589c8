//! Asks a server for its status. Time and memory are bounded, whatever answers.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use noray::operation::clock;
use noray::operation::status::Status;

use crate::terminal::printable;

/// How long the connection may take.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// How long the answer may take. A server whose event loop is stuck says so after two seconds. A
/// health check may take five in all.
const ANSWER_TIME: Duration = Duration::from_secs(4);

/// How long an answer may be, in bytes. A server's has some ten thousand.
const MAX_ANSWER: usize = 1 << 20;

/// Characters that are shown of an answer that is none.
const MAX_SHOWN: usize = 200;

/// Why there is no status.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no connection.
    Unreachable(io::Error),
    /// No answer came in time.
    Silent,
    /// The connection ended or broke before the answer was complete.
    Broken(io::Error),
    /// What answers is no noray.
    Foreign(&'static str),
    /// A server answers, but with something else: the status line, and the beginning of the body.
    Refused(String, String),
}

impl Failure {
    /// Whether the server may be at another address.
    pub(super) fn may_be_elsewhere(&self) -> bool {
        !matches!(self, Self::Silent)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) if error.kind() == ErrorKind::ConnectionRefused => f
                .write_str(
                    "nothing listens there, so noray does not run or serves its status elsewhere",
                ),
            Self::Unreachable(error) if error.kind() == ErrorKind::TimedOut => {
                write!(f, "no connection within {} s", CONNECT_TIME.as_secs())
            }
            Self::Unreachable(error) => write!(f, "no connection: {error}"),
            Self::Silent => write!(
                f,
                "what listens there has not answered for {} s: noray hangs, or it is another program",
                ANSWER_TIME.as_secs()
            ),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Foreign(why) => write!(f, "what listens there is no noray: {why}"),
            Self::Refused(status, body) if status.starts_with("404") => write!(
                f,
                "what listens there has no /status: it is another program, or an older noray (it answers: {body})"
            ),
            Self::Refused(status, body) => write!(f, "it answers {status}: {body}"),
        }
    }
}

/// The status of the server at `address`.
pub(super) fn status(address: SocketAddr) -> Result<Status, Failure> {
    let answer = answer(address)?;
    let text = String::from_utf8(answer).map_err(|_| Failure::Foreign("its answer is no text"))?;
    let (head, body) = text
        .strip_prefix("HTTP/1.")
        .and_then(|text| text.split_once("\r\n\r\n"))
        .ok_or(Failure::Foreign("it does not speak HTTP"))?;
    let line = head.lines().next().unwrap_or_default();
    let status = line.split_once(' ').map_or("", |(_, status)| status);
    if !status.starts_with("200") {
        return Err(Failure::Refused(shown(status), shown(body)));
    }
    Status::from_json(body).map_err(|_| Failure::Foreign("its status is not one of noray"))
}

fn shown(text: &str) -> String {
    printable(text.trim()).chars().take(MAX_SHOWN).collect()
}

/// Everything that `address` sends until the connection ends.
fn answer(address: SocketAddr) -> Result<Vec<u8>, Failure> {
    let mut stream =
        TcpStream::connect_timeout(&address, CONNECT_TIME).map_err(Failure::Unreachable)?;
    let deadline = clock::now() + ANSWER_TIME;
    let request = format!("GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(ANSWER_TIME)).map_err(Failure::Broken)?;
    stream.write_all(request.as_bytes()).map_err(Failure::Broken)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(Failure::Silent);
        }
        stream.set_read_timeout(Some(left)).map_err(Failure::Broken)?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(Failure::Silent);
            }
            Err(error) => return Err(Failure::Broken(error)),
        }
        if answer.len() > MAX_ANSWER {
            return Err(Failure::Foreign("its answer does not end"));
        }
    }
}
