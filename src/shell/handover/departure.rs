//! The old process's side: it collects everything and executes the program.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::{FdFlags, fcntl_setfd};
use signal_hook::consts::SIGPIPE;
use signal_hook::flag;

use super::arrival::{FIRST, REQUEST, TAKE_OVER, close_manifest};
use super::{Manifest, Openings, Program, SocketRole};
use crate::operation::logging::Log;
use crate::operation::{os, threads};
use crate::shell::acceptor::AcceptorControl;
use crate::shell::connection_table::ConnectionTable;

/// Descriptors that a handover needs for a moment: the snapshot, what the check of the program says, and in the next
/// process what is left of this one.
const SPARE_FILES: u64 = 16;

/// What the event loop needs for a handover.
pub(crate) struct Departure {
    pub(crate) program: Program,
    /// The configuration file's name and content, for the next process.
    pub(crate) file: Option<(String, String)>,
    pub(crate) openings: Openings,
    pub(crate) table: Arc<ConnectionTable>,
    pub(crate) http: Option<AcceptorControl>,
    pub(crate) log: Log,
    /// When the server began to serve.
    pub(crate) started: Instant,
}

/// A socket to pass on.
pub(crate) type Passed<'a> = (SocketRole, BorrowedFd<'a>);

/// Executes the program with these sockets, and with what `remains` of this process. It returns only if that fails; then
/// nothing has changed.
pub(crate) fn depart(
    program: &Program,
    manifest: Manifest,
    sockets: &[Passed<'_>],
    remains: &[BorrowedFd<'_>],
) -> String {
    let roles: Vec<_> = sockets.iter().map(|(role, fd)| (*role, fd.as_raw_fd())).collect();
    let all: Vec<BorrowedFd<'_>> =
        sockets.iter().map(|(_, fd)| *fd).chain(remains.iter().copied()).collect();
    // With thousands of sockets each takes milliseconds.
    let (passed, manifest) =
        threads::side_by_side(|| pass(&all, FdFlags::empty()), || manifest.into_file(&roles));
    let why = match passed.and(manifest) {
        Ok(manifest) => execute(program, manifest, &all),
        Err(error) => format!("the handover cannot be prepared: {error}"),
    };
    if let Err(error) = pass(&all, FdFlags::CLOEXEC) {
        log::error!(
            "another program may inherit sockets, as the handover cannot be undone: {error}"
        );
    }
    why
}

/// Sets whether the next program gets the descriptors.
fn pass(all: &[BorrowedFd<'_>], flags: FdFlags) -> io::Result<()> {
    all.iter().try_for_each(|fd| Ok(fcntl_setfd(fd, flags)?))
}

/// Executes the program. The descriptors keep their numbers. The next program is told of all numbers up to the largest one,
/// and finds in the manifest which are its own. This returns only if that fails, with the reason.
fn execute(program: &Program, manifest: File, all: &[BorrowedFd<'_>]) -> String {
    let last = all.iter().map(AsRawFd::as_raw_fd).max().unwrap_or(FIRST);
    let error = program
        .command()
        .env(REQUEST, TAKE_OVER)
        .env("LISTEN_FDS", (last - FIRST + 1).to_string())
        .env("LISTEN_PID", process::id().to_string())
        .stdin(manifest)
        .exec();
    // The standard library has put the manifest in the place of stdin, and has a broken pipe end the process.
    let undone = close_manifest().and_then(|()| flag::register(SIGPIPE, Arc::default()));
    if let Err(error) = undone {
        log::error!("a handover cannot be undone: {error}; restart noray when its games are over");
    }
    format!("the program cannot be executed: {error}")
}

/// Checks that a handover can open what it needs beside what is open.
///
/// # Errors
/// How much is missing, and what helps.
pub(crate) fn check_room() -> Result<(), String> {
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    let (needed, limit) = (open + SPARE_FILES, os::open_file_limit());
    if needed <= limit {
        return Ok(());
    }
    Err(format!(
        "a handover needs {needed} open files, and {limit} are allowed: raise LimitNOFILE= (systemd) or \
         `ulimit -Hn`, and restart"
    ))
}
