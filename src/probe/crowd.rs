//! Sends no datagram through a relay: some more players, and who reaches whom at which port.

use std::time::{Duration, Instant};

use super::join::{Applicant, Meeting, Player, Refusal, Server};
use super::line::Line;
use super::registrar::Registration;
use super::udp::{SocketId, Sockets};
use noray::operation::clock;

/// How long all introductions may take together.
const INTRODUCTION_TIME: Duration = Duration::from_secs(3);

/// How long a player of the crowd may take to connect, and then to get its ids.
const JOIN_TIME: Duration = Duration::from_secs(2);

/// A registered player, and a second socket of the same machine that the server does not know.
pub(super) struct Member {
    pub(super) player: Player,
    pub(super) fresh: SocketId,
}

/// Two of the crowd. They are members by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) asker: usize,
    pub(super) host: usize,
    /// Where the asker sends.
    pub(super) to_host: u16,
    /// Where the host sends.
    pub(super) to_asker: u16,
}

impl Pair {
    /// Where the asker and where the host sends.
    pub(super) fn ports(self) -> [u16; 2] {
        [self.to_host, self.to_asker]
    }
}

/// Players, introduced each to each as far as the server did it.
pub(super) struct Crowd {
    pub(super) members: Vec<Member>,
    pub(super) pairs: Vec<Pair>,
    /// How many pairs got no relay.
    pub(super) failed: usize,
    pub(super) why_failed: Option<String>,
}

impl Crowd {
    /// # Errors
    /// Why there is not a single pair.
    pub(super) fn gather(meeting: &mut Meeting, size: usize) -> Result<Self, String> {
        let (server, sockets) = (meeting.server, &mut meeting.sockets);
        let mut crowd =
            Self { members: Vec::new(), pairs: Vec::new(), failed: 0, why_failed: None };
        let mut why = None;
        for joined in join_all(server, size, sockets) {
            match joined {
                Ok(member) => crowd.members.push(member),
                Err(refusal) => why = Some(refusal),
            }
        }
        let players = crowd.members.iter().map(|member| &member.player);
        let registration = Registration::run(server.registrar(), players, sockets);
        crowd.members.retain(|member| registration.has(&member.player));
        crowd.introduce_all(clock::now() + INTRODUCTION_TIME);
        if crowd.pairs.is_empty() {
            let told = crowd.why_failed.or(why);
            return Err(told.unwrap_or("too few players could register their address".to_owned()));
        }
        Ok(crowd)
    }

    /// Which pair and which side of it (the asker's is 0) a datagram comes from.
    pub(super) fn sender(&self, sender: usize, port: u16) -> Option<(usize, usize)> {
        self.pairs.iter().enumerate().find_map(|(index, pair)| {
            let ends = [(pair.asker, pair.to_host), (pair.host, pair.to_asker)];
            ends.iter().position(|end| *end == (sender, port)).map(|side| (index, side))
        })
    }

    /// Asker by asker, so that everybody knows whom each port leads to: the answers to one asker come in order,
    /// and a host gets one for each.
    fn introduce_all(&mut self, deadline: Instant) {
        for asker in 0..self.members.len() {
            let hosts = asker + 1..self.members.len();
            let asked: String = self.members[hosts.clone()]
                .iter()
                .map(|host| format!("connect-relay {}\n", host.player.oid))
                .collect();
            self.members[asker].player.line.send(&asked);
            for host in hosts {
                match self.introduced(asker, host, deadline) {
                    Ok(pair) => self.pairs.push(pair),
                    Err(why) => {
                        self.failed += 1;
                        self.why_failed = Some(why);
                    }
                }
            }
        }
    }

    fn introduced(&mut self, asker: usize, host: usize, end: Instant) -> Result<Pair, String> {
        let to_host = hear_port(&mut self.members[asker].player, end)?;
        let to_asker = hear_port(&mut self.members[host].player, end)?;
        Ok(Pair { asker, host, to_host, to_asker })
    }
}

fn hear_port(player: &mut Player, deadline: Instant) -> Result<u16, String> {
    let heard = player.line.wait_for(deadline, |answer| {
        let port = answer.relay_port().map(Ok);
        port.or_else(|| answer.failure().map(|failure| Err(format!("`{}`", failure.shown()))))
    });
    heard.unwrap_or_else(|_| Err("the server did not answer".to_owned()))
}

/// Everybody at once: one after another, far servers would take long.
fn join_all(server: Server, size: usize, sockets: &mut Sockets) -> Vec<Result<Member, String>> {
    let join = || {
        let line = Line::connect(server.players, JOIN_TIME).map_err(Refusal::Machine)?;
        Applicant::register(line, clock::now() + JOIN_TIME)
    };
    let applicants: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..size).map(|_| scope.spawn(join)).collect();
        threads.into_iter().map(|thread| thread.join().expect("joining does not panic")).collect()
    });
    let mut equip = |applicant: Applicant| {
        let fresh = applicant.open(sockets)?;
        Ok(Member { player: applicant.equip(sockets)?, fresh })
    };
    let member = |applicant: Result<Applicant, Refusal>| applicant.and_then(&mut equip);
    applicants.into_iter().map(member).map(|result| result.map_err(|why| shown(&why))).collect()
}

fn shown(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Failed(failure) => format!("`{}`", failure.shown()),
        Refusal::Foreign(text) => format!("`{text}`"),
        Refusal::Machine(error) => error.to_string(),
        Refusal::NoAnswer(_) => "the server did not answer".to_owned(),
    }
}
