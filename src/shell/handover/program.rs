//! The program's own file, and the question whether the program in it can take over.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use super::arrival::{CAN_TAKE_OVER, CHECK, REQUEST};

/// How long a program may take to say that it can take over.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many bytes of what it says are read.
const MAX_SAID: u64 = 16 * 1024;

/// The program that runs, and how it was started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    started_from: FileId,
}

/// What makes a file another one. An upgrade replaces it; a build writes it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
        }
    }
}

impl Program {
    /// The program of this process. Call this at the start, before its file can be replaced.
    ///
    /// # Errors
    /// If `/proc` is not there.
    pub fn running() -> io::Result<Self> {
        let started_from = FileId::of(&fs::metadata("/proc/self/exe")?);
        let mut arguments = std::env::args_os();
        // A link's own name, so that a link to another program counts as an upgrade.
        let is_it = |name: &PathBuf| {
            name.is_absolute()
                && fs::metadata(name).is_ok_and(|found| FileId::of(&found) == started_from)
        };
        let name = arguments.next().map(PathBuf::from).filter(is_it);
        let path = name.map_or_else(|| fs::read_link("/proc/self/exe"), Ok)?;
        Ok(Self { path, arguments: arguments.collect(), started_from })
    }

    /// Whether there is another program in its file now.
    pub(crate) fn is_replaced(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|now| FileId::of(&now) != self.started_from)
    }

    /// The program in its file, with the same arguments.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments);
        command
    }

    /// Runs the program in its file to see whether it could take over.
    ///
    /// # Errors
    /// Why not, in its words as far as it has any.
    pub(crate) fn check(&self, manifest: File) -> Result<(), String> {
        let mut command = self.command();
        command.env(REQUEST, CHECK).env_remove("LISTEN_FDS").env_remove("NOTIFY_SOCKET");
        command.stdin(manifest).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = self.path.display();
        let child = command.spawn().map_err(|error| format!("{name} cannot be run: {error}"))?;
        let said = words_of(child).map_err(|why| format!("{name} cannot take over: {why}"))?;
        if said.lines().any(|line| line == CAN_TAKE_OVER) {
            return Ok(());
        }
        Err(format!("{name} cannot take over: {}", said.trim_end()))
    }
}

/// What a child says until its end.
fn words_of(mut child: Child) -> Result<String, String> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (done, is_done) = bounded(1);
    let reader = move || {
        let mut said = String::new();
        // What is no text is no answer.
        let _ = out.expect("it is piped").take(MAX_SAID).read_to_string(&mut said);
        let _ = err.expect("it is piped").take(MAX_SAID).read_to_string(&mut said);
        let _ = done.send(said);
    };
    let reader = thread::Builder::new().name("check".to_owned()).spawn(reader);
    let said = match reader {
        Ok(_) => is_done.recv_timeout(PATIENCE),
        Err(_) => Err(RecvTimeoutError::Disconnected),
    };
    // It has ended, or must.
    let _ = child.kill();
    let status = child.wait();
    let said = said.map_err(|_| format!("it has not answered for {} s", PATIENCE.as_secs()))?;
    match status {
        Ok(_) if !said.is_empty() => Ok(said),
        Ok(status) => Err(format!("it said nothing and ended with {status}")),
        Err(error) => Err(error.to_string()),
    }
}
