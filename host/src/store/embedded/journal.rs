//! Commits on their way to the disk. A commit waits for others and for the disk, some milliseconds; a process that is killed
//! meanwhile would take along what an issuer just answered. So it is first handed to the kernel, sealed, in a file beside the
//! store's: a kill does not reach it there, and the next start makes the commits that are missing.
//!
//! It is no log that durability hangs on: what was answered is in the database. An entry names the version it replaces, so one
//! that was made, or that others overtook, changes nothing when it is read again.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::Database;

use super::rows::Rows;
use super::tables::{self, Fault, data_key};
use crate::model::credential::{Credential, Version};
use crate::model::key::CredentialKey;
use crate::store::vault::{Head, RowId, Vault};

/// From this length on it is emptied when no commit is under way: a start reads it in a moment.
const EMPTIED_FROM_BYTES: u64 = 256 << 10;
/// What it holds at most. Past it commits go unnoted until it could be emptied: they are no less durable once answered.
const HELD_MAX_BYTES: u64 = 16 << 20;
/// Bytes of an entry before the row: its length, and the row's id.
const FRAME_BYTES: usize = 4 + 32;

/// The file beside the store's.
pub(super) struct Journal {
    path: PathBuf,
    /// Held for one write to the kernel, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// None before the first entry.
    file: Option<File>,
    len: u64,
    /// Entries whose commits are not answered yet.
    open: usize,
    /// Rows of which a commit failed, and none was made since: what is noted of them is all there is of it.
    failed: HashSet<RowId>,
    /// An entry was cut off: what followed it would not be read.
    torn: bool,
}

/// An entry whose commit is under way. Dropped, the commit failed.
pub(super) struct Noted {
    journal: Arc<Journal>,
    id: RowId,
    settled: bool,
}

/// The file of a store's journal.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut journal = path.as_os_str().to_owned();
    journal.push(".journal");
    PathBuf::from(journal)
}

/// Makes the commits that a process before noted and did not make; afterwards there is no journal.
pub(super) fn replay(path: &Path, database: &Database, vault: &Vault) -> Result<(), Fault> {
    let journal = beside(path);
    let noted = match File::open(&journal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.and_then(read).map_err(system)?,
    };
    if !noted.is_empty() {
        let write = tables::begin_write(database)?;
        let mut rows = Rows::open(&write, vault)?;
        let entries = entries(&noted);
        for (id, row) in entries {
            if let Some((key, expected, credential)) = opened(&rows, vault, &id, row)? {
                // One that conflicts was made, or overtaken.
                drop(rows.commit(&key, expected, &credential)?);
            }
        }
        if rows.finish()? {
            write.commit().map_err(Fault::engine)?;
        }
    }
    std::fs::remove_file(&journal).map_err(system)
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut noted = Vec::new();
    file.take(HELD_MAX_BYTES).read_to_end(&mut noted)?;
    Ok(noted)
}

/// Entries up to the first that was cut off.
fn entries(mut noted: &[u8]) -> impl Iterator<Item = (RowId, &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = noted.split_first_chunk::<4>()?;
        let (id, rest) = rest.split_first_chunk::<32>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (row, rest) = rest.split_at_checked(length)?;
        noted = rest;
        Some((*id, row))
    })
}

/// What an entry says; none where it is another store's, was changed, or its tenant was shredded.
fn opened(
    rows: &Rows<'_>,
    vault: &Vault,
    id: &RowId,
    row: &[u8],
) -> Result<Option<(CredentialKey, Version, Credential)>, Fault> {
    let Ok((head, _)) = Head::split(row) else {
        return Ok(None);
    };
    match data_key(rows.data_keys(), vault, head.tenant, head.key_number) {
        Ok(Some(key)) => Ok(vault.open_noted(id, row, &key).ok()),
        Ok(None) | Err(Fault::Unsealed(..)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn system(error: io::Error) -> Fault {
    Fault::System(format!("its journal: {error}"))
}

// === impl Journal ===

impl Journal {
    pub(super) fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self {
            path: beside(path),
            state: Mutex::default(),
        })
    }

    /// Notes a commit before it waits for its turn. A mark needs no note: what it announces did not happen yet. Where it cannot
    /// be noted it is made all the same.
    pub(super) fn note(
        self: &Arc<Self>,
        vault: &Vault,
        key: &CredentialKey,
        expected: Version,
        credential: &Credential,
    ) -> Option<Noted> {
        if credential.intent.is_some() {
            return None;
        }
        let row = vault.seal_noted(key, expected, credential)?;
        let id = vault.credential_id(key);
        let mut entry = Vec::with_capacity(FRAME_BYTES + row.len());
        entry.extend(u32::try_from(row.len()).ok()?.to_le_bytes());
        entry.extend(id);
        entry.extend(row);
        self.append(&entry).then(|| Noted {
            journal: Arc::clone(self),
            id,
            settled: false,
        })
    }

    /// Empties it, unless something in it may still be wanted.
    pub(super) fn empty(&self) {
        self.state().empty();
    }

    fn append(&self, entry: &[u8]) -> bool {
        let mut state = self.state();
        let length = state.len + entry.len() as u64;
        if state.torn || length > HELD_MAX_BYTES {
            return false;
        }
        if state.file.is_none() {
            state.file = made(&self.path).ok();
        }
        let Some(file) = &mut state.file else {
            return false;
        };
        if file.write_all(entry).is_err() {
            let kept = state.len;
            state.torn = state
                .file
                .as_ref()
                .is_none_or(|it| it.set_len(kept).is_err());
            return false;
        }
        state.len = length;
        state.open += 1;
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Journal {
    /// Nothing is under way any more: unless something failed, what is in it was made, or refused.
    fn drop(&mut self) {
        let mut state = self.state();
        if state.file.take().is_some() && state.failed.is_empty() {
            // One that stays says nothing that is not in the store.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

// === impl Noted ===

impl Noted {
    /// Its commit was made, or the row has moved on.
    pub(super) fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        let mut state = self.journal.state();
        state.open -= 1;
        if !self.settled {
            state.failed.insert(self.id);
            return;
        }
        state.failed.remove(&self.id);
        if state.len >= EMPTIED_FROM_BYTES || state.torn {
            state.empty();
        }
    }
}

// === impl State ===

impl State {
    fn empty(&mut self) {
        if let Some(file) = &self.file
            && self.len > 0
            && self.open == 0
            && self.failed.is_empty()
        {
            self.torn = file.set_len(0).is_err();
            if !self.torn {
                self.len = 0;
            }
        }
    }
}

/// A file that only its owner may read, written at its end.
fn made(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
