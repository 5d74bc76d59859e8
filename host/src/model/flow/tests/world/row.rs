//! Where a world keeps its one credential: in memory here; a store's own tests bring theirs.

use crate::model::credential::{CommitFault, Credential, Stored, Version};

/// One row of a store, as one process after the other sees it.
pub(crate) trait Row {
    /// What is there.
    fn load(&mut self) -> Stored;

    /// Replaces it, if its version still is `expected`.
    fn commit(&mut self, expected: Version, next: Credential) -> Result<Version, CommitFault>;

    /// As `commit`, by a process that is killed after this many writes to the disk.
    fn die_within(&mut self, writes: usize, expected: Version, next: Credential);

    /// The process is gone, and another one opens the store.
    fn reopen(&mut self);
}

/// A row in memory, which no process takes along.
#[derive(Clone, Default)]
pub(crate) struct OneRow(pub(crate) Stored);

// === impl OneRow ===

impl Row for OneRow {
    fn load(&mut self) -> Stored {
        self.0.clone()
    }

    fn commit(&mut self, expected: Version, next: Credential) -> Result<Version, CommitFault> {
        if expected != self.0.version {
            return Err(CommitFault::Conflict);
        }
        self.0 = Stored {
            version: Version(expected.0 + 1),
            credential: next,
        };
        Ok(self.0.version)
    }

    fn die_within(&mut self, writes: usize, expected: Version, next: Credential) {
        if writes > 0 {
            drop(self.commit(expected, next));
        }
    }

    fn reopen(&mut self) {}
}
