//! Metrics and health over HTTP.

#[path = "support/harness.rs"]
mod harness;
mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness::tests;
use noray::config::Config;
use noray::operation::status::Status;
use socket2::{Domain, Socket, Type};
use support::{PATIENCE, Player, TestServer, config, connect_relay, http_get, http_send, own_ip};

const OK: &str = "HTTP/1.1 200 OK";

/// The names that dashboards of the existing server use.
const KEPT_NAMES: [&str; 17] = [
    "noray_tcp_connections",
    "noray_active_hosts",
    "noray_command_duration",
    "noray_command_exception",
    "noray_remote_registrar_success",
    "noray_remote_registrar_fail",
    "noray_remote_registrar_repeat",
    "noray_relay_count",
    "noray_relay_expired",
    "noray_relay_size",
    "noray_relay_duration",
    "noray_relay_drop_count",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

fn busy_server() -> TestServer {
    let server = TestServer::start(&config());
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    host.send(b"here", server.relay(to_client));
    client.receive();
    for length in 0..99 {
        client.send(&vec![0; 10 * length], server.relay(to_host));
        host.receive();
    }
    client.line.send("no\"thing{}\\");
    client.line.expect("error");
    server
}

fn metrics_have_the_kept_names_and_count() {
    let server = busy_server();
    let (status, text) = http_get(server.addresses.http.unwrap(), "/metrics");
    assert_eq!(status, OK);
    for name in KEPT_NAMES {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    assert_eq!(server.metric("noray_relay_datagrams_total"), 100);
    assert_eq!(server.metric("noray_relay_size_count"), 100);
    assert_eq!(server.metric("noray_command_exception{command=\"other\"}"), 1);
    assert_eq!(server.metric("noray_command_duration_count{command=\"connect-relay\"}"), 1);
}

/// `promtool` is Prometheus's own parser. Its advice on names is not followed where a name is kept.
fn prometheus_reads_the_metrics() {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = promtool.spawn() else {
        harness::ignore("there is no promtool (Debian's package prometheus has it)");
    };
    let (_, text) = http_get(busy_server().addresses.http.unwrap(), "/metrics");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let advice = String::from_utf8(output.stderr).unwrap();
    for line in advice.lines() {
        let is_about_kept_name = KEPT_NAMES.iter().any(|name| line.starts_with(name));
        assert!(is_about_kept_name && line.contains("should"), "promtool: {line}");
    }
    assert!([Some(0), Some(3)].contains(&output.status.code()), "{:?}", output.status);
}

fn health_and_readiness() {
    let server = TestServer::start(&config());
    let http = server.addresses.http.unwrap();
    assert_eq!(http_get(http, "/healthz"), (OK.to_owned(), "ok\n".to_owned()));
    assert_eq!(http_get(http, "/readyz").0, OK);
    assert_eq!(http_get(http, "/readyz?verbose").0, OK);
}

fn everything_else_is_refused() {
    let server = TestServer::start(&config());
    let http = server.addresses.http.unwrap();
    let cases: [(&[u8], &str); 10] = [
        (b"GET / HTTP/1.1\r\n\r\n", "403"),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "404"),
        (b"GET /page.html HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "404"),
        (b"GET /metricsx HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "404"),
        (b"GET /metrics HTTP/1.0\n\n", "200"),
        (b"GET /metrics\n\n", "200"),
        (b"\r\n\r\n", "404"),
        (b"\xff\xfe\x00 \xff\r\n\r\n", "404"),
        (&[b'x'; 8192], "404"),
    ];
    for (request, status) in cases {
        let answer = http_send(http, request).0;
        assert!(answer.contains(status), "{answer} to {}", request.escape_ascii());
    }
    let (status, body) = http_send(http, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert_eq!((status.as_str(), body.as_str()), (OK, ""));
}

fn the_status_says_how_the_server_does() {
    let server = TestServer::start(&config());
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (_, to_client) = connect_relay(&mut client, &mut host);
    host.send(b"here", server.relay(to_client));
    client.receive();
    let status = Status::from_json(&state(&server, "/status", "127.0.0.1").1).unwrap();
    assert_eq!(status.not_ready, None);
    assert_eq!((status.players.connected, status.players.registered), (2, 2));
    assert_eq!((status.pairs, status.relay_ports.in_use), (1, 2));
    assert_eq!((status.relayed.datagrams, status.registrar.set), (1, 2));
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert!(status.started.is_some() && status.uptime_seconds > 0.0);
    assert!(status.loop_turns.counts.iter().map(|count| count.turns).sum::<u64>() > 0);
}

/// As a web site does whose name points to this machine (DNS rebinding).
fn the_status_and_the_page_are_not_for_other_names() {
    let server = TestServer::start(&config());
    let http = server.addresses.http.unwrap();
    for path in ["/", "/status"] {
        for host in ["127.0.0.1", "[::1]:8891", "localhost:9000", &http.to_string()] {
            assert_eq!(state(&server, path, host).0, OK, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8891", ""] {
            let (status, body) = state(&server, path, host);
            assert!(status.contains("403"), "{status} for {host}");
            assert!(
                body.contains("IP address or localhost") && !body.contains("players"),
                "{body}"
            );
        }
    }
}

fn the_page_needs_nothing_from_elsewhere() {
    let server = TestServer::start(&config());
    let page = state(&server, "/", "localhost").1;
    for (before, _) in page.match_indices("//").map(|(at, _)| page.split_at(at)) {
        let is_address = before.ends_with(':') || before.ends_with(['"', '\'', '(', '=']);
        let is_known = page[before.len()..].starts_with("//www.w3.org/2000/svg");
        assert!(!is_address || is_known, "{}", &page[before.len()..][..40]);
    }
    for way_to_make_html in
        ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
    {
        assert!(!page.contains(way_to_make_html), "{way_to_make_html}");
    }
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", server.addresses.http.unwrap());
    let mut stream = TcpStream::connect(server.addresses.http.unwrap()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.contains("Content-Security-Policy: default-src 'none';"), "{answer}");
}

/// Status line and body of what a request reads that names the host so.
fn state(server: &TestServer, path: &str, host: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    http_send(server.addresses.http.unwrap(), request.as_bytes())
}

fn clients_that_say_nothing_delay_nobody() {
    let server = TestServer::start(&config());
    let http = server.addresses.http.unwrap();
    let _silent: Vec<TcpStream> = (0..10).map(|_| TcpStream::connect(http).unwrap()).collect();
    let mut player = Player::join(&server);
    player.line.settle();
    assert_eq!(http_get(http, "/healthz").0, OK);
}

/// Begins a request from an IP of its own and never ends it, again and again. Returns how many were turned away.
fn begin_requests(http: SocketAddr, ip: IpAddr, is_over: &AtomicBool) -> usize {
    let mut turned_away = 0;
    while !is_over.load(Ordering::Relaxed) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
        socket.connect(&http.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Both fail if the server has turned it away already.
        let _ = stream.write_all(b"G");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        turned_away += usize::from(answer.starts_with("HTTP/1.1 503"));
    }
    turned_away
}

fn unfinished_requests_make_room_for_a_health_check_and_hear_503() {
    let server = TestServer::start(&config());
    let (http, ip) = (server.addresses.http.unwrap(), own_ip());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let attackers: Vec<_> =
            (0..24).map(|_| scope.spawn(|| begin_requests(http, ip, &is_over))).collect();
        let healthy = (0..100).filter(|_| http_get(http, "/healthz").0 == OK).count();
        is_over.store(true, Ordering::Relaxed);
        let turned_away: usize = attackers.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(healthy, 100);
        assert!(turned_away > 0);
    });
    assert!(server.metric("noray_bounds_reached_total{bound=\"requests\"}") > 0);
}

fn without_a_relay_port_the_server_is_not_ready() {
    let first = TestServer::start(&config());
    let ip = first.addresses.registrar.ip();
    // On the same address all relay ports are taken.
    let second =
        TestServer::start(&Config { socket_host: ip, http_host: ip, udp_host: ip, ..config() });
    let (status, body) = http_get(second.addresses.http.unwrap(), "/readyz");
    assert!(status.contains("503"), "{status}");
    assert_eq!(body, "no relay port could be bound\n");
    let mut player = Player::join(&second);
    player.line.send("connect nobody");
    assert!(player.line.expect("connect-error").starts_with("unknown-oid"));
}

fn main() -> ExitCode {
    harness::run(tests![
        metrics_have_the_kept_names_and_count,
        prometheus_reads_the_metrics,
        health_and_readiness,
        everything_else_is_refused,
        the_status_says_how_the_server_does,
        the_status_and_the_page_are_not_for_other_names,
        the_page_needs_nothing_from_elsewhere,
        clients_that_say_nothing_delay_nobody,
        unfinished_requests_make_room_for_a_health_check_and_hear_503,
        without_a_relay_port_the_server_is_not_ready,
    ])
}
