//! Players whose connection breaks and who come back with their PrivateID.

use crate::lab::{Router, lab};
use crate::players::{Noray, Player, Stream, connect, connect_relay, registered_socket};
use crate::support::Line;

/// Connects from that machine and goes on as the player, with a new socket.
fn resume(player: Player, machine: &crate::lab::Host, noray: &Noray<'_>) -> Player {
    let mut line = machine.enter(|| Line::connect(noray.address));
    line.send(&format!("register-host {}", player.pid));
    assert_eq!(
        (line.expect("set-oid"), line.expect("set-pid")),
        (player.oid.clone(), player.pid.clone())
    );
    let udp = registered_socket(machine, &player.pid, noray.address);
    Player { line, udp, ..player }
}

/// Neither the player nor the server can know that the old connection is dead.
pub(crate) fn a_host_whose_router_fell_silent_comes_back_from_another_network_in_mid_game() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let (clients, first, second) =
        (lab.lan(Router::Symmetric), lab.lan(Router::Home), lab.lan(Router::Symmetric));
    let (client, before, after) = (clients.host(), first.host(), second.host());
    let Stream { client, host, to_host, to_client, .. } = Stream::begin(&client, &before, &noray);
    first.fall_silent();
    let host = resume(host, &after, &noray);
    assert_eq!(noray.metric("noray_connections_closed_total{reason=\"replaced\"}"), 1);
    let mut stream = Stream::of(client, to_host, host, to_client);
    stream.check();
    // Whoever has the code finds the host where it is now.
    let mut newcomer = Player::join(&clients.host(), &noray);
    let [told, _] = connect(&mut newcomer, &mut stream.host);
    assert!(second.public_ips().contains(&told.ip()), "{told}");
    // The pair is the same.
    let again = connect_relay(&mut stream.client, &mut stream.host, &noray);
    assert_eq!(again, [to_host, to_client]);
    assert_eq!(noray.metric("noray_relay_count"), 1);
}

pub(crate) fn two_that_fight_over_one_id_have_it_in_turns_and_the_server_plays_on() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let (one, other) = (lab.lan(Router::Home).host(), lab.lan(Router::CarrierGrade).host());
    let mut stream =
        Stream::begin(&lab.lan(Router::Home).host(), &lab.lan(Router::Symmetric).host(), &noray);
    let mut player = Player::join(&one, &noray);
    for round in 0..10 {
        let machine = if round % 2 == 0 { &other } else { &one };
        let mut before = player.line;
        let mut line = machine.enter(|| Line::connect(noray.address));
        line.send(&format!("register-host {}", player.pid));
        assert_eq!(line.expect("set-oid"), player.oid);
        line.expect("set-pid");
        assert!(before.expect("error").starts_with("replaced "));
        assert_eq!(before.receive(), None);
        player = Player { line, ..player };
        stream.check();
    }
    assert_eq!(noray.metric("noray_active_hosts"), 3);
}
