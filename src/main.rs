//! The command line: arguments to [`Config`](noray::config::Config), a logger, a server, an exit status.

use std::io::{ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::FromArgs;
use noray::config::{Config, Effective, Sources};
use noray::server::{Server, ServerHandle, StartError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The file that is read if `--config` names no other and it exists.
const DEFAULT_FILE: &str = "noray.conf";

/// Exit statuses, as in sysexits(3).
mod exit {
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
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let args = match Args::from_args(&["noray"], &arguments) {
        Ok(args) => args,
        Err(exit) if exit.status.is_ok() => return print(&exit.output),
        Err(exit) => return fail(exit::USAGE, exit.output.trim_end()),
    };
    if args.version {
        return print(concat!("noray ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let effective = match read_config(&args) {
        Ok(effective) => effective,
        Err(mistakes) => return fail(exit::CONFIG, &mistakes),
    };
    if args.check_config {
        return print(&effective.to_string());
    }
    start_logging(&effective.config);
    match catch_unwind(AssertUnwindSafe(|| serve(&effective))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            log::error!("{error}");
            match error {
                StartError::Socket(..) | StartError::Registrar(..) => exit::UNAVAILABLE.into(),
                StartError::System(_) => ExitCode::FAILURE,
            }
        }
        Err(_) => {
            log::error!("the event loop panicked");
            ExitCode::FAILURE
        }
    }
}

/// The effective configuration, or all mistakes, a line each.
fn read_config(args: &Args) -> Result<Effective, String> {
    let environment = std::env::vars_os()
        .map(|(key, value)| (key.to_string_lossy().into(), value.to_string_lossy().into()))
        .collect();
    let file = read_file(args.config.as_deref())?;
    let sources = Sources { file, environment, command_line: args.set.clone() };
    Effective::read(&sources).map_err(|mistakes| {
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

fn read_file(named: Option<&Path>) -> Result<Option<(String, Vec<u8>)>, String> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read(path) {
        Ok(content) => Ok(Some((path.display().to_string(), content))),
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: cannot be read: {error}", path.display())),
    }
}

fn start_logging(config: &Config) {
    env_logger::Builder::new()
        .filter_module("noray", config.log_level.filter())
        .format(|out, record| {
            writeln!(out, "{} {:<5} {}", out.timestamp(), record.level(), record.args())
        })
        .init();
}

fn serve(effective: &Effective) -> Result<(), StartError> {
    let set = effective.set_values();
    log::info!("noray {} starts, {set} values set, see --check-config", env!("CARGO_PKG_VERSION"));
    let server = Server::bind(&effective.config)?;
    let addresses = server.addresses();
    log::info!("players: {}/tcp, registrar: {}/udp", addresses.socket, addresses.registrar);
    let relay_ports = &addresses.relay_ports;
    log::info!("relays: {} ports, {relay_ports}/udp", relay_ports.as_slice().len());
    if let Some(http) = addresses.http {
        log::info!("metrics and health: http://{http}/metrics");
    }
    end_on_signals(server.handle())?;
    server.run()?;
    log::info!("ended");
    Ok(())
}

/// Ends the server at SIGINT or SIGTERM. The thread lives as long as the process.
fn end_on_signals(handle: ServerHandle) -> Result<(), StartError> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(StartError::System)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                log::info!("signal {signal}: ending");
                handle.shut_down();
            }
        })
        .map_err(StartError::System)?;
    Ok(())
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[expect(clippy::print_stderr, reason = "there is no logger yet")]
fn fail(status: u8, text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::from(status)
}
