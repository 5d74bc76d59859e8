//! The open database, opening it again after a fault, and what is done to the file as a whole. The engine refuses everything
//! after one failed read or write, such as on a full disk, until it is opened anew.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use redb::{Database, ReadTransaction, ReadableDatabase};

use super::journal;
use super::open::{self, Engine, Opened};
use super::rewrite;
use super::rows::Rows;
use super::tables::{self, Fault};
use crate::model::credential::Unreachable;
use crate::store::sealing::{KeyId, SealingKey};
use crate::store::vault::Vault;

/// The open database of a store.
pub(super) struct Live {
    path: PathBuf,
    engine: Engine,
    /// Held for reading by whoever works with the database, for writing while it is opened again or the file as a whole is
    /// changed. Taken on blocking threads only, never across an await.
    current: RwLock<Current>,
    /// Set once, when the store is dropped: who reads all of it stops.
    closing: AtomicBool,
}

struct Current {
    /// None after it could not be opened again; the next to need it tries once more.
    database: Option<Database>,
    vault: Arc<Vault>,
    /// The vault under the operator's next key, while it is not known whether the file is sealed with it.
    next: Option<Arc<Vault>>,
    /// How many times it was opened: tells whether somebody else already did it.
    opened: u64,
}

// === impl Live ===

impl Live {
    pub(super) fn new(path: PathBuf, opened: Opened, engine: Engine) -> Self {
        let current = Current {
            database: Some(opened.database),
            vault: opened.vault,
            next: None,
            opened: 1,
        };
        Self {
            path,
            engine,
            current: RwLock::new(current),
            closing: AtomicBool::new(false),
        }
    }

    /// Does `work` in a transaction that sees one moment of the store.
    pub(super) fn read<T>(
        &self,
        work: impl Fn(&ReadTransaction, &Vault) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.with(|database, vault| work(&database.begin_read().map_err(Fault::engine)?, vault))
    }

    /// Does `work` in one transaction; what it changed is on disk when this returns. After an error it may be there or
    /// not: whoever loads sees which.
    pub(super) fn write<T>(
        &self,
        work: impl Fn(&mut Rows<'_>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.with(|database, vault| {
            let write = tables::begin_write(database)?;
            let mut rows = Rows::open(&write, vault)?;
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

    /// Reads every row and compares them with what was written last; answers how many there are.
    pub(super) fn verify(&self) -> Result<u64, Fault> {
        self.read(|read, vault| tables::verify(read, vault, &self.closing))
    }

    /// Nobody waits any more for who reads all of it.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Names the operator's key that it is sealed with.
    pub(super) fn sealed_with(&self) -> KeyId {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.vault.sealed_with()
    }

    /// Lets go of the data keys that are held open.
    pub(super) fn forget_data_keys(&self) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.vault.forget_data_keys();
    }

    /// Writes a copy as of now; answers its length.
    pub(super) fn backup(&self, to: &Path) -> Result<u64, Fault> {
        if [open::unfinished(&self.path), journal::beside(&self.path)].contains(&to.to_owned()) {
            let detail = format!("{} is the store's own: name another file", to.display());
            return Err(Fault::System(detail));
        }
        if to.exists() {
            let detail = format!("{} is there already: name another file", to.display());
            return Err(Fault::System(detail));
        }
        if !open::parent(to).is_dir() {
            let detail = format!(
                "the folder of {} does not exist: make it, or name another",
                to.display()
            );
            return Err(Fault::System(detail));
        }
        let unfinished = open::unfinished(to);
        if unfinished.exists() {
            let detail = format!(
                "{} is there: an interrupted backup left it, or it is somebody's; remove it, or name another file",
                unfinished.display()
            );
            return Err(Fault::System(detail));
        }
        // Where the copy cannot be written, opening the store again would help nobody.
        self.read(|read, _| Ok(rewrite::copy(read, &unfinished, &self.closing).map(drop)))??;
        rewrite::name_new(&unfinished, to)?;
        length(to)
    }

    /// Writes what is in force into a new file in place of the old; answers how long both are.
    pub(super) fn compact(&self) -> Result<[u64; 2], Fault> {
        let before = length(&self.path)?;
        self.alone(|current| {
            let database = current.database.as_ref().ok_or_else(closed)?;
            let read = database.begin_read().map_err(Fault::engine)?;
            let unfinished = open::unfinished(&self.path);
            let copied = rewrite::copy(&read, &unfinished, &self.closing)?;
            drop(read);
            let folder = rewrite::name(&unfinished, &self.path)?;
            // It was locked before it had the name: the file had an owner at every moment. It is the one in force, whatever
            // comes now: the old one has no name any more.
            current.database = Some(copied);
            current.opened += 1;
            folder.sync_all().map_err(|error| {
                let detail =
                    format!("it was written anew, and its folder cannot be flushed: {error}");
                Fault::System(detail)
            })
        })?;
        Ok([before, length(&self.path)?])
    }

    /// Seals the root and every data key with another operator's key, in one transaction; answers the ids of both.
    pub(super) fn rotate_key(&self, to: SealingKey) -> Result<[KeyId; 2], Fault> {
        self.alone(|current| {
            let database = current.database.as_ref().ok_or_else(closed)?;
            let next = Arc::new(current.vault.under(to));
            let ids = [current.vault.sealed_with(), next.sealed_with()];
            let write = tables::begin_write(database)?;
            tables::seal_keys_anew(&write, &current.vault, &next)?;
            // From here on the file may be sealed with either.
            current.next = Some(next.clone());
            if let Err(fault) = write.commit() {
                current.database = None;
                return Err(Fault::engine(fault));
            }
            current.vault = next;
            current.next = None;
            Ok(ids)
        })
    }

    /// Does `work` while nobody else has the database.
    fn alone<T>(&self, work: impl FnOnce(&mut Current) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.database.is_none() {
            self.open_locked(&mut current)?;
        }
        let done = catch_unwind(AssertUnwindSafe(|| work(&mut current)));
        done.unwrap_or_else(|_| {
            // Whatever was half done: what the file holds is read anew.
            current.database = None;
            Err(contradiction())
        })
    }

    /// Does `work` with the database; once more with a newly opened one if the engine failed.
    fn with<T>(&self, work: impl Fn(&Database, &Vault) -> Result<T, Fault>) -> Result<T, Fault> {
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

    fn attempt<T>(
        &self,
        work: impl Fn(&Database, &Vault) -> Result<T, Fault>,
    ) -> (u64, Result<T, Fault>) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let done = match &current.database {
            // The engine checks its pages with assertions.
            Some(database) => catch_unwind(AssertUnwindSafe(|| work(database, &current.vault)))
                .unwrap_or_else(|_| Err(contradiction())),
            None => Err(closed()),
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
        self.open_locked(&mut current)
    }

    fn open_locked(&self, current: &mut RwLockWriteGuard<'_, Current>) -> Result<(), Fault> {
        let database =
            (self.engine)(&self.path).map_err(|error| Fault::System(error.to_string()))?;
        let read = database.begin_read().map_err(Fault::engine)?;
        if let Some(next) = current.next.clone()
            && tables::sealed_with(&read)? == Some(next.sealed_with())
        {
            current.vault = next;
        }
        // Another file in its place does not have our ledger.
        tables::check_counts(&read, &current.vault)?;
        drop(read);
        current.next = None;
        current.database = Some(database);
        current.opened += 1;
        Ok(())
    }
}

fn contradiction() -> Fault {
    Fault::Engine("the engine found its pages to contradict each other".into())
}

fn closed() -> Fault {
    Fault::Engine("it is not open".into())
}

fn length(path: &Path) -> Result<u64, Fault> {
    let found = std::fs::metadata(path).map_err(|error| Fault::System(error.to_string()))?;
    Ok(found.len())
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "embedded in {}", self.path.display())
    }
}
