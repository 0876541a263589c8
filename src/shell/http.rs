//! The HTTP endpoint: metrics, health and the server's state for the operator.
//!
//! It answers one request a connection ([`answers`]), and few connections at a time ([`places`]). Slow or hostile clients
//! delay nobody but themselves.

mod answers;
mod host;
mod places;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crate::limits::bounds::Bound;
use crate::operation::clock;
use crate::operation::metrics::Metrics;
use crate::operation::warnings::Warnings;
use crate::shell::acceptor::{Accepted, Acceptor, COOL_DOWN, Waited};
use crate::shell::connection_table::ConnectionTable;
use crate::shell::event_channel::EventSender;
use crate::shell::sockets::canonical;
use parking_lot::{Mutex, MutexGuard};
use places::{Phase, Place, Places, Request};

/// How long a client may take to ask, and for how long it may leave an answer unread.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long a request may be, in bytes.
const MAX_REQUEST: usize = 8 * 1024;

/// What the endpoint serves from.
pub(crate) struct Endpoint {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: EventSender,
    pub(crate) table: Arc<ConnectionTable>,
    pub(crate) warnings: Arc<Warnings>,
    pub(crate) relay_ports: usize,
    /// When the server began to serve.
    pub(crate) started: Instant,
}

/// The body of the thread: answers until the acceptor's end.
pub(crate) fn run(mut acceptor: Acceptor, endpoint: &Endpoint, requests: &Requests) {
    thread::scope(|threads| {
        loop {
            let open = requests.gate.lock();
            if let Some(accepted) = acceptor.accept() {
                endpoint.handle(accepted, &requests.places, threads);
                continue;
            }
            drop(open);
            if acceptor.wait(None) == Waited::End {
                return;
            }
        }
    });
}

/// The requests that are served now.
pub(crate) struct Requests {
    places: Places,
    /// Whoever accepts requests holds it, and whoever wants that nobody does.
    gate: Mutex<()>,
}

impl Requests {
    /// There are none.
    pub(crate) fn new() -> Self {
        Self { places: Places::new(), gate: Mutex::default() }
    }

    /// Accepts no more requests, and waits until all have ended, for at most `patience`. They are accepted again when the
    /// guard is dropped.
    pub(crate) fn pause(&self, patience: Duration) -> Option<MutexGuard<'_, ()>> {
        let guard = self.gate.try_lock_for(patience);
        self.places.wait_until_idle(patience);
        guard
    }
}

impl Endpoint {
    fn handle<'scope>(
        &'scope self,
        accepted: Accepted,
        places: &'scope Places,
        threads: &'scope Scope<'scope, '_>,
    ) {
        match accepted {
            Accepted::Connection(stream, peer) => {
                let (place, turned_away) = places.take(stream, canonical(peer).ip());
                if turned_away.is_some() {
                    self.metrics.bounds_reached.of(Bound::Requests).add(1);
                }
                if let Some(place) = place {
                    self.start_thread(place, threads);
                }
            }
            Accepted::Failed(error) => {
                log::debug!("http connection not accepted: {error}");
                thread::park_timeout(COOL_DOWN);
            }
            Accepted::Late(_) => {}
        }
    }

    fn start_thread<'scope>(
        &'scope self,
        place: Place<'scope>,
        threads: &'scope Scope<'scope, '_>,
    ) {
        let request = Arc::clone(&place.request);
        let serve = move || self.serve(&place.request);
        // Players may use up all threads. Health and metrics matter most then.
        let thread = thread::Builder::new().name("request".to_owned());
        if let Err(error) = thread.spawn_scoped(threads, serve) {
            log::debug!("no thread for an http request, others wait for it: {error}");
            self.serve(&request);
        }
    }

    fn serve(&self, request: &Request) {
        if let Err(error) = self.try_to_serve(request) {
            log::debug!("http request failed: {error}");
        }
    }

    fn try_to_serve(&self, request: &Request) -> io::Result<()> {
        let mut stream = &request.stream;
        let deadline = clock::now() + DEADLINE;
        stream.set_write_timeout(Some(DEADLINE))?;
        let mut head = Vec::new();
        while !is_complete(&head) && head.len() < MAX_REQUEST {
            if read_some(stream, &mut head, deadline)? == 0 {
                break;
            }
        }
        request.enter(Phase::Answering)?;
        let answer = self.answer(&head).bytes();
        request.enter(Phase::Writing)?;
        stream.write_all(&answer)
    }
}

/// Whether the head of a request is complete: an empty line ends it.
fn is_complete(request: &[u8]) -> bool {
    let ends_with = |end: &[u8]| request.windows(end.len()).any(|window| window == end);
    ends_with(b"\r\n\r\n") || ends_with(b"\n\n")
}

/// Reads what is there, waiting until `deadline` at most.
fn read_some(mut stream: &TcpStream, into: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
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
