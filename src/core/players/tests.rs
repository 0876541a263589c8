use std::net::SocketAddr;

use super::*;
use std::time::Duration;

use crate::config::Config;
use crate::core::id::testing::Seeded;
use crate::core::id::{Alphabet, OpenIdScheme};

fn players(open_id_length: usize) -> (Players, Seeded) {
    let alphabet: Alphabet = "abcd".parse().unwrap();
    let scheme = IdScheme {
        open: OpenIdScheme::characters(String::new(), alphabet.clone(), open_id_length),
        private_alphabet: alphabet,
        private_length: 20,
    };
    let settings = PlayersSettings { id_scheme: scheme, ..Config::default().settings().players };
    (Players::new(settings), Seeded::new(1))
}

fn way(source: SocketAddr) -> Way {
    Way { source, arrived_at: None }
}

fn home() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

fn register(
    players: &mut Players,
    connection: u64,
    random: &mut Seeded,
) -> Result<Player, IdsExhausted> {
    players.add_connection(ConnectionId(connection), home());
    players.register(ConnectionId(connection), random).cloned()
}

#[test]
fn a_second_registration_gives_new_ids_beside_the_earlier_ones() {
    let (mut players, mut random) = players(8);
    let first = register(&mut players, 1, &mut random).unwrap();
    let again = players.register(ConnectionId(1), &mut random).unwrap().clone();
    assert_eq!(first.id, again.id);
    for open_id in [first.open_id(), again.open_id()] {
        assert_eq!(players.find(open_id, home().into(), Timestamp::START).unwrap().id, first.id);
    }
    assert_eq!((players.connected(), players.open_ids()), (1, 2));
    for _ in 0..40 {
        players.register(ConnectionId(1), &mut random).unwrap();
        players.check_invariants();
    }
    assert_eq!((players.open_ids(), players.private_ids()), (MAX_IDS, MAX_IDS));
    let lapsed = players.find(first.open_id(), home().into(), Timestamp::START);
    assert_eq!(lapsed.err(), Some(NotFound::Unknown), "the oldest lapses first");
}

#[test]
fn a_network_has_its_share_of_further_ids() {
    let (mut players, mut random) = players(8);
    players.set_settings(PlayersSettings { max_connections: 32, ..players.settings.clone() });
    for connection in 0..5 {
        register(&mut players, connection, &mut random).unwrap();
        for _ in 0..20 {
            players.register(ConnectionId(connection), &mut random).unwrap();
            players.check_invariants();
        }
    }
    let further = players.open_ids() - 5;
    assert_eq!(further, 24, "three quarters of 32");
    let elsewhere = IpAddr::from([192, 0, 2, 9]);
    players.add_connection(ConnectionId(9), elsewhere);
    let first = players.register(ConnectionId(9), &mut random).unwrap().clone();
    players.register(ConnectionId(9), &mut random).unwrap();
    assert!(players.find(first.open_id(), elsewhere.into(), Timestamp::START).is_ok());
}

#[test]
fn open_ids_are_unique_until_there_are_no_more() {
    let (mut players, mut random) = players(1);
    for player in 0..4 {
        register(&mut players, player, &mut random).unwrap();
    }
    assert_eq!(register(&mut players, 4, &mut random).unwrap_err(), IdsExhausted);
    players.remove_connection(ConnectionId(2), Timestamp::START).unwrap();
    assert_eq!(register(&mut players, 5, &mut random).unwrap_err(), IdsExhausted);
    players.forget_absent(after(60));
    players.register(ConnectionId(5), &mut random).unwrap();
}

#[test]
fn an_address_is_first_then_repeated_then_changed() {
    let (mut players, mut random) = players(8);
    let host = register(&mut players, 1, &mut random).unwrap();
    let (here, there) = ("192.0.2.1:1000".parse().unwrap(), "192.0.2.1:1001".parse().unwrap());
    let secret = host.ids().private_id.reveal();
    let id = host.open_id().clone();
    assert_eq!(
        players.register_address(secret, way(here), Timestamp::START),
        AddressRegistration::First(host.id, id.clone())
    );
    assert_eq!(
        players.register_address(secret, way(here), Timestamp::START),
        AddressRegistration::Repeated(Some(host.id))
    );
    assert_eq!(
        players.register_address(secret, way(here), Timestamp::START),
        AddressRegistration::Repeated(None),
        "too soon after the last"
    );
    for (millis, is_told) in [(1999, false), (2000, true), (2100, false)] {
        let now = Timestamp::START + Duration::from_millis(millis);
        assert_eq!(
            players.register_address(secret, way(here), now),
            AddressRegistration::Repeated(is_told.then_some(host.id)),
            "after {millis} ms"
        );
    }
    assert_eq!(
        players.register_address(secret, way(there), Timestamp::START),
        AddressRegistration::Changed(host.id, id)
    );
    assert_eq!(
        players.register_address("abcd", way(here), Timestamp::START),
        AddressRegistration::Unknown
    );
    assert_eq!(players.by_connection(ConnectionId(1)).unwrap().address, Some(there));
}

#[test]
fn address_changes_have_a_rate_limit() {
    let (mut players, mut random) = players(8);
    let host = register(&mut players, 1, &mut random).unwrap();
    let mut register_from = |port: u16, millis: u64| {
        let now = Timestamp::START + Duration::from_millis(millis);
        let source = SocketAddr::new([192, 0, 2, 1].into(), port);
        players.register_address(host.ids().private_id.reveal(), way(source), now)
    };
    register_from(1000, 0);
    let moved =
        (0..100).filter(|n| matches!(register_from(2000 + n, 0), AddressRegistration::Changed(..)));
    assert_eq!(moved.count(), 20, "a burst");
    assert_eq!(register_from(9999, 0), AddressRegistration::TooManyChanges);
    assert_eq!(
        register_from(2019, 0),
        AddressRegistration::Repeated(Some(host.id)),
        "the last address that was accepted"
    );
    assert!(matches!(register_from(9999, 500), AddressRegistration::Changed(..)));
}

#[test]
fn a_forged_source_does_not_reach_services_or_the_servers_own_network() {
    let (mut players, mut random) = players(8);
    let inside = IpAddr::from([10, 0, 0, 7]);
    let connected_from = [home(), inside];
    for (player, sources) in [
        (0, ["192.0.2.1:53 +", "192.0.2.9:53 -", "192.0.2.9:1024 +", "10.0.0.2:5353 -"]),
        (1, ["10.0.0.7:53 +", "10.0.0.2:53 -", "10.0.0.2:5353 +", "192.0.2.9:5353 +"]),
    ] {
        let from = connected_from[player];
        let player = ConnectionId(player as u64);
        players.add_connection(player, from);
        let host = players.register(player, &mut random).unwrap().clone();
        for (second, source) in (0..).zip(sources) {
            let now = Timestamp::START + Duration::from_secs(second);
            let (source, sign) = source.split_once(' ').unwrap();
            let secret = host.ids().private_id.reveal();
            let registration = players.register_address(secret, way(source.parse().unwrap()), now);
            let is_refused = matches!(registration, AddressRegistration::Implausible(..));
            assert_eq!(is_refused, sign == "-", "{source}");
        }
    }
}

#[test]
fn one_network_cannot_use_up_a_hosts_introductions() {
    let (mut players, mut random) = players(8);
    let [stranger, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|ip| IpAddr::from(ip).into());
    let host = register(&mut players, 1, &mut random).unwrap().id;
    let mut introduce = |network, now| {
        let is_allowed = players.check_introduction(host, network, now).is_ok();
        if is_allowed {
            players.record_introduction(host, network, now);
        }
        u32::from(is_allowed)
    };
    let (mut of_stranger, mut of_other) = (0, 0);
    for tenth in 0..600 {
        let now = Timestamp::START + Duration::from_millis(100 * tenth);
        for _ in 0..10 {
            of_stranger += introduce(stranger, now);
        }
        // One a second, after all those of the stranger.
        if tenth % 10 == 9 {
            of_other += introduce(other, now);
        }
    }
    assert_eq!(of_other, 60, "none is refused");
    assert!((370..=430).contains(&of_stranger), "{of_stranger}: most of what all may have");
}

fn after(seconds: u64) -> Timestamp {
    Timestamp::START + Duration::from_secs(seconds)
}

#[test]
fn the_ids_of_a_player_that_leaves_are_kept_for_the_window() {
    let (mut players, mut random) = players(8);
    let host = register(&mut players, 1, &mut random).unwrap();
    assert_eq!(players.next_end_of_absence(), None);
    players.remove_connection(ConnectionId(1), after(5)).unwrap();
    players.check_invariants();
    assert_eq!((players.connected(), players.absent()), (0, 1));
    let found = players.find(host.open_id(), home().into(), after(6)).unwrap();
    assert_eq!(found.presence, Presence::Away(after(5)));
    let here = "192.0.2.1:1000".parse().unwrap();
    assert_eq!(
        players.register_address(host.ids().private_id.reveal(), way(here), after(6)),
        AddressRegistration::First(host.id, host.open_id().clone())
    );
    assert_eq!(players.next_end_of_absence(), Some(after(65)));
    assert_eq!(players.forget_absent(after(64)), []);
    assert_eq!(players.forget_absent(after(65)), [host.open_id().clone()]);
    players.check_invariants();
    let found = players.find(host.open_id(), home().into(), after(65));
    assert_eq!(found.err(), Some(NotFound::Unknown));
    assert_eq!((players.absent(), players.open_ids(), players.private_ids()), (0, 0, 0));
}

#[test]
fn without_a_window_a_player_that_leaves_loses_both_ids_at_once() {
    let (mut players, mut random) = players(8);
    players.set_settings(PlayersSettings {
        resume_window: Duration::ZERO,
        ..players.settings.clone()
    });
    let host = register(&mut players, 1, &mut random).unwrap();
    players.remove_connection(ConnectionId(1), Timestamp::START).unwrap();
    let found = players.find(host.open_id(), home().into(), Timestamp::START);
    assert_eq!(found.err(), Some(NotFound::Unknown));
    let here = "192.0.2.1:1000".parse().unwrap();
    assert_eq!(
        players.register_address(host.ids().private_id.reveal(), way(here), Timestamp::START),
        AddressRegistration::Unknown
    );
}

#[test]
fn a_player_resumes_with_any_of_its_ids_and_from_any_connection() {
    let (mut players, mut random) = players(8);
    let first = register(&mut players, 1, &mut random).unwrap();
    let newest = players.register(ConnectionId(1), &mut random).unwrap().clone();
    let elsewhere = IpAddr::from([198, 51, 100, 7]);
    for (connection, ids, from, replaced) in [
        // Its connection still stands.
        (2, first.ids(), elsewhere, Some(ConnectionId(1))),
        (3, newest.ids(), home(), Some(ConnectionId(2))),
        // On the same connection.
        (3, first.ids(), home(), None),
    ] {
        if replaced.is_some() {
            players.add_connection(ConnectionId(connection), from);
        }
        let resumption = players.resume(ConnectionId(connection), ids.private_id.reveal()).unwrap();
        players.check_invariants();
        assert_eq!(resumption, Resumption { ids: ids.clone(), replaced });
        let player = players.by_connection(ConnectionId(connection)).unwrap();
        assert_eq!((player.id, player.connected_from), (first.id, from));
    }
    // After its end.
    players.remove_connection(ConnectionId(3), after(1)).unwrap();
    players.add_connection(ConnectionId(4), elsewhere);
    let resumption = players.resume(ConnectionId(4), first.ids().private_id.reveal()).unwrap();
    assert_eq!(resumption.replaced, None);
    players.check_invariants();
    assert_eq!((players.connected(), players.absent()), (1, 0));
    assert_eq!(players.resume(ConnectionId(4), "abcd"), None);
}

#[test]
fn a_crowd_that_registers_and_leaves_pushes_nobodys_ids_out() {
    let (mut players, mut random) = players(12);
    let host = register(&mut players, 1, &mut random).unwrap();
    players.remove_connection(ConnectionId(1), Timestamp::START).unwrap();
    for number in 0..20_000 {
        let connection = ConnectionId(10 + number);
        players.add_connection(connection, [198, 51, 100, 7].into());
        players.register(connection, &mut random).unwrap();
        players.remove_connection(connection, Timestamp::START).unwrap();
    }
    assert!((2000..3200).contains(&players.absent()), "its share: {}", players.absent());
    assert!(players.find(host.open_id(), home().into(), Timestamp::START).is_ok());
    // And others have room.
    let other = register(&mut players, 2, &mut random).unwrap();
    players.remove_connection(ConnectionId(2), Timestamp::START).unwrap();
    assert!(players.find(other.open_id(), home().into(), Timestamp::START).is_ok());
    players.check_invariants();
}

#[test]
fn a_code_with_a_blocked_word_is_not_drawn() {
    let (mut players, mut random) = players(4);
    let IdScheme { open, .. } = players.settings.id_scheme.clone();
    let open = open.without("ab\ncd".parse().unwrap());
    let id_scheme = IdScheme { open, ..players.settings.id_scheme.clone() };
    players.set_settings(PlayersSettings { id_scheme, ..players.settings.clone() });
    for connection in 0..60 {
        let player = register(&mut players, connection, &mut random).unwrap();
        let code = player.open_id().as_str();
        assert!(!code.contains("ab") && !code.contains("cd"), "{code}");
    }
}
