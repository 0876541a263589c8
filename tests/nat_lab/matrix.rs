//! Every kind of router against every other, by punching and by relay.

use std::sync::atomic::AtomicBool;
use std::thread;

use crate::games::{Client, DATAGRAMS, Outcome, SetAtEnd, client_game, host_game};
use crate::lab::{Lab, Lan, Router, lab};
use crate::players::{Noray, Player, connect, connect_relay};

const PAGE: &str = include_str!("../../docs/routers.md");
const GAME: &str = include_str!("../../docs/noray_game.gd");

/// How long joining takes by punch or relay, in seconds. Seen with Godot 4.6.3.
const JOIN: f64 = 0.33;

/// What one pair of kinds can do.
struct Cell {
    host: Router,
    client: Router,
    add_on: Outcome,
    page: Outcome,
    relay: [Outcome; 2],
}

pub(crate) fn every_pair_of_routers_plays_by_relay_and_punches_where_its_client_can() {
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
    for Cell { host, client, add_on, page, relay } in &cells {
        let (host, client) = (*host, *client);
        assert_eq!(*relay, [Outcome::PLAYS; 2], "relay: host {host:?}, client {client:?}");
        let hears = hears_handshake(host, client);
        let can_add_on = Outcome { hears, plays: hears && !maps_by_destination(host) };
        assert_eq!(*add_on, can_add_on, "the add-on: host {host:?}, client {client:?}");
        let can_page = Outcome { hears, plays: can_punch(host, client) };
        assert_eq!(*page, can_page, "the page's game: host {host:?}, client {client:?}");
    }
    let add_on = Waits::ADD_ON.table(&cells, |cell| cell.add_on);
    let page = Waits::of_the_page().table(&cells, |cell| cell.page);
    for table in [add_on, page] {
        println!("\n{table}");
        assert!(PAGE.contains(&table), "docs/routers.md shows this table");
    }
}

/// Whether the host's handshake, which goes to the client's announced address, gets in there.
fn hears_handshake(host: Router, client: Router) -> bool {
    !(maps_by_destination(client) || maps_by_destination(host) && filters_by_port(client))
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
        let play = |way, kind| play(noray, &host_lan, &client_lan, way, kind);
        let [add_on, page] = Client::ALL.map(|kind| play(Way::Punch, kind));
        Self { host, client, add_on, page, relay: Client::ALL.map(|kind| play(Way::Relay, kind)) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Punch,
    Relay,
}

/// A new host and a new client meet and play.
pub(crate) fn play(
    noray: &Noray<'_>,
    host_lan: &Lan,
    client_lan: &Lan,
    way: Way,
    kind: Client,
) -> Outcome {
    let (host_machine, client_machine) = (host_lan.host(), client_lan.host());
    let mut host = Player::join(&host_machine, noray);
    let mut client = Player::join(&client_machine, noray);
    let [to_host, to_client] = match way {
        Way::Punch => connect(&mut client, &mut host),
        Way::Relay => connect_relay(&mut client, &mut host, noray),
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let hosting = scope.spawn(|| host_game(&host, &[to_client], &is_over));
        let end = SetAtEnd(&is_over);
        let outcome = client_game(&client, to_host, "stream", kind);
        drop(end);
        let seen = hosting.join().unwrap();
        if way == Way::Relay && outcome.plays {
            assert_eq!(seen["stream"], (to_client, DATAGRAMS), "at the announced address");
        }
        outcome
    })
}

/// How long a real client tries to punch, in seconds. The laboratory's gives up sooner.
struct Waits {
    handshake: f64,
    enet: f64,
    /// It tries ENet although the handshake heard nothing.
    tries_enet_unheard: bool,
}

impl Waits {
    /// The defaults of `PacketHandshake.over_packet_peer`, and of ENet, which asks after 0, 0.5, 1.5, 3.5, 7.5 and
    /// 15.5 s and gives up at 31.5 s. Both were seen: the first with Godot 4.6.3, which took 9.4 s.
    const ADD_ON: Self = Self { handshake: 8.0, enet: 31.5, tries_enet_unheard: false };

    fn of_the_page() -> Self {
        let seconds = |name| {
            let (_, behind) = GAME.split_once(&format!("const {name} := ")).expect("the constant");
            behind.lines().next().unwrap().parse().expect("a number")
        };
        let (handshake, enet) = (seconds("HANDSHAKE_SECONDS"), seconds("ENET_SECONDS"));
        Self { handshake, enet, tries_enet_unheard: true }
    }

    /// How long the add-on's handshake takes if it hears nothing: one step each 0.1 s, and one more. A step ends with
    /// the next frame, which is the seventh at 60 frames a second.
    fn unheard(&self) -> f64 {
        ((self.handshake * 10.0).round() + 1.0) * 7.0 / 60.0
    }

    /// How the two play, and how long it takes until they do.
    fn show(&self, outcome: Outcome) -> String {
        let mut time = JOIN;
        if !outcome.hears {
            time += self.unheard();
        }
        if !outcome.plays && (outcome.hears || self.tries_enet_unheard) {
            time += self.enet;
        }
        let way = if outcome.plays { "punch" } else { "relay" };
        if time < 1.0 { format!("{way}, {time:.1} s") } else { format!("{way}, {time:.0} s") }
    }

    /// As Markdown: what docs/routers.md shows.
    fn table(&self, cells: &[Cell], outcome: impl Fn(&Cell) -> Outcome) -> String {
        let labels: Vec<&str> = Router::ALL.iter().map(|router| router.label()).collect();
        let head =
            format!("| host \\ client | {} |\n|---|---|---|---|---|---|\n", labels.join(" | "));
        let rows = cells.chunk_by(|a, b| a.host == b.host).map(|row| {
            let shown: Vec<String> = row.iter().map(|cell| self.show(outcome(cell))).collect();
            format!("| {} | {} |\n", row[0].host.label(), shown.join(" | "))
        });
        head + &rows.collect::<String>()
    }
}
