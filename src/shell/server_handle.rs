//! The handle by which other threads control a running server: reload, hand over, drain, end.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::config::Config;
use crate::config::units::TimeSpan;
use crate::limits::admission::Caps;
use crate::limits::share::HardCap;
use crate::operation::capacity::Capacity;
use crate::operation::clock;
use crate::operation::logging::Log;
use crate::operation::metrics::Metrics;
use crate::shell::acceptor::AcceptorControl;
use crate::shell::connection_table::ConnectionTable;
use crate::shell::event_channel::{Event, EventSender};
use crate::shell::handover::{self, Departure, Manifest, Openings, Program, SocketRole};
use crate::shell::http::Requests;
use crate::shell::kernel_path::KernelSwitch;

/// How long a reload waits for the event loop. It answers within milliseconds unless it is stuck.
pub const RELOAD_PATIENCE: Duration = Duration::from_secs(5);

/// How long requests for metrics may take to end before a handover. Those that take longer are cut off.
const REQUESTS_PATIENCE: Duration = Duration::from_secs(2);

/// What a handover needs to know.
pub(crate) struct HandoverRequest<'a> {
    pub(crate) program: &'a Program,
    /// The configuration in force, and the new one.
    pub(crate) from: &'a Config,
    pub(crate) to: &'a Config,
    /// The configuration file's name and content.
    pub(crate) file: Option<(String, String)>,
    pub(crate) log: Log,
}

/// Controls a running server from another thread.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) events: EventSender,
    pub(super) table: Arc<ConnectionTable>,
    pub(super) capacity: Capacity,
    pub(super) metrics: Arc<Metrics>,
    pub(super) requests: Arc<Requests>,
    pub(super) http: Option<AcceptorControl>,
    /// When the server began to serve, in this process or in the one that has handed over.
    pub(super) started: Instant,
    pub(super) kernel: Arc<KernelSwitch>,
}

/// The event loop has not taken a new configuration in time.
#[derive(Debug)]
pub struct LoopStuck(Duration);

impl fmt::Display for LoopStuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patience = TimeSpan(self.0);
        write!(
            f,
            "the event loop has not taken the new configuration for {patience}; restart noray"
        )
    }
}

impl std::error::Error for LoopStuck {}

/// Why a reload failed.
#[derive(Debug)]
pub enum ReloadError {
    /// The loop does not turn.
    Stuck(LoopStuck),
    /// The kernel's path is required and cannot be used: what is missing. All else is in force.
    KernelPath(String),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuck(stuck) => stuck.fmt(f),
            Self::KernelPath(why) => write!(
                f,
                "NORAY_KERNEL_PATH is `required`, and the kernel's path cannot be used: {why}; the sockets serve, and all \
                 else of the configuration is in force"
            ),
        }
    }
}

impl std::error::Error for ReloadError {}

impl ServerHandle {
    /// Puts a new configuration in force, except its addresses and ports, and waits until that is done. Live relays go on.
    ///
    /// # Errors
    /// If the event loop does not answer within [`RELOAD_PATIENCE`], or the kernel's path is required and cannot be used.
    pub fn reload(&self, config: &Config) -> Result<(), ReloadError> {
        self.reload_within(config, RELOAD_PATIENCE).map_err(ReloadError::Stuck)?;
        self.kernel.switch(config, &self.events, &self.metrics).map_err(ReloadError::KernelPath)?;
        self.metrics.has_reload_failed.set(0);
        Ok(())
    }

    pub(super) fn reload_within(
        &self,
        config: &Config,
        patience: Duration,
    ) -> Result<(), LoopStuck> {
        let deadline = clock::now() + patience;
        let (done, is_done) = bounded(1);
        let event = Event::Reload(Box::new(config.clone()), done);
        let is_posted = self.events.post_within(event, patience).is_ok();
        // If the loop ends instead, nobody needs the configuration any more.
        if !is_posted || is_done.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            return Err(LoopStuck(patience));
        }
        self.capacity.warn_if_below(config.max_connections);
        self.table.set_caps(caps(&self.capacity, config));
        Ok(())
    }

    /// Executes the program anew, which goes on with everything under the configuration `to`. It returns only if that is
    /// refused.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub(crate) fn hand_over(&self, request: HandoverRequest<'_>) -> Result<Infallible, String> {
        let HandoverRequest { program, from, to, file, log } = request;
        let rehearsal = self.rehearsal(file.clone())?;
        let openings = Openings::open(from, to, &rehearsal.core.ports_of_pairs().collect())?;
        handover::check_room()?;
        let roles = SocketRole::one_of_each().map(|role| (role, -1));
        program.check(rehearsal.into_file(&roles).map_err(|error| error.to_string())?)?;
        let _paused = self.requests.pause(REQUESTS_PATIENCE);
        let departure = Departure {
            program: program.clone(),
            file,
            openings,
            table: Arc::clone(&self.table),
            http: self.http.clone(),
            log,
            started: self.started,
        };
        let (refused, is_refused) = bounded(1);
        let event = Event::HandOver(Box::new(departure), refused);
        let stuck = || LoopStuck(RELOAD_PATIENCE).to_string();
        self.events.post_within(event, RELOAD_PATIENCE).map_err(|_| stuck())?;
        Err(is_refused.recv_timeout(RELOAD_PATIENCE).unwrap_or_else(|_| stuck()))
    }

    /// A manifest without sockets, by which a program can tell whether it could take over.
    fn rehearsal(&self, file: Option<(String, String)>) -> Result<Manifest, String> {
        let (answer, answered) = bounded(1);
        let stuck = || LoopStuck(RELOAD_PATIENCE).to_string();
        let event = Event::Snapshot(answer);
        self.events.post_within(event, RELOAD_PATIENCE).map_err(|_| stuck())?;
        let core = answered.recv_timeout(RELOAD_PATIENCE).map_err(|_| stuck())?;
        Ok(Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            file,
            core: *core,
            metrics: self.metrics.values(),
            warnings: Vec::new(),
            uptime: Duration::ZERO,
            admission: self.table.snapshot(),
            players: Vec::new(),
            next_connection: 0,
            remains: Vec::new(),
        })
    }

    /// Sets the gauge of a failed reload, until one goes well.
    pub fn record_failed_reload(&self) {
        self.metrics.has_reload_failed.set(1);
    }

    /// Begins nothing new and ends the server once its relays are quiet.
    pub fn drain(&self) {
        let _ = self.events.post(Event::Drain);
    }

    /// Ends the server. Does nothing if it has ended.
    pub fn shut_down(&self) {
        let _ = self.events.post(Event::Shutdown);
    }
}

/// How many connections there may be on a machine with that capacity.
pub(super) fn caps(capacity: &Capacity, config: &Config) -> Caps {
    let wanted = config.max_connections;
    let connections = capacity.players(wanted);
    // As many as were wanted are all of them, also on a machine that has room for fewer.
    let per_ip = config.max_connections_per_ip;
    let per_ip = if per_ip.is_share_of_all(wanted) { HardCap(Some(connections)) } else { per_ip };
    Caps { connections, per_ip }
}
