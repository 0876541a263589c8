//! Sends no datagram: `connect` and `connect-relay`, and what both players are told.

use std::net::{IpAddr, SocketAddr};

use serde_json::json;

use super::answers::{Answer, Failure};
use super::join::{Manners, Meeting, Player, code_remedy};
use super::line::NoAnswer;
use super::report::{Hop, Mark, Step};
use super::{ANSWER_TIME, Outcome};
use noray::config::units::PortList;
use noray::operation::clock;

/// A player's address, as its own machine and as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) local: SocketAddr,
    pub(super) external: SocketAddr,
}

/// Where the two reach each other through the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RelayPorts {
    pub(super) to_host: u16,
    pub(super) to_client: u16,
}

impl RelayPorts {
    pub(super) fn both(self) -> [u16; 2] {
        [self.to_host, self.to_client]
    }
}

/// Why no introduction came about.
enum Failed {
    Answer(Failure),
    NoAnswer(NoAnswer),
}

/// The client asks; what it is told, and then what the host is told.
fn introduce<T>(
    meeting: &mut Meeting,
    command: &str,
    pick: impl Fn(&Answer) -> Option<T>,
) -> Result<[T; 2], Failed> {
    let line = format!("{command} {}\n", meeting.host.oid);
    meeting.client.line.send(&line);
    let deadline = clock::now() + ANSWER_TIME;
    let hear = |player: &mut Player| {
        let heard = player.line.wait_for(deadline, |answer| {
            let picked = pick(&answer).map(Ok);
            let failed = || answer.failure().map(|failure| Err(Failed::Answer(failure)));
            picked.or_else(failed)
        });
        heard.unwrap_or_else(|error| Err(Failed::NoAnswer(error)))
    };
    Ok([hear(&mut meeting.client)?, hear(&mut meeting.host)?])
}

/// `connect`: the host's and the client's address.
pub(super) fn addresses(meeting: &mut Meeting) -> Outcome<[Seen; 2]> {
    let told = introduce(meeting, "connect", Answer::address);
    let external = match told {
        Ok(told) => told,
        Err(failed) => return (not_introduced(Hop::Addresses, "connect", &failed, meeting), None),
    };
    let players = [&meeting.host, &meeting.client];
    let locals = players.map(|player| meeting.sockets.local(player.socket));
    let [Ok(host), Ok(client)] = locals else {
        let step =
            Step::fail(Hop::Addresses, "this machine's sockets have no address", "Try again.");
        return (step, None);
    };
    let seen = [(host, external[0]), (client, external[1])];
    let seen = seen.map(|(local, external)| Seen { local, external });
    (addresses_step(seen, meeting.server.players.ip()), Some(seen))
}

fn addresses_step(seen: [Seen; 2], server: IpAddr) -> Step {
    let [host, client] = seen.map(|seen| seen.external);
    let text = if host.ip() == client.ip() {
        format!("you are seen at {}, ports {} and {}", host.ip(), host.port(), client.port())
    } else {
        format!("the host is seen at {host}, the client at {client}")
    };
    let facts = json!({ "host": host.to_string(), "client": client.to_string() });
    let step = Step::ok(Hop::Addresses, text).with_facts(facts);
    let is_hidden = |seen: &Seen| is_private(seen.external.ip()) && seen.external != seen.local;
    if seen.iter().any(is_hidden) && !is_private(server) {
        return step.marked(Mark::Note).and_remedy(
            "That is no address of the internet, so nobody can punch through to it. Does noray run in \
             a container? Let it use the host's network.",
        );
    }
    if host.ip() != client.ip() {
        return step.marked(Mark::Note).and_remedy(
            "Your carrier gives you several addresses. Such players need \
             NORAY_UDP_RELAY_LATCHING=any on the server.",
        );
    }
    step
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// `connect-relay`: the two ports.
pub(super) fn relay_ports(meeting: &mut Meeting, range: &PortList) -> Outcome<RelayPorts> {
    let told = introduce(meeting, "connect-relay", Answer::relay_port);
    let [to_host, to_client] = match told {
        Ok(told) => told,
        Err(failed) => {
            return (not_introduced(Hop::RelayPorts, "connect-relay", &failed, meeting), None);
        }
    };
    let ports = RelayPorts { to_host, to_client };
    let seen = format!("{to_host} leads to the host, {to_client} to the client");
    let facts = json!({ "to_host": to_host, "to_client": to_client });
    let step = Step::ok(Hop::RelayPorts, seen).with_facts(facts);
    let is_inside = ports.both().iter().all(|port| range.contains(*port));
    if is_inside {
        return (step, Some(ports));
    }
    let step = step.marked(Mark::Note).and_remedy(format!(
        "Not in {range}: give --relay-ports what NORAY_UDP_RELAY_PORTS is on the server, and open \
         those ports in the firewalls. Only few of them are tried now."
    ));
    (step, Some(ports))
}

fn not_introduced(hop: Hop, command: &str, failed: &Failed, meeting: &Meeting) -> Step {
    let (seen, remedy) = match failed {
        Failed::Answer(failure) => (format!("`{}`", failure.shown()), code_remedy(&failure.code)),
        Failed::NoAnswer(NoAnswer::Closed | NoAnswer::Broken(_)) => (
            format!("the server ended the connection at `{command}`"),
            "Did it restart? Look at its log, and probe again.".to_owned(),
        ),
        Failed::NoAnswer(NoAnswer::Silence | NoAnswer::NoLine | NoAnswer::LineTooLong) => {
            let hint = match (meeting.manners, hop) {
                (Manners::Silent, Hop::RelayPorts) => {
                    "An old server is silent when all relay ports are in use: widen \
                     NORAY_UDP_RELAY_PORTS, and the firewalls with it. Look at its log."
                }
                _ => "Look at the server's log.",
            };
            let seconds = ANSWER_TIME.as_secs();
            (format!("no answer to `{command}` in {seconds} s"), hint.to_owned())
        }
    };
    Step::fail(hop, seen, remedy)
}
