//! The open database, and opening it again after a fault: the engine refuses everything after one failed read or write,
//! such as on a full disk, until it is opened anew.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use redb::{Database, ReadTransaction, ReadableDatabase};

use super::open::{Engine, Opened};
use super::rows::Rows;
use super::tables::{self, Fault};
use crate::model::credential::Unreachable;
use crate::store::vault::Vault;

/// The open database of a store.
pub(super) struct Live {
    path: PathBuf,
    vault: Vault,
    engine: Engine,
    /// Held for reading by whoever works with the database, for writing while it is opened again. Taken on blocking
    /// threads only, never across an await.
    current: RwLock<Current>,
}

struct Current {
    /// None after it could not be opened again; the next to need it tries once more.
    database: Option<Database>,
    /// How many times it was opened: tells whether somebody else already did it.
    opened: u64,
}

// === impl Live ===

impl Live {
    pub(super) fn new(path: PathBuf, opened: Opened, engine: Engine) -> Self {
        let current = Current {
            database: Some(opened.database),
            opened: 1,
        };
        Self {
            path,
            vault: opened.vault,
            engine,
            current: RwLock::new(current),
        }
    }

    /// Does `work` in a transaction that sees one moment of the store.
    pub(super) fn read<T>(
        &self,
        work: impl Fn(&ReadTransaction, &Vault) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.with(|database| work(&database.begin_read().map_err(Fault::engine)?, &self.vault))
    }

    /// Does `work` in one transaction; what it changed is on disk when this returns. After an error it may be there or
    /// not: whoever loads sees which.
    pub(super) fn write<T>(
        &self,
        work: impl Fn(&mut Rows<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.with(|database| {
            let write = tables::begin_write(database)?;
            let mut rows = Rows::open(&write, &self.vault)?;
            let done = work(&mut rows)?;
            let changed = rows.finish()?;
            // A commit that failed may have happened: tried again, it would conflict with itself.
            Ok(if changed {
                write.commit().map_err(Fault::engine).map(|()| done)
            } else {
                Ok(done)
            })
        })?
    }

    /// Does `work` with the database; once more with a newly opened one if the engine failed.
    fn with<T>(&self, work: impl Fn(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        let opened = match self.attempt(&work) {
            (opened, Err(Fault::Engine(_) | Fault::System(_))) => opened,
            (_, done) => return done,
        };
        self.open_again(opened)?;
        self.attempt(&work).1
    }

    /// A fault as the contract has it: with the file's name, for operators.
    pub(super) fn unreachable(&self, why: impl fmt::Display) -> Unreachable {
        Unreachable(format!("the store {}: {why}", self.path.display()))
    }

    fn attempt<T>(&self, work: impl Fn(&Database) -> Result<T, Fault>) -> (u64, Result<T, Fault>) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let done = match &current.database {
            // The engine checks its pages with assertions.
            Some(database) => {
                catch_unwind(AssertUnwindSafe(|| work(database))).unwrap_or_else(|_| {
                    Err(Fault::Engine(
                        "the engine found its pages to contradict each other".into(),
                    ))
                })
            }
            None => Err(Fault::Engine("it is not open".into())),
        };
        (current.opened, done)
    }

    fn open_again(&self, opened: u64) -> Result<(), Fault> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.opened != opened {
            return Ok(());
        }
        // Closed first: the file has one owner.
        current.database = None;
        let database =
            (self.engine)(&self.path).map_err(|error| Fault::System(error.to_string()))?;
        let read = database.begin_read().map_err(Fault::engine)?;
        // Another file in its place does not have our ledger.
        tables::check_counts(&read, &self.vault)?;
        drop(read);
        current.database = Some(database);
        current.opened += 1;
        Ok(())
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "embedded in {}", self.path.display())
    }
}
