//! Players that leave, come back, and take over their own place.

use super::*;

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
