//! How `noray reload` asks a running server to read its configuration again, and hears the outcome.
//!
//! The client binds a Unix datagram socket to an abstract name (unix(7)) that contains the server's process id, and sends
//! SIGHUP. When a reload begins, the server connects to that name if a client is bound to it. When the reload is over, the
//! server sends the outcome there. It needs no file for that, and `kill -HUP` by hand works as well. The kernel says which
//! process sent a datagram (`SCM_CREDENTIALS`), so nobody else can forge an outcome.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};
use nix::unistd::Pid;

use crate::operation::clock;

/// How long a client waits for the outcome. A server answers within
/// [`RELOAD_PATIENCE`](crate::shell::server_handle::RELOAD_PATIENCE); a handover may take some seconds more if another program
/// hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of an outcome. What does not fit is only in the log.
const MAX_OUTCOME: usize = 16 * 1024;

const DONE: &str = "done\n";
const FAILED: &str = "failed\n";

/// Why a reload failed, or why its outcome is unknown.
#[derive(Debug)]
pub enum ReloadFailure {
    /// The server says what is wrong, a line each.
    Refused(String),
    /// The server's process cannot get the signal.
    NoServer(u32, Errno),
    /// Another process is bound to the name.
    Busy(u32),
    /// There was no outcome within twenty seconds.
    Unanswered(u32),
    /// The system gives no socket.
    System(io::Error),
}

impl fmt::Display for ReloadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(mistakes) => f.write_str(mistakes),
            Self::NoServer(pid, Errno::ESRCH) => write!(f, "there is no process {pid}"),
            Self::NoServer(pid, error) => {
                write!(f, "process {pid} cannot be sent SIGHUP: {}", error.desc())
            }
            Self::Busy(pid) => {
                write!(f, "another process waits for a reload of process {pid}; try again later")
            }
            Self::Unanswered(pid) => write!(
                f,
                "process {pid} has not answered for {} s; its log may say why",
                PATIENCE.as_secs()
            ),
            Self::System(error) => write!(f, "cannot wait for the outcome: {error}"),
        }
    }
}

impl std::error::Error for ReloadFailure {}

impl From<io::Error> for ReloadFailure {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

fn name(server: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("noray-reload-{server}"))
}

/// Asks the process `server` to read its configuration again, and waits until it is in force.
///
/// # Errors
/// [`ReloadFailure::Refused`] with all mistakes, or why the outcome is unknown.
pub fn request(server: u32) -> Result<(), ReloadFailure> {
    // Zero and negative numbers mean groups of processes, kill(2).
    let pid = i32::try_from(server).ok().filter(|pid| *pid > 0);
    let pid = pid.ok_or(ReloadFailure::NoServer(server, Errno::ESRCH))?;
    let socket = UnixDatagram::bind_addr(&name(server)?).map_err(|error| {
        let is_taken = error.kind() == io::ErrorKind::AddrInUse;
        if is_taken { ReloadFailure::Busy(server) } else { ReloadFailure::System(error) }
    })?;
    setsockopt(&socket, sockopt::PassCred, &true).map_err(io::Error::from)?;
    kill(Pid::from_raw(pid), Signal::SIGHUP)
        .map_err(|errno| ReloadFailure::NoServer(server, errno))?;
    let deadline = clock::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(ReloadFailure::Unanswered(server));
        }
        socket.set_read_timeout(Some(left))?;
        match receive(&socket) {
            Ok((sender, text)) if sender == Some(pid) => return outcome(&text),
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

/// A datagram and the process that sent it.
fn receive(socket: &UnixDatagram) -> Result<(Option<i32>, String), Errno> {
    let mut text = vec![0; MAX_OUTCOME];
    let mut control = nix::cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut text)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let length = message.bytes;
    let sender = message.cmsgs()?.find_map(|control| {
        let ControlMessageOwned::ScmCredentials(credentials) = control else { return None };
        Some(credentials.pid())
    });
    text.truncate(length);
    Ok((sender, String::from_utf8_lossy(&text).into_owned()))
}

fn outcome(text: &str) -> Result<(), ReloadFailure> {
    match text.strip_prefix(FAILED) {
        Some(mistakes) => Err(ReloadFailure::Refused(mistakes.to_owned())),
        None => Ok(()),
    }
}

/// A client that waits for the outcome of a reload of this process.
#[derive(Debug)]
pub(crate) struct ReloadClient(UnixDatagram);

impl ReloadClient {
    /// The client that waits now, if there is one. Call this before the configuration is read: a client that comes later
    /// has asked for the next reload.
    pub(crate) fn waiting() -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect_addr(&name(std::process::id()).ok()?).ok()?;
        Some(Self(socket))
    }

    /// Sends the outcome without waiting. An error has a line for each mistake.
    pub(crate) fn tell(&self, outcome: &Result<(), String>) {
        let text = match outcome {
            Ok(()) => DONE.to_owned(),
            Err(mistakes) => format!("{FAILED}{}", shortened(mistakes)),
        };
        if let Err(error) = self.0.send(text.as_bytes()) {
            log::debug!("the client that asked for the reload was not told the outcome: {error}");
        }
    }
}

/// As many lines as fit into a datagram.
fn shortened(mistakes: &str) -> String {
    const REST: &str = "there are more mistakes, the log has the first 50";
    let room = MAX_OUTCOME - FAILED.len();
    if mistakes.len() <= room {
        return mistakes.to_owned();
    }
    let mut short = String::new();
    for line in mistakes.lines() {
        if short.len() + line.len() + 1 + REST.len() > room {
            break;
        }
        short.push_str(line);
        short.push('\n');
    }
    short + REST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_reads_back() {
        assert!(outcome(DONE).is_ok());
        let failed = outcome(&format!("{FAILED}one\ntwo")).unwrap_err();
        assert_eq!(failed.to_string(), "one\ntwo");
    }

    #[test]
    fn more_mistakes_than_fit_are_cut_at_a_line() {
        let line = "noray.conf:1: NORAY_X: unknown key";
        assert_eq!(shortened(line), line);
        let many = format!("{line}\n").repeat(1000);
        let short = shortened(&many);
        assert!(FAILED.len() + short.len() <= MAX_OUTCOME);
        let lines: Vec<&str> = short.lines().collect();
        let (last, others) = lines.split_last().unwrap();
        assert!(others.len() > 400 && others.iter().all(|shown| *shown == line));
        assert!(last.ends_with("the log has the first 50"));
    }

    #[test]
    fn a_number_that_is_no_process_gets_no_signal() {
        for pid in [0, u32::MAX] {
            assert!(matches!(request(pid), Err(ReloadFailure::NoServer(..))));
        }
    }

    #[test]
    fn nobody_waits_by_default() {
        assert!(ReloadClient::waiting().is_none());
    }
}
