//! Neighbours behind a player's IP who want its place at a relay port, and honest players whose routers change their
//! mappings. The relay table plays it in simulated time; the spraying is repeated on real sockets.
//! `cargo test --test neighbours -- --nocapture` prints what each lost.

mod support;

use std::net::{SocketAddr, UdpSocket};

use noray::config::Config;
use noray::core::id::PlayerId;
use noray::core::relay::{
    Action, OwnAddresses, PairPorts, Party, RelayPort, RelaySettings, RelayTable,
};
use noray::time::Timestamp;
use support::{Player, TestServer, config, connect_relay, udp_socket};

/// Milliseconds since the server started.
type Millis = f64;

const FIRST_PORT: u16 = 49_152;
const PORTS: u16 = 2049;
const HOST_AT: &str = "203.0.113.2:2000";

/// The players and all attackers have it.
const SHARED_IP: [u8; 4] = [198, 51, 100, 1];

/// How long a player that plays may be without its place.
const MAY_TAKE: Millis = 3000.0;

fn shared(port: u16) -> SocketAddr {
    (SHARED_IP, port).into()
}

fn at(millis: Millis) -> Timestamp {
    Timestamp::from_nanos((millis * 1e6) as u64)
}

/// Somebody who sends at a constant rate.
struct Stream {
    sends: Box<dyn Fn(u64) -> (SocketAddr, RelayPort)>,
    gap: Millis,
    next: Millis,
    end: Millis,
    sent: u64,
    /// Whose place it wants, or has.
    victim: Option<usize>,
}

/// A player that is watched at its partner's port.
#[derive(Default)]
struct Watched {
    ports: Option<PairPorts>,
    refused_since: Option<Millis>,
    /// The longest time in which all that it sent was refused.
    longest: Millis,
    /// Its partner's datagrams that went to somebody else, and all that it was sent since it was heard.
    diverted: u64,
    answered: u64,
    address: Option<SocketAddr>,
    repeats: Option<PlayerId>,
}

struct Room {
    table: RelayTable,
    streams: Vec<Stream>,
    players: Vec<Watched>,
}

impl Room {
    fn new() -> Self {
        let limits = RelaySettings { ..Config::default().relay_settings() };
        let ports: Vec<RelayPort> = (FIRST_PORT..FIRST_PORT + PORTS).map(RelayPort).collect();
        let table = RelayTable::new(limits, OwnAddresses::default(), &ports);
        Self { table, streams: Vec::new(), players: Vec::new() }
    }

    /// A player whose router maps each destination anew, in a pair with a host elsewhere.
    fn introduce(&mut self, now: Millis) -> usize {
        let index = self.players.len();
        let number = u16::try_from(index).unwrap();
        let party = |id, address: SocketAddr| Party {
            player: PlayerId(id),
            address,
            connected_from: address.ip(),
        };
        let asker = party(2 * u64::from(number), registered(index));
        let host = party(2 * u64::from(number) + 1, HOST_AT.parse().unwrap());
        let ports = self.table.introduce(asker, host, at(now), &mut Vec::new()).unwrap();
        self.players.push(Watched { ports: Some(ports), ..Watched::default() });
        let to_player = ports.asker;
        self.streams.push(Stream {
            sends: Box::new(move |_| (HOST_AT.parse().unwrap(), to_player)),
            gap: 50.0,
            next: now,
            end: Millis::INFINITY,
            sent: 0,
            victim: None,
        });
        index
    }

    /// A stream to the port where that player is heard.
    fn stream(
        &mut self,
        to: usize,
        source: SocketAddr,
        per_second: f64,
        from: Millis,
        end: Millis,
    ) {
        let port = self.players[to].ports.expect("it was introduced").host;
        self.streams.push(Stream {
            sends: Box::new(move |_| (source, port)),
            gap: 1000.0 / per_second,
            next: from,
            end,
            sent: 0,
            victim: None,
        });
    }

    /// The player itself sends, from the mapping that its router has chosen.
    fn play(&mut self, player: usize, mapping: u16, per_second: f64, from: Millis, end: Millis) {
        self.stream(player, shared(mapping), per_second, from, end);
        self.streams.last_mut().expect("just begun").victim = Some(player);
    }

    fn run(&mut self, end: Millis) {
        while let Some(stream) = self
            .streams
            .iter_mut()
            .filter(|stream| stream.next < stream.end.min(end))
            .min_by(|a, b| a.next.total_cmp(&b.next))
        {
            let now = stream.next;
            stream.next += stream.gap;
            let (source, to) = (stream.sends)(stream.sent);
            stream.sent += 1;
            let victim = stream.victim;
            let action = self.table.handle_datagram(to, source, 100, at(now));
            if let Some(victim) = victim {
                let player = &mut self.players[victim];
                player.note(source, matches!(action, Action::Forward { .. }), now);
                if let Some(id) = player.repeats {
                    self.table.handle_repetition(id, at(now));
                }
            } else if let Action::Forward { to: receiver, .. } = action {
                let owner = self.players.iter_mut().find(|player| {
                    player.ports.is_some_and(|ports| ports.asker == to) && player.address.is_some()
                });
                if let Some(player) = owner {
                    player.answered += 1;
                    player.diverted += u64::from(player.address != Some(receiver));
                }
            }
        }
        for player in &mut self.players {
            let since = player.refused_since.map_or(0.0, |since| end - since);
            player.longest = player.longest.max(since);
        }
    }
}

fn registered(player: usize) -> SocketAddr {
    shared(1000 + u16::try_from(player).unwrap())
}

impl Watched {
    fn note(&mut self, source: SocketAddr, is_accepted: bool, now: Millis) {
        self.address = Some(source);
        if is_accepted {
            let since = self.refused_since.take().map_or(0.0, |since| now - since);
            self.longest = self.longest.max(since);
        } else {
            self.refused_since.get_or_insert(now);
        }
    }
}

/// Prints what happened to a player, and returns how long it was without its place.
fn report(what: &str, player: &Watched) -> Millis {
    let Watched { longest, diverted, answered, .. } = player;
    println!("{what:<66} {:>6.2} s {diverted:>5} of {answered} diverted", longest / 1000.0);
    *longest
}

/// Sockets that send 20,000 datagrams a second in turn to all ports.
fn spray(room: &mut Room, sources: u64, end: Millis) {
    room.streams.push(Stream {
        sends: Box::new(move |sent| {
            let port = u16::try_from(sent % u64::from(PORTS)).unwrap();
            // With as many sources as ports, each has its own port.
            let source = if sources == u64::from(PORTS) { u64::from(port) } else { sent % sources };
            let source = shared(20_000 + u16::try_from(source).unwrap());
            (source, RelayPort(FIRST_PORT + port))
        }),
        gap: 0.05,
        next: 0.0,
        end,
        sent: 0,
        victim: None,
    });
}

#[test]
fn spraying_takes_nobodys_place() {
    for sources in [1, 7, 12, 16, 64, 512, u64::from(PORTS)] {
        let mut room = Room::new();
        spray(&mut room, sources, 12_000.0);
        room.run(1500.0);
        for rate in [1.0, 1.0, 3.0, 3.0, 20.0, 20.0, 60.0, 60.0] {
            let player = room.introduce(1500.0);
            let start = 1700.0 + 37.0 * player as f64;
            room.play(player, 40_000 + player as u16, rate, start, Millis::INFINITY);
        }
        room.run(12_000.0);
        for (player, rate) in room.players.iter().zip([1, 1, 3, 3, 20, 20, 60, 60]) {
            let longest =
                report(&format!("spray of {sources} sources, player at {rate}/s"), player);
            assert!(longest <= MAY_TAKE || rate < 3, "{sources} sources, {rate}/s");
        }
    }
}

/// A datagram every 1.5 s, and more.
const RATES: [f64; 5] = [2.0 / 3.0, 1.0, 20.0, 60.0, 300.0];
const NEIGHBOUR: u16 = 500;

#[test]
fn a_neighbour_at_a_known_port_gains_nothing_in_an_established_game() {
    for rate in RATES {
        for player_rate in [1.0, 3.0, 20.0, 60.0] {
            let mut room = Room::new();
            let player = room.introduce(0.0);
            room.play(player, 40_000, player_rate, 0.0, Millis::INFINITY);
            room.stream(player, shared(NEIGHBOUR), rate, 8010.0, Millis::INFINITY);
            room.run(30_000.0);
            let what = format!("established: neighbour {rate:.2}/s, player {player_rate}/s");
            report(&what, &room.players[player]);
            assert_eq!(room.players[player].diverted, 0);
        }
    }
}

#[test]
fn a_neighbour_at_a_known_port_during_settling() {
    for rate in RATES {
        for player_rate in [1.0, 3.0, 20.0, 60.0] {
            for (who, player_from, neighbour_from) in
                [("player", 0.0, 110.0), ("neighbour", 110.0, 0.0)]
            {
                let mut room = Room::new();
                let player = room.introduce(0.0);
                room.play(player, 40_000, player_rate, player_from, Millis::INFINITY);
                room.stream(player, shared(NEIGHBOUR), rate, neighbour_from, Millis::INFINITY);
                room.run(20_000.0);
                let what =
                    format!("settling, {who} first: neighbour {rate:.2}/s, player {player_rate}/s");
                let longest = report(&what, &room.players[player]);
                let is_safe = who == "player" || (player_rate >= 3.0 && rate < 0.8);
                assert!(longest <= MAY_TAKE || !is_safe, "{what}");
            }
        }
    }
}

#[test]
fn a_neighbour_at_a_known_port_while_the_players_router_changes_its_mapping() {
    for rate in RATES {
        for player_rate in [1.0, 3.0, 20.0, 60.0] {
            let mut longest: Millis = 0.0;
            // Wherever the change falls between the neighbour's datagrams.
            for phase in 0..8_u16 {
                let mut room = Room::new();
                let player = room.introduce(0.0);
                let change = 20_000.0 + f64::from(phase) * 137.0;
                room.play(player, 40_000, player_rate, 0.0, change);
                room.play(player, 40_001, player_rate, change + 30.0, Millis::INFINITY);
                room.stream(player, shared(NEIGHBOUR), rate, 10_010.0, Millis::INFINITY);
                room.run(40_000.0);
                longest = longest.max(room.players[player].longest);
            }
            println!(
                "rebinding: neighbour {rate:.2}/s, player {player_rate}/s: {:.2} s",
                longest / 1000.0
            );
            assert!(longest <= MAY_TAKE || player_rate < 3.0, "{rate} {player_rate}: {longest}");
        }
    }
}

#[test]
fn a_forger_of_the_registered_address_diverts_nothing_from_a_settled_place() {
    for (start, rate) in [(8010.0, 0.5), (8010.0, 60.0), (310.0, 0.5)] {
        for player_rate in [1.0, 3.0, 20.0, 60.0] {
            let mut room = Room::new();
            let player = room.introduce(0.0);
            room.play(player, 40_000, player_rate, 0.0, Millis::INFINITY);
            room.stream(player, registered(player), rate, start, Millis::INFINITY);
            room.run(60_000.0);
            let what = format!("forger {rate}/s from {start} ms, player {player_rate}/s");
            let longest = report(&what, &room.players[player]);
            let is_settled = start > 5000.0;
            assert!(!is_settled || room.players[player].diverted == 0, "{what}");
            assert!(longest <= MAY_TAKE || player_rate < 3.0, "{what}");
        }
    }
}

#[test]
fn honest_players_wait_no_longer_than_for_silence() {
    for rate in [1.0, 3.0, 20.0, 60.0] {
        for repeats in [false, true] {
            let gap = 1000.0 / rate;
            let whole = if repeats { ", repeats its PrivateID" } else { "" };
            let honest = |what: &str, mappings: &[(Millis, Millis)], may_take: Millis| {
                let mut room = Room::new();
                let player = room.introduce(0.0);
                room.players[player].repeats = repeats.then_some(PlayerId(0));
                for (number, (from, end)) in (0..).zip(mappings) {
                    room.play(player, 40_000 + number, rate, *from, *end);
                }
                room.run(60_000.0);
                let longest = report(&format!("{what}, {rate}/s{whole}"), &room.players[player]);
                assert!(longest <= may_take, "{what} {rate}/s{whole}: {longest} ms");
            };
            let end = Millis::INFINITY;
            honest("an undisturbed game", &[(0.0, end)], 0.0);
            honest("one rebinding", &[(0.0, 10_000.0), (10_010.0, end)], 2000.0 + gap);
            let every_5_s: Vec<_> =
                (0..12).map(|n| (f64::from(n) * 5000.0, f64::from(n + 1) * 5000.0)).collect();
            honest("a new mapping every 5 s", &every_5_s, 2000.0 + gap);
            let mut room = Room::new();
            let player = room.introduce(0.0);
            room.play(player, 40_000, rate, 0.0, 10_000.0);
            room.play(player, 40_000, rate, 15_000.0, end);
            room.run(30_000.0);
            assert!(report(&format!("a stall of 5 s, {rate}/s"), &room.players[player]) <= 0.0);
        }
    }
}

#[test]
fn a_host_whose_router_rebinds_is_found_by_all_its_clients() {
    let mut room = Room::new();
    let host = |mapping| SocketAddr::from(([203, 0, 113, 9], mapping));
    let mut ports = Vec::new();
    for client in 1..=15 {
        let party = |id, address: SocketAddr| Party {
            player: PlayerId(id),
            address,
            connected_from: address.ip(),
        };
        let client = party(client, registered(usize::try_from(client).unwrap()));
        let pair = room.table.introduce(client, party(0, host(1)), at(0.0), &mut Vec::new());
        ports.push(pair.unwrap().asker);
    }
    // One mapping for all destinations, as most routers at home have.
    for (mapping, seconds) in [(1, 0..10), (2, 10..20), (3, 20..30)] {
        for tick in seconds.start * 20..seconds.end * 20 {
            let now = Millis::from(tick) * 50.0;
            for port in &ports {
                let action = room.table.handle_datagram(*port, host(mapping), 10, at(now));
                let is_settled = now - Millis::from(seconds.start) * 1000.0 >= 2000.0;
                assert!(matches!(action, Action::Forward { .. }) || !is_settled, "{now} ms");
            }
        }
    }
}

#[test]
fn two_players_and_two_sockets_behind_one_ip_do_not_disturb_each_other() {
    let mut room = Room::new();
    for player in 0..2 {
        let index = room.introduce(0.0);
        room.play(index, 40_000 + player, 20.0, 0.0, Millis::INFINITY);
    }
    room.run(20_000.0);
    for player in &room.players {
        assert_eq!((player.longest, player.diverted), (0.0, 0));
    }
}

const REAL_PORTS: std::ops::Range<u16> = 21_000..21_064;

/// Sends to all relay ports, each port from all sockets or each from a socket of its own.
fn spray_sockets(server: &TestServer, sockets: &[UdpSocket], is_one_each: bool) {
    for (index, port) in REAL_PORTS.enumerate() {
        let sockets = if is_one_each { &sockets[index..=index] } else { sockets };
        for socket in sockets {
            socket.send_to(b"mine", server.relay(port)).unwrap();
        }
    }
}

#[test]
fn on_real_sockets_a_sprayed_port_is_the_players() {
    let ip = "127.0.0.1".parse().unwrap();
    for (sources, is_one_each) in [(1, false), (64, false), (64, true)] {
        let server = TestServer::start(&Config { relay_ports: REAL_PORTS.collect(), ..config() });
        let sprayers: Vec<_> = (0..sources).map(|_| udp_socket(ip)).collect();
        let sprayed = REAL_PORTS.len() as u64 * if is_one_each { 1 } else { sources };
        spray_sockets(&server, &sprayers, is_one_each);
        server.wait_for("noray_relay_drop_count{reason=\"no-pair\"}", sprayed);
        let mut lost = 0;
        for _ in 0..8 {
            let (mut host, mut client) = (Player::join(&server), Player::join(&server));
            let (to_host, to_client) = connect_relay(&mut client, &mut host);
            spray_sockets(&server, &sprayers, is_one_each);
            // Its router maps each destination to another port.
            client.rebind();
            client.send(b"here I am", server.relay(to_host));
            let is_heard = host.receive().0 == b"here I am";
            host.send(b"hello", server.relay(to_client));
            lost += u32::from(!is_heard || client.receive().0 != b"hello");
        }
        println!("{sources} sockets sprayed all ports: {lost} of 8 players lost their places");
        assert_eq!(lost, 0);
    }
}
