//! Runs no server: what else the binary can do, for now `noray probe`.

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::probe::{Request, Style};
use argh::FromArgs;

use crate::print;

/// What is done in place of running a server.
#[derive(FromArgs)]
#[argh(subcommand)]
pub(crate) enum Subcommand {
    /// Play against a server elsewhere.
    Probe(Request),
}

impl Subcommand {
    pub(crate) fn run(&self) -> ExitCode {
        match self {
            Self::Probe(request) => probe(request),
        }
    }
}

/// Probes a server, and prints each hop as soon as it is over.
fn probe(request: &Request) -> ExitCode {
    let style = if std::io::stdout().is_terminal() { Style::Coloured } else { Style::Plain };
    let show = |text: String| {
        // Whoever closed our output still gets the exit status.
        let _ = print(&text);
    };
    let report = if request.json {
        let report = crate::probe::run(request, |_| ());
        show(report.json());
        report
    } else {
        show(crate::probe::heading(request));
        let report = crate::probe::run(request, |step| show(step.text(style)));
        show(report.ending(style));
        report
    };
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
