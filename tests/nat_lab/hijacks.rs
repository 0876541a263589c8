//! Others who want a player's stream: none gets a datagram in or out while it is alive.

use std::net::SocketAddr;
use std::time::Duration;

use crate::lab::{Host, Router, lab};
use crate::players::{Noray, Player, Stream, connect, connect_relay, try_until};
use crate::support::PATIENCE;

/// Somebody's socket on a machine.
fn socket(machine: &Host) -> std::net::UdpSocket {
    machine.enter(|| std::net::UdpSocket::bind(SocketAddr::new(machine.address(), 0))).unwrap()
}

pub(crate) fn strangers_are_dropped_counted_and_get_no_relay() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let victims = lab.lan(Router::Symmetric);
    let mut stream = Stream::begin(&victims.host(), &lab.lan(Router::Home).host(), &noray);
    let relays = noray.metric("noray_relay_count");
    let ports = [stream.to_host, stream.to_client];

    // From another IP.
    let elsewhere = socket(&lab.lan(Router::Home).host());
    for port in ports {
        noray.expect_drop("wrong-ip", || {
            elsewhere.send_to(b"let me in", port).unwrap();
        });
        stream.check();
    }

    // From another machine behind the victim's router, while the stream is alive.
    let neighbour = socket(&victims.host());
    noray.expect_drop("wrong-port", || {
        neighbour.send_to(b"I am the client", stream.to_host).unwrap();
    });
    noray.expect_drop("wrong-ip", || {
        neighbour.send_to(b"I am the host", stream.to_client).unwrap();
    });
    stream.check();

    // A registered player that was not introduced, with a relay of its own that it shares with others.
    let mut intruder = Player::join(&victims.host(), &noray);
    let mut accomplice = Player::join(&lab.lan(Router::None).host(), &noray);
    let [to_accomplice, _] = connect_relay(&mut intruder, &mut accomplice, &noray);
    noray.expect_drop("wrong-port", || intruder.send("not introduced", stream.to_host));
    noray.expect_drop("wrong-ip", || accomplice.send("not introduced", stream.to_client));
    intruder.send("introduced", to_accomplice);
    assert_eq!(accomplice.receive().0, "introduced");
    stream.check();

    // A port that nobody has.
    let free = (49_152..=51_200).map(|port| noray.relay(port));
    let free = free.filter(|address| !ports.contains(address) && *address != to_accomplice);
    for address in free.take(20) {
        elsewhere.send_to(b"anybody?", address).unwrap();
    }
    stream.check();
    assert_eq!(
        noray.metric("noray_relay_count"),
        relays + 1,
        "and only the introduced two got one"
    );
}

pub(crate) fn forged_sources_are_dropped_unless_they_are_exact() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let victims = lab.lan(Router::Home);
    let mut stream = Stream::begin(&victims.host(), &lab.lan(Router::Symmetric).host(), &noray);
    let [_, clients_address] = connect(&mut stream.client, &mut stream.host);
    let with_port = |port| SocketAddr::new(clients_address.ip(), port);
    let forge = |source, to| lab.spoof(source, to, b"forged");

    let guessed = with_port(clients_address.port() ^ 1);
    noray.expect_drop("wrong-port", || forge(guessed, stream.to_host));
    noray.expect_drop("wrong-ip", || forge(guessed, stream.to_client));
    noray.expect_drop("wrong-ip", || forge("198.51.100.99:4000".parse().unwrap(), stream.to_host));
    stream.check();
    // The victims' own addresses at ports where they are nobody's partner.
    noray.expect_drop("no-pair", || {
        for port in 49_152..49_172 {
            forge(clients_address, noray.relay(port));
        }
    });
    stream.check();
    // As the server itself: the kernel drops it, or the relay does; nothing arrives either way.
    for port in [8809, stream.to_client.port()] {
        forge(noray.relay(port), stream.to_host);
    }
    stream.check();
    assert_eq!(noray.metric("noray_relay_count"), 1);
}

/// Every client knows the host's registered address.
pub(crate) fn a_forger_of_the_hosts_address_diverts_nothing_from_a_settled_game() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let mut stream =
        Stream::begin(&lab.lan(Router::Home).host(), &lab.lan(Router::Symmetric).host(), &noray);
    let [hosts_address, _] = connect(&mut stream.client, &mut stream.host);
    // A place settles in 5 s.
    stream.check_for(Duration::from_secs(6));
    for _ in 0..3 {
        noray.expect_drop("wrong-port", || {
            lab.spoof(hosts_address, stream.to_client, b"I am the host");
        });
        stream.check_for(Duration::from_secs(2));
    }
}

pub(crate) fn a_neighbour_that_tries_every_two_seconds_never_succeeds_while_the_stream_is_alive() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    for kind in [Router::Home, Router::Symmetric] {
        let victims = lab.lan(kind);
        let mut stream = Stream::begin(&victims.host(), &lab.lan(Router::Home).host(), &noray);
        let neighbour = socket(&victims.host());
        for _ in 0..4 {
            noray.expect_drop("wrong-port", || {
                neighbour.send_to(b"now?", stream.to_host).unwrap();
            });
            stream.check_for(Duration::from_millis(2050));
        }
    }
}

pub(crate) fn a_neighbour_that_inherits_the_victims_old_port_gets_nothing() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let victims = lab.lan(Router::Home);
    let (victim, thief) = (victims.host(), victims.host());
    let mut stream = Stream::begin(&victim, &lab.lan(Router::Home).host(), &noray);
    let [_, old_address] = connect(&mut stream.client, &mut stream.host);
    victims.let_inherit(&thief, old_address.port());
    // The game goes on at the new mapping: its datagrams are turned away until the old one was silent for 2 s.
    let is_back = try_until(PATIENCE, || {
        stream.client.send("moved", stream.to_host);
        stream.host.receive_within(Duration::from_millis(50)).is_some()
    });
    assert!(is_back, "the victim is found at its new mapping");
    while stream.host.receive_within(Duration::from_millis(50)).is_some() {}
    stream.check();

    let thief = socket(&thief);
    for _ in 0..20 {
        noray.expect_drop("wrong-port", || {
            thief.send_to(b"heir", stream.to_host).unwrap();
        });
        stream.check();
    }
}

pub(crate) fn a_stream_that_paused_and_was_taken_is_taken_back_by_the_next_datagram() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    for kind in [Router::Home, Router::Symmetric] {
        let victims = lab.lan(kind);
        let mut stream = Stream::begin(&victims.host(), &lab.lan(Router::Home).host(), &noray);
        let neighbour = socket(&victims.host());
        let is_taken = try_until(PATIENCE, || {
            neighbour.send_to(b"taken", stream.to_host).unwrap();
            stream.host.receive_within(Duration::from_millis(400)).is_some()
        });
        assert!(is_taken, "{kind:?}: after a pause a neighbour can take the stream");
        for _ in 0..10 {
            stream.check();
            noray.expect_drop("wrong-port", || {
                neighbour.send_to(b"again?", stream.to_host).unwrap();
            });
        }
        stream.check();
    }
}
