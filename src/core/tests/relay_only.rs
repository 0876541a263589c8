//! Servers on which all players meet through the relay.

use super::*;

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
