//! The gate: whoever accepts a connection or reads from one holds it open. While it is closed, all that players send waits
//! in the kernel.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The gate. Its clones are the same gate.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<RwLock<()>>);

impl Gate {
    /// Holds the gate open. Waits while it is closed.
    pub(crate) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.0.read()
    }

    /// Closes the gate, if nobody holds it open any more within `patience`. Whoever comes meanwhile waits. It opens when the
    /// guard is dropped.
    pub(crate) fn close_within(&self, patience: Duration) -> Option<RwLockWriteGuard<'_, ()>> {
        self.0.try_write_for(patience)
    }
}
