//! The threads of all players. They can be waited for until the last one has really ended.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::core::id::ConnectionId;

/// The stack of a player's thread, in bytes. Measured: threads touch less than half of it. With smaller stacks, all
/// threads together take more memory, and a panic overflows the stack.
const STACK_SIZE: usize = 64 * 1024;

/// The threads of all players.
#[derive(Default)]
pub(crate) struct PlayerThreads(Arc<Mutex<HashMap<ConnectionId, JoinHandle<()>>>>);

impl PlayerThreads {
    /// Starts a thread for this connection.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(
        &self,
        connection: ConnectionId,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let threads = Arc::clone(&self.0);
        // The thread cannot look for its handle before it is there.
        let mut all = self.0.lock();
        let handle = thread::Builder::new()
            .name("player".to_owned())
            .stack_size(STACK_SIZE)
            .spawn(move || {
                body();
                // Without a handle, the system frees the thread's stack at its end.
                threads.lock().remove(&connection);
            })?;
        all.insert(connection, handle);
        Ok(())
    }

    /// Waits until all have ended. Whoever calls this has told them to end, and starts none meanwhile.
    ///
    /// A thread that has run its body still frees its stack. While a thousand threads of low priority do so, the event loop
    /// waits for the kernel's lock on the process's memory: 50 ms, measured.
    pub(crate) fn join_all(&self) {
        loop {
            let running = std::mem::take(&mut *self.0.lock());
            if running.is_empty() {
                return;
            }
            for thread in running.into_values() {
                // A panic is caught in the thread and logged there.
                let _ = thread.join();
            }
        }
    }
}
