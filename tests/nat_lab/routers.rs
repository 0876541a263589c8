//! The laboratory itself: each kind of router does what its name says.
//!
//! That nothing arrives is shown by a sentinel: what must be refused is sent first, then something that is allowed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use crate::lab::{Host, Lab, REGISTRAR_PORT, Router, ends_with_this_thread, lab};

/// How long a test waits for what must come. Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

const RELAY_PORT: u16 = 20_000;

const WITH_A_ROUTER: [Router; 5] =
    [Router::Home, Router::FullCone, Router::Symmetric, Router::CarrierGrade, Router::SeveralIps];

pub(crate) fn a_router_maps_as_its_kind_says() {
    let lab = lab();
    let third = udp(&lab.lan(Router::None).host(), RELAY_PORT);
    let (registrar, relay) = server_sockets(&lab);
    for router in Router::ALL.into_iter().chain([Router::SeveralIps]) {
        let lan = lab.lan(router);
        let host = lan.host();
        let player = udp(&host, 5000);
        let at_registrar = exchange(&player, &registrar);
        let at_relay = exchange(&player, &relay);
        let at_third = exchange(&player, &third);
        assert_eq!(exchange(&player, &registrar), at_registrar, "a mapping lasts");
        match router {
            Router::None => assert_eq!(at_registrar, player.local_addr().unwrap()),
            Router::Home | Router::FullCone => {
                assert_eq!(lan.public_ips(), [at_registrar.ip()]);
            }
            Router::Symmetric | Router::CarrierGrade => {
                assert_eq!(lan.public_ips(), [at_registrar.ip()]);
                assert_eq!(at_relay.ip(), at_registrar.ip());
                assert_ne!(at_relay.port(), at_registrar.port(), "{router:?}");
            }
            Router::SeveralIps => {
                assert_eq!(lan.public_ips(), [at_registrar.ip(), at_relay.ip()]);
                assert_ne!(at_relay.ip(), at_registrar.ip());
            }
        }
        if [Router::None, Router::Home, Router::FullCone].contains(&router) {
            assert_eq!([at_relay, at_third], [at_registrar; 2], "{router:?}");
        }
    }
}

pub(crate) fn a_router_filters_as_its_kind_says() {
    let lab = lab();
    let third = udp(&lab.lan(Router::None).host(), 0);
    let (registrar, relay) = server_sockets(&lab);
    for router in Router::ALL.into_iter().chain([Router::SeveralIps]) {
        let host = lab.lan(router).host();
        let player = udp(&host, 0);
        let seen = exchange(&player, &registrar);
        // The third party knows the way: its datagram does not wait for ARP and come last.
        exchange(&udp(&host, 0), &third);
        relay.send_to(b"other port", seen).unwrap();
        third.send_to(b"third party", seen).unwrap();
        registrar.send_to(b"partner", seen).unwrap();
        if [Router::None, Router::FullCone].contains(&router) {
            let mut got = [(); 3].map(|()| receive(&player).0);
            got.sort();
            assert_eq!(got, ["other port", "partner", "third party"], "{router:?}");
        } else {
            assert_eq!(receive(&player), ("partner".to_owned(), registrar.local_addr().unwrap()));
        }
    }
}

pub(crate) fn neighbours_at_the_same_port_do_not_disturb_each_others_mapping() {
    let lab = lab();
    let (registrar, relay) = server_sockets(&lab);
    for router in [Router::Home, Router::FullCone] {
        let lan = lab.lan(router);
        let hosts = [(); 4].map(|()| lan.host());
        let players: Vec<UdpSocket> =
            hosts.iter().flat_map(|host| [udp(host, 5000), udp(host, 0)]).collect();
        let mut seen: Vec<SocketAddr> = Vec::new();
        for (index, player) in players.iter().enumerate() {
            let (first, second) =
                if index % 4 < 2 { (&registrar, &relay) } else { (&relay, &registrar) };
            seen.push(exchange(player, first));
            assert_eq!(exchange(player, second), seen[index], "{router:?}");
        }
        for (index, player) in players.iter().enumerate() {
            assert_eq!(exchange(player, &relay), seen[index], "{router:?}");
        }
        // A host's own two sockets may share a port, but only towards different destinations.
        for own in [0, 1] {
            let mut ports: Vec<u16> = seen.iter().skip(own).step_by(2).map(|a| a.port()).collect();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), hosts.len(), "{router:?}: {seen:?}");
        }
    }
}

pub(crate) fn a_router_forgets_and_maps_to_other_ports() {
    let lab = lab();
    let (registrar, _) = server_sockets(&lab);
    for router in WITH_A_ROUTER {
        let lan = lab.lan(router);
        let player = udp(&lan.host(), 0);
        let mut old = vec![exchange(&player, &registrar)];
        for _ in 0..3 {
            lan.forget_mappings();
            for dead in &old {
                registrar.send_to(b"too late", dead).unwrap();
            }
            let new = exchange(&player, &registrar);
            assert!(!old.contains(&new), "{router:?}: {new} again");
            for dead in &old {
                registrar.send_to(b"far too late", dead).unwrap();
            }
            assert_eq!(exchange(&player, &registrar), new, "{router:?}");
            old.push(new);
        }
    }
}

pub(crate) fn a_neighbour_inherits_the_old_port() {
    let lab = lab();
    let (registrar, relay) = server_sockets(&lab);
    let third = udp(&lab.lan(Router::None).host(), 0);
    for router in [Router::Home, Router::FullCone, Router::Symmetric] {
        let lan = lab.lan(router);
        let (victim_host, thief_host) = (lan.host(), lan.host());
        let (victim, thief) = (udp(&victim_host, 0), udp(&thief_host, 0));
        let old = exchange(&victim, &registrar);
        lan.let_inherit(&thief_host, old.port());
        let new = exchange(&victim, &registrar);
        assert_ne!(new, old, "{router:?}");
        assert_eq!([&registrar, &relay].map(|to| exchange(&thief, to)), [old; 2], "{router:?}");
        registrar.send_to(b"for whom?", old).unwrap();
        assert_eq!(receive(&thief).0, "for whom?", "{router:?}");
        assert_eq!(exchange(&victim, &registrar), new, "{router:?}");
        if router == Router::FullCone {
            third.send_to(b"open to all", old).unwrap();
            assert_eq!(receive(&thief).0, "open to all");
        }
    }
}

pub(crate) fn a_forged_source_is_believed() {
    let lab = lab();
    let (registrar, relay) = server_sockets(&lab);
    let [from_registrar, from_relay] = [&registrar, &relay].map(|s| s.local_addr().unwrap());
    let player = udp(&lab.lan(Router::Home).host(), 0);
    let seen = exchange(&player, &registrar);
    lab.spoof(from_relay, seen, b"wrong port");
    lab.spoof(from_registrar, seen, b"as the server");
    assert_eq!(receive(&player), ("as the server".to_owned(), from_registrar));
    let never_seen = "198.51.100.7:7".parse().unwrap();
    for source in [seen, never_seen] {
        lab.spoof(source, from_registrar, b"as somebody");
        assert_eq!(receive(&registrar), ("as somebody".to_owned(), source));
    }
}

pub(crate) fn an_ipv6_host_has_ipv6_only() {
    let lab = lab();
    let registrar =
        lab.server.enter(|| bind(SocketAddr::new("2001:db8::10".parse().unwrap(), REGISTRAR_PORT)));
    let host = lab.ipv6_host();
    let player = udp(&host, 0);
    assert_eq!(exchange(&player, &registrar), player.local_addr().unwrap());
    let (forged, to) = ("[2001:db8::7]:7".parse().unwrap(), registrar.local_addr().unwrap());
    lab.spoof(forged, to, b"as somebody");
    assert_eq!(receive(&registrar), ("as somebody".to_owned(), forged));
    let refused = host.enter(|| TcpStream::connect((lab.server.address(), 1))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NetworkUnreachable);
}

pub(crate) fn tcp_passes_every_router_and_outlives_its_mappings() {
    let lab = lab();
    let listener = lab.server.enter(|| TcpListener::bind((lab.server.address(), 0))).unwrap();
    let address = listener.local_addr().unwrap();
    for router in WITH_A_ROUTER {
        let lan = lab.lan(router);
        let mut player = lan.host().enter(|| TcpStream::connect(address)).unwrap();
        let (mut server, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), lan.public_ips()[0]);
        player.set_read_timeout(Some(PATIENCE)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..2 {
            player.write_all(b"ping").unwrap();
            server.read_exact(&mut [0; 4]).unwrap();
            server.write_all(b"pong").unwrap();
            player.read_exact(&mut [0; 4]).unwrap();
            lan.forget_mappings();
        }
    }
}

pub(crate) fn a_thread_comes_back_even_from_a_panic() {
    let lab = lab();
    let home = namespace();
    let inside = lab.server.enter(namespace);
    assert_ne!(inside, home);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        lab.server.enter(|| std::panic::resume_unwind(Box::new("a test fails")));
    }));
    assert!(panicked.is_err());
    assert_eq!(namespace(), home);
}

pub(crate) fn a_process_runs_inside_and_ends_when_dropped() {
    let lab = lab();
    let mut command = ends_with_this_thread("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = lab.server.spawn(command);
    running.0.stdin.as_ref().unwrap().write_all(b"ready").unwrap();
    running.0.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let process = PathBuf::from(format!("/proc/{}", running.0.id()));
    assert_eq!(process.join("ns/net").read_link().unwrap(), lab.server.enter(namespace));
    drop(running);
    assert!(!process.exists());
}

/// The registrar's socket and a relay's.
fn server_sockets(lab: &Lab) -> (UdpSocket, UdpSocket) {
    (udp(&lab.server, REGISTRAR_PORT), udp(&lab.server, RELAY_PORT))
}

fn udp(host: &Host, port: u16) -> UdpSocket {
    host.enter(|| bind(SocketAddr::new(host.address(), port)))
}

fn bind(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// There and back: the address at which the player was seen. Nothing else may have come to either.
fn exchange(player: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    let to = server.local_addr().unwrap();
    player.send_to(b"question", to).unwrap();
    let (question, seen) = receive(server);
    assert_eq!(question, "question");
    server.send_to(b"answer", seen).unwrap();
    assert_eq!(receive(player), ("answer".to_owned(), to));
    seen
}

fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 100];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
    (String::from_utf8(buffer[..length].to_vec()).unwrap(), from)
}

/// The namespace that this thread is in.
fn namespace() -> PathBuf {
    PathBuf::from("/proc/thread-self/ns/net").read_link().unwrap()
}
