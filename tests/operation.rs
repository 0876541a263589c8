//! What the person who runs a server does to it: the real binary under reload, drain and supervision.

mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use support::process::{NORAY, Process, empty_folder};
use support::{
    Line, PATIENCE, Player, connect_relay, http_get, own_ip, register_address, try_until,
    uninterrupted,
};

const HTTP_PORT: u16 = 20_100;

/// A process with its configuration in a file.
struct Configured {
    process: Process,
    ip: IpAddr,
    file: PathBuf,
}

impl Configured {
    fn start(content: &str) -> Self {
        let (ip, file) = (own_ip(), empty_folder().join("my.conf"));
        fs::write(&file, content).unwrap();
        let script = format!("set -- \"$@\" --config {}", file.display());
        let process = Process::start(ip, &script, &["NORAY_HTTP_PORT=20100"]);
        Self { process, ip, file }
    }

    fn reload(&mut self, content: &str, last_line: &str) -> String {
        fs::write(&self.file, content).unwrap();
        self.process.signal("HUP");
        self.process.log_until(last_line)
    }

    fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip, HTTP_PORT)
    }
}

/// Two players with a relay, and where each reaches the other.
struct Pair {
    players: [Player; 2],
    ways: [SocketAddr; 2],
}

impl Pair {
    fn join(process: &Process) -> Self {
        let mut players = [process.join(), process.join()];
        let [client, host] = &mut players;
        let (hosts, clients) = connect_relay(client, host);
        let ways = [hosts, clients].map(|port| SocketAddr::new(process.registrar.ip(), port));
        Self { players, ways }
    }

    /// A datagram each way arrives.
    fn play(&self) {
        let [client, host] = &self.players;
        client.send(b"ping", self.ways[0]);
        assert_eq!(host.receive(), (b"ping".to_vec(), self.ways[1]));
        host.send(b"pong", self.ways[1]);
        assert_eq!(client.receive(), (b"pong".to_vec(), self.ways[0]));
    }
}

#[test]
fn a_reload_changes_limits_and_names_what_needs_a_restart() {
    let mut server = Configured::start("NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1gb\n");
    let mut pair = Pair::join(&server.process);
    pair.play();
    let log = server.reload(
        "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1b\nNORAY_LOGLEVEL=debug\nNORAY_OID_LENGTH=7\n\
         NORAY_MAX_CONNECTIONS=2\nNORAY_SOCKET_HOST=127.0.0.1\n",
        "NORAY_LOGLEVEL",
    );
    // The command line of the test sets the address and wins over the file.
    assert!(!log.contains("NORAY_SOCKET_HOST"), "{log}");
    assert!(log.contains("NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC: 1gb -> 1b"), "{log}");
    pair.play();
    let [client, _] = &mut pair.players;
    client.send(b"one too many", pair.ways[0]);
    assert_eq!(client.line.expect("relay-limit"), "bandwidth");
    client.send(b"and another", pair.ways[0]);
    let log = server.process.log_until("WARN");
    assert!(log.contains("over NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC"), "{log}");
    assert!(Line::connect(server.process.players).expect("error").starts_with("server-full"));

    server.reload("NORAY_MAX_CONNECTIONS=3\n", "NORAY_LOGLEVEL: debug -> info");
    pair.play();
    assert!(http_get(server.http(), "/metrics").1.contains("\nnoray_max_connections 3\n"));
}

#[test]
fn a_live_relay_loses_nothing_while_the_configuration_is_reloaded() {
    let server = Configured::start("NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1gb\n");
    let pair = Pair::join(&server.process);
    for round in 0..1000 {
        if round % 50 == 0 {
            let content = format!("NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC={}mb\n", 100 + round);
            fs::write(&server.file, content).unwrap();
            server.process.signal("HUP");
        }
        pair.play();
    }
}

#[test]
fn what_needs_a_restart_stays_as_it_is() {
    let mut server = Configured::start("");
    for _ in 0..2 {
        fs::write(&server.file, "NORAY_LOGLEVEL=info\n").unwrap();
        server.process.signal("HUP");
        server.process.log_until("the same as before");
    }
    let ip = own_ip();
    let file = empty_folder().join("my.conf");
    fs::write(&file, format!("NORAY_UDP_HOST={ip}\n")).unwrap();
    let script = format!(
        "set -- \"$1\" --set NORAY_SOCKET_HOST={ip} --set NORAY_HTTP_HOST={ip} --set NORAY_HTTP_PORT=0 \
         --set NORAY_UDP_RELAY_PORTS=20000-20063 --config {}",
        file.display()
    );
    let mut process = Process::start(ip, &script, &[]);
    let other = own_ip();
    fs::write(&file, format!("NORAY_UDP_HOST={other}\n")).unwrap();
    process.signal("HUP");
    let log = process.log_until("NORAY_UDP_HOST");
    assert!(log.contains(&format!("{ip} -> {other} needs a restart")), "{log}");
}

#[test]
fn what_is_no_file_delays_no_signal() {
    let mut server = Configured::start("");
    let pipe = server.file.with_extension("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for target in [pipe, "/dev/zero".into(), empty_folder()] {
        fs::remove_file(&server.file).unwrap();
        symlink(&target, &server.file).unwrap();
        server.process.signal("HUP");
        let log = server.process.log_until("nothing is changed");
        assert!(log.contains("it is not a regular file"), "{log}");
    }
    server.process.signal("TERM");
    let (status, log) = server.process.wait();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn of_a_file_full_of_mistakes_the_first_are_named_and_the_others_counted() {
    let mut server = Configured::start("");
    let log = server.reload(&"x\n".repeat(1 << 19), "nothing is changed");
    assert_eq!(log.matches("x: not of the form").count(), 50, "{log}");
    assert!(log.contains(&format!("{}:50: x: not of the form", server.file.display())), "{log}");
    assert!(log.contains(&format!("and {} more\n", (1 << 19) - 50)), "{log}");
    let log = server.reload(&"x\n".repeat((1 << 19) + 1), "nothing is changed");
    assert!(log.contains("it is longer than 1 MiB"), "{log}");
}

#[test]
fn a_wrong_or_missing_file_changes_nothing() {
    let mut server = Configured::start("NORAY_OID_LENGTH=5\n");
    let pair = Pair::join(&server.process);
    let log = server.reload(
        "NORAY_OID_LENGTH=6\nNORAY_UDP_RELAY_TIMEOUT=soon\nNORAY_TYPO=1\n",
        "nothing is changed",
    );
    let file = server.file.display();
    assert!(log.contains(&format!("ERROR reload: {file}:2: NORAY_UDP_RELAY_TIMEOUT: ")), "{log}");
    assert!(log.contains(&format!("ERROR reload: {file}:3: NORAY_TYPO: ")), "{log}");
    fs::remove_file(&server.file).unwrap();
    server.process.signal("HUP");
    let log = server.process.log_until("nothing is changed");
    assert!(log.contains("my.conf: cannot be read"), "{log}");
    pair.play();
    assert_eq!(server.process.join().oid.len(), 5);
    let metrics = http_get(server.http(), "/metrics").1;
    assert!(metrics.contains("\nnoray_config_last_reload_failed 1\n"), "{metrics}");
    server.reload("NORAY_OID_LENGTH=6\n", "NORAY_OID_LENGTH: 5 -> 6");
    let metrics = http_get(server.http(), "/metrics").1;
    assert!(metrics.contains("\nnoray_config_last_reload_failed 0\n"), "{metrics}");
}

/// `noray reload`, whose output comes when it is waited for.
fn ask_for_reload(process: &Process) -> Child {
    Command::new(NORAY)
        .args(["reload", "--pid", &process.child.id().to_string()])
        .env_remove("JOURNAL_STREAM")
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs")
}

/// The exit status and what stands on stderr.
fn answer(client: Child) -> (Option<i32>, String) {
    let output = client.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn whoever_asks_for_a_reload_hears_the_outcome() {
    let mut server = Configured::start("NORAY_OID_LENGTH=5\n");
    let failed = |server: &Configured| {
        let metrics = http_get(server.http(), "/metrics").1;
        metrics.contains("\nnoray_config_last_reload_failed 1\n")
    };
    for _ in 0..3 {
        fs::write(&server.file, "NORAY_OID_LENGTH=6\nNORAY_TYPO=1\nNORAY_X=1\n").unwrap();
        let (status, mistakes) = answer(ask_for_reload(&server.process));
        let file = server.file.display();
        assert_eq!(status, Some(1), "{mistakes}");
        for (line, key) in [(2, "NORAY_TYPO"), (3, "NORAY_X")] {
            let start = format!("{file}:{line}: {key}: ");
            assert!(mistakes.lines().any(|mistake| mistake.starts_with(&start)), "{mistakes}");
        }
        assert!(failed(&server));

        fs::write(&server.file, "NORAY_OID_LENGTH=6\n").unwrap();
        assert_eq!(answer(ask_for_reload(&server.process)), (Some(0), String::new()));
        assert!(!failed(&server));
        assert_eq!(server.process.join().oid.len(), 6, "it is in force");
    }
    server.reload("NORAY_OID_LENGTH=7\n", "NORAY_OID_LENGTH: 6 -> 7");
}

#[test]
fn only_the_server_can_answer_who_asks_for_a_reload() {
    let server = Configured::start("NORAY_OID_LENGTH=5\n");
    let pid = server.process.child.id();
    fs::write(&server.file, "NORAY_TYPO=1\n").unwrap();
    server.process.signal("STOP");
    let client = ask_for_reload(&server.process);
    let forger = UnixDatagram::unbound().unwrap();
    let name = UnixAddr::from_abstract_name(format!("noray-reload-{pid}")).unwrap();
    assert!(try_until(PATIENCE, || {
        thread::yield_now();
        forger.connect_addr(&name).is_ok()
    }));
    for _ in 0..3 {
        forger.send(b"done\n").unwrap();
    }
    let (status, error) = answer(ask_for_reload(&server.process));
    assert_eq!(status, Some(1));
    assert!(error.contains("another process waits"), "{error}");
    server.process.signal("CONT");
    let (status, mistakes) = answer(client);
    assert_eq!(status, Some(1));
    assert!(mistakes.contains("NORAY_TYPO"), "{mistakes}");
}

#[test]
fn a_reload_of_no_server_fails() {
    let output = Command::new(NORAY).args(["reload", "--pid", "4194305"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"there is no process 4194305\n", "above the kernel's largest");
    let output = Command::new(NORAY).arg("reload").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn a_draining_server_begins_nothing_and_ends_nothing() {
    let mut server = Configured::start("NORAY_DRAIN_TIMEOUT=1h\n");
    let mut pair = Pair::join(&server.process);
    let mut unregistered = Line::connect(server.process.players);
    unregistered.settle();
    assert!(http_get(server.http(), "/readyz").0.contains("200"));

    server.process.signal("TERM");
    server
        .process
        .log_until("draining: waiting for 1 relay to go idle (5s without a datagram), at most 1hr");
    let (status, reason) = http_get(server.http(), "/readyz");
    assert!(status.contains("503") && reason.contains("draining"), "{status} {reason}");
    assert!(http_get(server.http(), "/healthz").0.contains("200"));
    unregistered.send("register-host");
    assert!(unregistered.expect("register-host-error").starts_with("draining "));
    // Whoever comes now learns it at once: a stock client waits for ever for ids that do not come.
    let closed = || TcpStream::connect(server.process.players).map(drop);
    let is_closed = try_until(PATIENCE, || {
        closed().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(is_closed, "{:?}", closed());
    let [client, host] = &mut pair.players;
    for command in ["connect", "connect-relay"] {
        client.line.send(&format!("{command} {}", host.oid));
        assert!(client.line.expect(&format!("{command}-error")).starts_with("draining "));
    }
    client.line.send("register-host");
    client.line.expect("set-oid");
    client.line.expect("set-pid");
    register_address(&client.udp, &client.pid, server.process.registrar);
    pair.play();

    server.process.signal("TERM");
    assert_eq!(pair.players[0].line.receive(), None, "a second signal ends at once");
    assert_eq!(server.process.wait().0, Some(0));
}

#[test]
fn nobody_who_comes_while_a_drain_starts_waits_in_vain() {
    let server = Configured::start("NORAY_DRAIN_TIMEOUT=1h\n");
    let _pair = Pair::join(&server.process);
    server.process.signal("STOP");
    let mut late: Vec<Line> = (0..50).map(|_| Line::connect(server.process.players)).collect();
    late.iter_mut().for_each(|line| line.send("register-host"));
    server.process.signal("TERM");
    server.process.signal("CONT");
    let answers: Vec<String> =
        late.iter_mut().map(|line| line.receive().expect("an answer")).collect();
    for answer in answers {
        // Those that were accepted first may have got their ids.
        let is_told = ["error draining ", "register-host-error draining ", "set-oid "]
            .iter()
            .any(|start| answer.starts_with(start));
        assert!(is_told, "{answer}");
    }
}

#[test]
fn a_drain_ends_when_its_time_is_over_or_nobody_plays() {
    for (drain_timeout, has_pair) in [("100ms", true), ("1h", false)] {
        let content = format!("NORAY_DRAIN_TIMEOUT={drain_timeout}\n");
        let server = Configured::start(&content);
        let pair = has_pair.then(|| Pair::join(&server.process));
        let mut player = server.process.join();
        server.process.signal("TERM");
        assert_eq!(player.line.receive(), None, "{drain_timeout}");
        let (status, log) = server.process.wait();
        assert_eq!((status, log.lines().last().unwrap().ends_with("ended")), (Some(0), true));
        drop(pair);
    }
}

/// The socket on which systemd hears a service.
struct Systemd(UnixDatagram);

impl Systemd {
    fn listen() -> (Self, String) {
        let path = empty_folder().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (Self(socket), format!("export NOTIFY_SOCKET={}", path.display()))
    }

    fn receive(&self) -> String {
        let mut buffer = [0; 256];
        let length = uninterrupted(|| self.0.recv(&mut buffer)).expect("it was told something");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// The next message that is no beat.
    fn receive_step(&self) -> String {
        std::iter::repeat_with(|| self.receive()).find(|m| !m.starts_with("WATCHDOG")).unwrap()
    }
}

#[test]
fn systemd_is_told_every_step() {
    let (systemd, script) = Systemd::listen();
    let watchdog = "export WATCHDOG_PID=$$ WATCHDOG_USEC=100000";
    let mut process = Process::start(own_ip(), &format!("{script}\n{watchdog}"), &[]);
    assert_eq!(systemd.receive_step(), "READY=1");
    let version = concat!("noray ", env!("CARGO_PKG_VERSION"));
    assert_eq!(systemd.receive(), format!("WATCHDOG=1\nSTATUS={version}, 0 players, 0 relays"));
    let pair = Pair::join(&process);
    let with_players = format!("WATCHDOG=1\nSTATUS={version}, 2 players, 1 relay");
    while systemd.receive() != with_players {}
    process.signal("HUP");
    assert_eq!(systemd.receive_step(), "RELOADING=1");
    assert_eq!(systemd.receive_step(), "READY=1");
    process.log_until("same as before");
    process.signal("TERM");
    // 30 s to drain and 10 s of reserve.
    let draining = format!("STATUS={version}, draining, 1 relay, at most 30 s");
    assert_eq!(
        systemd.receive_step(),
        format!("STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000\n{draining}")
    );
    pair.play();
    assert_eq!(
        systemd.receive(),
        format!("WATCHDOG=1\n{draining}"),
        "a loop that drains is watched as before"
    );
    process.signal("TERM");
    assert_eq!(systemd.receive_step(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=10000000\nSTATUS=ending");
    assert_eq!(process.wait().0, Some(0));
}

#[test]
fn a_supervisor_that_does_not_read_stops_nothing() {
    let (_systemd, script) = Systemd::listen();
    let script = format!("{script}\nexport WATCHDOG_USEC=2000");
    let wide = "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1gb";
    let process = Process::start(own_ip(), &script, &[wide]);
    let pair = Pair::join(&process);
    // The queue of a Unix datagram socket holds few (net.unix.max_dgram_qlen): it is full within these.
    for _ in 0..1000 {
        pair.play();
    }
}

#[test]
fn the_journal_gets_priorities_and_no_second_time() {
    let script = "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)";
    let short_ids = "NORAY_OID_LENGTH=2";
    let mut process = Process::start(own_ip(), script, &["NORAY_LOGLEVEL=debug", short_ids]);
    assert!(process.start.contains("\n<4>WARN command line: NORAY_OID_LENGTH: "));
    let is_right = |line: &str| line.starts_with("<6>") || line.starts_with("<4>WARN ");
    assert!(process.start.lines().all(is_right), "{}", process.start);
    assert!(process.start.starts_with("<6>noray "), "{}", process.start);
    Line::connect(process.players).send("nonsense");
    process.log_until("<7>");
    // Elsewhere the variable may be left over from whoever started the shell.
    let other = Process::start(own_ip(), "export JOURNAL_STREAM=1:1", &[]);
    assert!(other.start.contains(" INFO  noray "), "{}", other.start);
}

#[test]
fn mistakes_reach_the_journal_with_a_priority() {
    let output = Command::new("sh")
        .args([
            "-c",
            "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$0\" --set NORAY_X=1",
        ])
        .arg(NORAY)
        .current_dir(empty_folder())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("<3>command line: NORAY_X: "));
}
