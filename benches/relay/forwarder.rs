//! The yardstick: pairs of sockets, and from each to the other with one `recv_from` and one `send_to` a datagram.

use std::io::BufRead;
use std::net::SocketAddr;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

/// Makes the bench's binary this forwarder.
pub(crate) const ARGUMENT: &str = "--bare-forwarder";

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
        let mut socket = UdpSocket::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
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
