//! Snapshots: another core goes on with them, and old ones are read for ever.

use super::*;

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
    let no_longer_ours = SocketAddr::new("192.0.2.200".parse().unwrap(), bobs.0);
    assert!(play.core.relays.own_addresses().allows(no_longer_ours));
    assert_eq!(play.core.table_sizes().free_ports, fewer.len());
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
    for kept in [include_str!("../snapshots/1.json")] {
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
