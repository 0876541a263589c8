//! The real binary, with limits that nothing reaches.

use crate::shape::Shape;
use crate::subject::{Flow, PlayerSocket, Subject};
use crate::support::{Player, WIDE, connect_relay, start_noray};

/// Starts noray and introduces the players of `shape` to each other.
pub(crate) fn start(shape: Shape) -> Subject {
    let (process, _) = start_noray(&WIDE);
    let mut players: Vec<Player> = (0..shape.players()).map(|_| Player::join()).collect();
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
    Subject { name: "noray", process, sockets, flows, _lines: lines }
}
