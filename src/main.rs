//! The program `noray`: it reads arguments and the configuration, starts the log, and runs the server until its end.

mod command_line;
mod exit;
mod probe;
mod rehearsal;
mod reload;
mod status;
mod target;
mod terminal;

use std::process::ExitCode;
use std::sync::Arc;

use noray::config::{Config, Effective};
use noray::operation::capacity;
use noray::operation::config_source::ConfigSource;
use noray::operation::logging::{self, Log, LogFormat};
use noray::operation::metrics::Metrics;
use noray::operation::supervisor::Supervisor;
use noray::operation::threads;
use noray::shell::handover::{self, Arrival, Program, Requested};
use noray::shell::server::{Server, StartError};
use noray::shell::signals::{self, SignalHandler};

use crate::command_line::Args;
use crate::exit::{fail, print, warn};

fn main() -> ExitCode {
    let format = LogFormat::of_stderr();
    let args = match Args::read(format) {
        Ok(args) => args,
        Err(status) => return status,
    };
    let mut source = ConfigSource::new(args.config, args.set);
    if let Some(command) = &args.command {
        return command.run(source);
    }
    let handed = match handover::requested() {
        None => None,
        Some(Requested::Check) => return check_handover(source, format),
        Some(Requested::TakeOver) => Some(Arrival::receive()),
    };
    if let Some(Ok(arrival)) = &handed {
        source.given = arrival.file();
    }
    let effective = match source.read() {
        Ok(effective) => effective,
        Err(mistakes) => return fail(exit::CONFIG, format, &mistakes),
    };
    if args.check_config {
        warn(format, &effective.warnings);
        return print(&effective.to_string());
    }
    capacity::make_room_for_files(&effective.config);
    signals::block();
    let metrics = Arc::new(Metrics::default());
    let log = match logging::start(format, effective.config.log_level, &metrics) {
        Ok(log) => log,
        Err(error) => {
            return fail(exit::FAILURE, format, &format!("cannot start the log: {error}"));
        }
    };
    threads::make_vital();
    let outcome = serve(effective, source, metrics, &log, handed);
    if let Err(error) = &outcome {
        log::error!("{error}");
    }
    log.finish();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Socket(..) | StartError::Registrar(..)) => exit::UNAVAILABLE.into(),
        Err(StartError::KernelPath(_) | StartError::System(_)) => exit::FAILURE.into(),
    }
}

fn serve(
    effective: Effective,
    source: ConfigSource,
    metrics: Arc<Metrics>,
    log: &Log,
    handed: Option<Result<Arrival, String>>,
) -> Result<(), StartError> {
    let signals = signals::catch().map_err(StartError::System)?;
    log::info!("noray {} starts, {}", env!("CARGO_PKG_VERSION"), effective.summary());
    if let Some(Ok(arrival)) = &handed {
        arrival.restore_warnings(&log.warnings());
    }
    effective.warnings.lines().for_each(|warning| log::warn!("{warning}"));
    let outcome = handed.as_ref().map(|handed| match handed {
        Ok(_) => Ok(()),
        Err(why) => Err(format!("the handover failed, and the server started anew: {why}")),
    });
    let mut server = match handed {
        None => Server::bind(&effective.config, metrics)?,
        Some(handed) => take_over(&effective.config, metrics, handed)?,
    };
    let supervisor = Supervisor::from_environment();
    server.set_supervisor(&supervisor);
    server.set_warnings(log.warnings());
    let handler = SignalHandler {
        handle: server.handle(),
        supervisor,
        in_force: effective.config,
        source,
        program: Program::running().ok(),
        log: log.clone(),
        is_draining: false,
    };
    if let Some(outcome) = outcome {
        let missing = server.missing().map_or(Ok(()), |missing| Err(missing.to_string()));
        handler.tell(&outcome.and(missing));
    }
    handler.start(signals).map_err(StartError::System)?;
    server.run()?;
    log::info!("ended");
    Ok(())
}

/// Goes on with what another process has handed over. If that is impossible, the server starts anew.
fn take_over(
    config: &Config,
    metrics: Arc<Metrics>,
    handed: Result<Arrival, String>,
) -> Result<Server, StartError> {
    let adopt = |arrival: Arrival| {
        log::info!("{}", arrival.summary());
        arrival.warnings().iter().for_each(|warning| log::warn!("{warning}"));
        Server::adopt(config, Arc::clone(&metrics), arrival).map_err(|error| error.to_string())
    };
    handed.and_then(adopt).or_else(|why| {
        log::error!(
            "the handover failed: {why}; the connections, join codes and relays of the old process are lost, and the \
             server starts anew"
        );
        Server::bind(config, Arc::clone(&metrics))
    })
}

/// Tells the process that runs this one whether it could take over: whether it can read the snapshot, and serve.
fn check_handover(mut source: ConfigSource, format: LogFormat) -> ExitCode {
    let checked = handover::check(|file| {
        source.given = file;
        source.read().map(|effective| effective.config)
    });
    let checked = checked.and_then(|answer| match rehearsal::run() {
        Ok(()) => Ok(answer),
        Err(why) => Err(format!("it tried to serve on the loopback interface, and failed: {why}")),
    });
    match checked {
        Ok(answer) => print(&format!("{answer}\n")),
        Err(why) => fail(exit::FAILURE, format, &why),
    }
}
