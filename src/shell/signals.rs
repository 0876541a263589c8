//! Ends and changes nothing itself: what each signal asks of the server.

use std::io;

use crate::config::{Config, Effective, Reload};
use crate::operation::supervisor::Supervisor;
use crate::shell::server::ServerHandle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::operation::logging;

/// From now on signals wait to be handled, also those that come before the server is there.
///
/// # Errors
/// If the kernel has no descriptor left.
pub fn catch() -> io::Result<Signals> {
    Signals::new([SIGHUP, SIGINT, SIGTERM])
}

/// What signals need to do their work.
pub struct Operator {
    /// The running server.
    pub handle: ServerHandle,
    /// systemd.
    pub supervisor: Supervisor,
    /// The configuration that is in force.
    pub in_force: Config,
    /// Reads the configuration again from where it came, or says every mistake, a line each.
    pub read_config: Box<dyn FnMut() -> Result<Effective, String> + Send>,
}

impl Operator {
    /// Handles signals on a thread that lives as long as the process: SIGHUP reloads, SIGTERM drains, and once more
    /// ends at once, as SIGINT does.
    ///
    /// # Errors
    /// If the thread cannot be had.
    pub fn start(mut self, mut signals: Signals) -> io::Result<()> {
        let handle_all = move || {
            let mut is_draining = false;
            for signal in signals.forever() {
                match signal {
                    SIGHUP => self.reload(),
                    SIGTERM if !is_draining => {
                        is_draining = true;
                        self.handle.drain();
                    }
                    _ => {
                        log::info!("signal {signal}: ending at once");
                        self.handle.shut_down();
                    }
                }
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(handle_all)?;
        Ok(())
    }

    fn reload(&mut self) {
        self.supervisor.reloading();
        match (self.read_config)() {
            Ok(effective) => self.put_in_force(effective.config),
            Err(mistakes) => {
                for mistake in mistakes.lines() {
                    log::error!("reload: {mistake}");
                }
                log::error!("reload: nothing is changed, the configuration in force stays");
                self.handle.note_failed_reload();
            }
        }
        self.supervisor.ready();
    }

    fn put_in_force(&mut self, read: Config) {
        let Reload { config, changed, awaits_restart } = Reload::new(&self.in_force, read);
        logging::set_level(config.log_level);
        self.handle.reload(&config);
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
    }
}
