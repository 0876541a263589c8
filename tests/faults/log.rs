//! A log that cannot be written, in the middle of a game.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::game::{HTTP_PORT, Match, Noray, Pair};
use crate::support::process::{NORAY, Running, empty_folder};
use crate::support::{Line, PATIENCE, Player, http_get, metric, own_ip, try_until, udp_socket};

const DROPPED: &str = "noray_relay_drop_count{reason=\"no-pair\"}";
const LOST: &str = "noray_log_lines_lost_total";

/// How long a server without players may take to end: one second for its relays, two for the log, and one to spare.
const END: Duration = Duration::from_secs(4);

/// Datagrams that are dropped with a line of the log each, fewer at a time than a socket holds.
const BATCHES: u64 = 300;
const BATCH: u64 = 100;

/// Sends datagrams to a port that no pair has until all of them are dropped.
fn waste(stranger: &UdpSocket, unused: SocketAddr, http: SocketAddr) {
    let begin = metric(http, DROPPED);
    for batch in 1..=BATCHES {
        for _ in 0..BATCH {
            stranger.send_to(b"nobody expects this", unused).unwrap();
        }
        let expected = begin + batch * BATCH;
        assert!(try_until(PATIENCE, || metric(http, DROPPED) >= expected), "{expected}");
    }
}

/// A relay port that neither of them has.
fn unused_port(pair: &[SocketAddr; 2]) -> SocketAddr {
    let ports = (20_000..20_064).map(|port| SocketAddr::new(pair[0].ip(), port));
    ports.into_iter().find(|port| !pair.contains(port)).expect("another one")
}

/// How it ended, if it did so in time.
fn ends_within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let mut status = None;
    try_until(patience, || {
        thread::yield_now();
        status = child.try_wait().expect("it is a child");
        status.is_some()
    });
    status
}

fn number_before(text: &str, line: &str) -> u64 {
    let before = line.split(text).next().unwrap();
    before.trim_end().rsplit(' ').next().unwrap().parse().expect("a number")
}

pub(crate) fn a_pipe_that_nobody_reads_costs_lines_and_nothing_else() {
    let mut noray = Noray::start("", &["NORAY_LOGLEVEL=trace", "NORAY_DRAIN_TIMEOUT=1s"]);
    let pair = Pair::join(&noray.process);
    let (unused, http) = (unused_port(&pair.ways), noray.http());
    let stranger = udp_socket([127, 0, 0, 1].into());
    let mut player = noray.process.join();
    let game = Match::go_on(pair);

    waste(&stranger, unused, http);
    let first_lost = noray.metric(LOST);
    assert!(first_lost > 0, "the pipe holds more than {BATCHES} times {BATCH} lines");
    for _ in 0..50 {
        player.line.send("nonsense");
        player.line.expect("error");
    }
    game.goes_on();
    assert!(noray.metric(LOST) >= first_lost + 50);
    assert!(http_get(http, "/healthz").0.contains("200"));
    let _newcomer = noray.process.join();

    let lost = noray.metric(LOST);
    let log = noray.process.log_until("log lines are lost");
    let warning = log.lines().last().unwrap();
    assert!(warning.contains(" WARN "), "{warning}");
    let named = number_before("log lines are lost", warning);
    assert_eq!(named, lost, "all of them");
    assert!(log.lines().count() > 1000, "what waited is written");
    println!("{lost} lines lost, {} written late", log.lines().count());
    player.line.send("nonsense");
    player.line.expect("error");
    noray.process.log_until("unknown-command");

    waste(&stranger, unused, http);
    assert!(noray.metric(LOST) > lost, "the pipe is full again");
    let pair = game.end();
    noray.process.signal("TERM");
    assert_eq!(player.line.receive(), None);
    let status = ends_within(&mut noray.process.child, END).expect("it ends");
    assert_eq!(status.code(), Some(0));
    drop(pair);
}

/// The binary with its stderr as `redirection` says, found by its ports, as its log cannot be.
struct Blind {
    process: Running,
    ip: IpAddr,
}

impl Blind {
    const PLAYERS: u16 = 20_101;
    const REGISTRAR: u16 = 20_102;

    fn start(redirection: &str) -> Self {
        let ip = own_ip();
        let mut settings: Vec<String> = ["SOCKET", "UDP", "HTTP"]
            .map(|which| format!("NORAY_{which}_HOST={ip}"))
            .into_iter()
            .collect();
        settings.extend([
            format!("NORAY_HTTP_PORT={HTTP_PORT}"),
            format!("NORAY_SOCKET_PORT={}", Self::PLAYERS),
            format!("NORAY_UDP_REGISTRAR_PORT={}", Self::REGISTRAR),
            "NORAY_UDP_RELAY_PORTS=20000-20063".to_owned(),
            "NORAY_LOGLEVEL=trace".to_owned(),
            "NORAY_DRAIN_TIMEOUT=1s".to_owned(),
        ]);
        let child = Command::new("sh")
            .args(["-c", &format!("exec \"$@\" {redirection}"), "sh", NORAY])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .current_dir(empty_folder())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let blind = Self { process: Running(child), ip };
        // The http port is bound last.
        let is_up = || std::net::TcpStream::connect(blind.at(HTTP_PORT)).is_ok();
        assert!(try_until(PATIENCE, is_up), "it does not start with {redirection}");
        blind
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    fn join(&self) -> Player {
        let (players, registrar) = (self.at(Self::PLAYERS), self.at(Self::REGISTRAR));
        let mut player = Player::register_at(players, registrar, [127, 0, 0, 1].into());
        player.register_address();
        player
    }
}

pub(crate) fn without_a_place_for_the_log_everything_else_works() {
    for redirection in ["2>&-", "2>/dev/full"] {
        let mut noray = Blind::start(redirection);
        let mut pair = Pair::introduce([noray.join(), noray.join()], noray.ip);
        let stranger = udp_socket([127, 0, 0, 1].into());
        for round in 0..1000 {
            stranger.send_to(b"x", unused_port(&pair.ways)).unwrap();
            if round % 10 == 0 {
                pair.play();
            }
        }
        pair.settle();
        Line::connect(noray.at(Blind::PLAYERS)).settle();
        assert!(http_get(noray.at(HTTP_PORT), "/healthz").0.contains("200"));
        let lost = || metric(noray.at(HTTP_PORT), LOST);
        if redirection == "2>/dev/full" {
            assert!(try_until(PATIENCE, || lost() >= 1000), "{} lines are counted", lost());
        } else {
            // Rust's runtime opens /dev/null in its place: nothing fails.
            assert_eq!(lost(), 0);
        }
        let term = format!("kill -TERM {}", noray.process.0.id());
        assert!(Command::new("sh").args(["-c", &term]).status().unwrap().success());
        let status = ends_within(&mut noray.process.0, 2 * END).expect("it ends");
        assert_eq!(status.code(), Some(0), "{redirection}");
    }
}
