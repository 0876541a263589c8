//! Sends no datagram: `register-host`, and what a server or somebody else answers to it.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use serde_json::json;

use super::answers::{Answer, Failure};
use super::line::{Line, NoAnswer};
use super::payload::Token;
use super::report::{Hop, Mark, Step};
use super::udp::{SocketId, Sockets};
use super::{ANSWER_TIME, Outcome};
use noray::core::id::{OpenId, PrivateId};
use noray::operation::clock;

/// What a probe needs to play: two players and where the server is.
pub(super) struct Meeting {
    pub(super) server: Server,
    pub(super) sockets: Sockets,
    pub(super) host: Player,
    pub(super) client: Player,
    pub(super) manners: Manners,
    pub(super) token: Token,
}

/// The server's addresses: one IP, and a port for each purpose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Server {
    /// Where TCP reached it.
    pub(super) players: SocketAddr,
    pub(super) registrar_port: u16,
}

impl Server {
    /// A UDP port of it.
    pub(super) fn at(self, port: u16) -> SocketAddr {
        let mut address = self.players;
        address.set_port(port);
        address
    }

    pub(super) fn registrar(self) -> SocketAddr {
        self.at(self.registrar_port)
    }
}

/// Whether a server says why it does not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manners {
    /// It answers errors.
    Answers,
    /// Its failures are silence: the older server in JavaScript.
    Silent,
}

/// Somebody with ids, and a UDP socket at the address that the connection has.
pub(super) struct Player {
    pub(super) line: Line,
    pub(super) oid: OpenId,
    pub(super) pid: PrivateId,
    pub(super) socket: SocketId,
}

/// Somebody with ids and no UDP socket yet.
pub(super) struct Applicant {
    line: Line,
    oid: OpenId,
    pid: PrivateId,
}

impl Applicant {
    /// Gets ids.
    pub(super) fn register(mut line: Line, deadline: Instant) -> Result<Self, Refusal> {
        let (oid, pid) = register(&mut line, deadline)?;
        Ok(Self { line, oid, pid })
    }

    /// Opens a socket at the address that the connection has.
    pub(super) fn open(&self, sockets: &mut Sockets) -> Result<SocketId, Refusal> {
        let local = self.line.local().map_err(Refusal::Machine)?;
        sockets.open(local).map_err(Refusal::Machine)
    }

    /// The player, with a socket of its own.
    pub(super) fn equip(self, sockets: &mut Sockets) -> Result<Player, Refusal> {
        let socket = self.open(sockets)?;
        let Self { line, oid, pid } = self;
        Ok(Player { line, oid, pid, socket })
    }
}

/// Why somebody has got no ids.
#[derive(Debug)]
pub(super) enum Refusal {
    /// This machine could not do its part.
    Machine(io::Error),
    /// The server said so.
    Failed(Failure),
    /// Something else answers there.
    Foreign(String),
    /// Nothing that could be read.
    NoAnswer(NoAnswer),
}

/// The ids of a new player.
fn register(line: &mut Line, deadline: Instant) -> Result<(OpenId, PrivateId), Refusal> {
    line.send("register-host\n");
    let mut oid = None;
    let picked = line.wait_for(deadline, |answer| match answer {
        Answer::SetOid(id) => {
            oid = Some(id);
            None
        }
        Answer::SetPid(pid) => oid.take().map(|oid| Ok((oid, pid))),
        Answer::Failed(failure) => Some(Err(Refusal::Failed(failure))),
        Answer::Foreign(text) => Some(Err(Refusal::Foreign(text))),
        Answer::Connect(_) | Answer::ConnectRelay(_) | Answer::Echo(_) | Answer::News => None,
    });
    picked.unwrap_or_else(|error| Err(Refusal::NoAnswer(error)))
}

/// Gives a host, at the end of `line`, and a client, at one of its own, their ids.
pub(super) fn meet(line: Line, registrar_port: u16, token: Token) -> Outcome<Meeting> {
    match try_to_meet(line, registrar_port, token) {
        Ok(meeting) => {
            let is_old = meeting.manners == Manners::Silent;
            let step = Step::ok(Hop::Ids, "a host and a client have got their ids");
            let step = step.with_facts(json!({ "answers_errors": !is_old }));
            let step = if is_old {
                step.marked(Mark::Note).and_remedy(
                    "This server does not say why something fails, as the older one in JavaScript. \
                     Some failures are only silence below.",
                )
            } else {
                step
            };
            (step, Some(meeting))
        }
        Err((refusal, port)) => (refused(&refusal, port), None),
    }
}

fn try_to_meet(line: Line, registrar_port: u16, token: Token) -> Result<Meeting, (Refusal, u16)> {
    let players = line.peer().map_err(|error| (Refusal::Machine(error), 0))?;
    let or_port = |refusal| (refusal, players.port());
    let mut sockets = Sockets::new().map_err(|error| or_port(Refusal::Machine(error)))?;
    let mut join = |line: io::Result<Line>| {
        let line = line.map_err(Refusal::Machine)?;
        Applicant::register(line, clock::now() + ANSWER_TIME)?.equip(&mut sockets)
    };
    let mut host = join(Ok(line)).map_err(or_port)?;
    let client = join(Line::connect(players, ANSWER_TIME)).map_err(or_port)?;
    let manners = manners(&mut host.line);
    let server = Server { players, registrar_port };
    Ok(Meeting { server, sockets, host, client, manners, token })
}

/// Asks for something that no server knows, and then for an echo, which comes from every server.
fn manners(line: &mut Line) -> Manners {
    const ECHO: &str = "noray-probe";
    line.send(&format!("probe\necho {ECHO}\n"));
    let mut manners = Manners::Silent;
    // A server that does not even echo is silent indeed.
    let _ = line.wait_for(clock::now() + ANSWER_TIME, |answer| match answer {
        Answer::Failed(_) => {
            manners = Manners::Answers;
            None
        }
        Answer::Echo(data) => (data.trim() == ECHO).then_some(()),
        Answer::SetOid(_)
        | Answer::SetPid(_)
        | Answer::Connect(_)
        | Answer::ConnectRelay(_)
        | Answer::News
        | Answer::Foreign(_) => None,
    });
    manners
}

fn refused(refusal: &Refusal, port: u16) -> Step {
    let not_noray =
        format!("Is {port} the server's NORAY_SOCKET_PORT? Another program has this port.");
    let (seen, remedy) = match refusal {
        Refusal::Machine(error) => (
            format!("this machine or the way to the server: {error}"),
            "Try again. If it stays so, look at this machine's network.".to_owned(),
        ),
        Refusal::Failed(failure) => (format!("`{}`", failure.shown()), code_remedy(&failure.code)),
        Refusal::Foreign(text) => {
            (format!("{port}/tcp answers, but not as noray: `{text}`"), not_noray)
        }
        Refusal::NoAnswer(NoAnswer::NoLine | NoAnswer::LineTooLong) => {
            (format!("{port}/tcp answers, but not as noray: no lines of text"), not_noray)
        }
        Refusal::NoAnswer(NoAnswer::Silence) => (
            format!("{port}/tcp accepts, and then says nothing for {} s", ANSWER_TIME.as_secs()),
            format!("{not_noray} If it is noray, restart it: systemctl restart noray."),
        ),
        Refusal::NoAnswer(NoAnswer::Closed) => (
            format!("{port}/tcp accepts, and closes without a word"),
            format!(
                "{not_noray} Or something in front of the server takes the connection: a proxy or \
                 port mapping with no noray behind it."
            ),
        ),
        Refusal::NoAnswer(NoAnswer::Broken(error)) => {
            (format!("the connection broke: {error}"), "Try again.".to_owned())
        }
    };
    Step::fail(Hop::Ids, seen, remedy)
}

/// What helps against an error that the server named.
pub(super) fn code_remedy(code: &str) -> String {
    match code {
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
        _ => "The README's table of codes says what it means; the server's log may say more.",
    }
    .to_owned()
}
