//! IPv6 beside IPv4, and carriers that use several IPs for one player.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::atomic::AtomicBool;
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::games::{Client, Outcome, SetAtEnd, client_game, host_game};
use crate::lab::{Host, Lan, Router, lab};
use crate::players::{Noray, Player, connect_relay};
use crate::support::{Line, PATIENCE, register_address, try_until};

const BOTH_FAMILIES: [&str; 2] = ["NORAY_SOCKET_HOST=::", "NORAY_UDP_HOST=::"];
const SERVER_V6: &str = "[2001:db8::10]:8890";

pub(crate) fn an_ipv6_and_an_ipv4_player_play_by_relay() {
    let lab = lab();
    let noray = Noray::start(&lab, &BOTH_FAMILIES);
    let server_v6: std::net::SocketAddr = SERVER_V6.parse().unwrap();
    let v6_machine = lab.ipv6_host();
    for kind in [Router::None, Router::Symmetric] {
        let v4_machine = lab.lan(kind).host();
        let mut host = Player::join_at(&v6_machine, server_v6);
        let mut client = Player::join(&v4_machine, &noray);
        client.line.send(&format!("connect {}", host.oid));
        assert!(client.line.expect("connect-error").starts_with("no-common-family"));
        let [to_host, mut to_client] = connect_relay(&mut client, &mut host, &noray);
        to_client.set_ip(server_v6.ip());
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let hosting = scope.spawn(|| host_game(&host, &[to_client], &is_over));
            let end = SetAtEnd(&is_over);
            let result = client_game(&client, to_host, "mixed", Client::AddOn);
            drop(end);
            assert_eq!(result, Outcome::PLAYS);
            assert_eq!(hosting.join().unwrap()["mixed"].0, to_client);
        });
    }
}

pub(crate) fn addresses_are_shown_in_their_own_familys_form() {
    let lab = lab();
    let noray = Noray::start(&lab, &BOTH_FAMILIES);
    let public = lab.lan(Router::None);
    let [mut a, mut b] = [(); 2].map(|()| Player::join(&public.host(), &noray));
    a.line.send(&format!("connect {}", b.oid));
    assert_eq!(a.line.expect("connect"), b.udp.local_addr().unwrap().to_string());
    assert!(b.line.expect("connect").starts_with("203.0.113."), "dotted, not mapped");

    let server = SERVER_V6.parse().unwrap();
    let machines = [(); 2].map(|()| lab.ipv6_host());
    let [mut c, mut d] = machines.each_ref().map(|machine| Player::join_at(machine, server));
    c.line.send(&format!("connect {}", d.oid));
    assert_eq!(c.line.expect("connect"), d.udp.local_addr().unwrap().to_string());
    assert!(d.line.expect("connect").starts_with("[2001:db8::"), "in brackets");
    c.send("six", d.udp.local_addr().unwrap());
    assert_eq!(d.receive().0, "six");
    assert!(!noray.log().contains("::ffff:"), "nor in the log");
}

/// This machine's link-local address and its scope there, once the kernel has made sure that nobody else has it.
fn link_local() -> (Ipv6Addr, u32) {
    let mut found = None;
    try_until(PATIENCE, || {
        found = usable_link_local();
        found.is_some()
    });
    found.expect("a link-local address")
}

/// From lines of address, interface, prefix, scope and flags (proc(5), if_addr.h).
fn usable_link_local() -> Option<(Ipv6Addr, u32)> {
    const LINK_LOCAL: &str = "20";
    const TENTATIVE: u32 = 0x40;
    let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
    let number = |word: &str| u32::from_str_radix(word, 16).unwrap();
    let words = addresses.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut usable =
        words.filter(|words| words[3] == LINK_LOCAL && number(words[4]) & TENTATIVE == 0);
    let words = usable.next()?;
    let address = u128::from_str_radix(words[0], 16).unwrap();
    Some((address.into(), number(words[1])))
}

pub(crate) fn players_on_the_servers_link_play_by_their_link_local_addresses() {
    let lab = lab();
    let _noray = Noray::start(&lab, &BOTH_FAMILIES);
    let (server, _) = lab.server.enter(link_local);
    let at_server = |scope, port| SocketAddr::from(SocketAddrV6::new(server, port, 0, scope));
    let join = |machine: &Host| {
        let (own, scope) = machine.enter(link_local);
        // The machine has another address, which the kernel may prefer.
        let own = SocketAddrV6::new(own, 0, 0, scope);
        let tcp = machine.enter(|| Socket::new(Domain::IPV6, Type::STREAM, None)).unwrap();
        tcp.bind(&own.into()).unwrap();
        tcp.connect(&at_server(scope, 8890).into()).unwrap();
        let mut line = Line::new(tcp.into());
        line.send("register-host");
        let (oid, pid) = (line.expect("set-oid"), line.expect("set-pid"));
        let udp = machine.enter(|| UdpSocket::bind(own)).unwrap();
        register_address(&udp, &pid, at_server(scope, 8809));
        (Player { line, oid, pid, udp }, scope)
    };
    let machines = [(); 2].map(|()| lab.ipv6_host());
    let [(mut client, clients), (mut host, hosts)] = machines.each_ref().map(join);
    client.line.send(&format!("connect {}", host.oid));
    assert!(!client.line.expect("connect").contains('%'), "the scope is the server's own");
    host.line.expect("connect");
    client.line.send(&format!("connect-relay {}", host.oid));
    let to_host = at_server(clients, client.line.expect("connect-relay").parse().unwrap());
    let to_client = at_server(hosts, host.line.expect("connect-relay").parse().unwrap());
    client.send("there", to_host);
    assert_eq!(host.receive(), ("there".to_owned(), to_client));
    host.send("and back", to_client);
    assert_eq!(client.receive(), ("and back".to_owned(), to_host));
}

pub(crate) fn a_carrier_with_several_ips_is_served_if_any_ip_may_latch() {
    let lab = lab();
    let noray = Noray::start(&lab, &["NORAY_UDP_RELAY_LATCHING=any"]);
    let carrier = lab.lan(Router::SeveralIps);
    let machines = [carrier.host(), lab.lan(Router::Symmetric).host(), carrier.host()];
    // As a client, as a host, and both at once.
    for (client, host) in [(0, 1), (1, 0), (0, 2)] {
        let mut host = Player::join(&machines[host], &noray);
        let mut client = Player::join(&machines[client], &noray);
        let [to_host, to_client] = connect_relay(&mut client, &mut host, &noray);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| host_game(&host, &[to_client], &is_over));
            let end = SetAtEnd(&is_over);
            let result = client_game(&client, to_host, "several", Client::AddOn);
            drop(end);
            assert_eq!(result, Outcome::PLAYS);
        });
    }
}

pub(crate) fn a_carrier_with_several_ips_is_not_served_by_default_and_the_log_says_what_to_set() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let mut host = Player::join(&lab.lan(Router::Home).host(), &noray);
    let carriers = [(); 3].map(|()| lab.lan(Router::SeveralIps));
    let mut clients = carriers.each_ref().map(|carrier| Player::join(&carrier.host(), &noray));
    let ways = clients.each_mut().map(|client| connect_relay(client, &mut host, &noray));
    for (client, [to_host, to_client]) in clients.iter().zip(ways) {
        noray.expect_drop("wrong-ip", || client.send("from another IP", to_host));
        host.send("hello?", to_client);
        assert_eq!(client.receive_within(crate::support::REPEAT), None);
    }
    assert_eq!(host.receive_within(crate::support::REPEAT), None);
    assert!(!noray.log().contains("LATCHING"), "strangers could have sent so little");
    assert!(try_until(PATIENCE, || {
        for (client, [to_host, _]) in clients.iter().zip(ways) {
            client.send("from another IP", to_host);
        }
        // Nothing comes: this is the pause between two datagrams.
        clients[0].receive_within(crate::support::REPEAT);
        noray.log().contains("LATCHING")
    }));
    let log = noray.log();
    let warning = log.lines().find(|line| line.contains("LATCHING")).expect("a warning");
    let is_named = |carrier: &Lan| {
        [0, 1].iter().all(|index| warning.contains(&carrier.public_ips()[*index].to_string()))
    };
    assert!(carriers.iter().any(is_named), "{warning}");
    assert!(warning.contains("NORAY_UDP_RELAY_LATCHING=any"), "{warning}");
}
