//! Changes nothing in a server: plays a host and a client of a game against one elsewhere, hop by hop, and says for
//! the hop that fails what helps.
//!
//! Pure: [`answers`] reads a server's bytes, [`payload`] the players' own datagrams, `division` says how ports divide
//! a range, `router` what the caller's router does, [`report`] writes it all down. Shell: `line` (TCP), `udp`, and
//! the hops: `reach`, `join`, `registrar`, `meet`, `relay` and `sample` with its `crowd`.
//!
//! - Invariant: memory and time are bounded whatever the server sends; every wait has a deadline.
//! - Invariant: a PrivateID goes to the server and nowhere else.
//! - Invariant: an old server, which answers no errors, is never sent anything from an unregistered socket: it would
//!   give each a port outside its range.

pub(crate) mod answers;
mod crowd;
mod division;
mod join;
mod line;
mod meet;
pub(crate) mod payload;
mod reach;
mod registrar;
mod relay;
pub(crate) mod report;
mod router;
mod sample;
mod target;
mod udp;

use std::time::{Duration, Instant};

use noray::operation::clock;
use payload::Token;
pub(crate) use report::{Report, Step, Style};
pub(crate) use target::Request;

use noray::core::id::Random;
use noray::operation::os::KernelRandom;

/// How long a server may take to accept a connection or to answer a command.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What stands above the hops' lines on a terminal.
pub(crate) fn heading(request: &Request) -> String {
    format!("Probing noray at {}\n\n", request.target)
}

/// Tries all hops, and tells `listener` each as soon as it is over.
pub(crate) fn run(request: &Request, listener: impl FnMut(&Step)) -> Report {
    let mut log = Log { listener, steps: Vec::new() };
    // Where it ended is in the log.
    let _ = walk(request, &mut log);
    Report::new(request.target.to_string(), log.steps)
}

/// The hops in order; `None` where one failed that the next ones need.
fn walk(request: &Request, log: &mut Log<impl FnMut(&Step)>) -> Option<()> {
    let addresses = log.hop(|| reach::resolve(&request.target))?;
    let line = log.hop(|| reach::connect(&addresses))?;
    let mut meeting = log.hop(|| join::meet(line, request.registrar_port, random_token()))?;
    log.hop(|| registrar::register_both(&mut meeting))?;
    let addresses = log.hop(|| meet::addresses(&mut meeting))?;
    let ports = log.hop(|| meet::relay_ports(&mut meeting, &request.relay_ports))?;
    // The sample says whether it is these two ports or all of them.
    let relay = log.hop(|| relay::there_and_back(&mut meeting, ports, &request.relay_ports));
    let size = sample::Size::of(&request.relay_ports, ports);
    let votes = log.hop(|| sample::try_ports(&mut meeting, size, &request.relay_ports));
    log.hop(|| router::judge(&addresses, relay, votes.unwrap_or_default(), meeting.manners))
}

/// What a hop saw, and what the next ones need of it: `None` if it failed.
type Outcome<T> = (Step, Option<T>);

/// The hops so far.
struct Log<L> {
    listener: L,
    steps: Vec<Step>,
}

impl<L: FnMut(&Step)> Log<L> {
    fn hop<T>(&mut self, attempt: impl FnOnce() -> Outcome<T>) -> Option<T> {
        let start: Instant = clock::now();
        let (step, result) = attempt();
        let step = Step { took: clock::now() - start, ..step };
        (self.listener)(&step);
        self.steps.push(step);
        result
    }
}

fn random_token() -> Token {
    let mut bytes = [0; 8];
    KernelRandom::default().fill(&mut bytes);
    Token(bytes)
}
