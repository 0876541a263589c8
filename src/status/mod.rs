//! `noray status`: shows how a running server does, from what it serves at its own HTTP port.
//!
//! | file | what it is |
//! |---|---|
//! | `fetch` | asks the server, and says what is wrong where it does not answer |
//! | `report` | what it answered, as text |
//! | `words` | numbers and times as people read them |

mod fetch;
mod report;
mod words;

use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use argh::FromArgs;
use noray::operation::clock;
use noray::operation::config_source::ConfigSource;
use noray::operation::logging::LogFormat;
use noray::operation::status::Status;

use crate::exit::{self, fail, print};
use crate::target::Target;
use crate::terminal::Screen;
use fetch::Failure;
use report::Readings;

/// The port that is asked if none is named: the default of `NORAY_HTTP_PORT`.
const DEFAULT_PORT: u16 = 8891;

/// The time between two readings. Rates are those in it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show how a running server does: players, pairs, ports, traffic, what is dropped and why, limits reached, warnings.
/// It needs no privilege. Exit status: 0 if the server answers, 1 if not.
#[derive(FromArgs)]
#[argh(subcommand, name = "status", help_triggers("-h", "--help", "help"))]
pub(crate) struct StatusCommand {
    /// where the server serves its status, with the port if that is not 8891 (default: NORAY_HTTP_HOST and
    /// NORAY_HTTP_PORT as they are configured here)
    #[argh(positional, arg_name = "host[:port]", from_str_fn(target))]
    address: Option<Target>,
    /// the server's file of KEY=value lines (default: ./noray.conf, if it exists)
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// show it again each second, until Ctrl-C
    #[argh(switch)]
    watch: bool,
    /// only say whether the server serves and is ready; exit status 0 if it is, 1 if not
    #[argh(switch)]
    check: bool,
}

fn target(text: &str) -> Result<Target, String> {
    Target::parse(text, DEFAULT_PORT)
}

impl StatusCommand {
    /// `source` is the configuration that the options before the command name.
    pub(crate) fn run(&self, source: ConfigSource) -> ExitCode {
        let format = LogFormat::of_stderr();
        if self.watch && self.check {
            return fail(exit::USAGE, format, "--check and --watch exclude each other");
        }
        match self.address(source).and_then(|address| self.show(address)) {
            Ok(status) => status,
            Err((status, text)) => fail(status, format, &text),
        }
    }

    /// Where the server is.
    fn address(&self, mut source: ConfigSource) -> Result<SocketAddr, (u8, String)> {
        if let Some(target) = &self.address {
            let found = (target.host.as_str(), target.port).to_socket_addrs();
            let first = found.map(|mut addresses| addresses.next());
            return match first {
                Ok(Some(address)) => Ok(address),
                Ok(None) => Err((exit::FAILURE, format!("{} has no address", target.host))),
                Err(error) => {
                    Err((exit::FAILURE, format!("{} cannot be found: {error}", target.host)))
                }
            };
        }
        source.file = self.config.clone().or(source.file);
        let effective = source.read().map_err(|mistakes| (exit::CONFIG, mistakes))?;
        let mut address = effective.config.http_address();
        if address.port() == 0 {
            let text = "NORAY_HTTP_PORT=0 is any free port; name the one that the server's log shows: `noray status \
                        HOST:PORT`";
            return Err((exit::FAILURE, text.to_owned()));
        }
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        Ok(address)
    }

    fn show(&self, address: SocketAddr) -> Result<ExitCode, (u8, String)> {
        let start = clock::now();
        let first = fetch::status(address).map_err(|failure| self.explain(address, &failure))?;
        if self.check {
            return match &first.not_ready {
                None => Ok(print(&format!("noray at {address} is ready\n"))),
                Some(why) => {
                    Err((exit::FAILURE, format!("noray at {address} is not ready: {why}")))
                }
            };
        }
        let screen = Screen { has_colours: io::stdout().is_terminal() };
        if self.watch {
            return Ok(watch(screen, address, first, start));
        }
        wait_until(start + INTERVAL);
        let now = fetch::status(address).map_err(|failure| self.explain(address, &failure))?;
        Ok(print(&screen.status(address, &Readings { before: Some(first), now })))
    }

    /// What is wrong, and where else the server may be.
    fn explain(&self, address: SocketAddr, failure: &Failure) -> (u8, String) {
        let hint = if self.address.is_none() && failure.may_be_elsewhere() {
            "; if the server has other settings, name them: `noray status --config /etc/noray/noray.conf`, or its \
             address: `noray status HOST:PORT`"
        } else {
            ""
        };
        (exit::FAILURE, format!("{address}: {failure}{hint}"))
    }
}

/// Shows the server's state each second, until nobody reads it.
fn watch(screen: Screen, address: SocketAddr, first: Status, start: Instant) -> ExitCode {
    let (mut before, mut due) = (Some(first), start);
    let mut silent_since = None;
    loop {
        due = (due + INTERVAL).max(clock::now());
        wait_until(due);
        let text = match fetch::status(address) {
            Ok(now) => {
                silent_since = None;
                let readings = Readings { before, now };
                let text = screen.status(address, &readings);
                before = Some(readings.now);
                text
            }
            Err(failure) => {
                let seconds = (clock::now() - *silent_since.get_or_insert(due)).as_secs();
                screen.silence(address, seconds, &failure.to_string())
            }
        };
        if print(&screen.again(&text)) != ExitCode::SUCCESS {
            return ExitCode::FAILURE;
        }
    }
}

fn wait_until(deadline: Instant) {
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}
