//! The program `noray`: it reads arguments and the configuration, starts the log, and runs the server until its end.

mod command_line;
mod exit;
mod probe;
mod reload;
mod status;
mod target;
mod terminal;

use std::process::ExitCode;
use std::sync::Arc;

use noray::config::Effective;
use noray::operation::capacity;
use noray::operation::config_source::ConfigSource;
use noray::operation::logging::{self, LogFormat};
use noray::operation::metrics::Metrics;
use noray::operation::supervisor::Supervisor;
use noray::operation::threads;
use noray::operation::warnings::Warnings;
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
    let mut source = ConfigSource { file: args.config, set: args.set };
    if let Some(command) = &args.command {
        return command.run(source);
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
    let metrics = Arc::new(Metrics::default());
    let log = match logging::start(format, effective.config.log_level, &metrics) {
        Ok(log) => log,
        Err(error) => {
            return fail(exit::FAILURE, format, &format!("cannot start the log: {error}"));
        }
    };
    threads::make_vital();
    let outcome = serve(effective, source, metrics, log.warnings());
    if let Err(error) = &outcome {
        log::error!("{error}");
    }
    log.finish();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Socket(..) | StartError::Registrar(..)) => exit::UNAVAILABLE.into(),
        Err(StartError::System(_)) => exit::FAILURE.into(),
    }
}

fn serve(
    effective: Effective,
    source: ConfigSource,
    metrics: Arc<Metrics>,
    warnings: Arc<Warnings>,
) -> Result<(), StartError> {
    let signals = signals::catch().map_err(StartError::System)?;
    log::info!("noray {} starts, {}", env!("CARGO_PKG_VERSION"), effective.summary());
    effective.warnings.lines().for_each(|warning| log::warn!("{warning}"));
    let mut server = Server::bind(&effective.config, metrics)?;
    let supervisor = Supervisor::from_environment();
    server.set_supervisor(&supervisor);
    server.set_warnings(warnings);
    let (handle, in_force) = (server.handle(), effective.config);
    let handler = SignalHandler { handle, supervisor, in_force, source };
    handler.start(signals).map_err(StartError::System)?;
    server.run()?;
    log::info!("ended");
    Ok(())
}
