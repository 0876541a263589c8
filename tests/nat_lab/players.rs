//! noray on machines of the lab, and players that register as the stock client does. What they play is in [`crate::games`].

#![allow(unreachable_pub, reason = "the other files of this test use it")]

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::lab::{Host, Lab, REGISTRAR_PORT, Running, ends_with_this_thread};
use crate::support::{Line, PATIENCE, REPEAT, http_get, register_address};
pub use crate::support::{now, try_until};

/// The real binary on a machine with a public address, at the default ports.
pub struct Noray<'a> {
    machine: &'a Host,
    process: Running,
    log: Arc<Mutex<String>>,
    pub address: SocketAddr,
}

impl<'a> Noray<'a> {
    /// On the lab's server.
    pub fn start(lab: &'a Lab, settings: &[&str]) -> Self {
        Self::start_on(&lab.server, settings)
    }

    pub fn start_on(machine: &'a Host, settings: &[&str]) -> Self {
        Self::start_program(machine, env!("CARGO_BIN_EXE_noray").as_ref(), settings)
    }

    /// Another file with the same program.
    pub fn start_program(machine: &'a Host, program: &Path, settings: &[&str]) -> Self {
        let program = program.to_str().expect("a plain path");
        let mut command = ends_with_this_thread(program);
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        command.current_dir(env!("CARGO_TARGET_TMPDIR")).stderr(Stdio::piped());
        let mut process = machine.spawn(command);
        let mut lines = BufReader::new(process.0.stderr.take().unwrap());
        let mut start = String::new();
        while !start.contains("metrics and health") {
            assert_ne!(lines.read_line(&mut start).unwrap(), 0, "it ended:\n{start}");
        }
        let log = Arc::new(Mutex::new(start));
        let rest = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                rest.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let address = SocketAddr::new(machine.address(), 8890);
        Self { machine, process, log, address }
    }

    /// A connection from the server's own machine.
    pub fn line(&self) -> Line {
        self.machine.enter(|| Line::connect(self.address))
    }

    /// Waits until all that had come is done with and counted: what is sent arrives before it is counted.
    pub fn settle(&self) {
        let mut line = self.line();
        // The first may be answered in the turn that takes the last datagrams, and before them.
        line.settle();
        line.settle();
    }

    /// The value of a metric, by its name with labels.
    pub fn metric(&self, name: &str) -> u64 {
        let values = self.values();
        let value = values.iter().find(|(found, _)| found == name);
        value.expect("such a metric").1.parse().expect("a whole number")
    }

    /// Datagrams that the relays have taken, whatever became of them.
    pub fn handled(&self) -> u64 {
        let is_one = |name: &str| {
            name == "noray_relay_datagrams_total" || name.starts_with("noray_relay_drop_count{")
        };
        let values = self.values().into_iter().filter(|(name, _)| is_one(name));
        values.map(|(_, value)| value.parse::<u64>().expect("a whole number")).sum()
    }

    /// Every metric's name with labels, and its value.
    fn values(&self) -> Vec<(String, String)> {
        let http = (Ipv4Addr::LOCALHOST, 8891).into();
        let (_, text) = self.machine.enter(|| http_get(http, "/metrics"));
        let split = |line: &str| line.rsplit_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        text.lines().filter(|line| !line.starts_with('#')).filter_map(split).collect()
    }

    pub fn drops(&self, reason: &str) -> u64 {
        self.metric(&format!("noray_relay_drop_count{{reason=\"{reason}\"}}"))
    }

    /// Does what must be dropped, until it was, for that reason.
    pub fn expect_drop(&self, reason: &str, mut attempt: impl FnMut()) {
        let before = self.drops(reason);
        attempt();
        let is_counted = (0..1000).any(|_| self.drops(reason) > before);
        assert!(is_counted, "nothing was dropped for {reason}");
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Of the process and of its first thread, which is the event loop's.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits for its end; the exit status, `None` after a signal that it did not catch.
    pub fn wait(mut self) -> Option<i32> {
        self.process.0.wait().unwrap().code()
    }

    pub fn relay(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address.ip(), port)
    }
}

/// A player after it has registered: the registrar's socket is closed, and the game's open at the same local port.
pub struct Player {
    pub line: Line,
    pub oid: String,
    pub pid: String,
    pub udp: UdpSocket,
}

impl Player {
    pub fn join(machine: &Host, noray: &Noray<'_>) -> Self {
        Self::join_at(machine, noray.address)
    }

    /// Joins by an address of the server's, which decides the family.
    pub fn join_at(machine: &Host, server: SocketAddr) -> Self {
        let mut line = machine.enter(|| Line::connect(server));
        line.send("register-host");
        let (oid, pid) = (line.expect("set-oid"), line.expect("set-pid"));
        let udp = registered_socket(machine, &pid, server);
        Self { line, oid, pid, udp }
    }

    pub fn send(&self, text: &str, to: SocketAddr) {
        self.udp.send_to(text.as_bytes(), to).expect("the network takes it");
    }

    /// The next datagram, if one comes in time.
    pub fn receive_within(&self, patience: Duration) -> Option<(String, SocketAddr)> {
        self.udp.set_read_timeout(Some(patience)).unwrap();
        let mut buffer = [0; 2048];
        // Errors are ICMP's, about what was sent before.
        let (length, from) = self.udp.recv_from(&mut buffer).ok()?;
        Some((String::from_utf8(buffer[..length].to_vec()).unwrap(), from))
    }

    pub fn receive(&self) -> (String, SocketAddr) {
        self.receive_within(PATIENCE).expect("a datagram")
    }
}

/// As the stock client does it: registers from one socket, and opens the game's at the same local port.
pub fn registered_socket(machine: &Host, pid: &str, server: SocketAddr) -> UdpSocket {
    let local = SocketAddr::new(machine.address(), 0);
    let registering = machine.enter(|| UdpSocket::bind(local)).unwrap();
    register_address(&registering, pid, SocketAddr::new(server.ip(), REGISTRAR_PORT));
    let local = registering.local_addr().unwrap();
    drop(registering);
    // A process that another thread is starting holds the old socket until it executes its program.
    let deadline = now() + PATIENCE;
    loop {
        match machine.enter(|| UdpSocket::bind(local)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && now() < deadline => {
                thread::yield_now();
            }
            bound => return bound.unwrap(),
        }
    }
}

/// Introduces the two by relay: the ports at which the client reaches the host, and the host the client.
pub fn connect_relay(client: &mut Player, host: &mut Player, noray: &Noray<'_>) -> [SocketAddr; 2] {
    client.line.send(&format!("connect-relay {}", host.oid));
    [client, host].map(|player| noray.relay(player.line.expect("connect-relay").parse().unwrap()))
}

/// Introduces the two for punching: the host's address, and the client's.
pub fn connect(client: &mut Player, host: &mut Player) -> [SocketAddr; 2] {
    client.line.send(&format!("connect {}", host.oid));
    [client, host].map(|player| player.line.expect("connect").parse().unwrap())
}

/// Both send, as in a handshake, until each has heard the other: their routers are open. Then all is quiet.
pub fn open_routers(client: &Player, to_host: SocketAddr, host: &Player, to_client: SocketAddr) {
    let deadline = now() + PATIENCE;
    let mut is_heard = [false, false];
    while is_heard != [true, true] {
        assert!(now() < deadline, "{is_heard:?}: client and host");
        client.send("$", to_host);
        host.send("$", to_client);
        for (is_heard, player) in is_heard.iter_mut().zip([client, host]) {
            *is_heard |= player.receive_within(REPEAT / 10).is_some();
        }
    }
    for player in [client, host] {
        while player.receive_within(REPEAT).is_some() {}
    }
}

/// A relayed pair whose stream is alive.
pub struct Stream {
    pub client: Player,
    pub host: Player,
    pub to_host: SocketAddr,
    pub to_client: SocketAddr,
    number: u64,
}

impl Stream {
    pub fn begin(client: &Host, host: &Host, noray: &Noray<'_>) -> Self {
        let (mut client, mut host) = (Player::join(client, noray), Player::join(host, noray));
        let [to_host, to_client] = connect_relay(&mut client, &mut host, noray);
        Self::of(client, to_host, host, to_client)
    }

    /// On machines that reach the server by that address.
    pub fn begin_at(machines: &[Host; 2], server: SocketAddr) -> Self {
        let [mut client, mut host] =
            machines.each_ref().map(|machine| Player::join_at(machine, server));
        client.line.send(&format!("connect-relay {}", host.oid));
        let [to_host, to_client] = [&mut client, &mut host].map(|player| {
            SocketAddr::new(server.ip(), player.line.expect("connect-relay").parse().unwrap())
        });
        Self::of(client, to_host, host, to_client)
    }

    /// Of two that were introduced by relay.
    pub fn of(client: Player, to_host: SocketAddr, host: Player, to_client: SocketAddr) -> Self {
        open_routers(&client, to_host, &host, to_client);
        let mut stream = Self { client, host, to_host, to_client, number: 0 };
        stream.check();
        stream
    }

    /// A datagram each way: the next that each player hears is its partner's, and nobody else's.
    pub fn check(&mut self) {
        self.number += 1;
        let number = self.number;
        self.client.send(&format!("client {number}"), self.to_host);
        assert_eq!(self.host.receive(), (format!("client {number}"), self.to_client));
        self.host.send(&format!("host {number}"), self.to_client);
        assert_eq!(self.client.receive(), (format!("host {number}"), self.to_host));
    }

    /// The same; the payload of both datagrams in bytes.
    pub fn check_and_weigh(&mut self) -> u64 {
        self.check();
        (format!("client {}", self.number).len() + format!("host {}", self.number).len()) as u64
    }

    /// Plays for a while, twenty times a second.
    pub fn check_for(&mut self, time: Duration) {
        let end = now() + time;
        while now() < end {
            self.check();
            assert_eq!(self.client.receive_within(Duration::from_millis(50)), None);
        }
    }
}
