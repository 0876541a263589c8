//! Players who misbehave on their TCP connections, and what becomes of the others: nothing.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use noray::config::Config;
use noray::limits::share::HardCap;
use socket2::{Domain, SockRef, Socket, Type};
use support::{Line, PATIENCE, Player, TestServer, config, connect_relay, try_until};

#[test]
fn a_player_who_does_not_read_is_disconnected_and_delays_nobody() {
    let server = TestServer::start(&config());
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, _) = connect_relay(&mut client, &mut host);
    let lazy = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    lazy.set_recv_buffer_size(4096).unwrap();
    lazy.connect(&server.addresses.socket.into()).unwrap();
    let line = format!("echo {}\n", "x".repeat(1000)).into_bytes();
    // Ends with an error when the server has had enough.
    let is_cut_off = (0..100_000).any(|_| (&lazy).write_all(&line).is_err());
    assert!(is_cut_off, "100 MB of answers are waiting somewhere");
    client.line.settle();
    client.send(b"undisturbed", server.relay(to_host));
    assert_eq!(host.receive().0, b"undisturbed");
    server.wait_for("noray_tcp_connections", 2);
}

/// A client with a small receive buffer that asks for so many kilobytes and reads none of them.
fn ask_without_reading(server: &TestServer, kilobytes: usize) -> Socket {
    let lazy = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    lazy.set_recv_buffer_size(2048).unwrap();
    lazy.connect(&server.addresses.socket.into()).unwrap();
    let line = format!("echo {}\n", "x".repeat(1000)).into_bytes();
    (0..kilobytes).for_each(|_| (&lazy).write_all(&line).unwrap());
    lazy
}

/// How many sockets of the server's port for players the kernel has, except the listening one (proc_pid_net(5)).
fn kernel_sockets(server: &TestServer) -> usize {
    let SocketAddr::V4(address) = server.addresses.socket else { panic!("the tests use IPv4") };
    let ip = u32::from_ne_bytes(address.ip().octets());
    let own = format!("{ip:08X}:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().skip(1).collect::<Vec<_>>());
    rows.filter(|row| row[0] == own && row[2] != "0A").count()
}

#[test]
fn the_kernel_keeps_nothing_for_a_player_who_does_not_read() {
    let server = TestServer::start(&config());
    let lazy: Vec<Socket> = (0..20).map(|_| ask_without_reading(&server, 30)).collect();
    server.wait_for("noray_connections_closed_total{reason=\"slow-reader\"}", 20);
    server.wait_for("noray_tcp_connections", 0);
    assert!(try_until(PATIENCE, || kernel_sockets(&server) == 0));
    for mut socket in lazy {
        let end = socket.read_to_end(&mut Vec::new()).expect_err("no clean end");
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn the_kernel_keeps_the_replies_of_a_player_who_leaves_without_reading_for_seconds_only() {
    let server = TestServer::start(&config());
    let lazy: Vec<Socket> = (0..20).map(|_| ask_without_reading(&server, 10)).collect();
    lazy.iter().for_each(|socket| socket.shutdown(Shutdown::Write).unwrap());
    server.wait_for("noray_tcp_connections", 0);
    assert!(try_until(PATIENCE, || kernel_sockets(&server) == 0));
}

#[test]
fn a_player_who_has_ended_its_direction_reads_all_replies() {
    let server = TestServer::start(&config());
    let mut lazy = ask_without_reading(&server, 10);
    lazy.shutdown(Shutdown::Write).unwrap();
    server.wait_for("noray_tcp_connections", 0);
    let mut replies = Vec::new();
    lazy.read_to_end(&mut replies).expect("no reset");
    assert_eq!(replies.len(), 10 * "echo \n".len() + 10_000);
}

#[test]
fn peers_that_vanish_in_the_middle_of_a_line_leave_nothing_behind() {
    let server = TestServer::start(&config());
    let mut witness = Player::join(&server);
    for reset in [false, true] {
        for _ in 0..20 {
            let mut line = Line::connect(server.addresses.socket);
            line.send_bytes(b"register-host\nconnect-re");
            if reset {
                SockRef::from(line.stream()).set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    }
    server.wait_for("noray_tcp_connections", 1);
    server.wait_for("noray_active_hosts", 1);
    witness.line.settle();
}

#[test]
fn half_a_line_for_ever_holds_up_nobody() {
    let server = TestServer::start(&config());
    let mut halves: Vec<Line> = (0..10).map(|_| Line::connect(server.addresses.socket)).collect();
    halves.iter_mut().for_each(|line| line.send_bytes(b"register-ho"));
    let mut player = Player::join(&server);
    player.line.settle();
    for line in &mut halves {
        line.send_bytes(b"st\n");
        line.expect("set-oid");
        line.expect("set-pid");
    }
}

#[test]
fn connections_that_never_register_are_few_per_ip() {
    // A quarter of all may be unregistered, and most of these of one IP.
    let server = TestServer::start(&Config { max_connections: 64, ..config() });
    let mut open: Vec<Line> = (0..12).map(|_| Line::connect(server.addresses.socket)).collect();
    let mut refused = Line::connect(server.addresses.socket);
    assert_eq!(refused.expect("error"), "server-full try again later");
    assert_eq!(refused.receive(), None);
    open[0].send("register-host");
    open[0].expect("set-oid");
    let mut admitted = Line::connect(server.addresses.socket);
    admitted.settle();
    assert_eq!(server.metric("noray_connections_refused_total"), 1);
}

#[test]
fn one_ip_may_have_so_many_connections() {
    let server =
        TestServer::start(&Config { max_connections_per_ip: HardCap(Some(3)), ..config() });
    let _players: Vec<Player> = (0..3).map(|_| Player::join(&server)).collect();
    let mut refused = Line::connect(server.addresses.socket);
    assert_eq!(refused.expect("error"), "server-full try again later");
}

#[test]
fn who_is_refused_and_keeps_writing_reads_why_and_a_clean_end() {
    let server =
        TestServer::start(&Config { max_connections_per_ip: HardCap(Some(1)), ..config() });
    let _player = Player::join(&server);
    for round in 0..200 {
        let mut stream = TcpStream::connect(server.addresses.socket).unwrap();
        // The answer is there: a server that closes at once has done so, or is about to.
        stream.peek(&mut [0]).unwrap();
        for _ in 0..5 {
            stream.write_all(b"register-host\n").expect("it is open");
        }
        let said = std::io::read_to_string(&stream).expect("no reset");
        assert_eq!(said, "error server-full try again later\n", "round {round}");
    }
}

#[test]
fn who_is_cut_off_and_keeps_writing_reads_why_and_a_clean_end() {
    let server = TestServer::start(&config());
    let _bystander = Player::join(&server);
    for round in 0..20 {
        let mut stream = TcpStream::connect(server.addresses.socket).unwrap();
        stream.write_all(&[b'x'; 5000]).unwrap();
        stream.peek(&mut [0]).unwrap();
        for _ in 0..5 {
            stream.write_all(b"register-host\n").expect("it is open");
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let said = std::io::read_to_string(&stream).expect("no reset");
        assert!(said.starts_with("error line-too-long"), "round {round}: {said}");
    }
}

#[test]
fn shutdown_disconnects_everybody_and_frees_every_port() {
    let config = config();
    let mut server = TestServer::start(&config);
    let addresses = server.addresses.clone();
    let mut players: Vec<Player> = (0..50).map(|_| Player::join(&server)).collect();
    server.stop();
    for player in &mut players {
        assert_eq!(player.line.receive(), None);
    }
    drop(players);
    let again = Config {
        socket_port: addresses.socket.port(),
        http_port: addresses.http.unwrap().port(),
        registrar_port: addresses.registrar.port(),
        ..config
    };
    let server = TestServer::start(&again);
    assert_eq!(server.addresses.relay_ports, config_ports(&again));
    Player::join(&server).line.settle();
}

fn config_ports(config: &Config) -> noray::config::units::PortList {
    config.relay_ports.clone()
}

#[test]
fn shutdown_ends_also_while_players_connect() {
    for _ in 0..10 {
        let mut server = TestServer::start(&config());
        let address = server.addresses.socket;
        let (is_over, all_begun) = (AtomicBool::new(false), Barrier::new(5));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut connected = vec![TcpStream::connect(address).unwrap()];
                    all_begun.wait();
                    while !is_over.load(Ordering::Relaxed) && connected.len() < 1000 {
                        connected.extend(TcpStream::connect(address));
                    }
                });
            }
            all_begun.wait();
            server.stop();
            is_over.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_server_with_no_players_ends_at_once() {
    let mut server = TestServer::start(&config());
    let mut silent = Line::connect(server.addresses.socket);
    server.stop();
    let mut rest = Vec::new();
    assert_eq!(silent.stream().read_to_end(&mut rest).unwrap_or(0), 0);
    assert_eq!(silent.receive(), None);
}
