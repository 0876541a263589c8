//! Speaks no word of noray's: the server's name, and TCP to its port for players.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serde_json::json;

use super::line::Line;
use super::report::{Hop, Mark, Step, command};
use super::target::Target;
use super::{ANSWER_TIME, Outcome};

/// How long the system may look for a name.
const RESOLVE_TIME: Duration = Duration::from_secs(10);

/// How many of a name's addresses are tried.
const MAX_ADDRESSES: usize = 4;

/// The addresses of the server, those of IPv4 first: the stock client uses no other.
pub(super) fn resolve(target: &Target) -> Outcome<Vec<SocketAddr>> {
    let found = look_up(target.clone());
    let mut addresses = match found {
        Ok(addresses) if !addresses.is_empty() => addresses,
        found => {
            let why = found.err().map_or("it has no address".to_owned(), |error| error.to_string());
            let seen = format!("`{}` does not lead to an address: {why}", target.host);
            let remedy = "Is the name spelled right? It needs an A record at your domain's provider. The \
                          server's IP address works here as well.";
            return (Step::fail(Hop::Name, seen, remedy), None);
        }
    };
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    let ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let step = Step::ok(Hop::Name, ips.join(", ")).with_facts(json!({ "addresses": ips }));
    let has_ipv4 = addresses.iter().any(SocketAddr::is_ipv4);
    let step = if has_ipv4 {
        step
    } else {
        step.marked(Mark::Note).and_remedy("No IPv4: the stock client of Godot cannot connect.")
    };
    (step, Some(addresses))
}

/// On a thread of its own, which stays behind if the system does not answer in time.
fn look_up(target: Target) -> io::Result<Vec<SocketAddr>> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    std::thread::Builder::new().name("name".to_owned()).spawn(move || {
        let found = (target.host.as_str(), target.port).to_socket_addrs();
        // If nobody waits any more, it came too late.
        let _ = sender.send(found.map(Iterator::collect));
    })?;
    receiver.recv_timeout(RESOLVE_TIME).unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// A connection to the first of the addresses that takes one.
pub(super) fn connect(addresses: &[SocketAddr]) -> Outcome<Line> {
    let mut failed: Vec<(SocketAddr, io::Error)> = Vec::new();
    for address in addresses {
        match Line::connect(*address, ANSWER_TIME) {
            Ok(line) => return (connected(*address, &line, &failed), Some(line)),
            Err(error) => failed.push((*address, error)),
        }
    }
    let port = addresses.first().map_or(0, SocketAddr::port);
    let seen = shown(&failed, port);
    // The first one is what players use.
    let remedy = failed.first().map_or(String::new(), |(_, error)| remedy(error, port));
    let facts = json!({ "port": port, "errors": errors(&failed) });
    (Step::fail(Hop::Connection, seen, remedy).with_facts(facts), None)
}

fn connected(address: SocketAddr, line: &Line, failed: &[(SocketAddr, io::Error)]) -> Step {
    let (ip, port) = (address.ip(), address.port());
    let facts = json!({ "port": port, "address": ip.to_string(), "errors": errors(failed) });
    let step = Step::ok(Hop::Connection, format!("{port}/tcp answers at {ip}")).with_facts(facts);
    let is_own = ip.is_loopback() || line.local().is_ok_and(|local| local.ip() == ip);
    let step = if is_own {
        step.marked(Mark::Note).and_remedy(
            "This is the server's own machine, so no firewall is tried. Probe from another one.",
        )
    } else {
        step
    };
    let Some((_, error)) = failed.first() else { return step };
    let mut step = step.marked(Mark::Note);
    step.seen.push_str(&format!(", but {}", shown(failed, port)));
    let which =
        "Players try the first address only. Take the wrong ones out of the name's records, or: ";
    step.and_remedy(format!("{which}{}", remedy(error, port)))
}

fn errors(failed: &[(SocketAddr, io::Error)]) -> Vec<String> {
    failed.iter().map(|(address, error)| format!("{address}: {error}")).collect()
}

fn shown(failed: &[(SocketAddr, io::Error)], port: u16) -> String {
    let one = |(address, error): &(SocketAddr, io::Error)| {
        let what = match Obstacle::of(error) {
            Obstacle::Refused => "refused, nothing listens there".to_owned(),
            Obstacle::Silence => format!("no answer in {} s", ANSWER_TIME.as_secs()),
            Obstacle::NoWay => format!("no way there ({error})"),
            Obstacle::Other => error.to_string(),
        };
        format!("{port}/tcp at {}: {what}", address.ip())
    };
    failed.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Why there is no connection, as far as remedies differ.
enum Obstacle {
    Refused,
    Silence,
    NoWay,
    Other,
}

impl Obstacle {
    fn of(error: &io::Error) -> Self {
        let no_way = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
        let kind = error.kind();
        if kind == ErrorKind::ConnectionRefused {
            Self::Refused
        } else if kind == ErrorKind::TimedOut {
            Self::Silence
        } else if no_way.contains(&kind) {
            Self::NoWay
        } else {
            Self::Other
        }
    }
}

fn remedy(error: &io::Error, port: u16) -> String {
    match Obstacle::of(error) {
        Obstacle::Refused => format!(
            "Is noray running there (systemctl status noray)? Is {port} its NORAY_SOCKET_PORT, and \
             NORAY_SOCKET_HOST not 127.0.0.1? A firewall that rejects looks the same."
        ),
        Obstacle::Silence => format!(
            "Open {port}/tcp in the server's firewall (with ufw: {}) and in the provider's (most have \
             one, in their web console). Is the machine up, and the address its own?",
            command(&format!("ufw allow {port}/tcp"))
        ),
        Obstacle::NoWay => "Is the address right, and is this machine online? For an IPv6 address \
                            both need IPv6. A firewall that rejects can look the same."
            .to_owned(),
        Obstacle::Other => {
            "Is the address right? A firewall on this machine may forbid it too.".to_owned()
        }
    }
}
