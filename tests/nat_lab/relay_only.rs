//! Servers on which players do not learn each other's IP: stock players meet through the relay and do not know it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::thread;

use crate::games::{Client, Outcome, SetAtEnd, client_game, host_game};
use crate::lab::{Host, Lan, REGISTRAR_PORT, Router, lab};
use crate::matrix::{Way, play};
use crate::players::{Noray, Player, connect};
use crate::support::{Line, register_address};

const RELAY_ONLY: &str = "NORAY_RELAY_ONLY=true";

/// Whether the log, at its usual level, has one of these IPs.
fn names_one_of(noray: &Noray<'_>, ips: &[IpAddr]) -> bool {
    let log = noray.log();
    ips.iter().any(|ip| log.contains(&ip.to_string()))
}

pub(crate) fn stock_players_behind_every_pair_of_routers_meet_and_no_ip_is_told() {
    let lab = lab();
    let noray = Noray::start(&lab, &[RELAY_ONLY]);
    let lans: Vec<[Lan; 2]> = Router::ALL
        .iter()
        .flat_map(|host| Router::ALL.map(|client| [lab.lan(*host), lab.lan(client)]))
        .collect();
    thread::scope(|scope| {
        for [host, client] in &lans {
            let noray = &noray;
            scope.spawn(move || {
                for kind in Client::ALL {
                    assert_eq!(play(noray, host, client, Way::Punch, kind), Outcome::PLAYS);
                }
            });
        }
    });
    let ips: Vec<IpAddr> = lans.iter().flatten().flat_map(Lan::public_ips).collect();
    assert!(!ips.is_empty() && !names_one_of(&noray, &ips), "{}", noray.log());
    assert_eq!(noray.metric("noray_relay_count"), 2 * lans.len() as u64);
}

/// Its connection is by IPv6; its game's socket is IPv4, as Godot resolves names.
fn join_by_both_families(machine: &Host, noray: &Noray<'_>) -> Player {
    let mut line = machine.enter(|| Line::connect("[2001:db8::10]:8890".parse().unwrap()));
    line.send("register-host");
    let (oid, pid) = (line.expect("set-oid"), line.expect("set-pid"));
    let udp = machine.enter(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
    register_address(&udp, &pid, SocketAddr::new(noray.address.ip(), REGISTRAR_PORT));
    Player { line, oid, pid, udp }
}

pub(crate) fn a_player_with_tcp_by_ipv6_and_udp_by_ipv4_meets_others() {
    let lab = lab();
    let noray = Noray::start(&lab, &[RELAY_ONLY, "NORAY_SOCKET_HOST=::", "NORAY_UDP_HOST=::"]);
    let (machine, other) = (lab.dual_stack_host(), lab.lan(Router::Symmetric));
    let mut client = join_by_both_families(&machine, &noray);
    let mut host = Player::join(&other.host(), &noray);
    let told = connect(&mut client, &mut host);
    assert!(told.iter().all(|told| told.ip() == noray.address.ip()), "{told:?}");
    meet(&client, &host, told);
    // And one with IPv6 alone is told the server's other address.
    let mut six = Player::join_at(&lab.ipv6_host(), "[2001:db8::10]:8890".parse().unwrap());
    let [to_host, to_six] = connect(&mut six, &mut host);
    assert_eq!((to_host.ip(), to_six.ip()), ("2001:db8::10".parse().unwrap(), noray.address.ip()));
    meet(&six, &host, [to_host, to_six]);
}

fn meet(client: &Player, host: &Player, [to_host, to_client]: [SocketAddr; 2]) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| host_game(host, &[to_client], &is_over));
        let end = SetAtEnd(&is_over);
        assert_eq!(client_game(client, to_host, "stream", Client::AddOn), Outcome::PLAYS);
        drop(end);
    });
}

/// The machine has a private address, and its provider's router maps a public one to it.
pub(crate) fn behind_a_providers_nat_the_key_names_the_public_address() {
    let lab = lab();
    for has_key in [false, true] {
        let inside = lab.lan(Router::FullCone);
        let machine = inside.host();
        let public = inside.map_one_to_one(&machine);
        let key = format!("NORAY_PUBLIC_HOST={public}");
        let settings = if has_key { vec![RELAY_ONLY, &key] } else { vec![RELAY_ONLY] };
        let noray = Noray::start_on(&machine, &settings);
        let server = SocketAddr::new(public, 8890);
        let machines = [lab.lan(Router::Home).host(), lab.lan(Router::Symmetric).host()];
        let [mut client, mut host] =
            machines.each_ref().map(|machine| Player::join_at(machine, server));
        let told = connect(&mut client, &mut host);
        let expected = if has_key { public } else { machine.address() };
        assert!(told.iter().all(|told| told.ip() == expected), "{told:?}");
        if has_key {
            meet(&client, &host, told);
        }
        assert_eq!(noray.log().contains("set NORAY_PUBLIC_HOST"), !has_key, "{}", noray.log());
    }
}
