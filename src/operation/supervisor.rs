//! Tells systemd the server's state, as `sd_notify(3)` describes, if systemd started the server.
//!
//! There is one socket for the life of the process. Writing to it never waits: a supervisor that does not read must not
//! stop the relays.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::operation::os;

/// How often the status is sent, if the watchdog does not need it more often.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Time that the server gets to end beyond what it announces. After that, systemd kills it.
const STOP_RESERVE: Duration = Duration::from_secs(10);

/// The socket to systemd, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Option<Arc<NotifySocket>>);

#[derive(Debug)]
struct NotifySocket {
    socket: UnixDatagram,
    beat_interval: Duration,
}

impl Supervisor {
    /// The supervisor that the environment names, by `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let Some(name) = os::variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        let pid = os::variable("WATCHDOG_PID");
        let is_for_us = pid.is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = os::variable("WATCHDOG_USEC").filter(|_| is_for_us);
        let watchdog = watchdog.and_then(|usec| usec.parse().ok()).map(Duration::from_micros);
        Self::connect(&name, watchdog).unwrap_or_else(|error| {
            log::warn!("cannot tell systemd the server's state through NOTIFY_SOCKET: {error}");
            Self::default()
        })
    }

    fn connect(name: &str, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        // Half of the watchdog's time, as sd_watchdog_enabled(3) recommends.
        let beat_interval = watchdog.map_or(STATUS_INTERVAL, |time| STATUS_INTERVAL.min(time / 2));
        Ok(Self(Some(Arc::new(NotifySocket { socket, beat_interval }))))
    }

    /// How often [`Self::beat`] must be called; `None` if nobody listens.
    pub(crate) fn beat_interval(&self) -> Option<Duration> {
        self.0.as_ref().map(|notify| notify.beat_interval)
    }

    /// The server serves, for the first time or after a reload.
    pub(crate) fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is being read again. [`Self::ready`] follows.
    pub(crate) fn reloading(&self) {
        self.tell("RELOADING=1");
    }

    /// The server ends within `time` and [`STOP_RESERVE`]. The status says what it does until then.
    pub(crate) fn stopping(&self, time: Duration, status: &str) {
        let micros = (time + STOP_RESERVE).as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS={status}"));
    }

    /// The event loop turns. The status says what the server does.
    pub(crate) fn beat(&self, status: &str) {
        self.tell(&format!("WATCHDOG=1\nSTATUS={status}"));
    }

    fn tell(&self, state: &str) {
        if let Some(notify) = &self.0
            && let Err(error) = notify.socket.send(state.as_bytes())
        {
            log::debug!("systemd was not told {}: {error}", state.replace('\n', " "));
        }
    }
}
