//! Every kind of router against every other, by punching and by relay.

use std::sync::atomic::AtomicBool;
use std::thread;

use crate::lab::{Lab, Lan, Router, lab};
use crate::players::{
    Client, DATAGRAMS, Noray, Player, SetAtEnd, client_game, connect, connect_relay, host_game,
};

const PAGE: &str = include_str!("../../docs/routers.md");

/// What one pair of kinds can do.
struct Cell {
    host: Router,
    client: Router,
    stock_punch: bool,
    answering_punch: bool,
    relay: Result<(), String>,
}

pub(crate) fn every_pair_of_routers_plays_by_relay_and_punches_where_the_rules_allow_it() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let kinds: Vec<(Router, Router)> =
        Router::ALL.iter().flat_map(|host| Router::ALL.map(|client| (*host, client))).collect();
    let (in_lab, with) = (&lab, &noray);
    let cells: Vec<Cell> = thread::scope(|scope| {
        let try_one =
            |(host, client)| scope.spawn(move || Cell::try_out(in_lab, with, host, client));
        let running: Vec<_> = kinds.into_iter().map(try_one).collect();
        running.into_iter().map(|cell| cell.join().unwrap()).collect()
    });
    for line in table(&cells) {
        println!("{line}");
        assert!(PAGE.lines().any(|shown| shown == line), "docs/routers.md shows this line");
    }
    for Cell { host, client, stock_punch, answering_punch, relay } in &cells {
        assert_eq!(*relay, Ok(()), "relay: host {host:?}, client {client:?}");
        let can_punch = can_punch(*host, *client);
        assert_eq!(*answering_punch, can_punch, "punch: host {host:?}, client {client:?}");
        // The stock client sends only where it was told, where a host with such a router does not hear it.
        let can_stock = can_punch && !maps_by_destination(*host);
        assert_eq!(*stock_punch, can_stock, "stock punch: host {host:?}, client {client:?}");
    }
}

/// RFC 4787: a datagram gets in if the filter knows its source, and a router that maps by destination shows each
/// partner a source that nobody could announce.
fn can_punch(one: Router, other: Router) -> bool {
    !(maps_by_destination(one) && filters_by_port(other)
        || maps_by_destination(other) && filters_by_port(one))
}

fn maps_by_destination(router: Router) -> bool {
    [Router::Symmetric, Router::CarrierGrade].contains(&router)
}

fn filters_by_port(router: Router) -> bool {
    router == Router::Home || maps_by_destination(router)
}

impl Cell {
    fn try_out(lab: &Lab, noray: &Noray<'_>, host: Router, client: Router) -> Self {
        let (host_lan, client_lan) = (lab.lan(host), lab.lan(client));
        let punch = |kind| play(noray, &host_lan, &client_lan, Way::Punch(kind)).is_ok();
        Self {
            host,
            client,
            stock_punch: punch(Client::Stock),
            answering_punch: punch(Client::Answering),
            relay: play(noray, &host_lan, &client_lan, Way::Relay),
        }
    }

    fn show(&self) -> &'static str {
        match (self.stock_punch, self.answering_punch, &self.relay) {
            (true, _, Ok(())) => "punch",
            (false, true, Ok(())) => "relay (punch if the client answers where it hears)",
            (false, false, Ok(())) => "relay",
            (_, _, Err(_)) => "NOTHING",
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    Punch(Client),
    Relay,
}

/// A new host and a new client meet and play.
fn play(noray: &Noray<'_>, host_lan: &Lan, client_lan: &Lan, way: Way) -> Result<(), String> {
    let (host_machine, client_machine) = (host_lan.host(), client_lan.host());
    let mut host = Player::join(&host_machine, noray);
    let mut client = Player::join(&client_machine, noray);
    let ([to_host, to_client], kind) = match way {
        Way::Punch(kind) => (connect(&mut client, &mut host), kind),
        Way::Relay => (connect_relay(&mut client, &mut host, noray), Client::Stock),
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let hosting = scope.spawn(|| host_game(&host, &[to_client], &is_over));
        let end = SetAtEnd(&is_over);
        let result = client_game(&client, to_host, "stream", kind);
        drop(end);
        let seen = hosting.join().unwrap();
        if matches!(way, Way::Relay) && result.is_ok() {
            assert_eq!(seen["stream"], (to_client, DATAGRAMS), "at the announced address");
        }
        result
    })
}

/// As Markdown, a line each: what docs/routers.md shows.
fn table(cells: &[Cell]) -> Vec<String> {
    let labels: Vec<&str> = Router::ALL.iter().map(|router| router.label()).collect();
    let head = format!("| host \\ client | {} |", labels.join(" | "));
    let rows = cells.chunk_by(|a, b| a.host == b.host).map(|row| {
        let shown: Vec<&str> = row.iter().map(Cell::show).collect();
        format!("| {} | {} |", row[0].host.label(), shown.join(" | "))
    });
    [head].into_iter().chain(rows).collect()
}
