//! coturn, the relay that one would pick otherwise: clients with TURN channels (RFC 8656), hosts as plain peers, so
//! that it too takes one datagram and sends one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use crate::shape::Shape;
use crate::subject::{Flow, PlayerSocket, Subject};
use crate::support::{self, Process};

pub(crate) const NAME: &str = "coturn";
const IP: &str = "127.77.0.2";
pub(crate) const PORT: u16 = 3478;

/// The first channel number that there is. Every client needs only one.
const CHANNEL: u16 = 0x4000;

const MAGIC_COOKIE: u32 = 0x2112_a442;
const HEADER: usize = 20;

/// Methods with the bits of a request; a success answers with `SUCCESS` set.
const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
const SUCCESS: u16 = 0x0100;

/// Starts coturn and introduces the players. `None` if it is not installed.
pub(crate) fn start(shape: Shape) -> Option<Subject> {
    let process = start_process(IP, IP)?;
    let headers = headers(shape).into_iter().enumerate();
    let sockets =
        headers.map(|(player, header)| PlayerSocket::new(player, header)).collect::<Vec<_>>();
    let server = SocketAddr::new(IP.parse().expect("an address"), PORT);
    let flows = introduce(shape, &sockets, server);
    Some(Subject { name: NAME.to_owned(), process, sockets, flows, _lines: Vec::new() })
}

/// Starts coturn with one relay thread and all that it does not need switched off. Clients ask at one IP, and hosts see the
/// other.
pub(crate) fn start_process(clients: &str, hosts: &str) -> Option<Process> {
    let arguments = format!(
        "-n -L {clients} -E {hosts} -p {PORT} -m 1 --no-auth --no-cli --no-tls --no-dtls --no-tcp --no-tcp-relay \
         --no-rfc5780 --no-stun-backward-compatibility --allow-loopback-peers --no-software-attribute \
         --log-file stdout --pidfile /dev/null"
    );
    let child = Command::new("turnserver")
        .args(arguments.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    Some(Process(child))
}

/// The bytes that coturn puts in front of what it brings, for each player.
pub(crate) fn headers(shape: Shape) -> Vec<usize> {
    let mut headers = vec![0; shape.players()];
    shape.pairs().iter().for_each(|[_, client]| headers[*client] = 4);
    headers
}

/// Has each client of `shape` allocate a relay to its host.
pub(crate) fn introduce(shape: Shape, sockets: &[PlayerSocket], server: SocketAddr) -> Vec<Flow> {
    let mut flows = Vec::new();
    for [host, client] in shape.pairs() {
        let relayed = allocate(&sockets[client], server);
        bind_channel(&sockets[client], server, sockets[host].address());
        flows.push(Flow { from: client, to: server, channel: Some(CHANNEL) });
        flows.push(Flow { from: host, to: relayed, channel: None });
    }
    flows
}

/// Channels' permissions end after five minutes; binding them again renews them.
pub(crate) fn refresh(sockets: &[PlayerSocket], flows: &[Flow]) {
    for pair in flows.chunks(2) {
        let [client, host] = pair else { unreachable!("two flows a pair") };
        let host = sockets[host.from].address();
        bind_channel(&sockets[client.from], client.to, host);
    }
}

/// The relayed address of a new allocation.
fn allocate(client: &PlayerSocket, server: SocketAddr) -> SocketAddr {
    const REQUESTED_TRANSPORT: u16 = 0x0019;
    const LIFETIME: u16 = 0x000d;
    const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    const UDP: u32 = 17 << 24;
    let mut request = request(ALLOCATE);
    add_attribute(&mut request, REQUESTED_TRANSPORT, &UDP.to_be_bytes());
    add_attribute(&mut request, LIFETIME, &3600_u32.to_be_bytes());
    let answer = ask(client, &request, server, ALLOCATE);
    let mut attributes = &answer[HEADER..];
    while let [t0, t1, l0, l1, rest @ ..] = attributes {
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        if u16::from_be_bytes([*t0, *t1]) == XOR_RELAYED_ADDRESS {
            return xor_address(rest[..8].try_into().expect("an IPv4 address"));
        }
        attributes = &rest[length.next_multiple_of(4)..];
    }
    panic!("no relayed address in the answer");
}

fn bind_channel(client: &PlayerSocket, server: SocketAddr, peer: SocketAddr) {
    const CHANNEL_NUMBER: u16 = 0x000c;
    const XOR_PEER_ADDRESS: u16 = 0x0012;
    let IpAddr::V4(ip) = peer.ip() else { unreachable!("the bench uses IPv4") };
    let mut request = request(CHANNEL_BIND);
    add_attribute(&mut request, CHANNEL_NUMBER, &(u32::from(CHANNEL) << 16).to_be_bytes());
    let port = peer.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let mut address = vec![0, 1];
    address.extend(port.to_be_bytes());
    address.extend((u32::from(ip) ^ MAGIC_COOKIE).to_be_bytes());
    add_attribute(&mut request, XOR_PEER_ADDRESS, &address);
    ask(client, &request, server, CHANNEL_BIND);
}

fn xor_address([_, _, p0, p1, ip @ ..]: [u8; 8]) -> SocketAddr {
    let port = u16::from_be_bytes([p0, p1]) ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = Ipv4Addr::from(u32::from_be_bytes(ip) ^ MAGIC_COOKIE);
    SocketAddr::new(ip.into(), port)
}

/// A request without attributes; its transaction is known by the client's socket.
fn request(method: u16) -> Vec<u8> {
    let mut request = Vec::from(method.to_be_bytes());
    request.extend([0; 2]);
    request.extend(MAGIC_COOKIE.to_be_bytes());
    request.extend(*b"noray bench.");
    request
}

fn add_attribute(request: &mut Vec<u8>, kind: u16, value: &[u8]) {
    request.extend(kind.to_be_bytes());
    request.extend((value.len() as u16).to_be_bytes());
    request.extend(value);
    let length = (request.len() - HEADER) as u16;
    request[2..4].copy_from_slice(&length.to_be_bytes());
}

fn ask(client: &PlayerSocket, request: &[u8], server: SocketAddr, method: u16) -> Vec<u8> {
    client.discard();
    let answer = support::ask(&client.udp, request, server);
    assert_eq!(answer[..2], (method | SUCCESS).to_be_bytes(), "coturn refuses: {answer:x?}");
    answer
}
