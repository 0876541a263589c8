//! The old process's side: it collects everything and executes the program.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustix::io::{FdFlags, fcntl_setfd};

use super::arrival::{FIRST, REQUEST, TAKE_OVER, close_manifest};
use super::{Manifest, Openings, Program, SocketRole};
use crate::operation::logging::Log;
use crate::operation::os;
use crate::shell::acceptor::AcceptorControl;
use crate::shell::connection_table::ConnectionTable;

/// Descriptors that a handover needs for a moment: the snapshot, and what the check of the program says.
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

/// Executes the program with these sockets. It returns only if that fails; then nothing has changed.
pub(crate) fn depart(program: &Program, manifest: Manifest, sockets: &[Passed<'_>]) -> String {
    let why = match prepare(manifest, sockets) {
        Ok(manifest) => {
            let error = execute(program, manifest, sockets);
            format!("the program cannot be executed: {error}")
        }
        Err(error) => format!("the handover cannot be prepared: {error}"),
    };
    // Both cannot fail where they went well before.
    let restored = pass(sockets, FdFlags::CLOEXEC).and_then(|()| close_manifest());
    if let Err(error) = restored {
        log::error!("descriptors are not as they were before the handover: {error}");
    }
    why
}

/// Writes the manifest, and lets the next program get the sockets. With thousands of sockets each takes milliseconds, so they
/// are done side by side.
fn prepare(manifest: Manifest, sockets: &[Passed<'_>]) -> io::Result<File> {
    let roles: Vec<_> = sockets.iter().map(|(role, fd)| (*role, fd.as_raw_fd())).collect();
    thread::scope(|scope| {
        let pass = || pass(sockets, FdFlags::empty());
        let passing = thread::Builder::new().spawn_scoped(scope, pass)?;
        let manifest = manifest.into_file(&roles);
        passing.join().map_err(|_| io::Error::other("a thread panicked"))??;
        manifest
    })
}

/// Sets whether the next program gets the sockets.
fn pass(sockets: &[Passed<'_>], flags: FdFlags) -> io::Result<()> {
    sockets.iter().try_for_each(|(_, fd)| Ok(fcntl_setfd(fd, flags)?))
}

/// The sockets keep their numbers. The next program is told of all numbers up to the largest one, and finds in the manifest
/// which are its own.
fn execute(program: &Program, manifest: File, sockets: &[Passed<'_>]) -> io::Error {
    let last = sockets.iter().map(|(_, fd)| fd.as_raw_fd()).max().unwrap_or(FIRST);
    program
        .command()
        .env(REQUEST, TAKE_OVER)
        .env("LISTEN_FDS", (last - FIRST + 1).to_string())
        .env("LISTEN_PID", process::id().to_string())
        .stdin(manifest)
        .exec()
}

/// Checks that a handover can open what it needs beside what is open. The next program needs no more than this one.
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
