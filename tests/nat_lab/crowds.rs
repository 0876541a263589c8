//! Many players behind the same routers, all at once.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::thread;

use crate::games::{Client, DATAGRAMS, Outcome, SetAtEnd, client_game, host_game};
use crate::lab::{Host, Lab, Router, lab};
use crate::players::{Noray, Player, connect_relay};

/// A host and its clients, each with the machine it plays on.
struct Game {
    name: &'static str,
    host: Host,
    clients: Vec<Host>,
}

pub(crate) fn a_symmetric_router_full_of_clients_and_two_games_behind_one_router() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let games = [eight_from_one_router(&lab), from_one_router(&lab, 1), from_one_router(&lab, 1)];
    let shared = lab.lan(Router::Symmetric);
    let together = ["red", "blue"].map(|name| Game {
        name,
        host: shared.host(),
        clients: (0..4).map(|_| shared.host()).collect(),
    });
    let games: Vec<Game> = games.into_iter().chain(together).collect();
    thread::scope(|scope| {
        for game in &games {
            scope.spawn(|| play(game, &noray));
        }
    });
    let pairs: usize = games.iter().map(|game| game.clients.len()).sum();
    assert_eq!(noray.metric("noray_relay_count"), pairs as u64);
}

fn eight_from_one_router(lab: &Lab) -> Game {
    let clients = lab.lan(Router::Symmetric);
    Game {
        name: "eight",
        host: lab.lan(Router::Symmetric).host(),
        clients: (0..8).map(|_| clients.host()).collect(),
    }
}

/// Host and clients behind one carrier's router, each behind a router at home too.
fn from_one_router(lab: &Lab, clients: usize) -> Game {
    let carrier = lab.lan(Router::CarrierGrade);
    Game {
        name: "carrier",
        host: carrier.host(),
        clients: (0..clients).map(|_| carrier.host()).collect(),
    }
}

/// All clients join the host by relay and play at once; no stream is mixed with another.
fn play(game: &Game, noray: &Noray<'_>) {
    let mut host = Player::join(&game.host, noray);
    let mut clients: Vec<Player> =
        game.clients.iter().map(|machine| Player::join(machine, noray)).collect();
    let ways: Vec<_> =
        clients.iter_mut().map(|client| connect_relay(client, &mut host, noray)).collect();
    let told: Vec<_> = ways.iter().map(|[_, to_client]| *to_client).collect();
    let is_over = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let hosting = scope.spawn(|| host_game(&host, &told, &is_over));
        let playing: Vec<_> = clients
            .iter()
            .zip(&ways)
            .enumerate()
            .map(|(index, (client, [to_host, _]))| {
                let stream = format!("{}-{index}", game.name);
                scope.spawn(move || client_game(client, *to_host, &stream, Client::AddOn))
            })
            .collect();
        let end = SetAtEnd(&is_over);
        let results: Vec<_> = playing.into_iter().map(|client| client.join()).collect();
        drop(end);
        for (index, result) in results.into_iter().enumerate() {
            assert_eq!(result.unwrap(), Outcome::PLAYS, "{} client {index}", game.name);
        }
        hosting.join().unwrap()
    });
    let sources: BTreeSet<_> = seen.values().map(|(source, _)| *source).collect();
    assert_eq!(sources, told.into_iter().collect(), "each at its announced address");
    assert!(seen.values().all(|(_, count)| *count == DATAGRAMS), "{seen:?}");
}
