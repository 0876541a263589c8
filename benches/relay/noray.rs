//! The real binary, with limits that nothing reaches.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use crate::shape::Shape;
use crate::subject::{Flow, PlayerSocket, Subject};

/// Away from servers that may run on the machine.
const IP: &str = "127.77.0.1";

/// Starts noray and introduces the players of `shape` to each other.
pub(crate) fn start(shape: Shape) -> Subject {
    let settings = [
        &format!("NORAY_SOCKET_HOST={IP}"),
        &format!("NORAY_UDP_HOST={IP}"),
        &format!("NORAY_HTTP_HOST={IP}"),
        "NORAY_MAX_CONNECTIONS_PER_IP=4096",
        "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1tb",
        "NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC=1tb",
        "NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC=1pb",
        "NORAY_UDP_RELAY_TIMEOUT=1hr",
    ];
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
    // Somebody must read on, or the pipe fills.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));

    let mut players: Vec<Player> = (0..shape.players()).map(|_| Player::join()).collect();
    let mut flows = Vec::new();
    for [host, client] in shape.pairs() {
        let request = format!("connect-relay {}", players[host].oid);
        writeln!(players[client].line.get_mut(), "{request}").expect("noray reads");
        for from in [client, host] {
            let port = players[from].expect("connect-relay");
            let to: SocketAddr = format!("{IP}:{port}").parse().expect("a port");
            flows.push(Flow { from, to, channel: None });
        }
    }
    let (lines, sockets) =
        players.into_iter().map(|player| (player.line.into_inner(), player.socket)).unzip();
    Subject { name: "noray", child, sockets, flows, _lines: lines }
}

struct Player {
    line: BufReader<TcpStream>,
    socket: PlayerSocket,
    oid: String,
}

impl Player {
    fn join() -> Self {
        let stream = TcpStream::connect((IP, 8890)).expect("noray listens");
        let socket = PlayerSocket::new(0);
        let mut player = Self { line: BufReader::new(stream), socket, oid: String::new() };
        writeln!(player.line.get_mut(), "register-host").expect("noray reads");
        player.oid = player.expect("set-oid");
        let pid = player.expect("set-pid");
        let registrar = format!("{IP}:8809").parse().expect("an address");
        assert_eq!(player.socket.ask(pid.as_bytes(), registrar), b"OK");
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
