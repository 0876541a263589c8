//! The UDP registrar on real sockets.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use noray::config::Config;
use noray::config::units::TimeSpan;
use support::{Player, TestServer, config, connect_relay, own_ip, receive, udp_socket};

const UNKNOWN: &[u8] = b"Unknown host pid!";

#[test]
fn ok_is_idempotent() {
    let server = TestServer::start(&config());
    let mut player = Player::join(&server);
    for _ in 0..3 {
        player.register_address();
    }
    player.send(format!("{}\r\n", player.pid).as_bytes(), server.addresses.registrar);
    assert_eq!(player.receive().0, b"OK", "white space behind the id is ignored");
    assert_eq!(server.metric("noray_remote_registrar_success"), 1);
    assert_eq!(server.metric("noray_remote_registrar_repeat"), 4);
}

#[test]
fn a_new_source_replaces_the_old_and_live_relays_follow() {
    let server = TestServer::start(&config());
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    client.send(b"before", server.relay(to_host));
    assert_eq!(host.receive(), (b"before".to_vec(), server.relay(to_client)));

    host.udp = udp_socket(own_ip());
    host.register_address();
    client.send(b"after", server.relay(to_host));
    assert_eq!(host.receive(), (b"after".to_vec(), server.relay(to_client)));
    host.send(b"answer", server.relay(to_client));
    assert_eq!(client.receive(), (b"answer".to_vec(), server.relay(to_host)));

    client.line.send(&format!("connect {}", host.oid));
    assert_eq!(client.line.expect("connect"), host.address().to_string());
}

#[test]
fn unknown_ids_are_answered_with_fewer_bytes_or_not_at_all() {
    let server = TestServer::start(&config());
    let player = Player::join(&server);
    let registrar = server.addresses.registrar;
    for length in [0, 1, 16, 17] {
        player.send(&vec![b'x'; length], registrar);
    }
    // The next answer is to this one: the others got none.
    player.send(&[b'x'; 18], registrar);
    assert_eq!(player.receive(), (UNKNOWN.to_vec(), registrar));
    player.send(player.pid.as_bytes(), registrar);
    assert_eq!(player.receive().0, b"OK");
    assert_eq!(server.metric("noray_remote_registrar_fail"), 5);
}

#[test]
fn unknown_ids_are_answered_at_a_bounded_rate_and_players_at_any() {
    let server = TestServer::start(&config());
    let stranger = udp_socket("127.0.0.1".parse().unwrap());
    for _ in 0..1000 {
        stranger.send_to(&[b'x'; 40], server.addresses.registrar).unwrap();
    }
    let mut player = Player::join(&server);
    player.register_address();
    stranger.set_nonblocking(true).unwrap();
    let mut buffer = [0; 64];
    let answers = std::iter::from_fn(|| stranger.recv_from(&mut buffer).ok()).count();
    // A burst of 100, and 100 for each second that the sending took.
    assert!((1..900).contains(&answers), "{answers} answers to 1000 datagrams");
}

#[test]
fn two_registrars_do_not_answer_each_other_for_ever() {
    let (one, other) = (TestServer::start(&config()), TestServer::start(&config()));
    // What each would get from the other, sent from a socket that shows what comes back.
    let witness = udp_socket("127.0.0.1".parse().unwrap());
    let send = |payload: &[u8], to: SocketAddr| witness.send_to(payload, to).unwrap();
    send(&[b'x'; 18], one.addresses.registrar);
    let (answer, _) = receive(&witness);
    send(&answer, other.addresses.registrar);
    send(b"OK", other.addresses.registrar);
    send(&[b'x'; 18], other.addresses.registrar);
    assert_eq!(receive(&witness), (UNKNOWN.to_vec(), other.addresses.registrar));
    assert_eq!(other.metric("noray_remote_registrar_fail"), 3, "and only one had an answer");
}

#[test]
fn without_a_window_ids_end_with_the_connection() {
    let server = TestServer::start(&Config { resume_window: TimeSpan(Duration::ZERO), ..config() });
    let mut leaving = Player::join(&server);
    let mut staying = Player::join(&server);
    leaving.line.stream().shutdown(std::net::Shutdown::Both).unwrap();
    server.wait_for("noray_active_hosts", 1);
    staying.line.settle();
    leaving.send(leaving.pid.as_bytes(), server.addresses.registrar);
    assert_eq!(leaving.receive().0, UNKNOWN);
    staying.line.send(&format!("connect {}", leaving.oid));
    assert!(staying.line.expect("connect-error").starts_with("unknown-oid"));
    // The line itself is closed on both ends.
    assert_eq!(leaving.line.receive(), None);
}
