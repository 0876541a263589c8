//! What is measured: a relay in a process of its own, and the sockets of the players that it connects.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::forwarder;

/// Away from servers that may run on the machine.
const IP: &str = "127.77.0.1";

/// A relay process and its players. Players 2n and 2n + 1 are a pair.
pub(crate) struct Subject {
    child: Child,
    /// Each player's socket, and where it sends to.
    pub(crate) players: Vec<(UdpSocket, SocketAddr)>,
    /// The players' TCP connections: their ids live as long.
    _lines: Vec<TcpStream>,
    pub(crate) start: Start,
}

/// How a relay starts.
#[derive(Default)]
pub(crate) struct Start {
    /// From the start of the process until all ports are bound.
    pub(crate) took: Duration,
    /// Resident memory then, before anybody plays.
    pub(crate) resident_kb: u64,
}

impl Subject {
    /// The real binary, with limits that nothing reaches.
    pub(crate) fn noray(pairs: usize) -> Self {
        let settings = [
            &format!("NORAY_SOCKET_HOST={IP}"),
            &format!("NORAY_UDP_HOST={IP}"),
            &format!("NORAY_HTTP_HOST={IP}"),
            "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1tb",
            "NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC=1tb",
            "NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC=1pb",
            "NORAY_UDP_RELAY_TIMEOUT=1hr",
        ];
        let begin = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_noray"))
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stderr(Stdio::piped())
            .spawn()
            .expect("noray starts");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("metrics and health") {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("a log"), 0, "noray ended");
        }
        let start = Start { took: begin.elapsed(), resident_kb: resident_kb(&child) };
        // Somebody must read on, or the pipe fills.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let mut players = Vec::new();
        let mut lines = Vec::new();
        for _ in 0..pairs {
            let (mut host, mut client) = (Player::join(), Player::join());
            writeln!(client.line.get_mut(), "connect-relay {}", host.oid).expect("noray reads");
            let hosts_port = client.expect("connect-relay");
            let clients_port = host.expect("connect-relay");
            for (player, port) in [(host, clients_port), (client, hosts_port)] {
                players.push((player.udp, format!("{IP}:{port}").parse().expect("a port")));
                lines.push(player.line.into_inner());
            }
        }
        Self { child, players, _lines: lines, start }
    }

    /// The yardstick, with as many sockets.
    pub(crate) fn forwarder(pairs: usize) -> Self {
        let own = std::env::current_exe().expect("the bench has a path");
        let mut child = Command::new(own)
            .arg(forwarder::ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bench starts itself");
        let sockets: Vec<UdpSocket> = (0..2 * pairs).map(|_| socket()).collect();
        let mut input = child.stdin.take().expect("it is piped");
        for socket in &sockets {
            writeln!(input, "{}", socket.local_addr().expect("it is bound")).expect("it reads");
        }
        writeln!(input).expect("it reads");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let ports: Vec<SocketAddr> = output
            .lines()
            .take(2 * pairs)
            .map(|line| line.expect("a line").parse().expect("an address"))
            .collect();
        // A player sends to the port whose receiver is its partner.
        let partner = |index: usize| ports[index ^ 1];
        let players = sockets
            .into_iter()
            .enumerate()
            .map(|(index, socket)| (socket, partner(index)))
            .collect();
        Self { child, players, _lines: Vec::new(), start: Start::default() }
    }

    /// Processor time that all its threads have used, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let nanos: f64 = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
            .sum();
        nanos / 1000.0
    }
}

fn resident_kb(child: &Child) -> u64 {
    let path = format!("/proc/{}/status", child.id());
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Player {
    line: BufReader<TcpStream>,
    udp: UdpSocket,
    oid: String,
}

impl Player {
    fn join() -> Self {
        let stream = TcpStream::connect((IP, 8890)).expect("noray listens");
        let mut player = Self { line: BufReader::new(stream), udp: socket(), oid: String::new() };
        writeln!(player.line.get_mut(), "register-host").expect("noray reads");
        player.oid = player.expect("set-oid");
        let pid = player.expect("set-pid");
        let mut answer = [0; 64];
        player.udp.set_nonblocking(false).expect("a socket");
        player.udp.send_to(pid.as_bytes(), (IP, 8809)).expect("loopback takes it");
        player.udp.recv(&mut answer).expect("OK comes");
        player.udp.set_nonblocking(true).expect("a socket");
        player
    }

    fn expect(&mut self, command: &str) -> String {
        let mut line = String::new();
        self.line.read_line(&mut line).expect("a line");
        let data =
            line.trim().strip_prefix(command).unwrap_or_else(|| panic!("{line}, not {command}"));
        data.trim().to_owned()
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    SockRef::from(&socket).set_recv_buffer_size(1 << 20).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    socket
}
