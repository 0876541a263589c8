//! The signals that control the server: SIGHUP reloads the configuration, SIGTERM drains, SIGINT ends.

use std::io;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, ConfigChanges};
use crate::operation::config_source::ConfigSource;
use crate::operation::logging::Log;
use crate::operation::reload_request::ReloadClient;
use crate::operation::supervisor::Supervisor;
use crate::operation::{logging, threads};
use crate::shell::handover::Program;
use crate::shell::server_handle::{HandoverRequest, ServerHandle};

/// Keeps the signals from this thread, and from those that it starts. They wait until a thread allows them. So none is lost
/// between the programs of a handover.
pub fn block() {
    mask(SigmaskHow::SIG_BLOCK);
}

fn allow() {
    mask(SigmaskHow::SIG_UNBLOCK);
}

fn mask(how: SigmaskHow) {
    let signals: SigSet = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    pthread_sigmask(how, Some(&signals), None).expect("the kernel knows these signals");
}

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
    /// The program that runs; `None` if the system does not tell.
    pub program: Option<Program>,
    /// The log, which must be written before another program goes on.
    pub log: Log,
    /// Whether SIGTERM has come.
    pub is_draining: bool,
}

impl SignalHandler {
    /// Handles signals on a thread that lives as long as the process. A second SIGTERM ends at once, as SIGINT does.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(mut self, mut signals: Signals) -> io::Result<()> {
        threads::spawn_vital("signals", move || {
            allow();
            loop {
                let mut caught: Vec<i32> = signals.wait().collect();
                // A handover forgets what was caught beside it.
                caught.sort_by_key(|signal| *signal == SIGHUP);
                for signal in caught {
                    self.handle_signal(signal, &mut signals);
                }
            }
        })?;
        Ok(())
    }

    fn handle_signal(&mut self, signal: i32, signals: &mut Signals) {
        match signal {
            SIGHUP => self.reload(signals),
            SIGTERM if !self.is_draining => {
                self.is_draining = true;
                self.handle.drain();
            }
            _ => {
                log::info!("signal {signal}: the server ends at once");
                self.handle.shut_down();
            }
        }
    }

    /// Hands everything over to the program, executed anew. Returns why that was refused.
    fn hand_over(&self, config: &Config, is_replaced: bool, signals: &mut Signals) -> String {
        let Some(program) = &self.program else {
            return "this system does not tell which program runs: restart noray for other ports"
                .to_owned();
        };
        let what = if is_replaced { "another program is in its file" } else { "ports change" };
        log::info!("reload: {what}, so the program is executed anew; games go on");
        block();
        // What was caught before must not be lost: it waits in the kernel for the next program, or for this one.
        let is_ending = signals.pending().fold(false, |is_ending, signal| {
            let again = Signal::try_from(signal).and_then(|signal| kill(Pid::this(), signal));
            debug_assert!(again.is_ok(), "it was caught, so it can be sent");
            is_ending || signal != SIGHUP
        });
        if is_ending {
            allow();
            return "the server is about to end".to_owned();
        }
        let request = HandoverRequest {
            program,
            from: &self.in_force,
            to: config,
            file: self.source.last.clone(),
            log: self.log.clone(),
        };
        let refused = self.handle.hand_over(request);
        allow();
        match refused {
            Err(why) => format!("{why}\nnothing is changed: the configuration in force stays"),
            Ok(never) => match never {},
        }
    }

    /// Tells who waits for a reload how the handover went.
    pub fn tell(&self, outcome: &Result<(), String>) {
        if let Err(why) = outcome {
            self.handle.record_failed_reload();
            log::error!("reload: {why}");
        }
        if let Some(client) = ReloadClient::waiting() {
            client.tell(outcome);
        }
        self.supervisor.ready();
    }

    fn reload(&mut self, signals: &mut Signals) {
        let client = ReloadClient::waiting();
        self.supervisor.reloading();
        let outcome = self.try_to_reload(signals);
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
    fn try_to_reload(&mut self, signals: &mut Signals) -> Result<(), String> {
        let read = self.source.read().map_err(|mistakes| {
            format!("{mistakes}\nnothing is changed: the configuration in force stays")
        })?;
        for warning in read.warnings.lines() {
            log::warn!("reload: {warning}");
        }
        let ConfigChanges { config, changed, needs_handover, awaits_restart } =
            ConfigChanges::new(&self.in_force, read.config);
        let is_replaced = self.program.as_ref().is_some_and(Program::is_replaced);
        if is_replaced || !needs_handover.is_empty() {
            for change in changed.iter().chain(&needs_handover) {
                log::info!("reload: {change}");
            }
            return Err(self.hand_over(&config, is_replaced, signals));
        }
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
