//! Threads without which the server is of no use. One of them that panics ends the process with status 1, so that
//! systemd restarts it. The threads of single players and requests are none of these: they may die alone.

use std::cell::Cell;
use std::io;
use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread::{self, JoinHandle};

use crate::operation::os;

thread_local! {
    static IS_VITAL: Cell<bool> = const { Cell::new(false) };
}

/// Starts a vital thread. Its body panics rather than return when it ends though it should not.
///
/// # Errors
/// If the system gives no thread.
pub fn spawn_vital(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let body = || {
        make_vital();
        body();
    };
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// The same for a thread that lets the event loop go first, and so do the threads that it starts.
///
/// # Errors
/// If the system gives no thread.
pub fn spawn_vital_behind(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    spawn_vital(name, || {
        os::step_back();
        body();
    })
}

/// Makes the calling thread a vital one, as `main` does before it becomes the event loop.
pub fn make_vital() {
    IS_VITAL.set(true);
}

/// From now on every panic is passed to `report`; then, on a vital thread, the process ends. It does not wait for the
/// stack to unwind, which would wait for the threads of a scope.
pub(crate) fn on_panic(report: impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        if IS_VITAL.get() {
            process::exit(1);
        }
    }));
}
