//! `noray probe`: the real binary against real servers, and against what is none.

#[path = "support/harness.rs"]
mod harness;
mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Output};
use std::thread;

use harness::tests;
use noray::config::units::ByteSize;
use noray::config::{Config, PublicHost};
use serde_json::Value;
use support::{Player, TestServer, config, connect_relay, own_ip};

/// What a probe said, and its exit status.
struct Said {
    text: String,
    status: Option<i32>,
}

impl Said {
    fn new(output: Output) -> Self {
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        Self { text, status: output.status.code() }
    }

    /// In one line, without the breaks that a terminal needs.
    fn flat(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Asserts that the probe failed, with these words.
    fn fails_with(&self, words: &[&str]) {
        assert_eq!(self.status, Some(1), "{}", self.text);
        self.contains(words);
        self.contains(&["FAIL", "A game would NOT work: "]);
    }

    fn contains(&self, words: &[&str]) {
        for word in words {
            assert!(self.flat().contains(word), "`{word}` in\n{}", self.text);
        }
    }
}

fn probe(arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_noray")).arg("probe").args(arguments).output();
    Said::new(output.expect("it runs"))
}

fn probe_at(server: SocketAddr, registrar_port: u16, more: &[&str]) -> Said {
    let (server, registrar) = (server.to_string(), registrar_port.to_string());
    probe(&[&[server.as_str(), "--registrar-port", registrar.as_str()], more].concat())
}

/// Probes a server that has the relay ports of [`config`].
fn probe_server(server: &TestServer, more: &[&str]) -> Said {
    let addresses = &server.addresses;
    let range = ["--relay-ports", "20000-20063"];
    probe_at(addresses.socket, addresses.registrar.port(), &[&range, more].concat())
}

/// Somebody who takes any number of connections and treats each as `serve` says.
fn stranger(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((own_ip(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// A server that says `answer` when it has heard something, and then waits until the probe goes.
fn says(answer: &'static str) -> SocketAddr {
    stranger(move |mut stream| {
        let mut buffer = [0; 256];
        let _ = stream.read(&mut buffer).and_then(|_| stream.write_all(answer.as_bytes()));
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    })
}

/// A UDP socket that gives everybody the same answer.
fn answers(ip: IpAddr, answer: &'static str) -> u16 {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 2048]) {
            let _ = socket.send_to(answer.as_bytes(), from);
        }
    });
    port
}

fn all_is_well() {
    let server = TestServer::start(&config());
    let said = probe_server(&server, &[]);
    assert_eq!(said.status, Some(0), "{}", said.text);
    let port = server.addresses.registrar.port();
    said.contains(&[
        "note connection",
        "the server's own machine",
        &format!("{port}/udp answers OK to both"),
        "20 datagrams each way came back in",
        "all 6 relay ports tried answer (20",
        "no NAT",
        "A game would work.",
    ]);
    assert!(said.text.ends_with("\nA game would work.\n"), "{}", said.text);
    assert!(!said.text.contains("FAIL") && !said.text.contains('\x1b'), "{}", said.text);
    assert!(said.text.lines().all(|line| line.chars().count() <= 80), "{}", said.text);
}

fn a_server_that_hides_players_from_each_other() {
    for (host, words) in [
        (None, ["players are hidden from each other and led to 127.", "does not matter"]),
        // The name and the address lead elsewhere than where the probe finds the server.
        (Some("localhost"), ["led to localhost", "set NORAY_PUBLIC_HOST=127."]),
        (Some("203.0.113.4"), ["led to 203.0.113.4", "set NORAY_PUBLIC_HOST=127."]),
    ] {
        let public_host = PublicHost(host.map(|host| host.parse().unwrap()));
        let server = TestServer::start(&Config { relay_only: true, public_host, ..config() });
        let said = probe_server(&server, &[]);
        said.contains(&words);
        assert_eq!(said.text.contains("warn  addresses"), host.is_some(), "{}", said.text);
    }
}

fn a_wide_range_is_sampled_by_eight_players() {
    let server = TestServer::start(&Config { relay_ports: (20_000..20_512).collect(), ..config() });
    let addresses = &server.addresses;
    let more = ["--relay-ports", "20000-20511"];
    let said = probe_at(addresses.socket, addresses.registrar.port(), &more);
    assert_eq!(said.status, Some(0), "{}", said.text);
    said.contains(&["all 56 relay ports tried answer"]);
}

fn json_says_the_same() {
    let server = TestServer::start(&config());
    let well = probe_server(&server, &["--json"]);
    let report: Value = serde_json::from_str(&well.text).expect("JSON and nothing else");
    assert_eq!((well.status, &report["works"]), (Some(0), &Value::Bool(true)), "{}", well.text);
    assert_eq!(report["verdict"], "A game would work.");
    assert_eq!(report["target"], server.addresses.socket.to_string());
    let hops: Vec<&str> =
        report["hops"].as_array().unwrap().iter().map(|hop| hop["hop"].as_str().unwrap()).collect();
    let all = "name connection ids registrar addresses relay ports relay port range your router";
    assert_eq!(hops.join(" "), all);
    assert_eq!(report["hops"][6]["facts"]["loss_percent"], 0);
    assert_eq!(report["hops"][7]["facts"]["silent"], Value::Array(Vec::new()));
    assert_eq!(report["hops"][8]["facts"]["mapping"], "none");

    let ill = probe(&[&own_ip().to_string(), "--json"]);
    let report: Value = serde_json::from_str(&ill.text).expect("JSON and nothing else");
    assert_eq!((ill.status, &report["works"]), (Some(1), &Value::Bool(false)));
    assert_eq!(report["hops"][1]["mark"], "FAIL");
    assert!(report["verdict"].as_str().unwrap().starts_with("A game would NOT work"));
    assert_eq!(report["not_tried"][0], "ids");
}

fn ipv6_is_probed_too() {
    let ip = "::1".parse().unwrap();
    let loopback = Config { socket_host: ip, udp_host: ip, ..config() };
    if UdpSocket::bind((ip, 0)).is_err() {
        harness::ignore("no IPv6 here");
    }
    let server = TestServer::start(&loopback);
    let port = server.addresses.socket.port();
    let said = probe_server(&server, &[]);
    assert_eq!(said.status, Some(0), "{}", said.text);
    let target = format!("Probing noray at [::1]:{port}");
    said.contains(&[&target, "note name ::1", "A game would work."]);
    // Without brackets it is an address of its own.
    let said = probe(&["::1:8890"]);
    said.fails_with(&["Is 8890 meant as the port? Then write [::1]:8890"]);
}

fn mistakes_on_the_command_line_have_status_64() {
    let cases: [(&[&str], &str); 9] = [
        (&["::1:49152"], "[::1]:49152"),
        (&[], "host"),
        (&[""], "missing"),
        (&[":8890"], "missing"),
        (&["a:0"], "not a port"),
        (&["http://a"], "web address"),
        (&["a", "--registrar-port", "0"], "not a port"),
        (&["a", "--relay-ports", "9-8"], "ends before it starts"),
        (&["a", "--frobnicate"], "frobnicate"),
    ];
    for (arguments, word) in cases {
        let said = probe(arguments);
        assert_eq!(said.status, Some(64), "{arguments:?}: {}", said.text);
        said.contains(&[word]);
    }
    let help = probe(&["--help"]);
    assert_eq!(help.status, Some(0));
    help.contains(&["--registrar-port", "--relay-ports", "--json", "from another machine"]);
}

fn a_name_that_leads_nowhere() {
    // An empty label: refused without asking anybody.
    let said = probe(&["nowhere..invalid"]);
    said.fails_with(&["FAIL name", "`nowhere..invalid` does not lead to an address", "A record"]);
    said.contains(&["players cannot find the server", "not tried: connection, ids"]);
}

fn a_closed_tcp_port() {
    let said = probe(&[&format!("{}:20100", own_ip())]);
    said.fails_with(&["20100/tcp at 127.", "refused", "systemctl status", "NORAY_SOCKET_PORT"]);
}

fn a_web_server() {
    let address = says("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let port = address.port();
    probe(&[&address.to_string()]).fails_with(&[
        &format!("{port}/tcp answers, but not as noray: `HTTP/1.1 400 Bad Request`"),
        &format!("Is {port} the server's NORAY_SOCKET_PORT?"),
    ]);
}

fn a_silent_host() {
    let address = says("");
    probe(&[&address.to_string()]).fails_with(&["accepts, and then says nothing for 5 s"]);
}

fn endless_lines_endless_news_and_silence_after_half_a_line() {
    let floods =
        |bytes: &'static [u8]| stranger(move |mut stream| while stream.write_all(bytes).is_ok() {});
    let cases = [
        (floods(&[b'x'; 1000]), "not as noray: no lines of text"),
        (floods(b"relay-limit bandwidth\n"), "not as noray: no lines of text"),
        (says("set-oid"), "not as noray: no lines of text"),
    ];
    thread::scope(|scope| {
        for (address, word) in cases {
            scope.spawn(move || probe(&[&address.to_string()]).fails_with(&[word]));
        }
    });
}

fn a_server_that_closes() {
    let at_once = stranger(drop);
    let said = probe(&[&at_once.to_string()]);
    said.fails_with(&["accepts, and closes without a word"]);
}

fn errors_of_the_server_are_shown() {
    let address = says("register-host-error draining the server\u{1b}[2J shuts down\n");
    let said = probe(&[&address.to_string()]);
    said.fails_with(&["`register-host-error draining the server?[2J shuts down`", "restarted"]);
}

fn a_full_server() {
    let server = TestServer::start(&Config { max_connections: 1, ..config() });
    let said = probe_server(&server, &[]);
    said.fails_with(&["FAIL ids", "`error server-full", "NORAY_MAX_CONNECTIONS"]);
}

fn a_server_that_is_nearly_full_is_sampled_less() {
    // One IP may have four of five.
    let server = TestServer::start(&Config { max_connections: 5, ..config() });
    let said = probe_server(&server, &[]);
    assert_eq!(said.status, Some(0), "{}", said.text);
    said.contains(&["all 2 relay ports tried answer"]);
}

fn a_closed_registrar_port() {
    let server = TestServer::start(&config());
    let said = probe_at(server.addresses.socket, 20_100, &[]);
    said.fails_with(&["20100/udp: nothing listens there", "--registrar-port PORT"]);
    said.contains(&["players connect, but cannot register their address"]);
}

fn something_else_at_the_registrars_port() {
    let server = TestServer::start(&config());
    let ip = server.addresses.socket.ip();
    let cases = [
        ("what?", "answers, but not as noray's registrar: `what?`"),
        ("Unknown host pid!", "does not belong to the server that gave the ids"),
    ];
    for (answer, word) in cases {
        let port = answers(ip, answer);
        probe_at(server.addresses.socket, port, &[]).fails_with(&[&format!("{port}/udp"), word]);
    }
}

fn a_registrar_that_answers_from_another_address() {
    let address = says("set-oid someone\nset-pid secret\necho noray-probe\n");
    let everywhere = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = everywhere.local_addr().unwrap().port();
    // The kernel answers from 127.0.0.1, whatever the address that was asked.
    thread::spawn(move || {
        while let Ok((_, from)) = everywhere.recv_from(&mut [0; 2048]) {
            let _ = everywhere.send_to(b"OK", from);
        }
    });
    let said = probe_at(address, port, &[]);
    said.fails_with(&["answers from 127.0.0.1", "NORAY_UDP_HOST"]);
}

fn a_silent_registrar_and_no_private_id_is_shown() {
    let address = says("set-oid someone\nset-pid Tq9SECRETSECRET\necho noray-probe\n");
    let silent = UdpSocket::bind((address.ip(), 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    for more in [&[][..], &["--json"]] {
        let said = probe_at(address, port, more);
        assert_eq!(said.status, Some(1), "{}", said.text);
        said.contains(&[
            &format!("{port}/udp: no answer in 3 s"),
            &format!("ufw allow {port}/udp"),
        ]);
        assert!(!said.text.contains("SECRET"), "{}", said.text);
    }
    let mut sent = [0; 64];
    assert_eq!(silent.recv(&mut sent).unwrap(), "Tq9SECRETSECRET".len(), "the whole id");
}

fn lies_and_a_flood_of_datagrams_end_too() {
    let lies = "set-oid a\nset-pid b\necho noray-probe\nconnect 127.0.0.1:5\nconnect-relay 5\n";
    let address = says(lies);
    let registrar = UdpSocket::bind((address.ip(), 0)).unwrap();
    let port = registrar.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((_, from)) = registrar.recv_from(&mut [0; 2048]) {
            for _ in 0..1000 {
                let _ = registrar.send_to(b"OK", from);
            }
        }
    });
    let said = probe_at(address, port, &["--relay-ports", "1-64"]);
    said.fails_with(&["ok registrar", "FAIL relay nothing passes through 5 and 5, either way"]);
}

fn no_relay_port_left() {
    let server = TestServer::start(&Config { relay_ports: (20_000..20_002).collect(), ..config() });
    let [mut client, mut host] = [(); 2].map(|()| Player::join(&server));
    connect_relay(&mut client, &mut host);
    let said = probe_server(&server, &[]);
    said.fails_with(&["FAIL relay ports", "connect-relay-error relays-exhausted", "Widen NORAY"]);
}

fn other_ports_than_those_of_the_range() {
    let server = TestServer::start(&config());
    let addresses = &server.addresses;
    let said = probe_at(addresses.socket, addresses.registrar.port(), &[]);
    assert_eq!(said.status, Some(0), "{}", said.text);
    said.contains(&[
        "note relay ports",
        "Not in 49152-51200",
        "--relay-ports",
        "all 6 relay ports",
    ]);
}

fn a_pairs_limit_that_drops_the_probes_own_datagrams_is_named() {
    for rate in [1, 2048] {
        let rate = ByteSize(rate);
        let server = TestServer::start(&Config { relay_max_individual_traffic: rate, ..config() });
        let said = probe_server(&server, &[]);
        said.fails_with(&[
            "FAIL relay",
            "the server dropped them, over its NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC. Raise it",
            "ok port range all 6 relay ports tried answer",
            "the relay loses too much",
        ]);
    }
}

fn main() -> ExitCode {
    harness::run(tests![
        all_is_well,
        a_server_that_hides_players_from_each_other,
        a_wide_range_is_sampled_by_eight_players,
        json_says_the_same,
        ipv6_is_probed_too,
        mistakes_on_the_command_line_have_status_64,
        a_name_that_leads_nowhere,
        a_closed_tcp_port,
        a_web_server,
        a_silent_host,
        endless_lines_endless_news_and_silence_after_half_a_line,
        a_server_that_closes,
        errors_of_the_server_are_shown,
        a_full_server,
        a_server_that_is_nearly_full_is_sampled_less,
        a_closed_registrar_port,
        something_else_at_the_registrars_port,
        a_registrar_that_answers_from_another_address,
        a_silent_registrar_and_no_private_id_is_shown,
        lies_and_a_flood_of_datagrams_end_too,
        no_relay_port_left,
        a_pairs_limit_that_drops_the_probes_own_datagrams_is_named,
        other_ports_than_those_of_the_range,
    ])
}
