//! Relays on real sockets. That nothing arrives is shown by a sentinel: what is refused is sent first, then
//! something that is allowed; only the second arrives.

mod support;

use std::time::Duration;

use noray::config::Config;
use noray::config::units::{ByteSize, TimeSpan};
use noray::core::relay::Latching;
use support::{Player, TestServer, config, connect_relay, own_ip, udp_socket};

#[test]
fn only_the_partner_gets_through() {
    let server = TestServer::start(&config());
    let mut host = Player::join_from(&server, own_ip());
    let mut client = Player::join(&server);
    let stranger = Player::join_from(&server, own_ip());
    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    stranger.send(b"stranger", server.relay(to_host));
    host.send(b"own port", server.relay(to_host));
    client.send(b"partner", server.relay(to_host));
    assert_eq!(host.receive(), (b"partner".to_vec(), server.relay(to_client)));
    assert_eq!(server.metric("noray_relay_drop_count{reason=\"wrong-ip\"}"), 2);
}

#[test]
fn a_player_behind_a_symmetric_router_is_found_at_the_port_that_it_sends_from() {
    let server = TestServer::start(&config());
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    client.rebind();
    client.send(b"here I am", server.relay(to_host));
    assert_eq!(host.receive(), (b"here I am".to_vec(), server.relay(to_client)));
    host.send(b"hello", server.relay(to_client));
    assert_eq!(client.receive(), (b"hello".to_vec(), server.relay(to_host)));
}

#[test]
fn without_latching_only_the_registered_address_counts() {
    let server = TestServer::start(&Config { relay_latching: Latching::Off, ..config() });
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, _) = connect_relay(&mut client, &mut host);
    let moved = udp_socket("127.0.0.1".parse().unwrap());
    moved.send_to(b"moved", server.relay(to_host)).unwrap();
    client.send(b"registered", server.relay(to_host));
    assert_eq!(host.receive().0, b"registered");
    assert_eq!(server.metric("noray_relay_drop_count{reason=\"wrong-port\"}"), 1);
}

#[test]
fn under_any_the_first_sender_counts_whatever_its_ip() {
    let server = TestServer::start(&Config { relay_latching: Latching::Any, ..config() });
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    client.udp = udp_socket(own_ip());
    client.send(b"from elsewhere", server.relay(to_host));
    assert_eq!(host.receive().0, b"from elsewhere");
    host.send(b"hello", server.relay(to_client));
    assert_eq!(client.receive(), (b"hello".to_vec(), server.relay(to_host)));
}

#[test]
fn datagrams_of_every_size_pass() {
    let server = TestServer::start(&config());
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    for length in [0, 1, 508, 1472, 9000, 65_507] {
        let payload: Vec<u8> = (0..length).map(|index: u32| index.to_le_bytes()[0]).collect();
        client.send(&payload, server.relay(to_host));
        assert_eq!(host.receive().0, payload, "{length} bytes");
        // Large ones are more than an address may get that was not heard yet.
        host.send(b"heard", server.relay(to_client));
        client.receive();
    }
}

#[test]
fn a_burst_arrives_whole_though_nothing_comes_after_it() {
    let server = TestServer::start(&config());
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, _) = connect_relay(&mut client, &mut host);
    // More than the loop reads of one socket per turn, less than a socket's buffer holds.
    (0..150).for_each(|number| client.send(&[number], server.relay(to_host)));
    (0..150).for_each(|number| assert_eq!(host.receive().0, [number]));
}

#[test]
fn relays_live_on_without_the_players_connections() {
    let server = TestServer::start(&config());
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    let mut witness = Player::join(&server);
    for player in [&host, &client] {
        player.line.stream().shutdown(std::net::Shutdown::Both).unwrap();
    }
    server.wait_for("noray_active_hosts", 1);
    witness.line.settle();
    client.send(b"still here", server.relay(to_host));
    assert_eq!(host.receive(), (b"still here".to_vec(), server.relay(to_client)));
}

#[test]
fn a_port_is_taken_back_from_who_waits_before_relays_are_exhausted() {
    let server = TestServer::start(&Config { relay_ports: (20_000..20_004).collect(), ..config() });
    let mut players: Vec<Player> = (0..6).map(|_| Player::join(&server)).collect();
    let [a, b, c, d, e, f] = players.get_disjoint_mut([0, 1, 2, 3, 4, 5]).unwrap();
    let (to_f, _) = connect_relay(e, f);
    connect_relay(d, c);
    a.line.send(&format!("connect-relay {}", b.oid));
    assert!(a.line.expect("connect-relay-error").starts_with("relays-exhausted"));
    b.line.settle();
    e.send(b"undisturbed", server.relay(to_f));
    assert_eq!(f.receive().0, b"undisturbed");
}

#[test]
fn traffic_over_the_limits_is_dropped_told_and_survived() {
    let tight = Config {
        relay_max_individual_traffic: ByteSize(1000),
        relay_traffic_interval: TimeSpan(Duration::from_millis(100)),
        ..config()
    };
    let server = TestServer::start(&tight);
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    for _ in 0..100 {
        client.send(&[1; 1000], server.relay(to_host));
    }
    assert_eq!(client.line.expect("relay-limit"), "bandwidth");
    // The other direction has its own limit.
    host.send(b"still here", server.relay(to_client));
    assert_eq!(client.receive().0, b"still here");
    client.line.settle();
    host.line.settle();
    let dropped = server.metric("noray_relay_drop_count{reason=\"pair-bandwidth\"}");
    assert!((90..100).contains(&dropped), "{dropped} of 100 dropped");
}

#[test]
fn a_relay_past_its_lifetime_ends_and_the_next_request_opens_a_new_one() {
    let short = Config { relay_max_lifetime_traffic: ByteSize(1000), ..config() };
    let server = TestServer::start(&short);
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, _) = connect_relay(&mut client, &mut host);
    client.send(&[1; 972], server.relay(to_host));
    host.receive();
    client.send(b"one too many", server.relay(to_host));
    assert_eq!(client.line.expect("relay-limit"), "traffic");
    assert_eq!(host.line.expect("relay-limit"), "traffic");
    let (new, _) = connect_relay(&mut client, &mut host);
    assert_ne!(new, to_host, "the freed port waits at the end of the queue");
    client.send(b"again", server.relay(new));
    assert_eq!(host.receive().0, b"again");
}

#[test]
fn an_idle_relay_is_swept_and_its_ports_take_nothing_more() {
    let restless = Config {
        relay_timeout: TimeSpan(Duration::from_millis(50)),
        relay_cleanup_interval: TimeSpan(Duration::from_millis(10)),
        ..config()
    };
    let server = TestServer::start(&restless);
    let (mut host, mut client) = (Player::join(&server), Player::join(&server));
    let (to_host, _) = connect_relay(&mut client, &mut host);
    assert_eq!(server.metric("noray_relay_expired"), 0);
    server.wait_for("noray_relay_expired", 1);
    assert_eq!(server.metric("noray_relay_count"), 0);
    client.send(b"stray", server.relay(to_host));
    server.wait_for("noray_relay_drop_count{reason=\"no-pair\"}", 1);
}

#[test]
fn refused_datagrams_stay_with_their_socket() {
    let server = TestServer::start(&config());
    let (mut host, mut client, mut third) =
        (Player::join(&server), Player::join(&server), Player::join(&server));
    let (to_host, _) = connect_relay(&mut client, &mut host);
    let (third_to_host, _) = connect_relay(&mut third, &mut host);
    // The client's socket closes: what goes there comes back as ICMP, from the relay and from the registrar.
    let gone = client.address();
    let port = server.relay(connect_relay(&mut client, &mut host).1);
    drop(std::mem::replace(&mut client.udp, udp_socket(own_ip())));
    assert_ne!(gone, client.address());
    for _ in 0..50 {
        host.send(b"anybody there?", port);
    }
    let leaving = udp_socket("127.0.0.1".parse().unwrap());
    for _ in 0..50 {
        leaving.send_to(&[b'x'; 100], server.addresses.registrar).unwrap();
    }
    drop(leaving);

    third.send(b"all well", server.relay(third_to_host));
    assert_eq!(host.receive().0, b"all well");
    client.register_address();
    client.send(b"back again", server.relay(to_host));
    assert_eq!(host.receive().0, b"back again");
}
