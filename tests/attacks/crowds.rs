//! Places: connections and relays, which a few greedy networks must not keep all others from.

use std::fs;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::harness::ignore;
use crate::stage::{Noray, Traffic, ip, need_files, report};
use crate::support::{Line, Player, connect_relay};

pub(crate) fn a_carrier_of_448_gets_in_beside_three_greedy_ips() {
    need_files(5000);
    let noray = Noray::start(&[]);
    let greedy: Vec<Line> = (1..=3).flat_map(|index| noray.fill(ip(index), 1024)).collect();
    let carrier = noray.fill(ip(9), 448);
    report(
        &format!("three IPs hold {} connections; a carrier of 448 comes", greedy.len()),
        &format!("{} get in", carrier.len()),
    );
    assert_eq!((greedy.len(), carrier.len()), (3 * 1024, 448));
}

pub(crate) fn newcomers_get_in_beside_eleven_greedy_ips() {
    need_files(5000);
    let noray = Noray::start(&[]);
    beside_greedy(&noray, &(1..=11).map(ip).collect::<Vec<_>>(), "IPs");
}

fn beside_greedy(noray: &Noray, networks: &[IpAddr], what: &str) {
    let greedy: Vec<Vec<Line>> = networks.iter().map(|ip| noray.fill(*ip, usize::MAX)).collect();
    let held: usize = greedy.iter().map(Vec::len).sum();
    // The newcomers come one after the other, each from a network of its own, and stay.
    let newcomers: Vec<Line> =
        (100..120).filter_map(|index| noray.register(other_network(networks[0], index))).collect();
    report(
        &format!("eleven {what} hold {held} of 4096 connections; 20 others come"),
        &format!("{} get in", newcomers.len()),
    );
    assert!(held >= 3000, "{held}: they took all that they may");
    assert_eq!(newcomers.len(), 20);
}

/// One that has nothing to do with the greedy ones, of the same family.
fn other_network(greedy: IpAddr, index: usize) -> IpAddr {
    match greedy {
        IpAddr::V4(_) => ip(index),
        IpAddr::V6(_) => {
            Ipv6Addr::new(0x2001, 0xdb8, u16::try_from(index).unwrap(), 0, 0, 0, 0, 1).into()
        }
    }
}

/// In namespaces of its own, in which the machine has a whole IPv6 range.
pub(crate) fn newcomers_get_in_beside_eleven_greedy_networks_of_one_provider() {
    need_files(5000);
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|error| ignore(format!("no namespace: {error}")));
    fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1")
        .unwrap_or_else(|error| ignore(format!("no IPv6: {error}")));
    for arguments in ["link set lo up", "-6 route add local 2001:db8::/32 dev lo"] {
        match Command::new("ip").args(arguments.split(' ')).status() {
            Ok(status) if status.success() => {}
            Ok(_) => ignore(format!("`ip {arguments}` fails here")),
            Err(error) => ignore(format!("ip: {error} (Debian's package iproute2)")),
        }
    }
    let noray = Noray::start(&["NORAY_SOCKET_HOST=::"]);
    // Eleven /64 of one /56.
    let network = |index| Ipv6Addr::new(0x2001, 0xdb8, 1, index, 0, 0, 0, 1).into();
    beside_greedy(&noray, &(1..=11).map(network).collect::<Vec<_>>(), "/64 of one /56");
}

/// What is not there cannot be had: they leave 80 relays, so a carrier does not get 200.
pub(crate) fn newcomers_get_relays_beside_five_ips_that_keep_all_they_may() {
    need_files(6000);
    let noray =
        Noray::start(&["NORAY_UDP_RELAY_TIMEOUT=3s", "NORAY_UDP_RELAY_CLEANUP_INTERVAL=1s"]);
    let mut greedy: Vec<Relayed> = Vec::new();
    for index in 1..=5 {
        let mut host = noray.join(ip(index));
        while let Some(relayed) = Relayed::begin(&noray, &mut host, ip(index)) {
            // A host's introductions are limited, so each has some hosts.
            if greedy.len() % 60 == 59 {
                host = noray.join(ip(index));
            }
            greedy.push(relayed);
        }
    }
    let held = greedy.len();
    // An empty datagram from each side in 2 s keeps a relay.
    let mut traffic = Traffic::new();
    let (mut turn, kept, at) = (0, &greedy, &noray);
    traffic.add(held as f64 / 2.0, [0.0, f64::from(u32::MAX)], move |_| {
        kept[turn % held].keep(at);
        turn += 1;
    });
    traffic.run(4.0);
    let mut host = noray.join(ip(50));
    let newcomers: Vec<_> =
        (100..120).filter_map(|index| Relayed::begin(&noray, &mut host, ip(index))).collect();
    let mut carriers = Vec::new();
    while let Some(relayed) = Relayed::begin(&noray, &mut host, ip(60)) {
        carriers.push(relayed);
    }
    traffic.run(8.0);
    let left = noray.metric("noray_relay_count");
    report(
        &format!("five IPs hold {held} of 1024 relays with {held} empty datagrams a second"),
        &format!(
            "20 others get {}, then one IP {} of {} that are left",
            newcomers.len(),
            carriers.len(),
            1024 - held - newcomers.len()
        ),
    );
    assert!(held >= 900, "{held}: they took all that they may");
    assert!(left >= held as u64, "{left}: and kept it");
    assert_eq!(newcomers.len(), 20);
    assert!(!carriers.is_empty());
}

/// A player with a relay to a host of its own.
struct Relayed {
    player: Player,
    port: u16,
    host: UdpSocket,
    back: u16,
}

impl Relayed {
    /// Unless no relay is left for it.
    fn begin(noray: &Noray, host: &mut Player, ip: IpAddr) -> Option<Self> {
        let mut player = noray.join(ip);
        loop {
            player.line.send(&format!("connect-relay {}", host.oid));
            let answer = player.line.receive().expect("an answer");
            if let Some(port) = answer.strip_prefix("connect-relay ") {
                let port = port.parse().expect("a port");
                let back: u16 = host.line.expect("connect-relay").parse().expect("a port");
                let host = host.udp.try_clone().unwrap();
                let relayed = Self { player, port, host, back };
                relayed.keep(noray);
                return Some(relayed);
            }
            // A second later the host may be introduced again.
            if !answer.starts_with("connect-relay-error rate-limited") {
                assert!(answer.starts_with("connect-relay-error relays-exhausted"), "{answer}");
                return None;
            }
            let pause = crossbeam_channel::after(Duration::from_millis(200));
            pause.recv().expect("it comes");
        }
    }

    /// Both must be heard, or the relay ends.
    fn keep(&self, noray: &Noray) {
        self.player.send(b"", noray.relay(self.port));
        self.host.send_to(b"", noray.relay(self.back)).unwrap();
    }
}

pub(crate) fn two_thousand_players_of_one_bridge_are_in_at_once() {
    need_files(5000);
    let noray = Noray::start(&["NORAY_MAX_CONNECTIONS_PER_IP=12000"]);
    let players = noray.fill(ip(1), 2000);
    report("2000 players of one bridge, with the key for it", &format!("{} get in", players.len()));
    assert_eq!(players.len(), 2000);
}

pub(crate) fn a_school_of_a_thousand_behind_one_ip_is_refused_nothing() {
    need_files(5000);
    let noray = Noray::start(&[]);
    let mut school: Vec<Player> = (0..1000).map(|_| noray.join(ip(1))).collect();
    let mut relays = 0;
    for game in school.chunks_mut(2).take(500) {
        let [host, client] = game else { unreachable!("pairs") };
        connect_relay(client, host);
        relays += 1;
    }
    report("a school of 1000 behind one IP", &format!("all get in, and {relays} relays"));
    assert_eq!(noray.metric("noray_connections_refused_total"), 0);
}

pub(crate) fn a_carrier_with_three_thousand_players_is_refused_nothing() {
    need_files(5000);
    let noray = Noray::start(&["NORAY_MAX_CONNECTIONS=8192"]);
    let players = noray.fill(ip(1), 3000);
    report("a carrier with 3000 players, of 8192 places", &format!("{} get in", players.len()));
    assert_eq!(players.len(), 3000);
    assert_eq!(noray.metric("noray_connections_refused_total"), 0);
}
