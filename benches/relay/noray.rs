//! The real binary, with limits that nothing reaches.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::shape::Shape;
use crate::subject::{Flow, PlayerSocket, Subject, player_ip};
use crate::support::{IP, Line, Player, WIDE, connect_relay, start_noray_at};

pub(crate) const NAME: &str = "noray";

/// Another binary of noray, measured beside this one.
pub(crate) struct Beside {
    pub(crate) name: String,
    pub(crate) binary: String,
}

/// Starts noray and introduces the players of `shape` to each other.
pub(crate) fn start(shape: Shape) -> Subject {
    start_at(IP, NAME, env!("CARGO_BIN_EXE_noray"), shape)
}

/// The same with another binary, the one with this `index` among such.
pub(crate) fn start_beside(index: usize, beside: &Beside, shape: Shape) -> Subject {
    let last = u8::try_from(16 + index).expect("a few binaries");
    let ip = Ipv4Addr::new(127, 77, 0, last).into();
    start_at(ip, &beside.name, &beside.binary, shape)
}

fn start_at(ip: IpAddr, name: &str, binary: &str, shape: Shape) -> Subject {
    let (process, _) = start_noray_at(ip, Path::new(binary), &WIDE);
    let join = |player| Player::join_between(player_ip(player), ip);
    let players = (0..shape.players()).map(join).collect();
    let Introduced { flows, sockets, lines } = introduce(players, shape);
    Subject { name: name.to_owned(), process, sockets, flows, _lines: lines }
}

/// Players that send to each other through relays.
pub(crate) struct Introduced {
    pub(crate) flows: Vec<Flow>,
    pub(crate) sockets: Vec<PlayerSocket>,
    /// The players' ids live as long.
    pub(crate) lines: Vec<Line>,
}

/// Introduces the pairs of the shape to each other.
pub(crate) fn introduce(mut players: Vec<Player>, shape: Shape) -> Introduced {
    let mut flows = Vec::new();
    for pair in shape.pairs() {
        let [host, client] = players.get_disjoint_mut(pair).expect("a host is nobody's client");
        let [to_host, to_client] = connect_relay(client, host);
        let [host, client] = pair;
        flows.push(Flow { from: client, to: to_host, channel: None });
        flows.push(Flow { from: host, to: to_client, channel: None });
    }
    let (lines, sockets) = players
        .into_iter()
        .map(|player| (player.line, PlayerSocket { udp: player.udp, header: 0 }))
        .unzip();
    Introduced { flows, sockets, lines }
}
