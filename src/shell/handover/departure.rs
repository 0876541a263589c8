//! The old process's side: it collects everything and executes the program.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::sync::Arc;

use command_fds::{CommandFdExt, FdMapping};

use super::arrival::{GO_ON, REQUEST, TAKE_OVER};
use super::{Manifest, Openings, Program, SocketRole};
use crate::operation::logging::Log;
use crate::operation::os;
use crate::shell::acceptor::AcceptorControl;
use crate::shell::connection_table::ConnectionTable;
use crate::shell::gate::Gate;

/// The first descriptor that is passed (sd_listen_fds(3)).
const FIRST: i32 = 3;

/// Descriptors that are open for a moment beside the copies.
const SPARE_FILES: u64 = 64;

/// What the event loop needs for a handover.
pub(crate) struct Departure {
    pub(crate) program: Program,
    /// The configuration file's name and content, for the next process.
    pub(crate) file: Option<(String, String)>,
    pub(crate) openings: Openings,
    pub(crate) gate: Gate,
    pub(crate) table: Arc<ConnectionTable>,
    pub(crate) http: Option<AcceptorControl>,
    pub(crate) log: Log,
}

/// A socket to pass on.
pub(crate) type Passed<'a> = (SocketRole, BorrowedFd<'a>);

/// Executes the program with these sockets. It returns only if that cannot be tried; then this process still has all of
/// them.
pub(crate) fn depart(program: &Program, manifest: Manifest, sockets: &[Passed<'_>]) -> String {
    match prepare(program, manifest, sockets) {
        Ok(mut command) => {
            let error = command.exec();
            // The sockets are at their places for the next program, in place of what this one had there. So only another
            // program can go on, if need be the one that runs: its file may be gone, but the kernel still has it.
            let again = program.itself().env(REQUEST, GO_ON).envs(passed(sockets.len())).exec();
            log::error!("the program cannot be executed: {error}, nor the one that runs: {again}");
            process::exit(1);
        }
        Err(why) => why,
    }
}

/// How the next program finds the sockets.
fn passed(sockets: usize) -> [(&'static str, String); 2] {
    [("LISTEN_FDS", sockets.to_string()), ("LISTEN_PID", process::id().to_string())]
}

fn prepare(
    program: &Program,
    manifest: Manifest,
    sockets: &[Passed<'_>],
) -> Result<Command, String> {
    let failed = |error: io::Error| format!("the handover cannot be prepared: {error}");
    let copies: Vec<OwnedFd> = sockets
        .iter()
        .map(|(_, fd)| fd.as_fd().try_clone_to_owned())
        .collect::<io::Result<_>>()
        .map_err(failed)?;
    let manifest: File = manifest.into_file().map_err(failed)?;
    let mut command = program.command();
    command.env(REQUEST, TAKE_OVER).envs(passed(copies.len())).stdin(manifest);
    let mappings = (FIRST..)
        .zip(copies)
        .map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd })
        .collect();
    command.fd_mappings(mappings).map_err(|error| error.to_string())?;
    Ok(command)
}

/// Checks that there is room for all that this process has open once more: each socket is open twice for a moment.
///
/// # Errors
/// How much is missing, and what helps.
pub(crate) fn check_room() -> Result<(), String> {
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as u64;
    let (needed, limit) = (2 * open + SPARE_FILES, os::open_file_limit());
    if needed <= limit {
        return Ok(());
    }
    Err(format!(
        "a handover needs {needed} open files for a moment, and {limit} are allowed: raise LimitNOFILE= (systemd) or \
         `ulimit -Hn`, and restart"
    ))
}
