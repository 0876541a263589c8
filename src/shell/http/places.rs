//! Places for HTTP requests: how many are served at once, and which of them makes room for a new one.
//!
//! When all places are taken, the network with the most requests gives up its oldest unfinished one. So a client that
//! sends half a request, or does not read its answer, delays nobody else. Clients on this machine have places of their own. A client that is turned away
//! reads 503.

use std::cmp::Reverse;
use std::io;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::libc::MSG_DONTWAIT;
use parking_lot::{Condvar, Mutex};
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;

use crate::limits::network::Network;
use crate::shell::http::is_complete;

/// How many requests from other machines are served at once.
const MAX_REQUESTS: usize = 12;

/// How many requests from this machine are served at once. They come beside the others.
const MAX_LOCAL_REQUESTS: usize = 4;

/// How long a new request waits for a place, until the one that makes room for it, or any other, has ended.
const GRACE: Duration = Duration::from_millis(100);

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\n\
                    Content-Type: text/plain\r\n\
                    Content-Length: 18\r\n\
                    Connection: close\r\n\r\n\
                    too many requests\n";

/// All places.
pub(super) struct Places {
    others: Room,
    local: Room,
}

/// The places of one kind of client.
struct Room {
    size: usize,
    /// The oldest first.
    taken: Mutex<Vec<Arc<Request>>>,
    has_ended: Condvar,
}

/// A request that has a place.
pub(super) struct Request {
    pub(super) stream: TcpStream,
    from: Network,
    phase: Mutex<Phase>,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Bytes from the client.
    Reading,
    /// The server.
    Answering,
    /// The client to read the answer.
    Writing,
    /// Nothing: another request needs the place.
    TurnedAway,
}

/// A request's place, until this value is dropped.
pub(super) struct Place<'a> {
    room: &'a Room,
    pub(super) request: Arc<Request>,
}

/// A request was turned away: the new one, if it got no place, or an older one that made room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TurnedAway;

impl Places {
    pub(super) fn new() -> Self {
        Self { others: Room::new(MAX_REQUESTS), local: Room::new(MAX_LOCAL_REQUESTS) }
    }

    /// Gives a new request a place, if there is one or one can be made free, and says whether any request was turned
    /// away.
    pub(super) fn take(
        &self,
        stream: TcpStream,
        from: IpAddr,
    ) -> (Option<Place<'_>>, Option<TurnedAway>) {
        let room = if from.is_loopback() { &self.local } else { &self.others };
        room.take(Request { stream, from: from.into(), phase: Mutex::new(Phase::Reading) })
    }
}

impl Places {
    /// Waits until no request is served, for at most `patience`.
    pub(super) fn wait_until_idle(&self, patience: Duration) {
        for room in [&self.local, &self.others] {
            let mut taken = room.taken.lock();
            room.has_ended.wait_while_for(&mut taken, |taken| !taken.is_empty(), patience);
        }
    }
}

impl Room {
    fn new(size: usize) -> Self {
        Self { size, taken: Mutex::new(Vec::new()), has_ended: Condvar::new() }
    }

    fn take(&self, request: Request) -> (Option<Place<'_>>, Option<TurnedAway>) {
        let mut taken = self.taken.lock();
        let is_full = |taken: &mut Vec<Arc<Request>>| taken.len() >= self.size;
        let mut turned_away = None;
        if is_full(&mut taken) {
            if let Some(oldest) = to_make_room(&taken) {
                oldest.turn_away();
                turned_away = Some(TurnedAway);
            }
            if self.has_ended.wait_while_for(&mut taken, is_full, GRACE).timed_out() {
                request.turn_away();
                return (None, Some(TurnedAway));
            }
        }
        let request = Arc::new(request);
        taken.push(Arc::clone(&request));
        (Some(Place { room: self, request }), turned_away)
    }
}

/// The oldest unfinished request of the network with the most requests; of another network, if all of these are about
/// to be answered.
fn to_make_room(taken: &[Arc<Request>]) -> Option<&Request> {
    let count = |from| taken.iter().filter(|request| request.from == from).count();
    let mut requests: Vec<&Request> = taken.iter().map(Arc::as_ref).collect();
    requests.sort_by_key(|request| Reverse(count(request.from)));
    requests.into_iter().find(|request| request.waits_for_client())
}

impl Request {
    /// Enters the next phase.
    ///
    /// # Errors
    /// If the request was turned away.
    pub(super) fn enter(&self, next: Phase) -> Result<(), TurnedAway> {
        let mut phase = self.phase.lock();
        if *phase == Phase::TurnedAway {
            return Err(TurnedAway);
        }
        *phase = next;
        Ok(())
    }

    /// Whether it waits for its client. A request that has come and was not read yet waits for its thread instead.
    fn waits_for_client(&self) -> bool {
        match *self.phase.lock() {
            Phase::Reading => !self.has_come(),
            Phase::Answering => false,
            Phase::Writing | Phase::TurnedAway => true,
        }
    }

    /// Whether a whole request waits in the receive buffer.
    fn has_come(&self) -> bool {
        let mut buffer = [0; 1024];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.stream, &mut buffer, flags)
            .is_ok_and(|(length, _)| is_complete(&buffer[..length]))
    }

    /// Ends the connection, which wakes the request's thread. A client that has no answer yet is told to come later.
    fn turn_away(&self) {
        let mut phase = self.phase.lock();
        if *phase == Phase::Reading {
            // It may have left already. An answer so short fits into the empty buffer.
            let _ = SockRef::from(&self.stream).send_with_flags(BUSY.as_bytes(), MSG_DONTWAIT);
        }
        *phase = Phase::TurnedAway;
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl From<TurnedAway> for io::Error {
    fn from(TurnedAway: TurnedAway) -> Self {
        Self::other("it made room for another request")
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.room.taken.lock().retain(|request| !Arc::ptr_eq(request, &self.request));
        self.room.has_ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    /// Places, and connections that take them.
    struct Play {
        listener: TcpListener,
        places: Places,
    }

    impl Play {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            Self { listener, places: Places::new() }
        }

        /// A client that seems to come from `ip`, and its place. A request that makes room ends at once, as its thread would.
        fn connect<'a>(
            &'a self,
            ip: &str,
            open: &mut Vec<Place<'a>>,
        ) -> (TcpStream, Option<TurnedAway>) {
            let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            let (stream, _) = self.listener.accept().unwrap();
            let (place, turned_away) = std::thread::scope(|scope| {
                let taking = scope.spawn(|| self.places.take(stream, ip.parse().unwrap()));
                while !taking.is_finished() {
                    open.retain(|place| *place.request.phase.lock() != Phase::TurnedAway);
                    std::thread::yield_now();
                }
                taking.join().unwrap()
            });
            open.extend(place);
            (client, turned_away)
        }
    }

    fn read(client: &TcpStream) -> String {
        io::read_to_string(client).expect("no reset")
    }

    #[test]
    fn the_oldest_request_of_the_network_with_the_most_makes_room_and_reads_503() {
        let (play, mut open) = (Play::new(), Vec::new());
        let (_honest, none) = play.connect("192.0.2.1", &mut open);
        assert_eq!(none, None);
        let attackers: Vec<_> = (0..100)
            .map(|n| play.connect(["198.51.100.1", "2001:db8::1"][n % 2], &mut open))
            .collect();
        assert_eq!(open.len(), MAX_REQUESTS);
        let turned_away = attackers.iter().filter(|(_, turned_away)| turned_away.is_some()).count();
        assert_eq!(turned_away, 101 - MAX_REQUESTS);
        assert!(open.iter().any(|place| place.request.from == network("192.0.2.1")), "it stays");
        for (attacker, _) in &attackers[..turned_away] {
            assert_eq!(read(attacker), BUSY);
        }
        let (_newcomer, _) = play.connect("192.0.2.2", &mut open);
        assert!(open.iter().any(|place| place.request.from == network("192.0.2.2")));
    }

    fn network(ip: &str) -> Network {
        ip.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn this_machine_has_places_of_its_own() {
        let (play, mut open) = (Play::new(), Vec::new());
        let others: Vec<_> =
            (0..MAX_REQUESTS).map(|n| play.connect(&format!("192.0.2.{n}"), &mut open)).collect();
        let local: Vec<_> =
            (0..MAX_LOCAL_REQUESTS).map(|_| play.connect("127.0.0.1", &mut open)).collect();
        assert!(others.iter().chain(&local).all(|(_, turned_away)| turned_away.is_none()));
        assert_eq!(open.len(), MAX_REQUESTS + MAX_LOCAL_REQUESTS);
    }

    #[test]
    fn a_request_that_has_come_keeps_its_place() {
        let (play, mut open) = (Play::new(), Vec::new());
        let mut clients = Vec::new();
        for number in 0..MAX_REQUESTS {
            let (client, _) = play.connect("192.0.2.1", &mut open);
            // Loopback delivers before the call returns.
            (&client).write_all(if number < 5 { b"GET /healthz\r\n\r\n" } else { b"G" }).unwrap();
            clients.push(client);
        }
        play.connect("192.0.2.1", &mut open);
        assert_eq!(read(&clients[5]), BUSY);
    }

    #[test]
    fn a_request_that_is_being_answered_keeps_its_place_and_the_new_one_reads_503() {
        let (play, mut open) = (Play::new(), Vec::new());
        let _clients: Vec<_> =
            (0..MAX_REQUESTS).map(|_| play.connect("192.0.2.1", &mut open)).collect();
        for place in &open {
            place.request.enter(Phase::Answering).unwrap();
        }
        let (newcomer, turned_away) = play.connect("192.0.2.2", &mut open);
        assert_eq!((turned_away, read(&newcomer).as_str()), (Some(TurnedAway), BUSY));
        open[3].request.enter(Phase::Writing).unwrap();
        play.connect("192.0.2.2", &mut open);
        assert!(open.iter().any(|place| place.request.from == network("192.0.2.2")));
    }
}
