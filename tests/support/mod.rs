//! What the end-to-end tests share: a server on a loopback address of its own, and players with real sockets.
//!
//! Every test has its own address in 127.0.0.0/8, so tests run side by side with the same ports.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

pub mod process;
pub mod traffic;

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use noray::config::Config;
use noray::config::units::ByteSize;
use noray::shell::server::{Addresses, Server, ServerHandle};
use socket2::{Domain, SockRef, Socket, Type};

/// How long a test waits for what must come. Only a failure takes so long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often a stock client repeats what was not answered.
pub const REPEAT: Duration = Duration::from_millis(100);

/// An address in 127.0.0.0/8 that no other test has: from the process id and a counter.
pub fn own_ip() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 1 | high, low, NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// The defaults, on an address of its own, with few relay ports (below the ephemeral range) and wide limits.
pub fn config() -> Config {
    let ip = own_ip();
    Config {
        socket_host: ip,
        socket_port: 0,
        http_host: ip,
        http_port: 0,
        udp_host: ip,
        registrar_port: 0,
        relay_ports: (20_000..20_064).collect(),
        relay_max_individual_traffic: ByteSize(1 << 40),
        relay_max_global_traffic: ByteSize(1 << 40),
        ..Config::default()
    }
}

/// A running server, ended when it goes out of scope.
pub struct TestServer {
    pub addresses: Addresses,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub fn start(config: &Config) -> Self {
        let server = Server::bind(config, Arc::default()).expect("the test's own address is free");
        let (addresses, handle) = (server.addresses().clone(), server.handle());
        let thread = thread::spawn(move || server.run().expect("the server runs"));
        Self { addresses, handle, thread: Some(thread) }
    }

    /// Where a relay port is reached.
    pub fn relay(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.addresses.registrar.ip(), port)
    }

    /// Ends the server and waits until it has.
    pub fn stop(&mut self) {
        self.handle.shut_down();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
    }

    /// The value of a metric, by its name with labels.
    pub fn metric(&self, name: &str) -> u64 {
        metric(self.addresses.http.expect("metrics are served"), name)
    }
}

impl TestServer {
    /// Waits until a metric has that value.
    pub fn wait_for(&self, name: &str, value: u64) {
        assert!(try_until(PATIENCE, || self.metric(name) == value), "{name} is not {value}");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The value of a metric, by its name with labels.
pub fn metric(http: SocketAddr, name: &str) -> u64 {
    let (_, text) = http_get(http, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a whole number")
}

/// Status line and body of a GET.
pub fn http_get(address: SocketAddr, path: &str) -> (String, String) {
    http_send(address, format!("GET {path} HTTP/1.1\r\nHost: noray\r\n\r\n").as_bytes())
}

/// Status line and body of what answers to `request`.
pub fn http_send(address: SocketAddr, request: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the http port is open");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let answer = std::io::read_to_string(stream).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// The TCP side of a player.
pub struct Line {
    reader: BufReader<TcpStream>,
}

impl Line {
    pub fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).expect("the server accepts"))
    }

    /// From that address, if it is of the server's family.
    pub fn connect_from(address: SocketAddr, ip: IpAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if ip.is_ipv4() == address.is_ipv4() {
            socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
        }
        socket.connect(&address.into()).expect("the server accepts");
        Self::new(socket.into())
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream().write_all(bytes).expect("the server reads");
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// The next line, without its end; `None` if the connection has ended.
    pub fn receive(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.strip_suffix('\n').expect("whole lines").to_owned()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no line came: {error}"),
        }
    }

    /// The data of the next line, which must be that command.
    pub fn expect(&mut self, command: &str) -> String {
        let line =
            self.receive().unwrap_or_else(|| panic!("the connection ended before {command}"));
        let data = line.strip_prefix(command).and_then(|rest| rest.strip_prefix(' '));
        data.unwrap_or_else(|| panic!("`{line}` instead of {command}")).to_owned()
    }

    /// Everything sent before has been handled, and nothing but `expect`ed lines had come.
    pub fn settle(&mut self) {
        self.send("echo settled");
        assert_eq!(self.expect("echo"), "settled");
    }
}

/// A player with both its sockets.
pub struct Player {
    pub line: Line,
    pub udp: UdpSocket,
    pub oid: String,
    pub pid: String,
    registrar: SocketAddr,
}

impl Player {
    /// Connects, gets ids, and registers the address of a UDP socket at `ip`.
    pub fn join_from(server: &TestServer, ip: IpAddr) -> Self {
        let mut player = Self::register_from(server, ip);
        player.register_address();
        player
    }

    pub fn join(server: &TestServer) -> Self {
        Self::join_from(server, Ipv4Addr::LOCALHOST.into())
    }

    /// Connects and gets ids; the registrar does not know it yet.
    pub fn register_from(server: &TestServer, ip: IpAddr) -> Self {
        Self::register_at(server.addresses.socket, server.addresses.registrar, ip)
    }

    /// The same with a server that is known by its ports for players and for addresses.
    pub fn register_at(players: SocketAddr, registrar: SocketAddr, ip: IpAddr) -> Self {
        let mut line = Line::connect_from(players, ip);
        line.send("register-host");
        let oid = line.expect("set-oid");
        let pid = line.expect("set-pid");
        Self::new(line, udp_socket(ip), oid, pid, registrar)
    }

    /// From its parts, once it has ids.
    pub fn new(
        line: Line,
        udp: UdpSocket,
        oid: String,
        pid: String,
        registrar: SocketAddr,
    ) -> Self {
        Self { line, udp, oid, pid, registrar }
    }

    /// As the stock client does: repeats the PrivateID until `OK` comes.
    pub fn register_address(&mut self) {
        register_address(&self.udp, &self.pid, self.registrar);
    }

    /// A new socket takes the old one's place, as behind a router that maps anew.
    pub fn rebind(&mut self) {
        self.udp = udp_socket(self.udp.local_addr().unwrap().ip());
    }

    pub fn address(&self) -> SocketAddr {
        self.udp.local_addr().unwrap()
    }

    pub fn send(&self, payload: &[u8], to: SocketAddr) {
        self.udp.send_to(payload, to).expect("loopback takes it");
    }

    /// The next datagram and where it came from.
    pub fn receive(&self) -> (Vec<u8>, SocketAddr) {
        receive(&self.udp)
    }
}

pub fn register_address(socket: &UdpSocket, pid: &str, registrar: SocketAddr) {
    socket.set_read_timeout(Some(REPEAT)).unwrap();
    let mut buffer = [0; 64];
    let is_registered = (0..100).any(|_| {
        socket.send_to(pid.as_bytes(), registrar).unwrap();
        matches!(socket.recv_from(&mut buffer), Ok((2, from)) if &buffer[..2] == b"OK" && from == registrar)
    });
    assert!(is_registered, "the registrar did not answer OK");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
}

pub fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = uninterrupted(|| socket.recv_from(&mut buffer)).expect("a datagram");
    buffer.truncate(length);
    (buffer, from)
}

/// Repeats a call that was interrupted, as those with a time limit are when a child of another test ends or stops.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// A socket at a free port of `ip` with room for bursts.
pub fn udp_socket(ip: IpAddr) -> UdpSocket {
    let address = SocketAddr::new(ip, 0);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    let socket: UdpSocket = socket.into();
    SockRef::from(&socket).set_recv_buffer_size(2 << 20).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Introduces `client` to `host` by relay: the ports at which each reaches the other.
pub fn connect_relay(client: &mut Player, host: &mut Player) -> (u16, u16) {
    client.line.send(&format!("connect-relay {}", host.oid));
    let hosts_port = client.line.expect("connect-relay").parse().expect("a port");
    let clients_port = host.line.expect("connect-relay").parse().expect("a port");
    (hosts_port, clients_port)
}

/// Repeats an attempt until it succeeds, for at most so long; whether it did.
pub fn try_until(patience: Duration, mut attempt: impl FnMut() -> bool) -> bool {
    let deadline = now() + patience;
    while now() < deadline {
        if attempt() {
            return true;
        }
    }
    false
}

#[expect(clippy::disallowed_methods, reason = "players repeat by the clock")]
pub fn now() -> Instant {
    Instant::now()
}
