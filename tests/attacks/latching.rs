//! Places at a relay port: neighbours who share a player's IP and want its place.

use std::net::UdpSocket;
use std::time::Duration;

use crate::stage::{Noray, Traffic, drain, ip, need_files, report};
use crate::support::{Player, connect_relay, udp_socket};

/// How long a player that plays may be without its place.
const MAY_TAKE: Duration = Duration::from_secs(3);

/// The players and all attackers have it: that of their carrier.
const SHARED: usize = 1;
const HOSTS: usize = 2;

/// A player whose router maps each destination anew, and what became of its datagrams.
struct Victim {
    per_second: f64,
    host: Player,
    client: Player,
    to_host: u16,
    to_client: u16,
    /// Its socket after its router has changed the mapping.
    later: UdpSocket,
    /// When each datagram was sent, and whether it came.
    sent: Vec<(Duration, bool)>,
    /// How many datagrams of the host came back to it.
    answers: u32,
}

impl Victim {
    fn introduce(noray: &Noray, per_second: f64) -> Self {
        let [mut client, mut host] = [SHARED, HOSTS].map(|index| noray.join(ip(index)));
        let (to_host, to_client) = connect_relay(&mut client, &mut host);
        client.rebind();
        let later = udp_socket(ip(SHARED));
        Self { per_second, host, client, to_host, to_client, later, sent: Vec::new(), answers: 0 }
    }

    /// Sends from the mapping of that time, and looks what has come.
    fn play(&mut self, noray: &Noray, elapsed: Duration, has_moved: bool) {
        self.take();
        let number = u32::try_from(self.sent.len()).unwrap().to_be_bytes();
        let socket = if has_moved { &self.later } else { &self.client.udp };
        socket.send_to(&number, noray.relay(self.to_host)).unwrap();
        self.sent.push((elapsed, false));
    }

    /// Takes what has arrived at both players.
    fn take(&mut self) {
        let Self { host, client, later, sent, answers, .. } = self;
        drain(&host.udp, |number| {
            if let Some((_, has_come)) = sent.get_mut(number as usize) {
                *has_come = true;
            }
        });
        [&client.udp, &*later].into_iter().for_each(|socket| drain(socket, |_| *answers += 1));
    }

    /// The longest time in which all that it sent was lost.
    fn longest_loss(&mut self) -> Duration {
        self.take();
        let end = self.sent.last().map(|(at, _)| *at);
        let (mut longest, mut lost_since) = (Duration::ZERO, None);
        for (at, has_come) in &self.sent {
            let since: Duration = *lost_since.get_or_insert(*at);
            if *has_come || Some(*at) == end {
                longest = longest.max(*at - since);
                lost_since = None;
            }
        }
        longest
    }
}

pub(crate) fn spraying_from_one_source() {
    spray(1);
}

pub(crate) fn spraying_from_64_sources() {
    spray(64);
}

pub(crate) fn spraying_from_a_source_for_each_port() {
    spray(PORTS);
}

const FIRST_PORT: usize = 49_152;
const PORTS: usize = 2049;

/// Neighbours send 20,000 datagrams a second to all relay ports in turn, before the victims begin and after.
fn spray(sources: usize) {
    need_files(5000);
    let noray = Noray::start(&[]);
    let sockets: Vec<UdpSocket> = (0..sources).map(|_| udp_socket(ip(SHARED))).collect();
    let relays: Vec<_> = (FIRST_PORT..FIRST_PORT + PORTS)
        .map(|port| noray.relay(port.try_into().unwrap()))
        .collect();
    let mut turn = 0;
    let mut shower = |_| {
        let port = turn % PORTS;
        // With as many sources as ports, each has its own port.
        let socket = &sockets[if sources == PORTS { port } else { turn % sources }];
        socket.send_to(b"mine", relays[port]).unwrap();
        turn += 1;
    };
    let mut before = Traffic::new();
    before.add(20_000.0, [0.0, 1.0], &mut shower);
    before.run(1.0);
    drop(before);
    let rates = [1.0, 1.0, 3.0, 3.0, 20.0, 20.0, 60.0, 60.0];
    let mut victims = rates.map(|rate| Victim::introduce(&noray, rate));
    let mut traffic = Traffic::new();
    traffic.add(20_000.0, [0.0, 6.0], &mut shower);
    for (index, victim) in (0_u32..).zip(&mut victims) {
        let start = 0.2 + 0.037 * f64::from(index);
        let noray = &noray;
        traffic.add(victim.per_second, [start, 6.0], |elapsed| victim.play(noray, elapsed, false));
    }
    traffic.run(6.1);
    drop(traffic);
    let mut losers = 0;
    for victim in &mut victims {
        let longest = victim.longest_loss();
        losers += u32::from(longest > MAY_TAKE);
        assert!(
            longest <= MAY_TAKE || victim.per_second < 3.0,
            "{} {longest:?}",
            victim.per_second
        );
    }
    report(
        &format!("20,000 datagrams a second from {sources} sources of one IP to all ports"),
        &format!("{losers} of 8 players lose their places for longer than 3 s"),
    );
}

/// When the neighbour begins, and what happens then.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Scene {
    /// Right behind the player's first datagram.
    Settling,
    /// In a game that has settled.
    Established,
    /// In a settled game, whose router then changes its mapping.
    Rebinding,
}

/// Neighbours know the port, and send to it at all rates, to players at all rates.
pub(crate) fn neighbours_at_known_ports() {
    need_files(5000);
    let noray = Noray::start(&[]);
    let mut contests = Vec::new();
    for scene in [Scene::Settling, Scene::Established, Scene::Rebinding] {
        for neighbours in [1.0, 20.0, 60.0, 300.0] {
            for players in [1.0, 3.0, 20.0, 60.0] {
                let neighbour = udp_socket(ip(SHARED));
                contests.push((scene, neighbours, neighbour, Victim::introduce(&noray, players)));
            }
        }
    }
    let mut diverted = vec![0; contests.len()];
    let mut traffic = Traffic::new();
    for ((scene, rate, neighbour, victim), diverted) in contests.iter_mut().zip(&mut diverted) {
        let noray = &noray;
        let begins = if *scene == Scene::Settling { 0.11 } else { 7.0 };
        let port = noray.relay(victim.to_host);
        traffic.add(*rate, [begins, 14.0], move |_| {
            neighbour.send_to(&[0xff; 4], port).unwrap();
            drain(neighbour, |_| *diverted += 1);
        });
        let host = victim.host.udp.try_clone().unwrap();
        let to_client = noray.relay(victim.to_client);
        traffic.add(20.0, [0.0, 14.0], move |_| {
            host.send_to(&[0; 4], to_client).unwrap();
        });
        let changes = Duration::from_secs(if *scene == Scene::Rebinding { 9 } else { 100 });
        traffic.add(victim.per_second, [0.0, 14.0], move |elapsed| {
            victim.play(noray, elapsed, elapsed >= changes);
        });
    }
    traffic.run(14.1);
    drop(traffic);
    for ((scene, neighbours, _, victim), diverted) in contests.iter_mut().zip(diverted) {
        let (longest, players) = (victim.longest_loss(), victim.per_second);
        let what = format!("{scene:?}: neighbour {neighbours}/s at the port, player {players}/s");
        let answers = victim.answers;
        report(
            &what,
            &format!("{:.2} s without, {diverted} of {answers} diverted", longest.as_secs_f64()),
        );
        assert!(longest <= MAY_TAKE || players < 3.0, "{what}: {longest:?}");
        assert!(diverted == 0 || *scene != Scene::Established, "{what}: {diverted} diverted");
    }
}
