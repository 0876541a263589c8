//! What the benches share: the real binary as a process, players that join it, and a machine made ready.

#![allow(dead_code, reason = "each bench uses its part of this")]
#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use socket2::{Domain, SockRef, Socket, Type};

/// Where noray listens, away from servers that may run on the machine.
pub(crate) const IP: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 77, 0, 1));
pub(crate) const PLAYERS: SocketAddr = SocketAddr::new(IP, 8890);
pub(crate) const REGISTRAR: SocketAddr = SocketAddr::new(IP, 8809);
pub(crate) const HTTP: SocketAddr = SocketAddr::new(IP, 8891);

/// A process that is measured, ended when it goes out of scope.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// Processor time that all its threads have used, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("it runs");
        let nanos: f64 = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
            .sum();
        nanos / 1000.0
    }

    /// Resident memory, in kilobytes.
    pub(crate) fn resident_kb(&self) -> f64 {
        kilobytes(&format!("/proc/{}/status", self.0.id()), "VmRSS:")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line `KEY  number kB` of a file in `/proc`.
pub(crate) fn kilobytes(path: &str, key: &str) -> f64 {
    let text = std::fs::read_to_string(path).expect("the kernel tells it");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("the kernel tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Starts noray at [`IP`]; also how long it took until it served.
pub(crate) fn start_noray(settings: &[&str]) -> (Process, Duration) {
    start_noray_at(IP, Path::new(env!("CARGO_BIN_EXE_noray")), settings)
}

/// Starts a binary of noray at `ip`; also how long it took until it served.
pub(crate) fn start_noray_at(ip: IpAddr, binary: &Path, settings: &[&str]) -> (Process, Duration) {
    let hosts = ["SOCKET", "UDP", "HTTP"].map(|which| format!("NORAY_{which}_HOST={ip}"));
    let all = hosts.iter().map(String::as_str).chain(settings.iter().copied());
    let begin = Instant::now();
    let mut child = Command::new(binary)
        .args(all.flat_map(|setting| ["--set", setting]))
        .stderr(Stdio::piped())
        .spawn()
        .expect("noray starts");
    let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("metrics and health") {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("a log"), 0, "noray ended");
    }
    let took = begin.elapsed();
    // Somebody must read on, or the pipe fills.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    (Process(child), took)
}

/// Limits that nothing in a bench reaches.
pub(crate) const WIDE: [&str; 6] = [
    "NORAY_MAX_CONNECTIONS_PER_IP=100000",
    "NORAY_UDP_RELAY_MAX_PER_IP=65536",
    "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1tb",
    "NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC=1tb",
    "NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC=1pb",
    "NORAY_UDP_RELAY_TIMEOUT=1hr",
];

/// A player's connection.
pub(crate) struct Line(BufReader<TcpStream>);

impl Line {
    pub(crate) fn connect() -> Self {
        Self::connect_from(Ipv4Addr::LOCALHOST.into())
    }

    /// From an address of the loopback network.
    pub(crate) fn connect_from(ip: IpAddr) -> Self {
        Self::connect_between(ip, IP)
    }

    /// From an address of the loopback network to the noray at `server`.
    pub(crate) fn connect_between(ip: IpAddr, server: IpAddr) -> Self {
        Self::connect_to(ip, SocketAddr::new(server, PLAYERS.port()))
    }

    pub(crate) fn connect_to(ip: IpAddr, players: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(ip, 0).into()).expect("a free port");
        socket.connect(&players.into()).expect("noray listens");
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("a socket");
        Self(BufReader::new(stream))
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// What comes until the connection ends, as far as it is text.
    pub(crate) fn read_to_end(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset ends it too.
        let _ = self.0.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes()).expect("noray reads");
    }

    /// The data of the next line, which must be that command.
    pub(crate) fn expect(&mut self, command: &str) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        let data =
            line.trim().strip_prefix(command).unwrap_or_else(|| panic!("{line}, not {command}"));
        data.trim().to_owned()
    }
}

/// A player that has registered its address.
pub(crate) struct Player {
    /// The IP of its noray.
    server: IpAddr,
    pub(crate) line: Line,
    pub(crate) udp: UdpSocket,
    pub(crate) oid: String,
    pub(crate) pid: String,
}

impl Player {
    pub(crate) fn join() -> Self {
        Self::join_from(Ipv4Addr::LOCALHOST.into())
    }

    /// From an address of the loopback network.
    pub(crate) fn join_from(ip: IpAddr) -> Self {
        Self::join_between(ip, IP)
    }

    /// From an address of the loopback network at the noray at `server`.
    pub(crate) fn join_between(ip: IpAddr, server: IpAddr) -> Self {
        Self::join_at_ports(ip, server, 0)
    }

    /// The same with a noray whose ports are so much higher than usual.
    pub(crate) fn join_at_ports(ip: IpAddr, server: IpAddr, offset: u16) -> Self {
        let players = SocketAddr::new(server, PLAYERS.port() + offset);
        let (mut line, udp) = (Line::connect_to(ip, players), udp_socket_at(ip));
        line.send("register-host");
        let oid = line.expect("set-oid");
        let pid = line.expect("set-pid");
        let registrar = SocketAddr::new(server, REGISTRAR.port() + offset);
        assert_eq!(ask(&udp, pid.as_bytes(), registrar), b"OK");
        Self { server, line, udp, oid, pid }
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.udp.local_addr().expect("it is bound").ip()
    }
}

pub(crate) fn register_address(udp: &UdpSocket, pid: &str) {
    assert_eq!(ask(udp, pid.as_bytes(), REGISTRAR), b"OK");
}

/// Introduces the two by relay: where `client` reaches `host`, and `host` reaches `client`.
pub(crate) fn connect_relay(client: &mut Player, host: &mut Player) -> [SocketAddr; 2] {
    client.line.send(&format!("connect-relay {}", host.oid));
    [client, host].map(|player| {
        let port = player.line.expect("connect-relay").parse().expect("a port");
        SocketAddr::new(player.server, port)
    })
}

pub(crate) fn udp_socket() -> UdpSocket {
    udp_socket_at(Ipv4Addr::LOCALHOST.into())
}

/// At an address of the loopback network.
pub(crate) fn udp_socket_at(ip: IpAddr) -> UdpSocket {
    let udp = UdpSocket::bind((ip, 0)).expect("a free port");
    SockRef::from(&udp).set_recv_buffer_size(1 << 20).expect("a socket");
    udp
}

/// Sends `request` until something comes back; what it was.
pub(crate) fn ask(udp: &UdpSocket, request: &[u8], to: SocketAddr) -> Vec<u8> {
    udp.set_nonblocking(false).expect("a socket");
    udp.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
    let mut answer = [0; 1024];
    for _ in 0..50 {
        udp.send_to(request, to).expect("loopback takes it");
        if let Ok(length) = udp.recv(&mut answer) {
            return answer[..length].to_vec();
        }
    }
    panic!("{to} does not answer");
}

/// Moves to a network namespace of its own and raises the limit on open files, as far as that is allowed.
pub(crate) fn prepare_machine() {
    let is_isolated = unshare(CloneFlags::CLONE_NEWNET).is_ok()
        && Command::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|s| s.success());
    if !is_isolated {
        println!("not in a network namespace of its own: that needs root and `ip`");
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit is allowed");
}

/// Two processors of the machine; if there is only one, everything stays where it is.
pub(crate) struct Processors(Vec<usize>);

impl Processors {
    pub(crate) fn find() -> Self {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the kernel tells it");
        let cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        let cpus: Vec<usize> = cpus.take(2).collect();
        Self(if cpus.len() == 2 { cpus } else { Vec::new() })
    }

    /// Keeps what this thread starts from now on, and itself, on the relay's processor.
    pub(crate) fn use_relays(&self) {
        self.pin(self.0.get(..1).unwrap_or_default());
    }

    /// The same with the load's.
    pub(crate) fn use_loads(&self) {
        self.pin(self.0.get(1..).unwrap_or_default());
    }

    /// The same with both.
    pub(crate) fn use_both(&self) {
        self.pin(&self.0);
    }

    fn pin(&self, cpus: &[usize]) {
        if cpus.is_empty() {
            return;
        }
        let mut set = CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(*cpu).expect("the processor exists"));
        sched_setaffinity(Pid::from_raw(0), &set).expect("it is allowed");
    }
}
