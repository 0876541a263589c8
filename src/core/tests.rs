use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::config::{Config, PublicHost};
use crate::core::effect::CloseMode;
use crate::core::id::testing::Seeded;
use crate::core::id::{OpenId, PrivateId};
use crate::core::players::Departure;
use crate::core::players::Way;
use crate::core::protocol::{Command, CommandKind};
use crate::core::relay::DropReason;
use crate::core::snapshot::Snapshot;
use crate::limits::share::HardCap;

const ALICE: ConnectionId = ConnectionId(1);
const BOB: ConnectionId = ConnectionId(2);

/// A core with ports 1 to 6, and a clock. Players are at 192.0.2.1, 192.0.2.2 and so on.
struct Play {
    config: Config,
    core: Core,
    random: Seeded,
    now: Timestamp,
}

const PORTS: std::ops::RangeInclusive<u16> = 1..=6;

fn ports() -> Vec<RelayPort> {
    PORTS.map(RelayPort).collect()
}

fn own() -> OwnAddresses {
    OwnAddresses::new(["192.0.2.200".parse().unwrap()], PORTS)
}

fn ip(connection: ConnectionId) -> IpAddr {
    IpAddr::from([192, 0, 2, u8::try_from(connection.0).unwrap()])
}

fn way(source: SocketAddr) -> Way {
    Way { source, arrived_at: Some("192.0.2.200".parse().unwrap()) }
}

fn address(connection: ConnectionId) -> SocketAddr {
    SocketAddr::new(ip(connection), 4000)
}

impl Play {
    fn new(config: Config) -> Self {
        let (mut random, now) = (Seeded::new(1), Timestamp::START);
        let core = Core::new(config.settings(), own(), ports(), &mut random, now);
        Self { config, core, random, now }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn handle(&mut self, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Effects::new();
        self.core.handle(input, &mut self.random, self.now, &mut effects);
        self.core.check_invariants();
        effects.into()
    }

    fn command(&mut self, from: ConnectionId, line: &str) -> Vec<Effect> {
        let command = Command::parse(line.as_bytes()).unwrap();
        self.handle(Input::Command(from, &command))
    }

    /// A datagram of 1,000 bytes. Returns the action and the effects.
    fn datagram(&mut self, at: RelayPort, source: SocketAddr) -> (Action, Vec<Effect>) {
        let mut effects = Effects::new();
        let action = self.core.handle_datagram(at, source, 1000, self.now, &mut effects);
        (action, effects.into())
    }

    /// Connects a player, gives it ids, and registers its address.
    fn join(&mut self, connection: ConnectionId) -> (OpenId, PrivateId) {
        self.handle(Input::Connected(connection, ip(connection)));
        self.command(connection, "register-host");
        let player = self.core.players().by_connection(connection).unwrap();
        let ids = (player.open_id().clone(), player.ids().private_id.clone());
        let payload = ids.1.reveal().as_bytes();
        self.handle(Input::RegistrarDatagram { way: way(address(connection)), payload });
        ids
    }

    /// Alice and Bob with a relay. Returns the ports of both.
    fn introduced(config: Config) -> (Self, [RelayPort; 2]) {
        let mut play = Self::new(config);
        play.join(ALICE);
        let (bob, _) = play.join(BOB);
        let effects = play.command(ALICE, &format!("connect-relay {bob}"));
        let [Effect::PairOpened { ports, .. }, ..] = effects[..] else { panic!("{effects:?}") };
        (play, ports)
    }
}

#[test]
fn an_introduction_is_told_to_the_asker_first() {
    let mut play = Play::new(Config::default());
    let (alice, _) = play.join(ALICE);
    let (bob, _) = play.join(BOB);
    assert_eq!(
        play.command(ALICE, &format!("connect {bob}")),
        [
            Effect::Tell(ALICE, Reply::Connect(address(BOB))),
            Effect::Tell(BOB, Reply::Connect(address(ALICE)))
        ]
    );
    let effects = play.command(ALICE, &format!("connect-relay {bob}"));
    let [Effect::PairOpened { ports: [alices, bobs], players }, rest @ ..] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(*players, [alice, bob]);
    assert_eq!(
        rest,
        [
            Effect::Tell(ALICE, Reply::ConnectRelay(*bobs)),
            Effect::Tell(BOB, Reply::ConnectRelay(*alices))
        ]
    );
}

#[test]
fn a_player_that_leaves_keeps_its_pairs_and_for_a_while_its_ids() {
    let (mut play, [alices, bobs]) = Play::introduced(Config::default());
    let player = play.core.players().by_connection(BOB).unwrap().clone();
    let bob = player.open_id().clone();
    let effects = play.handle(Input::Disconnected(BOB));
    let departure = Departure { player: player.id, open_id: bob.clone() };
    assert_eq!(effects, [Effect::PlayerLeft(departure), Effect::Close(BOB, CloseMode::AtOnce)]);
    assert_eq!(play.handle(Input::Disconnected(BOB)), []);
    let ask = |play: &mut Play| play.command(ALICE, &format!("connect {bob}")).pop();
    let failed = |code| Some(Effect::Tell(ALICE, Reply::Failed(CommandKind::Connect, code)));
    assert_eq!(ask(&mut play), failed(ErrorCode::HostAway));
    let (action, _) = play.datagram(bobs, address(ALICE));
    assert_eq!(action, Action::Forward { via: alices, to: address(BOB) });
    play.pass(Duration::from_secs(60));
    assert!(play.core.next_deadline() <= play.now);
    assert!(play.handle(Input::Deadline).contains(&Effect::PlayerForgotten(bob.clone())));
    assert_eq!(ask(&mut play), failed(ErrorCode::UnknownOid));
}

#[test]
fn a_player_resumes_with_its_ids_address_and_relays() {
    let (mut play, [alices, bobs]) = Play::introduced(Config::default());
    let (bob, secret) = ids_of(&play, BOB);
    let again = ConnectionId(3);
    play.handle(Input::Disconnected(BOB));
    play.handle(Input::Connected(again, ip(again)));
    let effects = play.command(again, &format!("register-host {}", secret.reveal()));
    let ids = Reply::SetIds(bob.clone(), secret);
    let expected = [Effect::PlayerResumed(again, bob.clone()), Effect::Tell(again, ids)];
    assert_eq!(effects, expected);
    let effects = play.command(ALICE, &format!("connect {bob}"));
    let [Effect::Tell(ALICE, to_alice), Effect::Tell(connection, _)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((to_alice, *connection), (&Reply::Connect(address(BOB)), again));
    let effects = play.command(ALICE, &format!("connect-relay {bob}"));
    assert_eq!(effects[0], Effect::Tell(ALICE, Reply::ConnectRelay(bobs)), "the same pair");
    assert_eq!(effects[1], Effect::Tell(again, Reply::ConnectRelay(alices)));
}

#[test]
fn the_newer_connection_wins_and_what_was_on_it_is_given_up() {
    let mut play = Play::new(Config::default());
    play.join(ALICE);
    play.join(BOB);
    let ((alice, alices_secret), (bob, secret)) = (ids_of(&play, ALICE), ids_of(&play, BOB));
    let alices_player = play.core.players().by_connection(ALICE).unwrap().id;
    let resume = format!("register-host {}", secret.reveal());
    // Alice's connection becomes Bob's.
    let reason = DisconnectReason::Replaced;
    let resumed = [
        Effect::PlayerLeft(Departure { player: alices_player, open_id: alice.clone() }),
        Effect::Disconnect(BOB, reason),
        Effect::Tell(BOB, Reply::Disconnect(reason)),
        Effect::Close(BOB, CloseMode::AfterReplies),
        Effect::PlayerResumed(ALICE, bob.clone()),
        Effect::Tell(ALICE, Reply::SetIds(bob.clone(), secret.clone())),
    ];
    assert_eq!(play.command(ALICE, &resume), resumed);
    // The end of the replaced connection is nobody's end.
    assert_eq!(play.handle(Input::Disconnected(BOB)), []);
    assert!(play.core.players().by_connection(ALICE).is_some());
    // Once more is no change, and an unknown PrivateID gives new ids to the same player.
    assert_eq!(play.command(ALICE, &resume), resumed[5..]);
    let effects = play.command(ALICE, &format!("register-host {}", alices_secret.reveal()));
    let [Effect::Tell(ALICE, Reply::SetIds(new, _))] = &effects[..] else { panic!("{effects:?}") };
    assert!(*new != alice && *new != bob, "Alice's ids are not valid any more");
    // Two that fight over one id: each time the newer one has it.
    for connection in 5..9 {
        let [before, after] = [connection - 1, connection].map(ConnectionId);
        play.handle(Input::Connected(after, ip(after)));
        let effects = play.command(after, &resume);
        let before = if connection == 5 { ALICE } else { before };
        assert!(effects.contains(&Effect::Disconnect(before, reason)), "{effects:?}");
    }
}

#[test]
fn the_pairs_of_a_player_that_resumes_from_another_network_stay_charged_to_the_first() {
    let config = Config { relay_max_per_ip: HardCap(Some(1)), ..Config::default() };
    let (mut play, [alices, bobs]) = Play::introduced(config);
    let (_, secret) = ids_of(&play, ALICE);
    let elsewhere = ConnectionId(9);
    play.handle(Input::Connected(elsewhere, ip(elsewhere)));
    play.command(elsewhere, &format!("register-host {}", secret.reveal()));
    let source = address(elsewhere);
    play.handle(Input::RegistrarDatagram { way: way(source), payload: secret.reveal().as_bytes() });
    let (action, _) = play.datagram(bobs, source);
    assert_eq!(action, Action::Forward { via: alices, to: address(BOB) });
    let carol = ConnectionId(4);
    let (carols, _) = play.join(carol);
    let effects = play.command(elsewhere, &format!("connect-relay {carols}"));
    assert!(matches!(effects[0], Effect::PairOpened { .. }), "its own: {effects:?}");
    let effects = {
        play.handle(Input::Connected(ConnectionId(5), ip(ALICE)));
        play.command(ConnectionId(5), "register-host");
        let (_, secret) = ids_of(&play, ConnectionId(5));
        let payload = secret.reveal().as_bytes();
        play.handle(Input::RegistrarDatagram {
            way: way(SocketAddr::new(ip(ALICE), 4001)),
            payload,
        });
        play.command(ConnectionId(5), &format!("connect-relay {carols}"))
    };
    let failed = Reply::Failed(CommandKind::ConnectRelay, ErrorCode::RelaysExhausted);
    assert_eq!(effects.last(), Some(&Effect::Tell(ConnectionId(5), failed)), "the first network's");
}

fn ids_of(play: &Play, connection: ConnectionId) -> (OpenId, PrivateId) {
    let ids = play.core.players().by_connection(connection).unwrap().ids();
    (ids.open_id.clone(), ids.private_id.clone())
}

#[test]
fn players_are_told_of_a_limit_once_a_minute() {
    let config =
        Config { relay_max_lifetime_duration: "10s".parse().unwrap(), ..Config::default() };
    let (mut play, [_, bobs]) = Play::introduced(config);
    play.pass(Duration::from_secs(10));
    let (action, effects) = play.datagram(bobs, address(ALICE));
    assert_eq!(action, Action::Drop(DropReason::LifetimeDuration));
    let told = effects.iter().filter_map(|effect| {
        let Effect::Tell(to, Reply::RelayLimit(_)) = effect else { return None };
        Some(*to)
    });
    assert_eq!(told.collect::<Vec<_>>(), [ALICE, BOB]);
    assert_eq!(play.datagram(bobs, address(ALICE)).1, []);
}

/// Three pairs of players 1 to 6. Returns the ports to which the players 1, 3 and 5 send.
fn three_pairs(play: &mut Play) -> [RelayPort; 3] {
    [1, 3, 5].map(|asker| {
        play.join(ConnectionId(asker));
        let (host, _) = play.join(ConnectionId(asker + 1));
        let effects = play.command(ConnectionId(asker), &format!("connect-relay {host}"));
        let [Effect::PairOpened { ports: [_, hosts], .. }, ..] = effects[..] else {
            panic!("{effects:?}")
        };
        hosts
    })
}

#[test]
fn players_that_are_heard_only_from_another_ip_have_an_effect_if_they_are_several() {
    let mut play = Play::new(Config::default());
    let ports = three_pairs(&mut play);
    let elsewhere = [7, 8, 9].map(|last| SocketAddr::from(([203, 0, 113, last], 4000)));
    let mut effects = Vec::new();
    for _ in 0..2 {
        for (at, source) in ports.into_iter().zip(elsewhere) {
            assert_eq!(effects, []);
            let (action, more) = play.datagram(at, source);
            assert_eq!(action, Action::Drop(DropReason::WrongIp));
            effects.extend(more);
        }
        play.pass(unheard::LASTING);
    }
    let (at, source, registered) = (ports[2], elsewhere[2].ip(), ip(ConnectionId(5)));
    assert_eq!(effects, [Effect::PartnerElsewhere { at, source, registered }]);
}

#[test]
fn a_stranger_that_sprays_has_no_effect() {
    let mut play = Play::new(Config::default());
    let ports = three_pairs(&mut play);
    let stranger = "203.0.113.9:4000".parse().unwrap();
    for _ in 0..60 {
        for at in ports {
            assert_eq!(play.datagram(at, stranger), (Action::Drop(DropReason::WrongIp), vec![]));
        }
        play.pass(Duration::from_secs(1));
    }
}

#[test]
fn pairs_of_unconfirmed_players_have_an_effect_if_they_are_several() {
    let mut play = Play::new(Config::default());
    let ports = three_pairs(&mut play);
    // Each registers again from another IP than that of its connection.
    let elsewhere =
        |player: u64| SocketAddr::from(([203, 0, 113, u8::try_from(player).unwrap()], 4000));
    for player in 1..=6 {
        let private_id = play
            .core
            .players()
            .by_connection(ConnectionId(player))
            .unwrap()
            .ids()
            .private_id
            .clone();
        let payload = private_id.reveal().as_bytes();
        play.handle(Input::RegistrarDatagram { way: way(elsewhere(player)), payload });
    }
    let mut effects = Vec::new();
    for _ in 0..2 {
        for (at, player) in ports.into_iter().zip([1, 3, 5]) {
            assert_eq!(effects, []);
            let (action, more) = play.datagram(at, elsewhere(player));
            assert_eq!(action, Action::Drop(DropReason::Unconfirmed));
            effects.extend(more);
        }
        play.pass(unheard::LASTING);
    }
    assert_eq!(effects, [Effect::PlayersUnconfirmed { at: ports[2] }]);
}

#[test]
fn a_drain_ends_once_when_the_relays_are_quiet() {
    let (mut play, [_, bobs]) = Play::introduced(Config::default());
    let effects = play.handle(Input::Drain);
    let timeout = Duration::from_secs(30);
    assert_eq!(effects, [Effect::DrainStarted { pairs: 1, timeout }]);
    assert_eq!(play.handle(Input::Drain), [], "it drains already");
    play.pass(Duration::from_secs(3));
    play.datagram(bobs, address(ALICE));
    let mut ends = Vec::new();
    for second in 3..20 {
        if play.now >= play.core.next_deadline() {
            let effects = play.handle(Input::Deadline);
            ends.extend(effects.contains(&Effect::DrainEnded).then_some(second));
            assert!(play.core.next_deadline() > play.now, "nothing is due any more");
        }
        play.pass(Duration::from_secs(1));
    }
    assert_eq!(ends, [8]);
    let effects = play.command(ALICE, "connect x");
    let draining = Reply::Failed(CommandKind::Connect, ErrorCode::Draining);
    assert_eq!(effects.last(), Some(&Effect::Tell(ALICE, draining)));
}

#[test]
fn a_restored_core_goes_on_and_knows_all_deadlines() {
    let (mut play, [alices, bobs]) = Play::introduced(Config::default());
    play.datagram(bobs, address(ALICE));
    play.pass(Duration::from_secs(3));
    play.handle(Input::Drain);
    let snapshot = play.core.snapshot(play.now);
    let text = serde_json::to_string(&snapshot).unwrap();
    let read: Snapshot = serde_json::from_str(&text).unwrap();
    let mut core = Core::restore(read, play.config.settings(), own(), &ports()).unwrap();
    core.check_invariants();
    assert_eq!(core.snapshot(play.now), snapshot);
    assert_eq!(core.next_deadline(), play.core.next_deadline());
    assert_eq!(core.table_sizes(), play.core.table_sizes());
    assert!(core.is_draining());
    let action = core.handle_datagram(alices, address(BOB), 1000, play.now, &mut Effects::new());
    assert_eq!(action, Action::Forward { via: bobs, to: address(ALICE) });
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    let (play, [alices, bobs]) = Play::introduced(Config::default());
    let text = serde_json::to_string(&play.core.snapshot(play.now)).unwrap();
    let restore = |text: &str, ports: &[RelayPort]| {
        let read: Snapshot = serde_json::from_str(text).unwrap();
        Core::restore(read, play.config.settings(), own(), ports).err()
    };
    assert_eq!(restore(&text, &ports()), None);
    let other_version = text.replacen("\"version\":1", "\"version\":99", 1);
    assert_eq!(restore(&other_version, &ports()), Some("version 99 is not 1".to_owned()));
    let one_port_twice =
        text.replace(&format!("\"port\":{bobs}}}"), &format!("\"port\":{alices}}}"));
    assert!(restore(&one_port_twice, &ports()).is_some_and(|why| why.contains("has two pairs")));
}

#[test]
fn a_pair_on_ports_that_are_not_configured_any_more_goes_on_until_it_ends() {
    let (mut play, [alices, bobs]) = Play::introduced(Config::default());
    let fewer: Vec<RelayPort> = ports().into_iter().filter(|port| *port != bobs).collect();
    let snapshot = play.core.snapshot(play.now);
    play.core = Core::restore(snapshot, play.config.settings(), own(), &fewer).unwrap();
    play.core.check_invariants();
    let (action, _) = play.datagram(bobs, address(ALICE));
    assert_eq!(action, Action::Forward { via: alices, to: address(BOB) });
    play.pass(Duration::from_secs(60));
    let closed = play
        .handle(Input::Deadline)
        .into_iter()
        .find_map(
            |effect| if let Effect::PairClosed(closed) = effect { Some(closed) } else { None },
        )
        .expect("it was idle");
    assert_eq!(closed.retired, [bobs]);
    assert_eq!(play.core.table_sizes().free_ports, fewer.len());
}

/// Players whose connections come from other IPs than [`ip`] gives them.
impl Play {
    fn join_from(&mut self, connection: ConnectionId, from: IpAddr) -> OpenId {
        self.handle(Input::Connected(connection, from));
        self.command(connection, "register-host");
        let player = self.core.players().by_connection(connection).unwrap();
        let (open_id, private_id) = (player.open_id().clone(), player.ids().private_id.clone());
        let source = SocketAddr::new(from, 4000);
        self.handle(Input::RegistrarDatagram {
            way: way(source),
            payload: private_id.reveal().as_bytes(),
        });
        open_id
    }
}

#[test]
fn a_leaked_code_and_eight_networks_do_not_keep_a_ninth_away() {
    let mut play = Play::new(Config::default());
    let host = play.join_from(ConnectionId(0), IpAddr::from([198, 51, 100, 1]));
    let asker = |number: u64| IpAddr::from([203, 0, 113, u8::try_from(number).unwrap()]);
    (1..=9).for_each(|number| drop(play.join_from(ConnectionId(number), asker(number))));
    let ask = format!("connect {host}");
    let mut introduced = [0; 10];
    for tenth in 0..1200 {
        let greedy = (1..=8).cycle().take(80);
        let honest = (tenth >= 1000 && tenth % 10 == 9).then_some(9);
        for number in greedy.chain(honest) {
            let effects = play.command(ConnectionId(number), &ask);
            let is_told = |effect: &Effect| matches!(effect, Effect::Tell(_, Reply::Connect(_)));
            introduced[number as usize] += u32::from(effects.iter().any(is_told));
        }
        play.pass(Duration::from_millis(100));
    }
    assert_eq!(introduced[9], 20, "all that it asked for: {introduced:?}");
}

#[test]
fn a_stale_id_is_answered_beside_a_flood_of_garbage() {
    let mut play = Play::new(Config::default());
    let [flooder, stale] = ["203.0.113.1:9", "203.0.113.2:9"].map(|text| text.parse().unwrap());
    let mut answered = 0;
    for millis in (0..10_000).step_by(5) {
        let garbage = &[b'x'; 100];
        play.handle(Input::RegistrarDatagram { way: way(flooder), payload: garbage });
        if millis >= 5000 && millis % 100 == 0 {
            let effects =
                play.handle(Input::RegistrarDatagram { way: way(stale), payload: garbage });
            answered += u32::from(effects.iter().any(|e| matches!(e, Effect::Answer { .. })));
        }
        play.pass(Duration::from_millis(5));
    }
    assert_eq!(answered, 50);
}

/// A server on which players never learn each other's IP.
fn relay_only(public_host: &str) -> Config {
    let public_host = PublicHost((!public_host.is_empty()).then(|| public_host.parse().unwrap()));
    Config { relay_only: true, public_host, ..Config::default() }
}

#[test]
fn with_relay_only_both_players_are_told_the_servers_address() {
    for (public_host, server) in [
        ("", "192.0.2.200"),
        ("203.0.113.5", "203.0.113.5"),
        ("relay.example", "relay.example"),
        // Of another family than the players' addresses.
        ("2001:db8::5", "192.0.2.200"),
    ] {
        let mut play = Play::new(relay_only(public_host));
        play.join(ALICE);
        let (bob, _) = play.join(BOB);
        let effects = play.command(ALICE, &format!("connect {bob}"));
        let [Effect::PairOpened { ports: [alices, bobs], .. }, told @ ..] = &effects[..] else {
            panic!("{effects:?}");
        };
        let [Effect::Tell(ALICE, to_alice), Effect::Tell(BOB, to_bob)] = told else {
            panic!("{told:?}");
        };
        assert_eq!(to_alice.encode(), format!("connect {server}:{bobs}\n"));
        assert_eq!(to_bob.encode(), format!("connect {server}:{alices}\n"));
        let again = play.command(ALICE, &format!("connect-relay {bob}"));
        let same = [
            Effect::Tell(ALICE, Reply::ConnectRelay(*bobs)),
            Effect::Tell(BOB, Reply::ConnectRelay(*alices)),
        ];
        assert_eq!(again, same, "the same pair");
    }
}

#[test]
fn with_relay_only_players_of_different_families_meet() {
    let mut play = Play::new(relay_only(""));
    let (bob, _) = play.join(BOB);
    let six: IpAddr = "2001:db8::1".parse().unwrap();
    play.handle(Input::Connected(ALICE, six));
    play.command(ALICE, "register-host");
    let (_, secret) = ids_of(&play, ALICE);
    let way = Way {
        source: SocketAddr::new(six, 4000),
        arrived_at: Some("2001:db8::99".parse().unwrap()),
    };
    play.handle(Input::RegistrarDatagram { way, payload: secret.reveal().as_bytes() });
    let effects = play.command(ALICE, &format!("connect {bob}"));
    let Some(Effect::Tell(ALICE, to_alice)) = effects.get(1) else { panic!("{effects:?}") };
    assert!(to_alice.encode().starts_with("connect [2001:db8::99]:"), "{to_alice:?}");
    let Some(Effect::Tell(BOB, to_bob)) = effects.get(2) else { panic!("{effects:?}") };
    assert!(to_bob.encode().starts_with("connect 192.0.2.200:"), "{to_bob:?}");
}

/// A core with something of everything that a snapshot holds.
fn full_core() -> Play {
    let (mut play, [_, bobs]) = Play::introduced(Config::default());
    play.command(BOB, "register-host");
    play.datagram(bobs, address(ALICE));
    play.datagram(bobs, SocketAddr::new(ip(ALICE), 4001));
    play.datagram(RelayPort(6), address(ConnectionId(8)));
    let away = ConnectionId(3);
    play.join(away);
    play.pass(Duration::from_secs(1));
    play.handle(Input::Disconnected(away));
    play.command(ALICE, "connect nobody");
    let stranger = way(address(ConnectionId(9)));
    play.handle(Input::RegistrarDatagram { way: stranger, payload: &[b'x'; 100] });
    play
}

/// `NORAY_KEEP_SNAPSHOT=1 cargo test --lib kept` writes it, for a new version of the format.
#[test]
fn the_kept_snapshot_of_each_version_is_read() {
    let play = full_core();
    let now = serde_json::to_string_pretty(&play.core.snapshot(play.now)).unwrap();
    if crate::operation::os::variable("NORAY_KEEP_SNAPSHOT").is_some() {
        std::fs::write(format!("src/core/snapshots/{}.json", crate::core::snapshot::VERSION), now)
            .unwrap();
    }
    for kept in [include_str!("snapshots/1.json")] {
        // Fields of a later version are ignored.
        let later = kept.replacen("{", "{\"of_a_later_version\": [1],", 1);
        for text in [kept, &later] {
            let snapshot: Snapshot = serde_json::from_str(text).unwrap();
            let core = Core::restore(snapshot, play.config.settings(), own(), &ports()).unwrap();
            core.check_invariants();
            let sizes = core.table_sizes();
            assert_eq!((sizes.players, sizes.absent, sizes.pairs, sizes.open_ids), (2, 1, 1, 4));
        }
    }
}
