//! `noray status` and the page for a browser, with the real binary and a game on it.

#[path = "support/harness.rs"]
mod harness;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::tests;
use support::process::{NORAY, Process, Running, empty_folder};
use support::{Player, connect_relay, own_ip};

/// A server on an address of its own, and where it serves its status.
fn start(ip: IpAddr, settings: &[&str]) -> (Process, SocketAddr) {
    let mut server = Process::start(ip, "", settings);
    let line = server.log_until("metrics and health: ");
    let (_, behind) = line.split_once("http://").expect("an address");
    let address = behind.split('/').next().unwrap().parse().expect("an address");
    (server, address)
}

/// Two players whose relay carries datagrams, and a stranger whose datagrams are dropped.
struct Game {
    host: Player,
    client: Player,
    to_host: SocketAddr,
    to_client: SocketAddr,
    stranger: UdpSocket,
}

impl Game {
    fn start(server: &Process) -> Self {
        let (mut host, mut client) = (server.join(), server.join());
        let (to_host, to_client) = connect_relay(&mut client, &mut host);
        let relay = |port| SocketAddr::new(server.registrar.ip(), port);
        let stranger = UdpSocket::bind((own_ip(), 0)).unwrap();
        Self { host, client, to_host: relay(to_host), to_client: relay(to_client), stranger }
    }

    fn play(&mut self) {
        self.stranger.send_to(b"let me in", self.to_host).unwrap();
        self.host.send(b"here", self.to_client);
        self.client.receive();
        self.client.send(b"hello", self.to_host);
        self.host.receive();
    }
}

fn status(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(NORAY)
        .arg("status")
        .args(arguments)
        .current_dir(empty_folder())
        .output()
        .expect("it runs");
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("UTF-8"))
}

fn a_running_game_is_shown() {
    let taken = own_ip();
    let _port = UdpSocket::bind((taken, 20_000)).unwrap();
    let (server, address) = start(taken, &[]);
    let mut game = Game::start(&server);
    game.play();
    let (code, text) = status(&[&address.to_string()]);
    assert_eq!(code, Some(0), "{text}");
    for words in [
        &format!("noray {} at {address}: ready\n", env!("CARGO_PKG_VERSION")),
        "players       2 connected of 4096 possible, 2 registered, 0 away\n",
        "registrar     2 addresses set, ",
        "pairs         1\n",
        "relay ports   2 in use, 0 reserved, 61 free, 1 could not be bound\n",
        "in all 2 datagrams",
        "Dropped\n  wrong-ip: 1 datagrams, 0 a second\n      from another IP than the partner's\n      -> if players",
        "Warnings\n",
        "1 of 64 relay ports cannot be bound",
    ] {
        assert!(text.contains(words), "{words} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

fn the_server_is_found_by_its_configuration() {
    let (_server, address) = start(own_ip(), &[]);
    let file = empty_folder().join("my.conf");
    let (ip, port) = (address.ip(), address.port());
    fs::write(&file, format!("NORAY_HTTP_HOST={ip}\nNORAY_HTTP_PORT={port}\n")).unwrap();
    let (code, text) = status(&["--config", file.to_str().unwrap(), "--check"]);
    assert_eq!((code, text), (Some(0), format!("noray at {address} is ready\n")));
    let variables = [("NORAY_HTTP_HOST", ip.to_string()), ("NORAY_HTTP_PORT", port.to_string())];
    let mut by_environment = Command::new(NORAY);
    by_environment.args(["status", "--check"]).envs(variables).current_dir(empty_folder());
    assert_eq!(by_environment.output().unwrap().status.code(), Some(0));
    let mut by_options = Command::new(NORAY);
    by_options.args(["--set", &format!("NORAY_HTTP_HOST={ip}"), "--set"]);
    by_options.args([&format!("NORAY_HTTP_PORT={port}"), "status", "--check"]);
    assert_eq!(by_options.current_dir(empty_folder()).output().unwrap().status.code(), Some(0));
}

fn a_wrong_command_line_or_configuration_has_its_status() {
    let file = empty_folder().join("my.conf");
    fs::write(&file, "NORAY_HTTP_PORT=99999\n").unwrap();
    for (arguments, code, words) in [
        (&["--config", file.to_str().unwrap()][..], 78, "my.conf:1: NORAY_HTTP_PORT: `99999`"),
        (&["--config", "/missing.conf"], 78, "/missing.conf: cannot be read"),
        (&["--watch", "--check"], 64, "exclude each other"),
        (&["http://127.0.0.1"], 64, "web address"),
        (&["noray.invalid"], 1, "noray.invalid cannot be found"),
    ] {
        let (shown, text) = status(arguments);
        assert_eq!(shown, Some(code), "{text}");
        assert!(text.contains(words), "{words} in {text}");
    }
}

fn a_server_that_is_not_ready_fails_the_check_and_says_why() {
    let ip = own_ip();
    let _ports: Vec<_> =
        (20_000..20_002).map(|port| UdpSocket::bind((ip, port)).unwrap()).collect();
    let (_server, address) = start(ip, &["NORAY_UDP_RELAY_PORTS=20000-20001"]);
    let address = &address.to_string();
    let (code, text) = status(&["--check", address]);
    let expected = format!("noray at {address} is not ready: no relay port could be bound\n");
    assert_eq!((code, text), (Some(1), expected));
    let (code, text) = status(&[address]);
    assert_eq!(code, Some(0));
    assert!(text.contains("NOT READY: no relay port could be bound"), "{text}");
}

/// What listens somewhere, and what is said about it.
fn what_is_no_server_is_named() {
    let (code, text) = status(&[&format!("{}:8891", own_ip())]);
    assert_eq!(code, Some(1));
    assert!(text.contains("nothing listens there"), "{text}");

    let endless = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[b'x'; 2 << 20]].concat();
    for (answer, words) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "no noray: it does not speak HTTP"),
        (b"", "no noray: it does not speak HTTP"),
        (b"\xff\xfe", "no noray: its answer is no text"),
        (b"HTTP/1.1 404 Not Found\r\n\r\nno \x1b[2Jpage", "it answers: no \u{fffd}[2Jpage"),
        (
            b"HTTP/1.1 503 Service Unavailable\r\n\r\nlater",
            "it answers 503 Service Unavailable: later",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "its status is not one of noray"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "its status is not one of noray"),
        (&endless, "its answer does not end"),
    ] {
        let listener = TcpListener::bind((own_ip(), 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (code, text) = thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1000]);
                // It may hang up before all is written.
                let _ = stream.write_all(answer);
            });
            status(&["--check", &address])
        });
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(words), "{words} in {text}");
    }
}

fn what_hangs_is_named() {
    let listener = TcpListener::bind((own_ip(), 0)).unwrap();
    let (code, text) = status(&[&listener.local_addr().unwrap().to_string()]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("has not answered for 4 s: noray hangs, or it is another program"),
        "{text}"
    );
}

fn a_watch_goes_on_when_the_server_ends() {
    let (server, address) = start(own_ip(), &[]);
    let mut command = Command::new(NORAY);
    command.args(["status", "--watch", &address.to_string()]).stdout(Stdio::piped());
    let mut watch = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let is_ready = |line: &String| line.ends_with(": ready");
    assert_eq!(lines.by_ref().filter(is_ready).take(2).count(), 2);
    drop(server);
    assert!(lines.any(|line| line.contains("has not answered for ")));
}

/// What chromium says to a page: the document as its script has made it, and the console.
fn open(page: &str) -> (String, Vec<String>) {
    let profile = format!("--user-data-dir={}", empty_folder().join("profile").display());
    // Its time runs as fast as the page allows: ten readings take less than a second.
    let output = Command::new("timeout")
        .args(["60", "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", &profile])
        .args(["--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom", page])
        .output()
        .expect("coreutils");
    if output.status.code() == Some(127) {
        harness::ignore("there is no chromium (Debian's package chromium has it)");
    }
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{log}", output.status);
    let console = log.lines().filter(|line| line.contains(":CONSOLE"));
    let console = console.map(str::to_owned).collect();
    (String::from_utf8(output.stdout).expect("UTF-8"), console)
}

fn the_console_of_chromium_is_seen() {
    let (_, console) = open("data:text/html,<script>missing()</script>");
    assert!(console.iter().any(|line| line.contains("missing is not defined")), "{console:?}");
}

fn the_page_shows_a_running_game_without_an_error() {
    let (server, address) = start(own_ip(), &["NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1gb"]);
    let mut game = Game::start(&server);
    let is_over = AtomicBool::new(false);
    let (page, console) = thread::scope(|scope| {
        let player = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                game.play();
            }
        });
        let seen = open(&format!("http://{address}/"));
        is_over.store(true, Ordering::Relaxed);
        player.join().unwrap();
        seen
    });
    assert_eq!(console, [""; 0], "the console is empty");
    for words in [
        "<title>noray: 2 players, 1 pairs</title>",
        "role=\"status\">ready</p>",
        "Players. Now: 2 connected, 2 registered. Most: 2\"",
        "Pairs. Now: 1 relayed. Most: 1\"",
        "from another IP than the partner's</p>",
        "if players use carriers with several IPs, set NORAY_UDP_RELAY_LATCHING=any</p>",
        "Dropped a second, by reason. Now: wrong-ip ",
    ] {
        assert!(page.contains(words), "{words} in\n{page}");
    }
    for plot in [
        "Datagrams relayed",
        "Bytes relayed",
        "Dropped a second, by reason",
        "Delay by the event loop",
    ] {
        let (_, behind) = page.split_once(&format!("aria-label=\"{plot}. Now: ")).expect(plot);
        let (words, behind) = behind.split_once('"').unwrap();
        assert!(!words.contains("Most: 0"), "{plot}: {words}");
        let (svg, _) = behind.split_once("</svg>").unwrap();
        assert!(svg.contains("<path d=\"M") && svg.contains('L'), "{plot}: {svg}");
    }
}

fn main() -> ExitCode {
    harness::run(tests![
        a_running_game_is_shown,
        the_server_is_found_by_its_configuration,
        a_wrong_command_line_or_configuration_has_its_status,
        a_server_that_is_not_ready_fails_the_check_and_says_why,
        what_is_no_server_is_named,
        what_hangs_is_named,
        a_watch_goes_on_when_the_server_ends,
        the_console_of_chromium_is_seen,
        the_page_shows_a_running_game_without_an_error,
    ])
}
