//! Vital threads: the server is of no use without them. If one of them panics, the process ends with status 1, and systemd
//! restarts it. The threads of single players and HTTP requests are not vital: only they end if they panic.

use std::cell::Cell;
use std::io;
use std::panic::{self, PanicHookInfo};
use std::process;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::operation::os;

thread_local! {
    static IS_VITAL: Cell<bool> = const { Cell::new(false) };
}

/// Starts a vital thread. A body that must not end panics instead of returning.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn spawn_vital(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let body = || {
        make_vital();
        body();
    };
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Starts a vital thread with a lower priority than the event loop's. The threads that it starts have the same.
///
/// # Errors
/// If the system gives no thread.
pub(crate) fn spawn_vital_with_low_priority(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    spawn_vital(name, || {
        os::lower_priority();
        body();
    })
}

/// Does both at once: `one` on another thread if the system gives one, and else first. If `one` panics, so does this.
pub(crate) fn side_by_side<A: Send, B>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> (A, B) {
    let one = Mutex::new(Some(one));
    let run_one = || {
        let one = one.lock().take();
        one.map(|one| one())
    };
    thread::scope(|scope| {
        let (first, second) = match thread::Builder::new().spawn_scoped(scope, run_one) {
            Ok(thread) => {
                let second = other();
                (thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)), second)
            }
            Err(_) => (run_one(), other()),
        };
        (first.expect("it is run once"), second)
    })
}

/// Makes the calling thread a vital one, as `main` does before it becomes the event loop.
pub fn make_vital() {
    IS_VITAL.set(true);
}

/// From now on, passes every panic to `report`. After a panic of a vital thread the process ends. It ends before the stack
/// unwinds, because unwinding would wait for the threads of a scope.
pub(crate) fn on_panic(report: impl Fn(&PanicHookInfo<'_>) + Send + Sync + 'static) {
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        if IS_VITAL.get() {
            process::exit(1);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_done_and_a_panic_of_one_is_passed_on() {
        assert_eq!(side_by_side(|| 1, || 2), (1, 2));
        let panicked = panic::catch_unwind(|| side_by_side(|| panic!("one"), || 2));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"one"));
    }
}
