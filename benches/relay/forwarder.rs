//! The yardstick: pairs of sockets, and from each to the other with one `recv_from` and one `send_to` a datagram.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use crate::shape::Shape;
use crate::subject::{Flow, PlayerSocket, Subject};
use crate::support::Process;

/// Beside noray's: the way to one loopback address costs the kernel more than to another.
const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 77, 0, 3));

/// Makes the bench's binary this forwarder.
pub(crate) const ARGUMENT: &str = "--bare-forwarder";

/// Starts the forwarder, with as many sockets as noray has, for the players of `shape`.
pub(crate) fn start(shape: Shape) -> Subject {
    let own = std::env::current_exe().expect("the bench has a path");
    let mut child = Command::new(own)
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the bench starts itself");
    let sockets: Vec<PlayerSocket> = (0..shape.players()).map(|_| PlayerSocket::new(0)).collect();
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
    Subject { name: "bare", process: Process(child), sockets, flows, _lines: Vec::new() }
}

/// Reads receivers' addresses from standard input, a line each and an empty one at the end; binds a socket for each
/// and prints its address. What arrives at a socket goes to its receiver, from the other socket of the pair.
pub(crate) fn run() {
    let lines = std::io::stdin().lock().lines().map(|line| line.expect("text"));
    let receivers: Vec<SocketAddr> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.parse().expect("an address"))
        .collect();
    let mut poll = Poll::new().expect("epoll");
    let mut sockets = Vec::new();
    for index in 0..receivers.len() {
        let mut socket = UdpSocket::bind(SocketAddr::new(IP, 0)).expect("a free port");
        poll.registry()
            .register(&mut socket, Token(index), Interest::READABLE)
            .expect("epoll takes it");
        println!("{}", socket.local_addr().expect("it is bound"));
        sockets.push(socket);
    }
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 65_536];
    loop {
        poll.poll(&mut events, None).expect("epoll waits");
        for event in &events {
            let index = event.token().0;
            while let Ok((length, _)) = sockets[index].recv_from(&mut buffer) {
                // A full buffer loses datagrams, here as there.
                let _ = sockets[index ^ 1].send_to(&buffer[..length], receivers[index]);
            }
        }
    }
}
