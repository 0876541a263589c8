//! noray on machines of the lab, and players that behave as the stock client does.

#![allow(unreachable_pub, reason = "the other files of this test use it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::lab::{Host, Lab, REGISTRAR_PORT, Running, ends_with_this_thread};
use crate::support::{Line, PATIENCE, REPEAT, http_get, register_address};
pub use crate::support::{now, try_until};

/// How many datagrams go each way when two play.
pub const DATAGRAMS: usize = 50;

/// How often a handshake is repeated before it is given up. The stock client takes 80, but here the ways are short.
const HANDSHAKE_ATTEMPTS: usize = 20;

/// How long a player waits for an answer in the game before it is lost.
const ANSWER_TIME: Duration = Duration::from_secs(2);

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
        let mut command = ends_with_this_thread(env!("CARGO_BIN_EXE_noray"));
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

    /// Plays for a while, twenty times a second.
    pub fn check_for(&mut self, time: Duration) {
        let end = now() + time;
        while now() < end {
            self.check();
            assert_eq!(self.client.receive_within(Duration::from_millis(50)), None);
        }
    }
}

/// What a host saw of a stream: where it came from, and how many datagrams.
pub type Seen = BTreeMap<String, (SocketAddr, usize)>;

/// Sets a flag when it goes out of scope, also by a panic: or a failed client would leave its host playing.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The host's side: blasts a finished handshake at every address that it was told, as the stock one does, and answers
/// whatever address it sees. Datagrams are `STREAM:NUMBER`; each is answered once, and must come in order.
pub fn host_game(host: &Player, told: &[SocketAddr], is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::new();
    let mut next_blast = now();
    while !is_over.load(Ordering::Relaxed) {
        if now() >= next_blast {
            told.iter().for_each(|address| host.send("$rwx", *address));
            next_blast += REPEAT;
        }
        let Some((text, from)) = host.receive_within(REPEAT / 10) else { continue };
        let Some((stream, number)) = text.split_once(':') else {
            host.send("$rwx", from);
            continue;
        };
        let (source, count) = seen.entry(stream.to_owned()).or_insert((from, 0));
        assert_eq!(*source, from, "{stream} is seen at one address");
        assert_eq!(number, count.to_string(), "{stream} comes in order");
        *count += 1;
        host.send(&format!("{stream}!{number}"), from);
    }
    seen
}

/// Where a client sends to once it hears the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Where it was told to, as the stock client.
    Stock,
    /// Where it hears the host: what RFC 4787's rules would allow.
    Answering,
}

/// The client's side: shakes hands, then sends [`DATAGRAMS`] and gets an answer to each.
///
/// # Errors
/// What did not come.
pub fn client_game(
    client: &Player,
    told: SocketAddr,
    stream: &str,
    kind: Client,
) -> Result<(), String> {
    let to = shake_hands(client, told, kind).ok_or("no handshake")?;
    for number in 0..DATAGRAMS {
        client.send(&format!("{stream}:{number}"), to);
        let deadline = now() + ANSWER_TIME;
        let answer = std::iter::from_fn(|| client.receive_within(ANSWER_TIME))
            .take_while(|_| now() < deadline)
            .find(|(text, _)| !text.starts_with('$'));
        let (text, from) = answer.ok_or_else(|| format!("no answer to {number}"))?;
        assert_eq!((text.as_str(), from), (format!("{stream}!{number}").as_str(), to));
    }
    Ok(())
}

/// The stock client's handshake; the address to play with, if it succeeds.
fn shake_hands(client: &Player, told: SocketAddr, kind: Client) -> Option<SocketAddr> {
    let (mut to, mut has_read, mut is_shaken) = (told, false, false);
    for _ in 0..HANDSHAKE_ATTEMPTS {
        let mark = |is_set, mark| if is_set { mark } else { '-' };
        client.send(&format!("${}w{}", mark(has_read, 'r'), mark(is_shaken, 'x')), to);
        let repeat = now() + REPEAT;
        while let Some((text, from)) = client.receive_within(REPEAT) {
            if kind == Client::Answering {
                to = from;
            }
            has_read = true;
            is_shaken |= text.contains('r');
            if is_shaken && text.contains('x') {
                return Some(to);
            }
            if now() >= repeat {
                break;
            }
        }
    }
    None
}
