//! The hops over TCP: two bots get their ids, each other's addresses, and two relay ports. A crowd of further bots gets
//! ids and relay ports.

use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use noray::config::units::PortList;
use noray::core::host::Host;
use noray::limits::network::is_public;
use noray::operation::clock;
use serde_json::json;

use super::answers::{Answer, Refusal};
use super::bots::{Bot, Bots, CLIENT, HOST};
use super::control::{ControlConnection, NoAnswer};
use super::exchange::Link;
use super::registrar::register;
use super::report::{Finding, Hop, Mark};
use super::{ANSWER_TIME, HopResult};

/// How long a bot of the crowd may take to connect, and then to get its ids.
const JOIN_TIME: Duration = Duration::from_secs(2);

/// How long all introductions may take together.
const INTRODUCTION_TIME: Duration = Duration::from_secs(3);

/// A bot's address, as its own machine and as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) local: SocketAddr,
    pub(super) external: SocketAddr,
}

/// `register-host`: the host, at the connection `control`, and the client, at a second connection, get their ids.
pub(super) fn give_ids(control: ControlConnection, registrar_port: u16) -> HopResult<Bots> {
    let port = control.server.port();
    let bots = two_bots(control, registrar_port).map_err(|why| no_ids(&why, port))?;
    let finding = Finding::ok(Hop::Ids, "a host and a client have got their ids")
        .with_facts(json!({ "answers_errors": bots.answers_errors }));
    if bots.answers_errors {
        return Ok((finding, bots));
    }
    let note = "This server does not say why something fails, as the older one in JavaScript. Some \
                failures are only silence below.";
    Ok((finding.note(note), bots))
}

fn two_bots(control: ControlConnection, registrar_port: u16) -> Result<Bots, NoAnswer> {
    let mut bots = Bots::new(control.server, registrar_port)?;
    bots.add(Bot::join(control, ANSWER_TIME)?)?;
    let control = ControlConnection::open(bots.server, ANSWER_TIME)?;
    bots.add(Bot::join(control, ANSWER_TIME)?)?;
    // No server knows the first command, and every server answers the second one.
    let host = &mut bots.all[HOST].control;
    host.send("probe\necho noray-probe\n");
    let echo = |answer| (answer == Answer::Echo).then_some(());
    let answer = host.wait_for(clock::now() + ANSWER_TIME, echo);
    bots.answers_errors = matches!(answer, Err(NoAnswer::Refused(_)));
    Ok(bots)
}

fn no_ids(why: &NoAnswer, port: u16) -> Finding {
    let not_noray =
        format!("Is {port} the server's NORAY_SOCKET_PORT? Another program has this port.");
    let (seen, remedy) = match why {
        NoAnswer::Broken(error) => (
            format!("this machine or the way to the server: {error}"),
            "Try again. If it stays so, look at this machine's network.".to_owned(),
        ),
        NoAnswer::Refused(refusal) => (format!("`{}`", refusal.text), code_remedy(refusal)),
        NoAnswer::Foreign(text) => {
            (format!("{port}/tcp answers, but not as noray: `{text}`"), not_noray)
        }
        NoAnswer::NoLine => {
            (format!("{port}/tcp answers, but not as noray: no lines of text"), not_noray)
        }
        NoAnswer::Silence => (
            format!("{port}/tcp accepts, and then says nothing for {} s", ANSWER_TIME.as_secs()),
            format!("{not_noray} If it is noray, restart it: systemctl restart noray."),
        ),
        NoAnswer::Closed => (
            format!("{port}/tcp accepts, and closes without a word"),
            format!(
                "{not_noray} Or something in front of the server takes the connection: a proxy or \
                 port mapping with no noray behind it."
            ),
        ),
    };
    Finding::fail(Hop::Ids, seen, remedy)
}

/// The remedy for an error that the server named.
fn code_remedy(refusal: &Refusal) -> String {
    match refusal.code.as_str() {
        "server-full" => {
            "Raise NORAY_MAX_CONNECTIONS on the server; if many players share your IP address, \
             NORAY_MAX_CONNECTIONS_PER_IP. Its log may say that LimitNOFILE= is too low."
        }
        "draining" => "The server is shutting down. Probe again when it has restarted.",
        "ids-exhausted" => "Raise NORAY_OID_LENGTH on the server: its OpenIDs are too short.",
        "rate-limited" => "Wait a minute and probe again.",
        "relays-exhausted" => {
            "All relay ports are in use, or few could be had at the server's start (its log warns). \
             Widen NORAY_UDP_RELAY_PORTS, and the firewalls with it."
        }
        _ => "The table in docs/protocol.md says what it means; the server's log may say more.",
    }
    .to_owned()
}

/// One bot asks for an introduction to each of `hosts`. Returns what the server tells it and each host.
///
/// The answers to one asker come in the order of its questions, and each host is told once. Nobody else may ask
/// meanwhile: a host is not told who asked.
fn introduce<T>(
    bots: &mut Bots,
    asker: usize,
    hosts: &[usize],
    command: &str,
    pick: fn(Answer) -> Option<T>,
    deadline: Instant,
) -> Vec<Result<[T; 2], NoAnswer>> {
    let line = |host: &usize| format!("{command} {}\n", bots.all[*host].oid);
    let lines: String = hosts.iter().map(line).collect();
    bots.all[asker].control.send(&lines);
    let mut hear = |bot: usize| bots.all[bot].control.wait_for(deadline, pick);
    hosts.iter().map(|host| Ok([hear(asker)?, hear(*host)?])).collect()
}

/// Introduces the client to the host.
fn introduce_both<T>(
    bots: &mut Bots,
    hop: Hop,
    command: &str,
    pick: fn(Answer) -> Option<T>,
) -> Result<[T; 2], Finding> {
    let deadline = clock::now() + ANSWER_TIME;
    let mut told = introduce(bots, CLIENT, &[HOST], command, pick, deadline);
    let told = told.pop().expect("there is one result for each host");
    told.map_err(|why| {
        let (seen, remedy) = match why {
            NoAnswer::Refused(refusal) => (format!("`{}`", refusal.text), code_remedy(&refusal)),
            NoAnswer::Closed | NoAnswer::Broken(_) => (
                format!("the server ended the connection at `{command}`"),
                "Did it restart? Look at its log, and probe again.".to_owned(),
            ),
            NoAnswer::Silence | NoAnswer::NoLine | NoAnswer::Foreign(_) => {
                let hint = if hop == Hop::RelayPorts && !bots.answers_errors {
                    "An old server is silent when all relay ports are in use: widen \
                     NORAY_UDP_RELAY_PORTS, and the firewalls with it. Look at its log."
                } else {
                    "Look at the server's log."
                };
                let seconds = ANSWER_TIME.as_secs();
                (format!("no answer to `{command}` in {seconds} s"), hint.to_owned())
            }
        };
        Finding::fail(hop, seen, remedy)
    })
}

/// `connect`: how the server sees the host and the client. `None` if it hides them from each other.
pub(super) fn tell_addresses(bots: &mut Bots) -> HopResult<Option<[Seen; 2]>> {
    let pick = |answer| {
        if let Answer::Connect(host, port) = answer { Some((host, port)) } else { None }
    };
    let told = introduce_both(bots, Hop::Addresses, "connect", pick)?;
    let ports = [told[0].1, told[1].1];
    // Under NORAY_RELAY_ONLY both commands lead to the same pair of ports. An old server does not know that.
    if told[0].0 == told[1].0 && bots.answers_errors {
        let relayed = introduce_both(bots, Hop::Addresses, "connect-relay", relay_port);
        if relayed.is_ok_and(|relayed| relayed == ports) {
            return relay_only(bots, &told[0].0).map(|finding| (finding, None));
        }
    }
    let (finding, seen) = judge_addresses(bots, told)?;
    Ok((finding, Some(seen)))
}

/// The server leads both players to its own address, which must be the one that was probed.
fn relay_only(bots: &Bots, told: &Host) -> Result<Finding, Finding> {
    let server = bots.server.ip();
    let ips = match told {
        Host::Ip(ip) => vec![*ip],
        Host::Name(name) => (name.as_ref(), 0)
            .to_socket_addrs()
            .map(|found| found.map(|address| address.ip()).collect())
            .unwrap_or_default(),
    };
    let text = format!("players are hidden from each other and led to {told}");
    let facts = json!({ "relay_only": true, "server": told.to_string() });
    if ips.contains(&server) {
        return Ok(Finding::ok(Hop::Addresses, text).with_facts(facts));
    }
    let remedy = format!(
        "You reach the server at {server}. If players do too, set NORAY_PUBLIC_HOST={server} on it, or to a name that \
         leads there."
    );
    let is_reachable = ips.into_iter().any(is_public);
    let finding = Finding::fail(Hop::Addresses, text, remedy).with_facts(facts);
    if is_reachable || !is_public(server) { Ok(finding.marked(Mark::Warn)) } else { Err(finding) }
}

fn judge_addresses(bots: &Bots, told: [(Host, u16); 2]) -> HopResult<[Seen; 2]> {
    let [host, client] = told.map(|(host, port)| match host {
        Host::Ip(ip) => Ok(SocketAddr::new(ip, port)),
        Host::Name(name) => Err(name),
    });
    let (Ok(host), Ok(client)) = (host, client) else {
        let remedy = "Is this noray? It tells addresses as IP:PORT.";
        return Err(Finding::fail(Hop::Addresses, "`connect` leads to a name", remedy));
    };
    let seen = [(HOST, host), (CLIENT, client)]
        .map(|(bot, external)| Seen { local: bots.all[bot].local, external });
    let text = if host.ip() == client.ip() {
        format!("you are seen at {}, ports {} and {}", host.ip(), host.port(), client.port())
    } else {
        format!("the host is seen at {host}, the client at {client}")
    };
    let facts = json!({ "host": host.to_string(), "client": client.to_string() });
    let finding = Finding::ok(Hop::Addresses, text).with_facts(facts);
    let is_hidden = |seen: &Seen| !is_public(seen.external.ip()) && seen.external != seen.local;
    let finding = if seen.iter().any(is_hidden) && is_public(bots.server.ip()) {
        finding.note(
            "That is no address of the internet, so nobody can punch through to it. Does noray run in \
             a container? Let it use the host's network.",
        )
    } else if host.ip() != client.ip() {
        finding.note(
            "Your carrier gives you several addresses. Such players need \
             NORAY_UDP_RELAY_LATCHING=any on the server.",
        )
    } else {
        finding
    };
    Ok((finding, seen))
}

/// The port of a `connect-relay`.
fn relay_port(answer: Answer) -> Option<u16> {
    if let Answer::ConnectRelay(port) = answer { Some(port) } else { None }
}

/// `connect-relay`: the two ports.
pub(super) fn tell_relay_ports(bots: &mut Bots, range: &PortList) -> HopResult<Link> {
    let ports = introduce_both(bots, Hop::RelayPorts, "connect-relay", relay_port)?;
    let [to_host, to_client] = ports;
    let seen = format!("{to_host} leads to the host, {to_client} to the client");
    let facts = json!({ "to_host": to_host, "to_client": to_client });
    let finding = Finding::ok(Hop::RelayPorts, seen).with_facts(facts);
    let link = Link { bots: [CLIENT, HOST], ports };
    if ports.iter().all(|port| range.contains(*port)) {
        return Ok((finding, link));
    }
    let note = format!(
        "Not in {range}: give --relay-ports what NORAY_UDP_RELAY_PORTS is on the server, and open \
         those ports in the firewalls. Only few of them are tried now."
    );
    Ok((finding.note(note), link))
}

/// The introductions of a crowd, as far as the server made them.
#[derive(Default)]
pub(super) struct Crowd {
    pub(super) links: Vec<Link>,
    /// How many pairs of bots got no relay.
    pub(super) failed: usize,
    /// Why the last one got none.
    pub(super) why_failed: Option<String>,
}

/// Adds up to `size` bots and introduces each to each.
///
/// # Errors
/// Why there is not a single introduction.
pub(super) fn gather(bots: &mut Bots, size: usize) -> Result<Crowd, String> {
    let (crowd_range, why_fewer) = join_all(bots, size);
    let registered = register(bots, crowd_range.clone());
    let members: Vec<usize> = crowd_range.filter(|bot| !registered.without.contains(bot)).collect();
    let mut crowd = Crowd::default();
    let deadline = clock::now() + INTRODUCTION_TIME;
    for (index, asker) in members.iter().enumerate() {
        let hosts = &members[index + 1..];
        let told = introduce(bots, *asker, hosts, "connect-relay", relay_port, deadline);
        for (host, told) in hosts.iter().zip(told) {
            match told {
                Ok(ports) => crowd.links.push(Link { bots: [*asker, *host], ports }),
                Err(why) => {
                    crowd.failed += 1;
                    crowd.why_failed = Some(why.to_string());
                }
            }
        }
    }
    if crowd.links.is_empty() {
        let why = crowd.why_failed.or(why_fewer.map(|why| why.to_string()));
        return Err(why.unwrap_or("too few players could register their address".to_owned()));
    }
    Ok(crowd)
}

/// Which bots joined, and why the others did not. They join all at once, because one after another takes long at a
/// far server.
fn join_all(bots: &mut Bots, size: usize) -> (Range<usize>, Option<NoAnswer>) {
    let (first, server) = (bots.all.len(), bots.server);
    let join = || Bot::join(ControlConnection::open(server, JOIN_TIME)?, JOIN_TIME);
    let joined: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..size).map(|_| scope.spawn(join)).collect();
        threads.into_iter().map(|thread| thread.join().expect("joining does not panic")).collect()
    });
    let mut why_fewer = None;
    for bot in joined {
        why_fewer = bot.and_then(|bot| Ok(bots.add(bot)?)).err().or(why_fewer);
    }
    (first..bots.all.len(), why_fewer)
}
