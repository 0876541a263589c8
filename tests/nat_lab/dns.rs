//! Asks nothing of the machine that runs the tests: a name server in the lab with the files of `dist/gdnsd`, and
//! the one question that players ask it.

#![allow(unreachable_pub, reason = "the other files of this test use it")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use crate::lab::{Host, Running, ends_with_this_thread};
use crate::players::{now, try_until};
use crate::support::REPEAT;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/gdnsd");

/// Where the files let the name server listen.
const NAME_SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 12), 53);

/// How often a question is repeated before it is given up.
const ATTEMPTS: usize = 100;

/// How long it may take until a change of the servers is seen: a check comes every 2 s, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs gdnsd with these files where it has folders of its own for its locks and its state.
const GDNSD: [&str; 7] = [
    "--mount",
    "sh",
    "-c",
    "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/lib && exec gdnsd \"$@\"",
    "gdnsd",
    "-c",
    FOLDER,
];

/// # Errors
/// The reason why no name server can run here.
pub fn available() -> Result<(), String> {
    let output = Command::new("unshare").args(GDNSD).arg("checkconf").output();
    let output = output.map_err(|error| format!("unshare does not run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !said.contains("gdnsd version") {
        return Err(format!("no gdnsd with folders of its own: {}", said.trim()));
    }
    assert!(output.status.success(), "the files are right: {said}");
    Ok(())
}

/// gdnsd on a machine of the lab, ended when it goes out of scope.
pub struct NameServer {
    _process: Running,
    /// Kept open: what it logs after its start fits into the pipe.
    _log: BufReader<ChildStderr>,
}

impl NameServer {
    /// Answers when this returns, and has looked at every server once.
    pub fn start(machine: &Host) -> Self {
        assert_eq!(machine.address(), *NAME_SERVER.ip(), "as the files say");
        let mut command = ends_with_this_thread("unshare");
        command.args(GDNSD).arg("start").stderr(Stdio::piped());
        let mut process = machine.spawn(command);
        let mut log = BufReader::new(process.0.stderr.take().unwrap());
        let mut start = String::new();
        while !start.contains("DNS listeners started") {
            assert_ne!(log.read_line(&mut start).unwrap(), 0, "it ended:\n{start}");
        }
        Self { _process: process, _log: log }
    }
}

/// The A records of a name.
#[derive(Debug)]
pub struct Answer {
    /// In the order in which they came: a player takes the first.
    pub addresses: Vec<IpAddr>,
    /// For how many seconds the resolvers of the world may keep it.
    pub ttl: u32,
}

/// Asks the name server from `machine`, until an answer comes.
pub fn resolve(machine: &Host, name: &str) -> Answer {
    (0..ATTEMPTS).find_map(|_| ask(&socket(machine), name)).expect("the name server answers")
}

/// Asks until the name has exactly these addresses, and does something between two questions; how long it took.
pub fn resolve_until(
    machine: &Host,
    name: &str,
    addresses: &[IpAddr],
    mut meanwhile: impl FnMut(),
) -> Duration {
    let (start, socket) = (now(), socket(machine));
    let wanted: BTreeSet<_> = addresses.iter().collect();
    let is_right = |answer: Answer| answer.addresses.iter().collect::<BTreeSet<_>>() == wanted;
    let is_there = try_until(PATIENCE, || {
        meanwhile();
        if ask(&socket, name).is_some_and(is_right) {
            return true;
        }
        // Nothing is to come, or an answer that came late: this is the pause between two questions.
        let _ = socket.recv(&mut [0]);
        false
    });
    assert!(is_there, "{name} does not become {addresses:?}");
    now() - start
}

fn socket(machine: &Host) -> UdpSocket {
    let socket = machine.enter(|| UdpSocket::bind((machine.address(), 0))).unwrap();
    socket.set_read_timeout(Some(REPEAT)).unwrap();
    socket
}

/// One question and its answer, if one comes in time.
fn ask(socket: &UdpSocket, name: &str) -> Option<Answer> {
    let question = question(name);
    socket.send_to(&question, NAME_SERVER).expect("the network takes it");
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    assert_eq!(from, NAME_SERVER.into());
    Some(read(&buffer[..length], &question))
}

/// RFC 1035, section 4.1: a header with one question, which is for the name's type A in class IN.
fn question(name: &str) -> Vec<u8> {
    let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}

fn read(answer: &[u8], question: &[u8]) -> Answer {
    assert_eq!(answer[..2], question[..2]);
    assert_eq!(answer[3] & 0xf, 0, "no error");
    assert_eq!(answer[12..question.len()], question[12..], "the question is repeated");
    let count = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
    let (mut addresses, mut ttl) = (Vec::new(), u32::MAX);
    for record in answer[question.len()..].chunks_exact(16).take(count) {
        let (head, rest) = record.split_at(6);
        assert_eq!(head, [0xc0, 12, 0, 1, 0, 1], "the name in the question, A, IN");
        ttl = ttl.min(u32::from_be_bytes(rest[..4].try_into().unwrap()));
        assert_eq!(rest[4..6], [0, 4]);
        addresses.push(Ipv4Addr::new(rest[6], rest[7], rest[8], rest[9]).into());
    }
    assert_eq!(addresses.len(), count);
    Answer { addresses, ttl }
}
