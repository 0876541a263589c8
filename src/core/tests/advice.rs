//! When the operator is advised to relax a setting.

use super::*;

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
