//! The halt: it ends all players' threads before a handover, and the accept loop waits with them.
//!
//! What players send meanwhile waits in the kernel. The relays go on: they need none of these threads.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::shell::connection::SharedConnection;

/// Whether players' threads must end. Its clones are the same.
#[derive(Clone)]
pub(crate) struct Halt(Arc<Shared>);

struct Shared {
    is_called: AtomicBool,
    /// Readable while the halt is called, so that it ends a wait for a player's bytes.
    event: OwnedFd,
    /// Connections that are closed once their players have read why.
    leaving: Mutex<Vec<SharedConnection>>,
}

impl Halt {
    /// Not called yet.
    ///
    /// # Errors
    /// If the kernel has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (is_called, leaving) = (AtomicBool::new(false), Mutex::default());
        Ok(Self(Arc::new(Shared { is_called, event, leaving })))
    }

    /// Has all players' threads end. Whoever accepts connections must be woken beside.
    pub(crate) fn call(&self) {
        self.0.is_called.store(true, Ordering::Release);
        let written = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
        debug_assert!(written.is_ok(), "the counter is far from full");
    }

    /// Threads may run again.
    pub(crate) fn end(&self) {
        self.0.is_called.store(false, Ordering::Release);
        // There is nothing to read if it was not called.
        let _ = rustix::io::read(&self.0.event, &mut [0; 8]);
    }

    pub(crate) fn is_called(&self) -> bool {
        self.0.is_called.load(Ordering::Acquire)
    }

    /// Waits until there is something to read, or the halt is called, for at most `limit` (poll(2)).
    pub(crate) fn wait_for_input(
        &self,
        stream: &TcpStream,
        limit: Option<Duration>,
    ) -> io::Result<()> {
        wait(&mut [PollFd::new(stream, PollFlags::IN), self.called()], limit)
    }

    /// Waits until the halt is called, for at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<()> {
        wait(&mut [self.called()], Some(limit))
    }

    fn called(&self) -> PollFd<'_> {
        PollFd::from_borrowed_fd(self.0.event.as_fd(), PollFlags::IN)
    }

    /// Leaves a connection to whoever waits with the next program: its player may not have read yet why it is closed.
    pub(crate) fn leave(&self, connection: SharedConnection) {
        self.0.leaving.lock().push(connection);
    }

    /// The connections that were left.
    pub(crate) fn take_leaving(&self) -> Vec<SharedConnection> {
        std::mem::take(&mut self.0.leaving.lock())
    }
}

fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.map(|limit| Timespec::try_from(limit).expect("a wait is short"));
    poll(fds, limit.as_ref())?;
    Ok(())
}
