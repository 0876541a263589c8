//! A PrivateID goes to its player and nowhere else: everything that the real binary prints, serves and writes is searched
//! for them, at every log level.

mod support;

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use support::process::{NORAY, Running, empty_folder};
use support::{
    Line, PATIENCE, Player, connect_relay, http_send, own_ip, receive, register_address, try_until,
    udp_socket,
};

const LEVELS: [&str; 7] = ["silent", "fatal", "error", "warn", "info", "debug", "trace"];

/// No part of a PrivateID that long may be anywhere.
const PART: usize = 16;

struct Noray {
    process: Running,
    /// A copy of the program, which can be replaced.
    program: std::path::PathBuf,
    folder: std::path::PathBuf,
    ip: IpAddr,
    supervisor: UnixDatagram,
    pids: Vec<String>,
    /// What it served, and where.
    served: Vec<(String, String)>,
}

impl Noray {
    fn start(level: &str) -> Self {
        let (folder, ip) = (empty_folder(), own_ip());
        let supervisor = UnixDatagram::bind(folder.join("notify")).unwrap();
        supervisor.set_nonblocking(true).unwrap();
        let settings = [
            format!("NORAY_SOCKET_HOST={ip}"),
            format!("NORAY_UDP_HOST={ip}"),
            format!("NORAY_HTTP_HOST={ip}"),
            format!("NORAY_LOGLEVEL={level}"),
            "NORAY_UDP_RELAY_PORTS=20000-20063".to_owned(),
            "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=10kb".to_owned(),
        ];
        let program = empty_folder().join("noray");
        fs::copy(NORAY, &program).unwrap();
        let process = Command::new(&program)
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .current_dir(&folder)
            .env("NOTIFY_SOCKET", folder.join("notify"))
            .env("RUST_BACKTRACE", "full")
            .stdin(Stdio::null())
            .stdout(File::create(folder.join("stdout")).unwrap())
            .stderr(File::create(folder.join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let process = Running(process);
        let (pids, served) = (Vec::new(), Vec::new());
        let noray = Self { process, program, folder, ip, supervisor, pids, served };
        let is_up = try_until(PATIENCE, || TcpStream::connect(noray.at(8891)).is_ok());
        assert!(is_up, "it does not start");
        noray
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    fn join(&mut self) -> Player {
        let localhost = "127.0.0.1".parse().unwrap();
        let mut player = Player::register_at(self.at(8890), self.at(8809), localhost);
        player.register_address();
        self.pids.push(player.pid.clone());
        player
    }

    fn get(&mut self, target: &str) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {target}\r\n\r\n");
        let (status, body) = http_send(self.at(8891), request.as_bytes());
        let path = target.split('?').next().unwrap().chars().take(8).collect::<String>();
        self.served.push((path, status + &body));
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Another program takes over, which gets all PrivateIDs. Afterwards nothing holds them but its memory.
    fn hand_over(&mut self) {
        let next = self.program.with_extension("next");
        fs::copy(NORAY, &next).unwrap();
        fs::rename(next, &self.program).unwrap();
        let pid = self.process.0.id().to_string();
        let reload = Command::new(NORAY).args(["reload", "--pid", &pid]).output().unwrap();
        assert!(reload.status.success(), "{}", String::from_utf8_lossy(&reload.stderr));
        let process = Path::new("/proc").join(pid);
        for name in ["environ", "cmdline"] {
            self.served.push((name.to_owned(), read(&process.join(name))));
        }
        for open in fs::read_dir(process.join("fd")).unwrap() {
            let target = fs::read_link(open.unwrap().path()).unwrap_or_default();
            assert!(!target.to_string_lossy().contains("memfd"), "{}", target.display());
        }
    }

    /// Everything that came out, with its place.
    fn end(mut self) -> Vec<(String, String)> {
        self.signal("TERM");
        self.signal("TERM");
        assert!(self.process.0.wait().unwrap().success());
        let mut all = std::mem::take(&mut self.served);
        let mut told = [0; 1024];
        while let Ok(length) = self.supervisor.recv(&mut told) {
            all.push(("systemd".to_owned(), String::from_utf8_lossy(&told[..length]).into_owned()));
        }
        fs::remove_file(self.folder.join("notify")).unwrap();
        let files = fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path());
        all.extend(files.map(|path| (path.display().to_string(), read(&path))));
        all
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

/// Players do everything with their PrivateIDs that they can, also what nobody should.
fn misuse(noray: &mut Noray) {
    let (mut host, mut client) = (noray.join(), noray.join());
    let pid = client.pid.clone();
    for command in ["connect", "connect-relay", "echo", "set-pid", "", " "] {
        client.line.send(&format!("{command} {pid}"));
        client.line.receive();
    }
    for name in [&pid[..64], &pid, &host.pid] {
        client.line.send(name);
        client.line.receive();
    }
    let registrar = noray.at(8809);
    for wrong in [format!("{pid}x"), format!("x{pid}"), pid[..100].to_owned(), pid.repeat(20)] {
        client.udp.send_to(wrong.as_bytes(), registrar).unwrap();
        assert_eq!(receive(&client.udp).0, b"Unknown host pid!");
    }
    let moved = udp_socket("127.0.0.1".parse().unwrap());
    register_address(&moved, &pid, registrar);
    client.udp = moved;

    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    let (to_host, to_client) = (noray.at(to_host), noray.at(to_client));
    client.send(pid.as_bytes(), to_host);
    assert_eq!(host.receive().0, pid.as_bytes());
    // Over the limit, and from strangers.
    for _ in 0..50 {
        host.send(&[host.pid.as_bytes(); 8].concat(), to_client);
    }
    let stranger = udp_socket(own_ip());
    for port in [to_host, noray.at(20_063)] {
        stranger.send_to(pid.as_bytes(), port).unwrap();
    }

    let mut endless = Line::connect(noray.at(8890));
    endless.send(&pid.repeat(40));
    endless.receive();
    let mut broken = Line::connect(noray.at(8890));
    broken.send_bytes(&[pid.as_bytes(), b"\xff\n", pid.as_bytes()].concat());
    broken.receive();
    for target in [
        "/",
        "/status",
        "/metrics",
        "/healthz",
        "/readyz",
        &format!("/{pid}"),
        &format!("/status?{pid}"),
    ] {
        noray.get(target);
    }
    noray.signal("HUP");
    noray.get("/metrics");
    noray.hand_over();
    let mut again = Line::connect(noray.at(8890));
    again.send(&format!("register-host {pid}"));
    assert_eq!((again.expect("set-oid"), again.expect("set-pid")), (client.oid, pid.clone()));
    again.send(&format!("register-host {pid}x"));
    again.expect("set-oid");
    noray.pids.push(again.expect("set-pid"));
    noray.get("/status");
}

#[test]
fn no_private_id_comes_out_at_any_log_level() {
    for level in LEVELS {
        let mut noray = Noray::start(level);
        misuse(&mut noray);
        let probe = probe(&noray);
        let pids = noray.pids.clone();
        let mut all = noray.end();
        let log = &all.iter().find(|(place, _)| place.ends_with("stderr")).expect("a log").1;
        assert_eq!(log.is_empty(), ["silent", "fatal", "error"].contains(&level), "{level}: {log}");
        assert_eq!(log.contains("external address"), ["info", "debug", "trace"].contains(&level));
        all.extend(probe);
        for (place, text) in &all {
            search(level, place, text, &pids);
        }
    }
}

fn search(level: &str, place: &str, text: &str, pids: &[String]) {
    for pid in pids {
        let parts = (0..=pid.len() - PART).map(|start| &pid[start..start + PART]);
        let found = parts.filter(|part| text.contains(part)).count();
        assert_eq!(found, 0, "{level}: a PrivateID in {place}: {text}");
    }
    // Those that are not known here: of the probe's players.
    let is_of_id = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let longest = text.split(|c| !is_of_id(c)).map(str::len).max();
    assert!(longest < Some(100), "{level}: something as long as a PrivateID in {place}: {text}");
}

/// What a probe of that server prints.
fn probe(noray: &Noray) -> Vec<(String, String)> {
    let target = noray.at(8890).to_string();
    let print = |json: &[&str]| {
        let arguments = ["probe", &target, "--relay-ports", "20000-20063"];
        let output = Command::new(NORAY).args(arguments).args(json).output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
        assert!(out.contains("registrar"), "{out}{err}");
        (format!("probe {json:?}"), out + &err)
    };
    vec![print(&[]), print(&["--json"])]
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let pid = "abcdefghijklmnopqrstuvwxyz".repeat(4);
    let is_found = |text: &str| {
        std::panic::catch_unwind(|| search("info", "here", text, std::slice::from_ref(&pid)))
            .is_err()
    };
    assert!(is_found(&format!("before {} behind", &pid[10..40])));
    assert!(is_found(&"A".repeat(128)));
    assert!(!is_found("INFO  player 36ELmQG8MTT1JA6y2kth4: registered from 192.0.2.1:4000"));
}
