//! The bare forwarders: pairs of sockets, and what arrives at one leaves from the other, without any rule.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::shape::Shape;
use crate::subject::{Flow, PlayerSocket, Subject};
use crate::support::Process;

/// Beside noray's: the way to one loopback address costs the kernel more than to another.
const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 77, 0, 3));

/// How many sockets are reported at once.
const MAX_EVENTS: usize = 1024;

/// Makes the bench's binary a forwarder; the kind's name follows.
pub(crate) const ARGUMENT: &str = "--bare-forwarder";

/// What others are compared with. Level-triggered epoll tells of a socket as long as it has something, so a
/// datagram that comes alone costs one wait, one `recv_from` and one `send_to`.
pub(crate) const YARDSTICK: &str = "level";

/// Edge-triggered epoll, as mio does it: each socket is read until it is empty, so a datagram that comes alone costs
/// one more `recv_from`.
pub(crate) const EDGE: &str = "edge";

/// Starts a forwarder of that kind, with as many sockets as noray has, for the players of `shape`.
pub(crate) fn start(kind: &str, shape: Shape) -> Subject {
    let own = std::env::current_exe().expect("the bench has a path");
    let mut child = Command::new(own)
        .args([ARGUMENT, kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the bench starts itself");
    let sockets: Vec<PlayerSocket> =
        (0..shape.players()).map(|player| PlayerSocket::new(player, 0)).collect();
    let mut input = child.stdin.take().expect("it is piped");
    let ends: Vec<usize> = shape.pairs().into_iter().flatten().collect();
    for end in &ends {
        writeln!(input, "{}", sockets[*end].address()).expect("it reads");
    }
    writeln!(input).expect("it reads");
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let ports = output.lines().take(ends.len()).map(|line| line.expect("a line"));
    let ports: Vec<SocketAddr> = ports.map(|port| port.parse().expect("an address")).collect();
    // A player sends to the port whose receiver is its partner.
    let flow = |index: usize| Flow { from: ends[index], to: ports[index ^ 1], channel: None };
    let flows = (0..ends.len()).map(flow).collect();
    Subject { name: kind.to_owned(), process: Process(child), sockets, flows, _lines: Vec::new() }
}

/// Reads receivers' addresses from standard input, a line each and an empty one at the end; binds a socket for each
/// and prints its address. What arrives at a socket goes to its receiver, from the other socket of the pair.
pub(crate) fn run(kind: &str) {
    let lines = std::io::stdin().lock().lines().map(|line| line.expect("text"));
    let receivers: Vec<SocketAddr> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.parse().expect("an address"))
        .collect();
    let sockets: Vec<UdpSocket> = receivers.iter().map(|_| bind()).collect();
    let ends = Ends { sockets, receivers };
    match kind {
        YARDSTICK => level_triggered(&ends),
        EDGE => edge_triggered(&ends),
        _ => panic!("no such forwarder: {kind}"),
    }
}

/// The sockets, in pairs, and where what arrives at each goes.
struct Ends {
    sockets: Vec<UdpSocket>,
    receivers: Vec<SocketAddr>,
}

impl Ends {
    fn send(&self, arrived_at: usize, payload: &[u8]) {
        // A full buffer loses datagrams, here as there.
        let _ = self.sockets[arrived_at ^ 1].send_to(payload, self.receivers[arrived_at]);
    }
}

fn bind() -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(IP, 0)).expect("a free port");
    socket.set_nonblocking(true).expect("a socket");
    println!("{}", socket.local_addr().expect("it is bound"));
    socket
}

fn level_triggered(ends: &Ends) -> ! {
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    for (index, socket) in (0..).zip(&ends.sockets) {
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, index)).expect("epoll takes it");
    }
    let mut events = [EpollEvent::empty(); MAX_EVENTS];
    let mut buffer = vec![0; 65_536];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE).expect("epoll waits");
        for event in &events[..count] {
            let index = event.data() as usize;
            if let Ok((length, _)) = ends.sockets[index].recv_from(&mut buffer) {
                ends.send(index, &buffer[..length]);
            }
        }
    }
}

fn edge_triggered(ends: &Ends) -> ! {
    let mut poll = Poll::new().expect("epoll");
    for (index, socket) in ends.sockets.iter().enumerate() {
        let fd = socket.as_raw_fd();
        let registry = poll.registry();
        let registered = registry.register(&mut SourceFd(&fd), Token(index), Interest::READABLE);
        registered.expect("epoll takes it");
    }
    let mut events = Events::with_capacity(MAX_EVENTS);
    let mut buffer = vec![0; 65_536];
    loop {
        poll.poll(&mut events, None).expect("epoll waits");
        for event in &events {
            let index = event.token().0;
            while let Ok((length, _)) = ends.sockets[index].recv_from(&mut buffer) {
                ends.send(index, &buffer[..length]);
            }
        }
    }
}
