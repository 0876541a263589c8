//! A crowd that joins all at once: every player connects, registers, and registers its address, none waiting for
//! another.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::net::{TcpStream, UdpSocket};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::support::{PLAYERS, REGISTRAR};

/// How often the stock client repeats its PrivateID.
const REPEAT: Duration = Duration::from_millis(100);

/// Nobody takes longer, or the bench fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// A player of the crowd.
pub(crate) struct Member {
    pub(crate) line: TcpStream,
    /// Closed once the address is registered.
    udp: Option<UdpSocket>,
    text: String,
    pub(crate) oid: String,
    pid: String,
    asked: Option<Instant>,
    /// From the start of the crowd until this player's `OK`.
    pub(crate) took: Option<Duration>,
    /// Whether it was told that the server is full.
    pub(crate) is_refused: bool,
}

/// `count` players join at once, each from an IP address of its own; two open files each meanwhile, then one.
pub(crate) fn join(count: usize) -> Vec<Member> {
    let start = Instant::now();
    let mut poll = Poll::new().expect("epoll");
    let mut members: Vec<Member> = (0..count).map(|index| Member::connect(index, &poll)).collect();
    let mut events = Events::with_capacity(1024);
    let mut left = count;
    let mut next_repeat = start + REPEAT;
    while left > 0 {
        assert!(start.elapsed() < PATIENCE, "{left} of {count} players are not served");
        let wait = next_repeat.saturating_duration_since(Instant::now());
        poll.poll(&mut events, Some(wait)).expect("epoll waits");
        for event in &events {
            let member = &mut members[event.token().0 / 2];
            let was_done = member.is_done();
            if event.token().0.is_multiple_of(2) {
                member.read()
            } else {
                member.hear(start)
            }
            left -= usize::from(member.is_done() && !was_done);
        }
        if Instant::now() >= next_repeat {
            next_repeat += REPEAT;
            members.iter_mut().for_each(Member::repeat);
        }
    }
    members
}

impl Member {
    fn connect(index: usize, poll: &Poll) -> Self {
        let [.., a, b] = (index as u32).to_be_bytes();
        let own = SocketAddr::new(Ipv4Addr::new(127, 1, a, b).into(), 0);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        socket.bind(&own.into()).expect("loopback has it");
        socket.set_nonblocking(true).expect("a socket");
        // It goes on in the background.
        let _ = socket.connect(&PLAYERS.into());
        let mut line = TcpStream::from_std(socket.into());
        let udp = UdpSocket::bind(own).expect("loopback has it");
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut line, Token(2 * index), both).expect("epoll takes it");
        let fd = udp.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&fd), Token(2 * index + 1), Interest::READABLE)
            .expect("epoll takes it");
        let [text, oid, pid] = Default::default();
        Self { line, udp: Some(udp), text, oid, pid, asked: None, took: None, is_refused: false }
    }

    fn is_done(&self) -> bool {
        self.took.is_some() || self.is_refused
    }

    /// The connection is there, or something came over it.
    fn read(&mut self) {
        if self.asked.is_none() && self.line.peer_addr().is_ok() {
            self.line.write_all(b"register-host\n").expect("an empty buffer takes it");
            self.asked = Some(Instant::now());
        }
        let mut buffer = [0; 1024];
        loop {
            match self.line.read(&mut buffer) {
                Ok(0) => self.is_refused = self.took.is_none(),
                Ok(length) => {
                    self.text.push_str(std::str::from_utf8(&buffer[..length]).expect("text"));
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::NotConnected => {}
                Err(error) => panic!("a player's connection broke: {error}"),
            }
            break;
        }
        let ids = self.text.strip_prefix("set-oid ").and_then(|rest| rest.split_once("\nset-pid "));
        if let Some((oid, pid)) = ids
            && self.pid.is_empty()
            && let Some(pid) = pid.strip_suffix('\n')
        {
            (self.oid, self.pid) = (oid.to_owned(), pid.to_owned());
            self.text.clear();
            self.repeat();
        }
    }

    fn repeat(&mut self) {
        if let Some(udp) = &self.udp
            && !self.pid.is_empty()
        {
            // A full buffer loses it, and it is repeated.
            let _ = udp.send_to(self.pid.as_bytes(), REGISTRAR);
        }
    }

    fn hear(&mut self, start: Instant) {
        let mut answer = [0; 64];
        if let Some(udp) = &self.udp
            && let Ok(length) = udp.recv(&mut answer)
        {
            assert_eq!(&answer[..length], b"OK");
            self.took = Some(start.elapsed());
            self.udp = None;
        }
    }
}
