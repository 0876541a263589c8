//! The registrar hop: bots send their PrivateIDs by UDP until each has heard `OK`.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use noray::operation::clock;
use serde_json::json;

use super::HopResult;
use super::answers::shown;
use super::bots::{Arrival, Bots, Socket};
use super::report::{Finding, Hop, command};

/// The stock client also sends every 100 ms, but for longer than these 3 s.
const ROUNDS: u32 = 30;
const INTERVAL: Duration = Duration::from_millis(100);

/// The probe gives up after so many answers that are not `OK`.
const ENOUGH_BAD_ANSWERS: usize = 4;

/// How registering went.
#[derive(Default)]
pub(super) struct Registered {
    /// The bots that have not heard `OK`.
    pub(super) without: Vec<usize>,
    bad: usize,
    /// The last thing that came in place of `OK`: what was seen, and what helps.
    trouble: Option<(String, String)>,
}

/// Registers the addresses of some bots.
pub(super) fn register(bots: &mut Bots, who: Range<usize>) -> Registered {
    let mut registered = Registered { without: who.collect(), ..Registered::default() };
    let start = clock::now();
    for round in 1..=ROUNDS {
        for bot in registered.without.clone() {
            let pid = bots.all[bot].pid.reveal().as_bytes();
            if let Err(error) = bots.send((bot, Socket::Registered), pid, bots.registrar_port) {
                registered.note(refused(&error, bots.registrar_port));
            }
        }
        while !registered.is_done()
            && let Some(arrival) = bots.receive(start + INTERVAL * round)
        {
            registered.hear(arrival, bots.at(bots.registrar_port));
        }
        if registered.is_done() {
            break;
        }
    }
    registered
}

impl Registered {
    fn is_done(&self) -> bool {
        self.without.is_empty() || self.bad >= ENOUGH_BAD_ANSWERS
    }

    fn note(&mut self, trouble: (String, String)) {
        self.bad += 1;
        self.trouble = Some(trouble);
    }

    fn hear(&mut self, Arrival { bot, result }: Arrival, registrar: SocketAddr) {
        let (source, content) = match result {
            Ok(datagram) => datagram,
            Err(error) => return self.note(refused(&error, registrar.port())),
        };
        let (seen, remedy) = match content.as_slice() {
            b"OK" if source == registrar => {
                return self.without.retain(|waiting| *waiting != bot);
            }
            b"OK" => (
                format!("answers from {}, not from the address that was asked", source.ip()),
                "Home routers drop such answers. The server has several addresses: set \
                 NORAY_UDP_HOST to the one that players use."
                    .to_owned(),
            ),
            _ if source != registrar => return,
            b"Unknown host pid!" => (
                "answers `Unknown host pid!`".to_owned(),
                "This registrar does not belong to the server that gave the ids: another noray has \
                 the UDP port, or the server restarted just now. Stop the other one and probe again."
                    .to_owned(),
            ),
            other => (
                format!("answers, but not as noray's registrar: `{}`", shown(other)),
                other_port(registrar.port()),
            ),
        };
        self.note((format!("{}/udp {seen}", registrar.port()), remedy));
    }
}

/// Why ICMP or this machine refused a datagram.
fn refused(error: &io::Error, port: u16) -> (String, String) {
    let (seen, remedy) = if error.kind() == ErrorKind::ConnectionRefused {
        (
            "nothing listens there (ICMP: port unreachable)".to_owned(),
            format!("{} A firewall that rejects looks the same.", other_port(port)),
        )
    } else if error.kind() == ErrorKind::PermissionDenied {
        (
            format!("forbidden on the way, or by this machine ({error})"),
            format!(
                "Open {port}/udp in the firewalls of the server, the provider and this machine."
            ),
        )
    } else {
        (
            format!("no way there ({error})"),
            format!("Open {port}/udp in the server's firewall and in the provider's."),
        )
    };
    (format!("{port}/udp: {seen}"), remedy)
}

fn other_port(port: u16) -> String {
    format!(
        "Is {port} the server's NORAY_UDP_REGISTRAR_PORT? If it is another, say so: \
         --registrar-port PORT."
    )
}

/// Registers the addresses of the first two bots.
pub(super) fn register_both(bots: &mut Bots) -> HopResult<()> {
    let port = bots.registrar_port;
    let registered = register(bots, 0..2);
    let facts = json!({ "port": port, "registered": 2 - registered.without.len() });
    if registered.without.is_empty() {
        let seen = format!("{port}/udp answers OK to both");
        return Ok((Finding::ok(Hop::Registrar, seen).with_facts(facts), ()));
    }
    let finding = if let Some((seen, remedy)) = registered.trouble {
        Finding::fail(Hop::Registrar, seen, remedy)
    } else {
        let remedy = format!(
            "Open {port}/udp in the server's firewall (with ufw: {}) and in the provider's (most \
             have one, in their web console). In a container use the host's network.",
            command(&format!("ufw allow {port}/udp"))
        );
        let other_port = other_port(port);
        Finding::fail(Hop::Registrar, format!("{port}/udp: no answer in 3 s"), remedy)
            .and_remedy(format!("{other_port} Does this machine's own network let UDP out?"))
    };
    Err(finding.with_facts(facts))
}
