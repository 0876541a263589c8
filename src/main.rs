//! The command line: arguments to [`Config`](noray::config::Config), a logger, a server, an exit status.

mod probe;

use std::io::{self, ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use argh::FromArgs;
use noray::config::{Effective, Sources};
use noray::operation::logging::{self, Style};
use noray::operation::metrics::Metrics;
use noray::operation::supervisor::Supervisor;
use noray::shell::server::{self, Server, StartError};
use noray::shell::signals::{self, Operator};

/// The file that is read if `--config` names no other and it exists.
const DEFAULT_FILE: &str = "noray.conf";

/// Exit statuses, as in sysexits(3).
mod exit {
    pub(crate) const FAILURE: u8 = 1;
    pub(crate) const USAGE: u8 = 64;
    pub(crate) const UNAVAILABLE: u8 = 69;
    pub(crate) const CONFIG: u8 = 78;
}

/// Introduces players of online games to each other and relays their UDP traffic where routers forbid it.
#[derive(FromArgs)]
#[argh(note = "Every key is explained in noray.conf.example.")]
struct Args {
    /// file of KEY=value lines (default: ./noray.conf, if it exists)
    #[argh(option, arg_name = "file")]
    config: Option<PathBuf>,
    /// set a key, over file and environment; may be repeated
    #[argh(option, arg_name = "key=value")]
    set: Vec<String>,
    /// print the effective configuration with the origin of each value, and exit: 0 if it is right, 78 if not
    #[argh(switch)]
    check_config: bool,
    /// print the version, and exit
    #[argh(switch)]
    version: bool,
    #[argh(subcommand)]
    probe: Option<probe::Request>,
}

fn main() -> ExitCode {
    let style = Style::of_stderr(variable("JOURNAL_STREAM").as_deref());
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let args = match Args::from_args(&["noray"], &arguments) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => return print(&exit.output),
        Err(exit) => return fail(exit::USAGE, style, &exit.output),
    };
    if args.version {
        return print(concat!("noray ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    if let Some(request) = &args.probe {
        return probe::run(request);
    }
    let mut origin = ConfigOrigin { file: args.config, set: args.set };
    let effective = match origin.read() {
        Ok(effective) => effective,
        Err(mistakes) => return fail(exit::CONFIG, style, &mistakes),
    };
    if args.check_config {
        return print(&effective.to_string());
    }
    server::make_room_for_files(&effective.config);
    let metrics = Arc::new(Metrics::default());
    let log = match logging::start(style, effective.config.log_level, &metrics) {
        Ok(log) => log,
        Err(error) => return fail(exit::FAILURE, style, &format!("cannot start to log: {error}")),
    };
    let status = serve_to_the_end(effective, origin, metrics);
    log.finish();
    status
}

fn serve_to_the_end(effective: Effective, origin: ConfigOrigin, metrics: Arc<Metrics>) -> ExitCode {
    match catch_unwind(AssertUnwindSafe(|| serve(effective, origin, metrics))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            log::error!("{error}");
            match error {
                StartError::Socket(..) | StartError::Registrar(..) => exit::UNAVAILABLE.into(),
                StartError::System(_) => exit::FAILURE.into(),
            }
        }
        Err(_) => {
            log::error!("the event loop panicked");
            ExitCode::FAILURE
        }
    }
}

/// Where the configuration comes from, to read it more than once.
struct ConfigOrigin {
    /// The file that must be there.
    file: Option<PathBuf>,
    /// What the command line sets.
    set: Vec<String>,
}

impl ConfigOrigin {
    /// The effective configuration, or all mistakes, a line each.
    fn read(&mut self) -> Result<Effective, String> {
        let environment = std::env::vars_os()
            .map(|(key, value)| (key.to_string_lossy().into(), value.to_string_lossy().into()))
            .collect();
        let file = self.read_file()?;
        let sources = Sources { file, environment, command_line: self.set.clone() };
        Effective::read(&sources).map_err(|mistakes| {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })
    }

    /// A default file that was there once must be there again.
    fn read_file(&mut self) -> Result<Option<(String, Vec<u8>)>, String> {
        let path = self.file.clone().unwrap_or(DEFAULT_FILE.into());
        match std::fs::read(&path) {
            Ok(content) => {
                let name = path.display().to_string();
                self.file = Some(path);
                Ok(Some((name, content)))
            }
            Err(error) if self.file.is_none() && error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: cannot be read: {error}", path.display())),
        }
    }
}

fn serve(
    effective: Effective,
    mut origin: ConfigOrigin,
    metrics: Arc<Metrics>,
) -> Result<(), StartError> {
    let signals = signals::catch().map_err(StartError::System)?;
    let set = effective.set_values();
    log::info!("noray {} starts, {set} values set, see --check-config", env!("CARGO_PKG_VERSION"));
    let mut server = Server::bind(&effective.config, metrics)?;
    let supervisor = supervisor();
    server.set_supervisor(&supervisor);
    let operator = Operator {
        handle: server.handle(),
        supervisor,
        in_force: effective.config,
        read_config: Box::new(move || origin.read()),
    };
    operator.start(signals).map_err(StartError::System)?;
    server.run()?;
    log::info!("ended");
    Ok(())
}

/// systemd, if it waits to hear from this process.
fn supervisor() -> Supervisor {
    let variables = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].map(variable);
    let [socket, usec, pid] = variables.each_ref().map(Option::as_deref);
    Supervisor::new(socket, usec, pid).unwrap_or_else(|error| {
        log::warn!("systemd cannot be told how the server does: {error}");
        Supervisor::default()
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "what systemd tells this process is no configuration"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(status: u8, style: Style, text: &str) -> ExitCode {
    for line in text.trim_end().lines() {
        logging::complain(style, line);
    }
    ExitCode::from(status)
}
