mod advice;
mod relay_only;
mod resumption;
mod snapshot;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::config::{Config, PublicHost};
use crate::core::effect::CloseMode;
use crate::core::id::testing::Seeded;
use crate::core::id::{ConnectionId, OpenId, PrivateId};
use crate::core::players::Departure;
use crate::core::players::Way;
use crate::core::protocol::{Command, CommandKind};
use crate::core::relay::DropReason;
use crate::core::snapshot::Snapshot;
use crate::limits::connection_policy::DisconnectReason;
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

fn ids_of(play: &Play, connection: ConnectionId) -> (OpenId, PrivateId) {
    let ids = play.core.players().by_connection(connection).unwrap().ids();
    (ids.open_id.clone(), ids.private_id.clone())
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

#[test]
fn the_servers_own_addresses_follow_the_machines_ips() {
    let mut play = Play::new(Config::default());
    let at = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
    play.handle(Input::OwnIps(BTreeSet::from([at("192.0.2.201", 0).ip()])));
    let own = play.core.relays.own_addresses();
    assert!(own.allows(at("192.0.2.200", 1)), "it has gone");
    assert!(!own.allows(at("192.0.2.201", 1)), "the ports are the same");
    let mut own = own.clone().and_loopback();
    own.set_ips([]);
    assert!(own.allows(at("192.0.2.201", 1)) && !own.allows(at("127.0.0.9", 1)));
}
