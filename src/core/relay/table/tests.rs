mod limits;

use super::*;
use crate::core::relay::Latching;
use crate::label::Label;
use crate::limits::relay::RelayLimits;
use crate::limits::share::HardCap;

const ALICE: PlayerId = PlayerId(1);
const BOB: PlayerId = PlayerId(2);
const CAROL: PlayerId = PlayerId(3);

const ALICE_AT: &str = "198.51.100.1:1000";
const BOB_AT: &str = "203.0.113.2:2000";
/// Behind the same router as Bob.
const CAROL_AT: &str = "203.0.113.2:3000";

const LIMITS: RelayLimits = RelayLimits {
    pair_rate: 1_000_000,
    global_rate: 10_000_000,
    burst: Duration::from_millis(100),
    lifetime: Duration::from_secs(1000),
    lifetime_traffic: 10_000_000,
    idle_timeout: Duration::from_secs(30),
    max_per_network: HardCap(None),
    crowd: 16,
};

fn same_ip(limits: RelayLimits) -> RelaySettings {
    RelaySettings { limits, latching: Latching::SameIp }
}

/// A table with ports 1 to 6, and a clock.
struct Play {
    table: RelayTable,
    now: Timestamp,
}

impl Play {
    fn new(limits: RelayLimits) -> Self {
        let ports: Vec<RelayPort> = (1..=6).map(RelayPort).collect();
        let own = OwnAddresses::new(["192.0.2.9".parse().unwrap()], 1..=6);
        Self { table: RelayTable::new(same_ip(limits), own, &ports), now: Timestamp::START }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn introduce(
        &mut self,
        asker: (PlayerId, &str),
        host: (PlayerId, &str),
    ) -> Result<(u16, u16), NoRelay> {
        let party = |(player, address): (PlayerId, &str)| {
            let address: SocketAddr = address.parse().unwrap();
            Party { player, address, connected_from: address.ip() }
        };
        let introduction =
            self.table.introduce(party(asker), party(host), self.now, &mut Vec::new())?;
        self.table.check_invariants();
        Ok((introduction.asker.0, introduction.host.0))
    }

    /// What happens to 100 bytes: `"via to"`, or the reason to drop them.
    fn send(&mut self, at: u16, source: &str) -> String {
        self.send_bytes(at, source, 100)
    }

    fn send_bytes(&mut self, at: u16, source: &str, length: usize) -> String {
        let source = source.parse().unwrap();
        match self.table.handle_datagram(RelayPort(at), source, length, self.now) {
            Action::Forward { via, to } => format!("{via} {to}"),
            Action::Drop(reason) => reason.label().to_owned(),
        }
    }

    fn sweep(&mut self) -> usize {
        let mut closed = Vec::new();
        self.table.sweep(self.now, &mut closed);
        self.table.check_invariants();
        closed.len()
    }
}

/// Alice has asked for Bob. Her port is 1, his is 2.
fn introduced(limits: RelayLimits) -> Play {
    let mut play = Play::new(limits);
    assert_eq!(play.introduce((ALICE, ALICE_AT), (BOB, BOB_AT)), Ok((1, 2)));
    play
}

#[test]
fn each_player_sees_the_other_at_one_port_and_can_answer_there() {
    let mut play = introduced(LIMITS);
    assert_eq!(play.send(2, ALICE_AT), format!("1 {BOB_AT}"));
    assert_eq!(play.send(1, BOB_AT), format!("2 {ALICE_AT}"));
}

#[test]
fn only_the_introduced_partner_may_send() {
    let mut play = introduced(LIMITS);
    play.introduce((CAROL, CAROL_AT), (ALICE, ALICE_AT)).unwrap();
    assert_eq!(play.send(2, ALICE_AT), format!("1 {BOB_AT}"));
    play.send(1, BOB_AT);
    assert_eq!(play.send(2, "192.0.2.7:5"), "wrong-ip");
    assert_eq!(play.send(2, BOB_AT), "wrong-ip", "a player is not its own partner");
    assert_eq!(play.send(1, CAROL_AT), "wrong-port", "introduced, but at another port");
    assert_eq!(play.send(5, ALICE_AT), "no-pair", "a free port");
    assert_eq!(play.send(0, ALICE_AT), "no-pair");
    assert_eq!(play.send(60_000, ALICE_AT), "no-pair");
    assert_eq!(play.send(2, "198.51.100.1:0"), "invalid-source");
    assert_eq!(play.send(2, "192.0.2.9:3"), "invalid-source", "one of the server's own sockets");
}

#[test]
fn a_partner_is_unheard_until_its_first_datagram() {
    let mut play = introduced(LIMITS);
    let is_heard =
        |play: &Play, at| play.table.partner(RelayPort(at)).map(|partner| partner.is_heard);
    assert_eq!(is_heard(&play, 2), Some(false));
    play.send(2, ALICE_AT);
    assert_eq!([1, 2, 3].map(|at| is_heard(&play, at)), [Some(false), Some(true), None]);
    let partner = play.table.partner(RelayPort(1)).unwrap();
    let bob: SocketAddr = BOB_AT.parse().unwrap();
    assert_eq!((partner.registered, partner.network), (bob.ip(), bob.ip().into()));
}

#[test]
fn a_reserved_port_takes_no_datagrams() {
    let mut play = Play::new(LIMITS);
    play.table.reserve(ALICE);
    play.table.check_invariants();
    assert_eq!(play.send(1, ALICE_AT), "no-pair");
    play.table.cancel_reservation(ALICE);
    play.table.check_invariants();
    assert_eq!((play.table.ports().free(), play.table.ports().reserved()), (6, 0));
}

#[test]
fn asking_again_gives_the_same_ports_to_either_player() {
    let mut play = introduced(LIMITS);
    assert_eq!(play.introduce((ALICE, ALICE_AT), (BOB, BOB_AT)), Ok((1, 2)));
    assert_eq!(play.introduce((BOB, BOB_AT), (ALICE, ALICE_AT)), Ok((2, 1)));
    assert_eq!(play.table.pairs(), 1);
}

#[test]
fn both_ports_or_none() {
    let mut play = introduced(LIMITS);
    play.introduce((ALICE, ALICE_AT), (CAROL, CAROL_AT)).unwrap();
    play.table.reserve(PlayerId(4));
    assert_eq!(
        play.introduce((BOB, BOB_AT), (CAROL, CAROL_AT)),
        Ok((6, 5)),
        "player 4's reservation is taken back"
    );
    let more = play.introduce((PlayerId(4), ALICE_AT), (BOB, BOB_AT));
    assert_eq!(more, Err(NoRelay::Exhausted));
    assert_eq!(play.table.pairs(), 3);
}

#[test]
fn asking_again_does_not_keep_an_idle_pair() {
    let mut play = introduced(LIMITS);
    for _ in 0..30 {
        assert_eq!(play.introduce((ALICE, ALICE_AT), (BOB, BOB_AT)), Ok((1, 2)));
        play.pass(Duration::from_secs(1));
    }
    assert_eq!(play.introduce((ALICE, ALICE_AT), (BOB, BOB_AT)), Ok((3, 4)), "a new one");
}

#[test]
fn an_introduction_takes_the_ports_of_idle_pairs() {
    let mut play = introduced(LIMITS);
    play.introduce((ALICE, ALICE_AT), (CAROL, CAROL_AT)).unwrap();
    play.introduce((CAROL, CAROL_AT), (BOB, BOB_AT)).unwrap();
    let fourth = (PlayerId(4), ALICE_AT);
    assert_eq!(play.introduce(fourth, (BOB, BOB_AT)), Err(NoRelay::Exhausted));
    play.pass(Duration::from_secs(30));
    assert_eq!(play.introduce(fourth, (BOB, BOB_AT)), Ok((1, 2)));
    assert_eq!(play.table.pairs(), 1);
}

#[test]
fn partners_behind_one_ip_are_never_mixed() {
    let mut play = introduced(LIMITS);
    let (carols, alices) = play.introduce((CAROL, CAROL_AT), (ALICE, ALICE_AT)).unwrap();
    // Both routers use other ports than the registrar saw. Bob's router later changes its port once more.
    for bob_at in ["203.0.113.2:2001", "203.0.113.2:2002"] {
        assert_eq!(play.send(1, bob_at), format!("2 {ALICE_AT}"));
        assert_eq!(play.send(alices, "203.0.113.2:3001"), format!("{carols} {ALICE_AT}"));
        assert_eq!(play.send(2, ALICE_AT), format!("1 {bob_at}"));
        assert_eq!(play.send(carols, ALICE_AT), format!("{alices} 203.0.113.2:3001"));
        play.pass(Duration::from_secs(2));
    }
}

#[test]
fn a_pair_past_its_lifetime_forwards_nothing_and_the_next_introduction_opens_a_new_one() {
    for (limits, reason) in [
        (RelayLimits { lifetime: Duration::from_secs(10), ..LIMITS }, "lifetime-duration"),
        (RelayLimits { lifetime_traffic: 1000, ..LIMITS }, "lifetime-traffic"),
    ] {
        let mut play = introduced(limits);
        for _ in 0..10 {
            play.send(2, ALICE_AT);
            play.send(1, BOB_AT);
            play.pass(Duration::from_secs(1));
        }
        assert_eq!(play.send(2, ALICE_AT), reason);
        assert_eq!(
            play.introduce((BOB, BOB_AT), (ALICE, ALICE_AT)),
            Ok((3, 4)),
            "ports that were freed longest ago"
        );
        assert_eq!(play.send(2, ALICE_AT), "no-pair");
        play.pass(Duration::from_secs(20));
        let is_over_again = usize::from(reason == "lifetime-duration");
        assert_eq!(play.sweep(), is_over_again, "the first was closed by the introduction");
    }
}

#[test]
fn a_pair_past_its_lifetime_is_swept_though_datagrams_arrive() {
    let mut play = introduced(RelayLimits { lifetime: Duration::from_secs(10), ..LIMITS });
    play.pass(Duration::from_secs(10));
    play.send(2, ALICE_AT);
    assert_eq!(play.sweep(), 1);
}

#[test]
fn an_idle_pair_is_closed_and_a_busy_one_lives_without_connections() {
    let mut play = introduced(LIMITS);
    play.table.cancel_reservation(ALICE);
    play.table.cancel_reservation(BOB);
    play.pass(Duration::from_secs(29));
    assert_eq!(play.sweep(), 0);
    assert_eq!(
        play.send(2, ALICE_AT),
        format!("1 {BOB_AT}"),
        "games go on without their connection"
    );
    play.pass(Duration::from_secs(15));
    assert_eq!(play.send(2, "192.0.2.7:5"), "wrong-ip");
    play.pass(Duration::from_secs(15));
    assert_eq!(play.sweep(), 1, "a dropped datagram does not keep a pair alive");
    assert_eq!(play.table.ports().free(), 6);
}

#[test]
fn a_registration_of_another_address_moves_the_live_relays() {
    let mut play = introduced(LIMITS);
    play.introduce((CAROL, CAROL_AT), (BOB, BOB_AT)).unwrap();
    play.send(1, BOB_AT);
    play.table.handle_address_change(BOB, "192.0.2.50:5".parse().unwrap());
    assert_eq!(play.send(2, ALICE_AT), "1 192.0.2.50:5");
    assert_eq!(play.send(4, CAROL_AT), "3 192.0.2.50:5");
    assert_eq!(play.send(1, BOB_AT), "wrong-ip", "the old address is not the player's any more");
    assert_eq!(play.send(1, "192.0.2.50:6"), format!("2 {ALICE_AT}"));
}

/// Two servers with one pair each. An attacker has registered the other server's ports as the addresses of the
/// players, and sends one datagram with a forged source. Returns how often it is forwarded before it is dropped.
fn rounds_between_two_servers(latching: Latching, connected_from: [&str; 2]) -> u64 {
    const SERVERS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
    let mut tables = [0, 1].map(|server| {
        let own = OwnAddresses::new([SERVERS[server].parse().unwrap()], 1..=2);
        let settings = RelaySettings { limits: LIMITS, latching };
        let mut table = RelayTable::new(settings, own, &[RelayPort(1), RelayPort(2)]);
        // The host's datagrams leave from port 2 and come to port 1, on both servers.
        let party = |player, port, connected_from: &str| Party {
            player,
            address: format!("{}:{port}", SERVERS[1 - server]).parse().unwrap(),
            connected_from: connected_from.parse().unwrap(),
        };
        let [asker, host] = connected_from;
        let (asker, host) = (party(ALICE, 2, asker), party(BOB, 1, host));
        // They register their own addresses first, and then the forged ones.
        let at_home = |party: Party| {
            let address = SocketAddr::new(party.connected_from, 4000);
            Party { address, ..party }
        };
        table.introduce(at_home(asker), at_home(host), Timestamp::START, &mut Vec::new()).unwrap();
        for party in [asker, host] {
            table.handle_address_change(party.player, party.address);
        }
        let again = table.introduce(asker, host, Timestamp::START, &mut Vec::new());
        assert_eq!(again.is_err(), latching != Latching::Any, "{again:?}");
        table
    });
    let (mut server, mut at, mut source) = (0, RelayPort(2), format!("{}:2", SERVERS[1]));
    for round in 0..1000 {
        let now = Timestamp::START + Duration::from_millis(round);
        match tables[server].handle_datagram(at, source.parse().unwrap(), 100, now) {
            Action::Forward { via, to } => {
                source = format!("{}:{via}", SERVERS[server]);
                server = 1 - server;
                assert_eq!(to.ip().to_string(), SERVERS[server]);
                at = RelayPort(to.port());
            }
            Action::Drop(reason) => {
                assert_eq!(reason, DropReason::Unconfirmed);
                return round;
            }
        }
    }
    1000
}

#[test]
fn forged_addresses_do_not_make_two_servers_send_to_each_other() {
    let forgers = ["198.51.100.7", "198.51.100.8"];
    assert_eq!(rounds_between_two_servers(Latching::SameIp, forgers), 0);
    assert_eq!(rounds_between_two_servers(Latching::Off, forgers), 0);
    // Without the rule the datagram never stops.
    assert_eq!(rounds_between_two_servers(Latching::Any, forgers), 1000);
}

#[test]
fn one_confirmed_player_is_enough() {
    let ip = |address: &str| address.parse::<SocketAddr>().unwrap().ip();
    let mut play = introduced(LIMITS);
    let elsewhere =
        Party { player: CAROL, address: CAROL_AT.parse().unwrap(), connected_from: ip(ALICE_AT) };
    let alice =
        Party { player: ALICE, address: ALICE_AT.parse().unwrap(), connected_from: ip(ALICE_AT) };
    let ports = play.table.introduce(elsewhere, alice, play.now, &mut Vec::new()).unwrap();
    assert_eq!(play.send(ports.host.0, CAROL_AT), format!("{} {ALICE_AT}", ports.asker));
    // Alice moves to another network than her connection's, and back.
    play.table.handle_address_change(ALICE, BOB_AT.parse().unwrap());
    assert_eq!(play.send(ports.host.0, CAROL_AT), "unconfirmed");
    assert_eq!(play.send(ports.asker.0, BOB_AT), "unconfirmed");
    play.table.handle_address_change(ALICE, ALICE_AT.parse().unwrap());
    assert_eq!(play.send(ports.host.0, CAROL_AT), format!("{} {ALICE_AT}", ports.asker));
}

#[test]
fn a_host_whose_pairs_have_ended_is_no_sprayer() {
    // Its router has given it another port than the registered one. Somebody else is behind the same router.
    const BOB_NOW_AT: &str = "203.0.113.2:2001";
    const SPRAYER: &str = "203.0.113.2:9";
    let ports: Vec<RelayPort> = (1..=40).map(RelayPort).collect();
    let limits = RelayLimits { lifetime: Duration::from_secs(10), ..LIMITS };
    let mut play = Play {
        table: RelayTable::new(same_ip(limits), OwnAddresses::default(), &ports),
        now: Timestamp::START,
    };
    let introduce = |play: &mut Play| {
        let askers = [1, 2, 3].map(|id| (PlayerId(100 + id), ALICE_AT));
        askers.map(|asker| play.introduce(asker, (BOB, BOB_AT)).unwrap())
    };
    let ended = introduce(&mut play);
    play.pass(Duration::from_secs(10));
    assert_eq!(play.sweep(), 3);
    for (asker, host) in ended {
        assert_eq!(play.send(asker, BOB_NOW_AT), "no-pair");
        assert_eq!(play.send(asker, SPRAYER), "no-pair");
        assert_eq!(play.send(host, SPRAYER), "no-pair");
    }
    let [(asker, host), ..] = introduce(&mut play);
    assert_eq!(
        play.send(asker, SPRAYER),
        "wrong-port",
        "it was heard where three others were expected"
    );
    assert_eq!(play.send(asker, BOB_NOW_AT), format!("{host} {ALICE_AT}"));
}
