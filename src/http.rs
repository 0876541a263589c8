//! Touches no state but atomics: metrics and health for the person who runs the server.
//!
//! One request a connection, one connection at a time, each with a deadline: a slow or hostile client delays the
//! next scrape and nothing else.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::event_loop::{Event, EventSender};
use crate::metrics::Metrics;

/// How long a client may take to ask, and how long the answer may take to be written.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long a request may be, in bytes.
const MAX_REQUEST: usize = 8 * 1024;

/// How long the event loop may take to answer before it counts as stuck.
const LOOP_ANSWER_TIME: Duration = Duration::from_secs(1);

/// How long nothing is accepted after the system refused a connection.
const COOL_DOWN: Duration = Duration::from_millis(100);

/// What the endpoint serves from.
pub(crate) struct Endpoint {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: EventSender,
    pub(crate) relay_ports: usize,
}

/// The body of the thread: answers until the socket is shut down.
pub(crate) fn run(listener: &TcpListener, endpoint: &Endpoint, is_stopping: &AtomicBool) {
    while !is_stopping.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, peer)) => {
                if let Err(error) = endpoint.serve(stream) {
                    log::debug!("http request from {peer} failed: {error}");
                }
            }
            Err(error) if !is_stopping.load(Ordering::Relaxed) => {
                log::debug!("http connection not accepted: {error}");
                thread::park_timeout(COOL_DOWN);
            }
            Err(_) => {}
        }
    }
}

impl Endpoint {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let deadline = clock::now() + DEADLINE;
        stream.set_write_timeout(Some(DEADLINE))?;
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
            if read_some(&mut stream, &mut request, deadline)? == 0 {
                break;
            }
        }
        let line = request
            .split(|byte| *byte == b'\r')
            .next()
            .unwrap_or_default();
        stream.write_all(&self.answer(line))
    }

    fn answer(&self, request_line: &[u8]) -> Vec<u8> {
        let mut words = request_line.split(|byte| *byte == b' ');
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let path = target
            .split(|byte| *byte == b'?')
            .next()
            .unwrap_or_default();
        let (status, body) = match path {
            b"/metrics" => ("200 OK", self.metrics.text()),
            b"/healthz" if self.does_loop_turn() => ("200 OK", "ok\n".to_owned()),
            b"/healthz" => (
                "503 Service Unavailable",
                "the event loop does not answer\n".to_owned(),
            ),
            b"/readyz" if self.relay_ports >= 2 => ("200 OK", "ready\n".to_owned()),
            b"/readyz" => (
                "503 Service Unavailable",
                "no relay port could be bound\n".to_owned(),
            ),
            _ => (
                "404 Not Found",
                "there are /metrics, /healthz and /readyz\n".to_owned(),
            ),
        };
        let (status, body) = match method {
            b"GET" | b"HEAD" => (status, body),
            _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
        };
        let length = body.len();
        let shown = if method == b"HEAD" { "" } else { body.as_str() };
        format!(
            "HTTP/1.1 {status}\r\n\
             Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: {length}\r\n\
             Connection: close\r\n\r\n{shown}"
        )
        .into_bytes()
    }

    fn does_loop_turn(&self) -> bool {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.events.try_post(Event::Ping(answer)).is_ok()
            && answered.recv_timeout(LOOP_ANSWER_TIME).is_ok()
    }
}

/// Reads what is there, waiting until `deadline` at most.
fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(clock::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    let mut buffer = [0; 1024];
    let length = stream.read(&mut buffer)?;
    into.extend_from_slice(&buffer[..length]);
    Ok(length)
}
