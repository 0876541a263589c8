//! `noray probe`: plays two players of a game against a server elsewhere, hop by hop. It says which hop fails and what
//! helps.
//!
//! | file | what it is |
//! |---|---|
//! | `request` | the command line |
//! | `report` | what was found at each hop, as text and as JSON |
//! | [`answers`] | what a server's lines say |
//! | `control`, `bots`, `exchange` | sockets: a bot's TCP connection, the bots with their UDP, datagrams through relays |
//! | `reach`, `introductions`, `registrar`, `relay`, `range`, `router` | the hops |
//!
//! - Invariant: memory and time are bounded whatever the server sends; every wait has a deadline (for the
//!   name it is the system's).
//! - Invariant: a PrivateID goes to the server and nowhere else.
//! - Invariant: an old server, which answers no errors, is never sent anything from an unregistered socket: it would
//!   give each a port outside its range.

mod answers;
mod bots;
mod control;
mod exchange;
mod introductions;
mod range;
mod reach;
mod registrar;
mod relay;
mod report;
mod request;
mod router;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use noray::config::units::PortList;
use noray::operation::clock;

use crate::exit::print;
use crate::target::Target;
use crate::terminal::Screen;
use report::{Finding, Report};
pub(crate) use request::Request;
use router::Votes;

/// How long a server may take to accept a connection or to answer a command.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What was found at a hop. `Ok` also has what the next hops need; after an `Err` there is no next hop that needs it.
type HopResult<T> = Result<(Finding, T), Finding>;

/// Tries all hops, and prints each as soon as it is over. The exit status is 0 if a game would work for everybody, else 1.
pub(crate) fn run(request: &Request) -> ExitCode {
    let screen = (!request.json).then(|| Screen { has_colours: io::stdout().is_terminal() });
    let report = Report { target: request.target.to_string(), findings: Vec::new() };
    let mut progress = Progress { screen, report };
    progress.show(|_, report| format!("Probing noray at {}\n\n", report.target));
    // The report says where it ended.
    let _ = walk(request, &mut progress);
    progress.show(Screen::ending);
    if request.json {
        let _ = print(&progress.report.json());
    }
    if progress.report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tries all hops against a server on this machine, and prints nothing.
///
/// # Errors
/// What failed first.
pub(crate) fn try_silently(
    players: SocketAddr,
    registrar: SocketAddr,
    relay_ports: PortList,
) -> Result<(), String> {
    let target = Target { host: players.ip().to_string(), port: players.port() };
    let request = Request { target, registrar_port: registrar.port(), relay_ports, json: false };
    let report = Report { target: request.target.to_string(), findings: Vec::new() };
    let mut progress = Progress { screen: None, report };
    // The report says where it ended.
    let _ = walk(&request, &mut progress);
    progress.report.first_failure().map_or(Ok(()), |seen| Err(seen.to_owned()))
}

/// The hops in order; `None` if one failed that the next ones need.
fn walk(request: &Request, progress: &mut Progress) -> Option<()> {
    let range = &request.relay_ports;
    let addresses = progress.hop(|| reach::resolve(&request.target))?;
    let control = progress.hop(|| reach::connect(&addresses, &request.target))?;
    let mut bots = progress.hop(|| introductions::give_ids(control, request.registrar_port))?;
    progress.hop(|| registrar::register_both(&mut bots))?;
    let seen = progress.hop(|| introductions::tell_addresses(&mut bots))?;
    let link = progress.hop(|| introductions::tell_relay_ports(&mut bots, range))?;
    // If these two ports are silent, the sample shows whether all are.
    let mut votes = Votes::default();
    progress.hop(|| relay::there_and_back(&mut bots, link, range, &mut votes));
    progress.hop(|| range::try_ports(&mut bots, link, range, &mut votes));
    progress.hop(|| router::judge(seen, votes))
}

/// The report so far, and where it is shown.
struct Progress {
    /// `None` for JSON, which is printed at the end.
    screen: Option<Screen>,
    report: Report,
}

impl Progress {
    fn hop<T>(&mut self, attempt: impl FnOnce() -> HopResult<T>) -> Option<T> {
        let start = clock::now();
        let (finding, result) = match attempt() {
            Ok((finding, result)) => (finding, Some(result)),
            Err(finding) => (finding, None),
        };
        let finding = Finding { took: clock::now() - start, ..finding };
        self.show(|screen, _| screen.finding(&finding));
        self.report.findings.push(finding);
        result
    }

    fn show(&self, text: impl FnOnce(Screen, &Report) -> String) {
        if let Some(screen) = self.screen {
            // If nobody reads the output any more, the exit status still tells.
            let _ = print(&text(screen, &self.report));
        }
    }
}
