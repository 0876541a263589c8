//! The relay hop: the first two bots play through their two relay ports, there and back, both ways.

use std::time::Duration;

use noray::config::units::PortList;
use noray::core::relay::RelayLimit;
use noray::label::Label;
use noray::operation::clock;
use serde_json::json;

use super::HopResult;
use super::answers::Answer;
use super::bots::Bots;
use super::exchange::{End, Exchange, Link, Pace, Purpose, Tag};
use super::report::{Finding, Hop, Mark, Millis, command};
use super::router::Votes;

/// Both say hello, which opens their own routers, until they have heard each other.
const HELLO: Pace =
    Pace { rounds: 20, every: Duration::from_millis(100), after: Duration::from_millis(500) };

/// How many datagrams each sends, to be echoed.
const PINGS: u8 = 20;

/// 4 kB/s each way with the echoes and all headers: slow enough for every limit that a game can live with.
const PING: Pace =
    Pace { rounds: PINGS as u32, every: Duration::from_millis(20), after: Duration::from_secs(1) };

/// How long a server's word may take that came before the last pings: it is there by then, or there is none.
const NEWS_TIME: Duration = Duration::from_millis(200);

/// How many of 100 datagrams may be lost on the way there and back: with more, games stutter.
const MAX_LOSS_PERCENT: usize = 10;

/// Plays through the two ports for a moment.
pub(super) fn there_and_back(
    bots: &mut Bots,
    link: Link,
    range: &PortList,
    votes: &mut Votes,
) -> HopResult<()> {
    let is_old = !bots.answers_errors;
    let links = [link];
    let mut exchange = Exchange::new(bots, &links);
    let both = |purpose, number| End::BOTH.map(|end| Tag { purpose, link: 0, end, number });
    let hears = |exchange: &Exchange<'_>| {
        End::BOTH.map(|end| exchange.has_heard(0, end.other(), Purpose::Hello, 0..=0))
    };
    exchange.run(
        HELLO,
        |_, _| both(Purpose::Hello, 0).to_vec(),
        |exchange| hears(exchange) == [true; 2],
    );
    if hears(&exchange) != [true; 2] {
        return Err(nothing_passes(hears(&exchange), link, range));
    }
    // An old server relays only what comes from the registered address.
    votes.same += usize::from(is_old);
    let times = |exchange: &Exchange<'_>| End::BOTH.map(|end| exchange.times(end));
    exchange.run(
        PING,
        |_, round| both(Purpose::Ping, round as u8).to_vec(),
        |exchange| times(exchange).iter().all(|times| times.len() == usize::from(PINGS)),
    );
    let times = times(&exchange);
    let is_all = times.iter().all(|times| times.len() == usize::from(PINGS));
    let limit = if is_all { None } else { limit_reached(bots, link) };
    Ok((measured(times, limit.as_deref()), ()))
}

fn nothing_passes([client_hears, host_hears]: [bool; 2], link: Link, range: &PortList) -> Finding {
    let [to_host, to_client] = link.ports;
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
    Finding::fail(Hop::Relay, seen, remedy).with_facts(facts).and_remedy(
        "If they are open: some carriers use several addresses for one player. Probe from another \
         line.",
    )
}

/// From the times there and back of the pings that came back to the client, and to the host, and the limit that the
/// server says they have reached.
fn measured(times: [Vec<Duration>; 2], limit: Option<&str>) -> Finding {
    let [client, host] = times.each_ref().map(Vec::len);
    let mut times = times.concat();
    times.sort_unstable();
    let (back, sent) = (times.len(), 2 * usize::from(PINGS));
    let loss = 100 * (sent - back) / sent;
    let millis = |time: Option<&Duration>| Millis::from(time.copied().unwrap_or_default());
    let (median, worst) = (millis(times.get(back / 2)), millis(times.last()));
    let who = if back == sent {
        format!("{PINGS} datagrams each way came back")
    } else {
        format!("{client} of {PINGS} datagrams of the client came back, {host} of the host,")
    };
    let seen = format!("{who} in {median}, at most {worst}");
    let facts = json!({
        "sent_each_way": PINGS,
        "back_to_client": client,
        "back_to_host": host,
        "loss_percent": loss,
        "median_ms": median.0,
        "worst_ms": worst.0,
        "relay_limit": limit,
    });
    let finding = Finding::ok(Hop::Relay, seen).with_facts(facts);
    if loss <= MAX_LOSS_PERCENT {
        return finding;
    }
    let failed = Finding { mark: Mark::Fail, meaning: "the relay loses too much", ..finding };
    failed.and_remedy(match limit.and_then(key_of) {
        Some(key) => format!(
            "{loss} % are lost, because the server dropped them, over its \
             {key}. Raise it; a game sends more than this probe."
        ),
        None => format!(
            "{loss} % are lost; with more than {MAX_LOSS_PERCENT} % games stutter. Is this machine's \
             line good (another server, a cable in place of Wi-Fi)? On the server, \
             noray_relay_drop_count says what it dropped and why."
        ),
    })
}

/// The key of the limit that the server names.
fn key_of(limit: &str) -> Option<&'static str> {
    let known = RelayLimit::ALL.iter().find(|known| known.label() == limit)?;
    Some(match known {
        RelayLimit::Bandwidth => "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC",
        RelayLimit::Lifetime => "NORAY_UDP_RELAY_MAX_LIFETIME_DURATION",
        RelayLimit::Traffic => "NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC",
    })
}

/// The limit that the server says the pair has reached, if it says so.
fn limit_reached(bots: &mut Bots, link: Link) -> Option<String> {
    let deadline = clock::now() + NEWS_TIME;
    link.bots.into_iter().find_map(|bot| {
        let is_limit =
            |answer| if let Answer::RelayLimit(limit) = answer { Some(limit) } else { None };
        bots.all[bot].control.wait_for(deadline, is_limit).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::NO_BREAK;

    #[test]
    fn a_little_loss_is_shown_and_much_is_a_failure() {
        let times = |count| vec![Duration::from_millis(5); count];
        for (back, mark, word) in [
            (20, Mark::Ok, "20 datagrams each way came back in 5.0 ms, at most 5.0 ms"),
            (16, Mark::Ok, "16 of 20 datagrams of the client came back, 20 of the host, in 5.0 ms"),
            (15, Mark::Fail, "15 of 20 datagrams of the client came back, 20 of the host"),
            (0, Mark::Fail, "0 of 20 datagrams of the client came back"),
        ] {
            let finding = measured([times(back), times(20)], None);
            assert_eq!(finding.mark, mark, "{back}: {}", finding.seen);
            assert!(finding.seen.replace(NO_BREAK, " ").contains(word), "{back}: {}", finding.seen);
        }
        assert_eq!(measured([vec![], vec![]], None).mark, Mark::Fail);
    }

    #[test]
    fn a_limit_that_the_server_names_is_the_reason() {
        let times = || [vec![Duration::from_millis(5); 2], vec![]];
        for (limit, words) in [
            ("bandwidth", "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC. Raise it"),
            ("traffic", "NORAY_UDP_RELAY_MAX_LIFETIME_TRAFFIC. Raise it"),
            ("lifetime", "NORAY_UDP_RELAY_MAX_LIFETIME_DURATION. Raise it"),
            ("else", "line good"),
        ] {
            let finding = measured(times(), Some(limit));
            assert!(finding.remedies[0].contains(words), "{:?}", finding.remedies);
            assert_eq!(finding.facts["relay_limit"], limit);
        }
    }
}
