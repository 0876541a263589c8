//! The signals that control the server: SIGHUP reloads the configuration, SIGTERM drains, SIGINT ends.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, ConfigChanges};
use crate::operation::config_source::ConfigSource;
use crate::operation::reload_request::ReloadClient;
use crate::operation::supervisor::Supervisor;
use crate::operation::{logging, threads};
use crate::shell::server::ServerHandle;

/// Catches the signals. They wait until [`SignalHandler::start`] handles them, also those that come earlier.
///
/// # Errors
/// If the kernel has no descriptor left.
pub fn catch() -> io::Result<Signals> {
    Signals::new([SIGHUP, SIGINT, SIGTERM])
}

/// Handles signals, with what that needs.
pub struct SignalHandler {
    /// The running server.
    pub handle: ServerHandle,
    /// systemd.
    pub supervisor: Supervisor,
    /// The configuration that is in force.
    pub in_force: Config,
    /// Where it is read from.
    pub source: ConfigSource,
}

impl SignalHandler {
    /// Handles signals on a thread that lives as long as the process. A second SIGTERM ends at once, as SIGINT does.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(mut self, mut signals: Signals) -> io::Result<()> {
        threads::spawn_vital("signals", move || {
            let mut is_draining = false;
            for signal in signals.forever() {
                match signal {
                    SIGHUP => self.reload(),
                    SIGTERM if !is_draining => {
                        is_draining = true;
                        self.handle.drain();
                    }
                    _ => {
                        log::info!("signal {signal}: the server ends at once");
                        self.handle.shut_down();
                    }
                }
            }
            unreachable!("nobody closes the signals");
        })?;
        Ok(())
    }

    fn reload(&mut self) {
        let client = ReloadClient::waiting();
        self.supervisor.reloading();
        let outcome = self.try_to_reload();
        if let Err(mistakes) = &outcome {
            self.handle.record_failed_reload();
            for mistake in mistakes.lines() {
                log::error!("reload: {mistake}");
            }
        }
        if let Some(client) = client {
            client.tell(&outcome);
        }
        self.supervisor.ready();
    }

    /// Reads the configuration and puts it in force.
    ///
    /// # Errors
    /// Why not, a line for each mistake.
    fn try_to_reload(&mut self) -> Result<(), String> {
        let read = self.source.read().map_err(|mistakes| {
            format!("{mistakes}\nnothing is changed: the configuration in force stays")
        })?;
        for warning in read.warnings.lines() {
            log::warn!("reload: {warning}");
        }
        let ConfigChanges { config, changed, awaits_restart } =
            ConfigChanges::new(&self.in_force, read.config);
        self.handle.reload(&config).map_err(|stuck| stuck.to_string())?;
        logging::set_level(config.log_level);
        self.in_force = config;
        for change in &changed {
            log::info!("reload: {change}");
        }
        for change in &awaits_restart {
            log::warn!("reload: {change} needs a restart: `systemctl restart noray`");
        }
        if changed.is_empty() && awaits_restart.is_empty() {
            log::info!("reload: the configuration is the same as before");
        }
        Ok(())
    }
}
