//! When a table that forgets idle entries looks for them.

use serde::{Deserialize, Serialize};

/// How many entries a table may have before it looks for idle ones.
const FIRST: usize = 64;

/// The number of entries at which a table looks for idle ones: twice as many as were left the last time. So an entry
/// costs the same on average, however large the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruning {
    at: usize,
}

impl Default for Pruning {
    fn default() -> Self {
        Self { at: FIRST }
    }
}

impl Pruning {
    /// Whether a table with so many entries must look for idle ones.
    pub fn is_due(self, entries: usize) -> bool {
        entries >= self.at
    }

    /// The table has looked, and so many entries are left. A table that is full at `max_entries` looks again then.
    pub fn note(&mut self, left: usize, max_entries: usize) {
        self.at = FIRST.max(2 * left).min(max_entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_looks_when_it_has_twice_as_many_entries_or_is_full() {
        let mut pruning = Pruning::default();
        assert!(!pruning.is_due(63) && pruning.is_due(64));
        pruning.note(100, usize::MAX);
        assert!(!pruning.is_due(199) && pruning.is_due(200));
        pruning.note(600, 1024);
        assert!(!pruning.is_due(1023) && pruning.is_due(1024));
        pruning.note(0, 1024);
        assert!(pruning.is_due(64));
    }
}
