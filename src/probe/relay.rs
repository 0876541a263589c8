//! Asks the server for nothing: datagrams through one pair of relay ports, there and back, both ways.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Outcome;
use super::join::{Meeting, Server};
use super::meet::RelayPorts;
use super::payload::{Kind, LENGTH, Tag, Token};
use super::report::{Hop, Mark, Step, command};
use super::udp::{Arrival, Exchange, Pace, SocketId, Sockets};
use noray::config::units::PortList;
use noray::operation::clock;

/// Both say hello, which opens their own routers, until they have heard each other.
const HELLO: Pace =
    Pace { rounds: 20, every: Duration::from_millis(100), after: Duration::from_millis(500) };

/// How many datagrams each sends, to be echoed.
const PINGS: usize = 20;

/// Slow enough for every limit of a server.
const PING: Pace =
    Pace { rounds: PINGS as u32, every: Duration::from_millis(20), after: Duration::from_secs(1) };

/// How many of 100 datagrams may be lost on the way there and back: with more, games stutter.
const MAX_LOSS_PERCENT: usize = 10;

/// The time there and back of each ping that came back, by its number.
type Times = [Option<Duration>; PINGS];

/// How the two hear each other through the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relayed;

/// One player's end. The client's is the first of two, the host's the second.
struct End {
    socket: SocketId,
    /// Where it reaches the other.
    to: SocketAddr,
    /// Whether it has heard the other.
    has_heard: bool,
    sent: Vec<Instant>,
    times: Times,
}

struct Ends {
    token: Token,
    kind: Kind,
    server: Server,
    ends: [End; 2],
}

impl Ends {
    fn tag(&self, sender: usize, number: usize) -> [u8; LENGTH] {
        // Two ends, and few pings.
        let (player, number) = (sender as u8, number as u16);
        let port = self.ends[sender].to.port();
        self.token.encode(Tag { kind: self.kind, sender: player, port, number })
    }

    fn hear_tag(&mut self, at: usize, tag: Tag) -> Option<([u8; LENGTH], SocketAddr)> {
        let (number, is_own) = (usize::from(tag.number), usize::from(tag.sender) == at);
        match tag.kind {
            Kind::Hello if !is_own => self.ends[at].has_heard = true,
            Kind::Ping if !is_own => {
                let echo = Tag { kind: Kind::Echo, ..tag };
                return Some((self.token.encode(echo), self.ends[at].to));
            }
            Kind::Echo if is_own => {
                let End { sent, times, .. } = &mut self.ends[at];
                if let (Some(sent), Some(time)) = (sent.get(number), times.get_mut(number)) {
                    time.get_or_insert(clock::now() - *sent);
                }
            }
            Kind::Hello | Kind::Ping | Kind::Echo | Kind::Fresh => {}
        }
        None
    }
}

impl Exchange for Ends {
    fn send(&mut self, round: u32, sockets: &mut Sockets) {
        for index in 0..self.ends.len() {
            let payload = self.tag(index, round as usize);
            let end = &mut self.ends[index];
            if self.kind == Kind::Ping {
                end.sent.push(clock::now());
            }
            sockets.send(end.socket, &payload, end.to);
        }
    }

    fn hear(&mut self, arrival: &Arrival<'_>) -> Option<([u8; LENGTH], SocketAddr)> {
        let Arrival::Datagram { at, from, payload } = arrival else { return None };
        let tag = self.token.decode(payload)?;
        let at = self.ends.iter().position(|end| end.socket == *at)?;
        let is_from_server = from.ip() == self.server.players.ip();
        if is_from_server { self.hear_tag(at, tag) } else { None }
    }

    fn is_done(&self) -> bool {
        self.ends.iter().all(|end| match self.kind {
            Kind::Hello | Kind::Fresh => end.has_heard,
            Kind::Ping | Kind::Echo => end.times.iter().all(Option::is_some),
        })
    }
}

/// Plays through the two ports for a moment.
pub(super) fn there_and_back(
    meeting: &mut Meeting,
    ports: RelayPorts,
    range: &PortList,
) -> Outcome<Relayed> {
    let server = meeting.server;
    let end = |socket, port| End {
        socket,
        to: server.at(port),
        has_heard: false,
        sent: Vec::new(),
        times: [None; PINGS],
    };
    let ends =
        [end(meeting.client.socket, ports.to_host), end(meeting.host.socket, ports.to_client)];
    let mut ends = Ends { token: meeting.token, kind: Kind::Hello, server, ends };
    meeting.sockets.exchange(&mut ends, HELLO);
    let [client, host] = &ends.ends;
    if !(client.has_heard && host.has_heard) {
        return (nothing_passes([client.has_heard, host.has_heard], ports, range), None);
    }
    ends.kind = Kind::Ping;
    meeting.sockets.exchange(&mut ends, PING);
    measured(ends.ends.each_ref().map(|end| end.times))
}

fn nothing_passes(
    [client_hears, host_hears]: [bool; 2],
    ports: RelayPorts,
    range: &PortList,
) -> Step {
    let RelayPorts { to_host, to_client } = ports;
    let seen = match (client_hears, host_hears) {
        (true, _) => format!("nothing passes from client to host (port {to_host})"),
        (_, true) => format!("nothing passes from host to client (port {to_client})"),
        (false, false) => format!("nothing passes through {to_host} and {to_client}, either way"),
    };
    let remedy = format!(
        "Open the relay ports, {range}/udp, in the server's firewall (with ufw: {}) and in the \
         provider's. In a container use the host's network.",
        command(&format!("ufw allow {}/udp", range.to_string().replace('-', ":")))
    );
    let facts = json!({ "client_hears": client_hears, "host_hears": host_hears });
    Step::fail(Hop::Relay, seen, remedy).with_facts(facts).and_remedy(
        "If they are open: some carriers use several addresses for one player. Probe from another \
         line.",
    )
}

fn measured(ends: [Times; 2]) -> Outcome<Relayed> {
    let mut times: Vec<Duration> = ends.into_iter().flatten().flatten().collect();
    times.sort_unstable();
    let [client, host] = ends.map(|times| times.iter().flatten().count());
    let (back, sent) = (times.len(), 2 * PINGS);
    let loss = 100 * (sent - back) / sent;
    let median = times.get(back / 2).copied().unwrap_or_default();
    let worst = times.last().copied().unwrap_or_default();
    let [median_ms, worst_ms] = [median, worst].map(|time| time.as_secs_f64() * 1000.0);
    let seen = if back == sent {
        format!(
            "{PINGS} datagrams each way came back in {median_ms:.1} ms, at most {worst_ms:.1} ms"
        )
    } else {
        format!(
            "{client} of {PINGS} datagrams of the client came back, {host} of the host, in \
             {median_ms:.1} ms, at most {worst_ms:.1} ms"
        )
    };
    let facts = json!({
        "sent_each_way": PINGS,
        "back_to_client": client,
        "back_to_host": host,
        "loss_percent": loss,
        "median_ms": median_ms,
        "worst_ms": worst_ms,
    });
    let step = Step::ok(Hop::Relay, seen).with_facts(facts);
    if loss <= MAX_LOSS_PERCENT {
        return (step, Some(Relayed));
    }
    let step = step.marked(Mark::Fail).meaning("the relay loses too much").and_remedy(format!(
        "{loss} % are lost; with more than {MAX_LOSS_PERCENT} % games stutter. Is this machine's \
             line good (another server, a cable in place of Wi-Fi)? On the server, \
             noray_relay_drop_count says what it dropped and why."
    ));
    (step, Some(Relayed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_loss_is_shown_and_much_is_a_failure() {
        for (lost, mark, word) in [
            (0, Mark::Ok, "20 datagrams each way came back in 5.0 ms, at most 5.0 ms"),
            (4, Mark::Ok, "16 of 20 datagrams of the client came back, 20 of the host"),
            (5, Mark::Fail, "15 of 20 datagrams of the client came back, 20 of the host"),
            (PINGS, Mark::Fail, "0 of 20 datagrams of the client came back"),
        ] {
            let all = [Some(Duration::from_millis(5)); PINGS];
            let mut some = all;
            some[..lost].fill(None);
            let (step, _) = measured([some, all]);
            assert_eq!(step.mark, mark, "{lost}: {}", step.seen);
            assert!(step.seen.contains(word), "{lost}: {}", step.seen);
        }
        assert_eq!(measured([[None; PINGS]; 2]).0.mark, Mark::Fail);
    }
}
