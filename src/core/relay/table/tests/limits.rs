//! What pairs, players and networks may use up.

use super::*;
use crate::limits::relay::UNHEARD_ALLOWANCE;

#[test]
fn a_player_that_was_not_heard_is_sent_its_allowance_and_no_more() {
    let mut play = introduced(LIMITS);
    let fits = usize::try_from(UNHEARD_ALLOWANCE / charged_bytes(100)).unwrap();
    for _ in 0..fits {
        assert_eq!(play.send(2, ALICE_AT), format!("1 {BOB_AT}"));
        play.pass(Duration::from_millis(10));
    }
    assert_eq!(play.send(2, ALICE_AT), "receiver-unheard");
    play.send(1, BOB_AT);
    for _ in 0..2 * fits {
        assert_eq!(
            play.send(2, ALICE_AT),
            format!("1 {BOB_AT}"),
            "it was heard once, and that is enough"
        );
        play.pass(Duration::from_millis(1));
    }
    let largest = usize::try_from(UNHEARD_ALLOWANCE - 28).unwrap();
    let mut play = introduced(LIMITS);
    assert_eq!(play.send_bytes(2, ALICE_AT, largest + 1), "receiver-unheard");
    assert_eq!(play.send_bytes(2, ALICE_AT, largest), format!("1 {BOB_AT}"));
}

#[test]
fn a_registration_does_not_renew_the_allowance() {
    let mut play = introduced(LIMITS);
    play.send_bytes(2, ALICE_AT, 65_000);
    play.pass(Duration::from_secs(1));
    play.table.handle_address_change(BOB, "192.0.2.50:5".parse().unwrap());
    assert_eq!(play.send_bytes(2, ALICE_AT, 600), "receiver-unheard");
    assert_eq!(play.send_bytes(2, ALICE_AT, 100), "1 192.0.2.50:5");
}

#[test]
fn a_silent_player_is_sent_nothing() {
    let mut play = introduced(LIMITS);
    play.send(1, BOB_AT);
    for _ in 0..29 {
        play.pass(Duration::from_secs(1));
        assert_eq!(play.send(2, ALICE_AT), format!("1 {BOB_AT}"));
    }
    play.pass(Duration::from_secs(1));
    assert_eq!(play.send(2, ALICE_AT), "receiver-silent");
    assert_eq!(play.send(1, BOB_AT), format!("2 {ALICE_AT}"));
    assert_eq!(play.send(2, ALICE_AT), format!("1 {BOB_AT}"));
}

#[test]
fn bandwidth_is_limited_per_direction_of_each_pair() {
    let mut play = introduced(LIMITS);
    play.send(1, BOB_AT);
    play.send(2, ALICE_AT);
    play.pass(Duration::from_secs(1));
    assert_eq!(play.send_bytes(2, ALICE_AT, 65_000), format!("1 {BOB_AT}"));
    assert_eq!(
        play.send_bytes(2, ALICE_AT, 65_000),
        format!("1 {BOB_AT}"),
        "a bucket may be in debt"
    );
    assert_eq!(play.send(2, ALICE_AT), "pair-bandwidth");
    assert_eq!(
        play.send(1, BOB_AT),
        format!("2 {ALICE_AT}"),
        "the other direction has its own limit"
    );
    play.pass(Duration::from_millis(31));
    assert_eq!(play.send(2, ALICE_AT), format!("1 {BOB_AT}"));
}

#[test]
fn all_relays_together_are_limited() {
    let mut play = introduced(RelayLimits { global_rate: 100_000, ..LIMITS });
    assert_eq!(play.send_bytes(2, ALICE_AT, 20_000), format!("1 {BOB_AT}"));
    assert_eq!(play.send(1, BOB_AT), "global-bandwidth");
    play.pass(Duration::from_millis(101));
    assert_eq!(play.send(1, BOB_AT), format!("2 {ALICE_AT}"));
}

#[test]
fn a_player_is_told_of_a_limit_once_a_minute() {
    let mut play = introduced(LIMITS);
    let at = RelayPort(2);
    for (seconds, limit, told) in [
        (0, RelayLimit::Bandwidth, [Some(ALICE), None]),
        (59, RelayLimit::Bandwidth, [None, None]),
        (59, RelayLimit::Lifetime, [Some(ALICE), Some(BOB)]),
        (60, RelayLimit::Bandwidth, [Some(ALICE), None]),
        (60, RelayLimit::Traffic, [Some(ALICE), Some(BOB)]),
        (61, RelayLimit::Traffic, [None, None]),
    ] {
        let now = Timestamp::START + Duration::from_secs(seconds);
        assert_eq!(play.table.take_due_notices(at, limit, now), told, "{limit:?} at {seconds} s");
    }
    assert_eq!(
        play.table.take_due_notices(RelayPort(5), RelayLimit::Traffic, play.now),
        [None, None]
    );
}

#[test]
fn a_network_has_its_share_of_the_pairs() {
    let ports: Vec<RelayPort> = (1..=40).map(RelayPort).collect();
    let mut play = Play {
        table: RelayTable::new(same_ip(LIMITS), OwnAddresses::default(), &ports),
        now: Timestamp::START,
    };
    let host = (PlayerId(1000), BOB_AT);
    let (greedy, modest) = ("198.51.100.1:1000", "198.51.100.2:1000");
    for id in 0..15 {
        play.introduce((PlayerId(id), greedy), host).expect("three quarters of 20");
    }
    assert_eq!(play.introduce((PlayerId(15), greedy), host), Err(NoRelay::NetworkHasItsShare));
    for id in 100..103 {
        play.introduce((PlayerId(id), modest), host).expect("another network has its share");
    }
    play.table.cancel_reservation(PlayerId(0));
    assert_eq!(
        play.introduce((PlayerId(15), greedy), host),
        Err(NoRelay::NetworkHasItsShare),
        "a pair counts as long as it lives, also without its asker"
    );
    play.introduce((PlayerId(3), greedy), host).expect("the pair exists already");
    play.pass(LIMITS.idle_timeout);
    play.introduce((PlayerId(15), greedy), host).expect("pairs that are over do not count");
}

#[test]
fn a_carrier_gets_what_it_asks_for_beside_one_that_has_taken_all_it_may() {
    let ports: Vec<RelayPort> = (1..=2048).map(RelayPort).collect();
    let mut play = Play {
        table: RelayTable::new(same_ip(LIMITS), OwnAddresses::default(), &ports),
        now: Timestamp::START,
    };
    let host = (PlayerId(100_000), BOB_AT);
    let mut take = |first: u64, wanted: usize, from: &str| {
        let askers = (first..).take(wanted);
        askers.take_while(|id| play.introduce((PlayerId(*id), from), host).is_ok()).count()
    };
    assert_eq!(take(0, 2000, "198.51.100.1:1000"), 744);
    assert_eq!(take(10_000, 200, "198.51.100.2:1000"), 186);
}

#[test]
fn a_configured_cap_holds_beside_the_share() {
    for (cap, opened) in [(2, 2), (3, 3), (6, 3)] {
        let max_per_network = HardCap(Some(cap));
        let mut play = Play::new(RelayLimits { max_per_network, ..LIMITS });
        let all = (0..9).take_while(|id| {
            play.introduce((PlayerId(*id), ALICE_AT), (PlayerId(100), BOB_AT)).is_ok()
        });
        assert_eq!(all.count(), opened, "of 3 pairs with a cap of {cap}");
    }
}

#[test]
fn a_host_that_is_silent_towards_its_askers_is_sent_little() {
    let limits = RelayLimits { idle_timeout: Duration::from_secs(3600), ..LIMITS };
    let mut play = introduced(limits);
    play.send(2, ALICE_AT);
    play.send(1, BOB_AT);
    play.pass(Duration::from_secs(3));
    // 67 Mbit/s for 20 s.
    let passed = (0..200_000).filter(|tenth| {
        play.now = Timestamp::START + Duration::from_secs(3) + Duration::from_micros(100 * tenth);
        play.send_bytes(2, ALICE_AT, 809) != "silent-host"
    });
    let bytes = passed.count() * 837;
    assert!((900_000..1_100_000).contains(&bytes), "{bytes}: most of 64 kB a second");
    // Whoever comes from another network has a share too, and the host's word ends it.
    let carols = play.introduce((CAROL, "192.0.2.70:1"), (BOB, BOB_AT)).unwrap();
    assert_eq!(play.send(carols.1, "192.0.2.70:1"), format!("{} {BOB_AT}", carols.0));
    play.send(1, BOB_AT);
    assert_eq!(play.send_bytes(2, ALICE_AT, 809), format!("1 {BOB_AT}"));
}

#[test]
fn a_game_that_stalls_for_five_seconds_loses_nothing() {
    let mut play = introduced(LIMITS);
    play.send(2, ALICE_AT);
    play.send(1, BOB_AT);
    for _ in 0..250 {
        play.pass(Duration::from_millis(20));
        assert_eq!(play.send_bytes(2, ALICE_AT, 200), format!("1 {BOB_AT}"));
    }
}

#[test]
fn a_pair_with_a_player_that_is_never_heard_ends_after_30_s() {
    let limits = RelayLimits { idle_timeout: Duration::from_secs(3600), ..LIMITS };
    let mut play = introduced(limits);
    for second in 0..30 {
        assert_eq!(play.send(2, ALICE_AT), format!("1 {BOB_AT}"), "after {second} s");
        play.pass(Duration::from_secs(1));
    }
    assert_eq!(play.send(2, ALICE_AT), "receiver-unheard");
    assert_eq!(play.send(1, BOB_AT), "receiver-unheard", "too late");
    assert_eq!(play.sweep(), 1);
    // A client may take its time.
    let mut play = introduced(limits);
    play.send(1, BOB_AT);
    play.pass(Duration::from_secs(20));
    play.send(2, ALICE_AT);
    play.pass(Duration::from_secs(20));
    assert_eq!(play.send(1, BOB_AT), format!("2 {ALICE_AT}"));
    assert_eq!(play.sweep(), 0);
}

#[test]
fn one_network_that_floods_leaves_the_others_their_traffic() {
    let limits = RelayLimits { pair_rate: 10_000_000, global_rate: 1_000_000, ..LIMITS };
    let mut play = introduced(limits);
    let (mut floods, mut lost) = (0, 0);
    let carol = play.introduce((CAROL, "192.0.2.70:1"), (BOB, BOB_AT)).unwrap();
    play.send(1, BOB_AT);
    play.send(carol.0, BOB_AT);
    for tenth in 0..100_000 {
        play.now = Timestamp::START + Duration::from_micros(100 * tenth);
        // Ten times the rate of all, beside a game of 100 datagrams a second.
        floods += u64::from(play.send_bytes(2, ALICE_AT, 972) != "global-bandwidth");
        if tenth % 100 == 0 {
            play.send(1, BOB_AT);
            play.send(carol.0, BOB_AT);
            lost += u64::from(play.send(carol.1, "192.0.2.70:1") == "global-bandwidth");
        }
    }
    assert_eq!(lost, 0);
    assert!((9000..=10_100).contains(&floods), "{floods}: what the rate has left in ten seconds");
}

/// A leaked code, and an attacker that answers as a game does: the host answers too, so it is not silent.
#[test]
fn a_crowd_of_one_network_leaves_a_host_its_line_and_the_others_their_games() {
    let limits = RelayLimits { pair_rate: 131_072, lifetime_traffic: u64::MAX, ..LIMITS };
    let ports: Vec<RelayPort> = (1..=400).map(RelayPort).collect();
    let table = RelayTable::new(same_ip(limits), OwnAddresses::default(), &ports);
    let mut play = Play { table, now: Timestamp::START };
    let attackers_at = |id: u64| format!("198.51.100.1:{}", 1000 + id);
    let honest = play.introduce((CAROL, "192.0.2.70:1"), (BOB, BOB_AT)).unwrap();
    let attackers: Vec<_> = (100..196)
        .map(|id| play.introduce((PlayerId(id), &attackers_at(id)), (BOB, BOB_AT)).unwrap())
        .collect();
    let (mut flood, mut lost, mut sent) = (0, 0, 0);
    for milli in 0..10_000 {
        play.now = Timestamp::START + Duration::from_millis(milli);
        for (id, (to_attacker, to_host)) in (100..).zip(&attackers) {
            if milli % 100 == 0 {
                play.send(*to_attacker, BOB_AT);
            }
            // As much as a pair may carry.
            let is_through = play.send_bytes(*to_host, &attackers_at(id), 103).contains(BOB_AT);
            flood += u64::from(is_through) * 131;
        }
        if milli % 16 == 0 {
            play.send(honest.0, BOB_AT);
            sent += 1;
            lost += u64::from(!play.send_bytes(honest.1, "192.0.2.70:1", 300).contains(BOB_AT));
        }
    }
    let share = 10 * 16 * 131_072 * 3 / 4;
    assert!((share * 9 / 10..share * 12 / 10).contains(&flood), "{flood} bytes of about {share}");
    assert_eq!((lost, sent), (0, 625), "a game of another network beside it");
}

#[test]
fn a_few_pairs_of_one_network_are_held_to_nothing_but_their_own_rate() {
    let ports: Vec<RelayPort> = (1..=100).map(RelayPort).collect();
    let limits = RelayLimits { global_rate: u64::MAX, ..LIMITS };
    let table = RelayTable::new(same_ip(limits), OwnAddresses::default(), &ports);
    let mut play = Play { table, now: Timestamp::START };
    let at = |id: u64| format!("198.51.100.1:{}", 1000 + id);
    let mut pairs = Vec::new();
    for id in 100..116 {
        pairs.push(play.introduce((PlayerId(id), &at(id)), (BOB, BOB_AT)).unwrap());
    }
    for _ in 0..100 {
        play.pass(Duration::from_millis(10));
        for (id, (to_asker, to_host)) in (100..).zip(&pairs) {
            play.send(*to_asker, BOB_AT);
            assert_eq!(play.send_bytes(*to_host, &at(id), 9000), format!("{to_asker} {BOB_AT}"));
        }
    }
}
