//! Opens no socket: the players' PrivateIDs to the registrar, until it answers.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::Outcome;
use super::answers::RegistrarAnswer;
use super::join::{Meeting, Player};
use super::payload::LENGTH;
use super::report::{Hop, Step, command};
use super::udp::{Arrival, Exchange, Pace, SocketId, Sockets};
use noray::core::id::PrivateId;

/// As the stock client: every 100 ms, but for 3 s only.
const PACE: Pace = Pace { rounds: 30, every: Duration::from_millis(100), after: Duration::ZERO };

/// After how many answers that are not `OK` no better ones are waited for.
const ENOUGH_BAD_ANSWERS: usize = 4;

/// Players on their way to be registered.
pub(super) struct Registration {
    registrar: SocketAddr,
    waiting: Vec<(SocketId, PrivateId)>,
    bad: usize,
    /// The last answer that was not `OK`, or what came in place of one.
    trouble: Option<Trouble>,
}

enum Trouble {
    Answer(RegistrarAnswer),
    /// `OK`, but from an address that was not asked.
    From(SocketAddr),
    Error(io::Error),
}

impl Registration {
    /// Registers all of `players`; those who are still waiting at the end are not.
    pub(super) fn run<'a>(
        registrar: SocketAddr,
        players: impl IntoIterator<Item = &'a Player>,
        sockets: &mut Sockets,
    ) -> Self {
        let waiting = players.into_iter().map(|player| (player.socket, player.pid.clone()));
        let mut this = Self { registrar, waiting: waiting.collect(), bad: 0, trouble: None };
        sockets.exchange(&mut this, PACE);
        this
    }

    /// Whether that player's address is registered.
    pub(super) fn has(&self, player: &Player) -> bool {
        self.waiting.iter().all(|(socket, _)| *socket != player.socket)
    }
}

impl Exchange for Registration {
    fn send(&mut self, _: u32, sockets: &mut Sockets) {
        for (socket, pid) in &self.waiting {
            sockets.send(*socket, pid.reveal().as_bytes(), self.registrar);
        }
    }

    fn hear(&mut self, arrival: &Arrival<'_>) -> Option<([u8; LENGTH], SocketAddr)> {
        let (at, trouble) = match arrival {
            Arrival::Datagram { at, from, payload } if *from == self.registrar => {
                (at, Trouble::Answer(RegistrarAnswer::parse(payload)))
            }
            Arrival::Datagram { at, from, payload: b"OK" } => (at, Trouble::From(*from)),
            Arrival::Datagram { .. } => return None,
            Arrival::Trouble { at, error } => (at, Trouble::Error(error.kind().into())),
        };
        if matches!(trouble, Trouble::Answer(RegistrarAnswer::Ok)) {
            self.waiting.retain(|(socket, _)| socket != at);
        } else {
            self.bad += 1;
            self.trouble = Some(trouble);
        }
        None
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty() || self.bad >= ENOUGH_BAD_ANSWERS
    }
}

/// Registers the external addresses of both players.
pub(super) fn register_both(meeting: &mut Meeting) -> Outcome<()> {
    let registrar = meeting.server.registrar();
    let players = [&meeting.host, &meeting.client];
    let registration = Registration::run(registrar, players, &mut meeting.sockets);
    let port = registrar.port();
    let facts = json!({ "port": port, "registered": 2 - registration.waiting.len() });
    if registration.waiting.is_empty() {
        let seen = format!("{port}/udp answers OK to both");
        return (Step::ok(Hop::Registrar, seen).with_facts(facts), Some(()));
    }
    (failed(&registration, port).with_facts(facts), None)
}

fn failed(registration: &Registration, port: u16) -> Step {
    let (seen, remedy) = match &registration.trouble {
        Some(Trouble::Answer(RegistrarAnswer::UnknownPid)) => (
            format!("{port}/udp answers `Unknown host pid!`"),
            "This registrar does not belong to the server that gave the ids: another noray has the \
             UDP port, or the server restarted just now. Stop the other one and probe again."
                .to_owned(),
        ),
        Some(Trouble::Answer(RegistrarAnswer::Foreign(text))) => (
            format!("{port}/udp answers, but not as noray's registrar: `{text}`"),
            other_port(port),
        ),
        Some(Trouble::From(from)) => (
            format!("{port}/udp answers from {}, not from the address that was asked", from.ip()),
            "Home routers drop such answers. The server has several addresses: set NORAY_UDP_HOST to \
             the one that players use."
                .to_owned(),
        ),
        Some(Trouble::Error(error)) if error.kind() == ErrorKind::ConnectionRefused => (
            format!("{port}/udp: nothing listens there (ICMP: port unreachable)"),
            format!("{} A firewall that rejects looks the same.", other_port(port)),
        ),
        Some(Trouble::Error(error)) if error.kind() == ErrorKind::PermissionDenied => (
            format!("{port}/udp: forbidden on the way, or by this machine ({error})"),
            format!("Open {port}/udp in the firewalls of the server, the provider and this machine."),
        ),
        Some(Trouble::Error(error)) => (
            format!("{port}/udp: no way there ({error})"),
            format!("Open {port}/udp in the server's firewall and in the provider's."),
        ),
        Some(Trouble::Answer(RegistrarAnswer::Ok)) | None => (
            format!("{port}/udp: no answer in 3 s"),
            format!(
                "Open {port}/udp in the server's firewall (with ufw: {}) and in the provider's (most \
                 have one, in their web console). In a container use the host's network.",
                command(&format!("ufw allow {port}/udp"))
            ),
        ),
    };
    let step = Step::fail(Hop::Registrar, seen, remedy);
    if registration.trouble.is_some() {
        return step;
    }
    step.and_remedy(format!("{} Does this machine's own network let UDP out?", other_port(port)))
}

fn other_port(port: u16) -> String {
    format!(
        "Is {port} the server's NORAY_UDP_REGISTRAR_PORT? If it is another, say so: \
         --registrar-port PORT."
    )
}
