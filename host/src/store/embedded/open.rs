//! Opening a store's file: making a new one, and refusing one that is in use, damaged, or sealed with another key. Nothing
//! is written to a file before it passed.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, StorageError};

use super::journal;
use super::tables::{self, Fault};
use super::untouched::Untouched;
use crate::model::secret::Secret;
use crate::store::sealing::{BadSealingKey, KeyId, SealingKey};
use crate::store::vault::{SCHEMA, Unsealed, Vault};

/// What the engine may cache. Rows are about 1 KiB and read once per refresh, so more would hold what nobody asks for.
const CACHE_BYTES: usize = 64 << 20;
/// A file up to this length is read whole when it is opened, and every row checked against the ledger: tens of thousands
/// of credentials in a fraction of a second. A longer one opens at once; `verify` reads it.
pub(super) const CHECKED_AT_OPEN_MAX_BYTES: u64 = 64 << 20;

/// Why a store was not opened, and what to do about it.
#[derive(Debug)]
pub enum OpenError {
    /// The sealing key is not 32 bytes of base64.
    SealingKey,
    /// The folder of the file does not exist.
    ParentMissing(PathBuf),
    /// The path is not a file.
    NotAFile(PathBuf),
    /// This process may not read and write the file.
    Denied(PathBuf, io::ErrorKind),
    /// Another process, or another store of this one, has the file open.
    InUse(PathBuf),
    /// The file is there and empty: it was cut off.
    Empty(PathBuf),
    /// The file holds something else.
    NotAStore(PathBuf),
    /// The file was made by a newer Keyfob.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        schema: u32,
    },
    /// The file is sealed with another key.
    WrongSealingKey {
        /// The file.
        path: PathBuf,
        /// Names the key that it is sealed with.
        sealed_with: KeyId,
        /// Names the key that was given.
        given: KeyId,
    },
    /// The file is not what was written to it.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The system did not do what was asked.
    System(PathBuf, String),
}

/// A store's file, open and passed.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) vault: Arc<Vault>,
    /// Whether all of it was read and compared.
    pub(super) whole: bool,
}

/// Opens the database of a file that is there, for real.
pub(super) type Engine = Box<dyn Fn(&Path) -> Result<Database, OpenError> + Send + Sync>;

/// Opens the store in a file, or makes one; reads at most `checked_max_bytes` whole.
pub(super) fn open(
    path: &Path,
    sealing_key: &Secret<String>,
    checked_max_bytes: u64,
    engine: &Engine,
) -> Result<Opened, OpenError> {
    let operator = SealingKey::parse(sealing_key).map_err(|BadSealingKey| OpenError::SealingKey)?;
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(OpenError::NotAFile(path.into())),
        Ok(found) if found.len() == 0 => Err(OpenError::Empty(path.into())),
        Ok(found) => {
            let given = operator.id;
            let whole = found.len() <= checked_max_bytes;
            let (vault, schema) = check(path, operator, whole)?;
            let database = engine(path)?;
            if schema < SCHEMA {
                guarded(path, || tables::migrate(&database, &vault))?
                    .map_err(|fault| of_fault(path, fault, given))?;
            }
            guarded(path, || journal::replay(path, &database, &vault))?
                .map_err(|fault| of_fault(path, fault, given))?;
            // What a rewrite that was interrupted left behind. Nobody else writes one while this process has the file.
            drop(std::fs::remove_file(unfinished(path)));
            Ok(Opened {
                database,
                vault: Arc::new(vault),
                whole,
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, operator),
        Err(error) => Err(of_system(path, &error)),
    }
}

/// The database of a file that is there.
pub(super) fn database(path: &Path) -> Result<Database, OpenError> {
    let backend = FileBackend::new(existing(path)?).map_err(|error| of_engine(path, error))?;
    on(path, backend)
}

/// The keys of the store in a file, which is not written to, and its schema.
fn check(path: &Path, operator: SealingKey, whole: bool) -> Result<(Vault, u32), OpenError> {
    let given = operator.id;
    let backend = Untouched::new(existing(path)?).map_err(|error| of_engine(path, error))?;
    let mut database = on(path, backend)?;
    let read = guarded(path, || {
        let read = database.begin_read().map_err(Fault::engine)?;
        let (vault, schema) = tables::open_vault(&read, operator)?;
        tables::check_counts(&read, &vault)?;
        Ok((vault, schema))
    })?;
    let (vault, schema) = read.map_err(|fault| of_fault(path, fault, given))?;
    if whole {
        let sound = guarded(path, || database.check_integrity())?;
        if !sound.map_err(|error| of_engine(path, error))? {
            return Err(damaged(path, "its pages do not match their checksums"));
        }
        guarded(path, || {
            let read = database.begin_read().map_err(Fault::engine)?;
            tables::verify(&read, &vault, &AtomicBool::new(false))
        })?
        .map_err(|fault| of_fault(path, fault, given))?;
    }
    Ok((vault, schema))
}

/// Makes a store. It gets its name only when it is whole, so a crash meanwhile leaves none rather than half of one.
fn create(path: &Path, operator: SealingKey) -> Result<Opened, OpenError> {
    let unfinished = unfinished(path);
    let file = locked(&unfinished)?;
    // Another process may have finished just before the lock; this would then be its file.
    if path.exists() {
        return Err(OpenError::InUse(path.into()));
    }
    let database = emptied(&unfinished, file)?;
    let given = operator.id;
    let vault = tables::found(&database, operator).map_err(|fault| of_fault(path, fault, given))?;
    let folder = name(&unfinished, path)?;
    folder.sync_all().map_err(|error| of_system(path, &error))?;
    // A journal without its store is of one that is gone.
    drop(std::fs::remove_file(journal::beside(path)));
    Ok(Opened {
        database,
        vault: Arc::new(vault),
        whole: true,
    })
}

/// What a store's file is called until it is whole.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    PathBuf::from(unfinished)
}

/// An empty database in a file that is not whole yet; whatever an interrupted attempt left there is gone.
pub(super) fn begun(unfinished: &Path) -> Result<Database, OpenError> {
    emptied(unfinished, locked(unfinished)?)
}

/// Gives a file that is whole its name. Answers with its folder, to be flushed: until then a power cut may take the name back.
pub(super) fn name(unfinished: &Path, path: &Path) -> Result<File, OpenError> {
    // Opened first: what fails here fails before anything was done.
    let folder = File::open(parent(path)).map_err(|error| of_system(path, &error))?;
    std::fs::rename(unfinished, path).map_err(|error| of_system(path, &error))?;
    Ok(folder)
}

/// The same where nothing may have the name yet.
pub(super) fn name_new(unfinished: &Path, path: &Path) -> Result<(), OpenError> {
    std::fs::hard_link(unfinished, path)
        .and_then(|()| std::fs::remove_file(unfinished))
        .and_then(|()| File::open(parent(path))?.sync_all())
        .map_err(|error| of_system(path, &error))
}

fn locked(unfinished: &Path) -> Result<File, OpenError> {
    let file = made(unfinished)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(unfinished.into())),
        Err(TryLockError::Error(error)) => Err(of_system(unfinished, &error)),
    }
}

fn emptied(unfinished: &Path, file: File) -> Result<Database, OpenError> {
    file.set_len(0)
        .map_err(|error| of_system(unfinished, &error))?;
    let backend = FileBackend::new(file).map_err(|error| of_engine(unfinished, error))?;
    on(unfinished, backend)
}

/// The database on a file. It checks what it reads with assertions, so a damaged file may end in a panic.
fn on(path: &Path, backend: impl StorageBackend) -> Result<Database, OpenError> {
    let opened = guarded(path, || {
        Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
    })?;
    opened.map_err(|error| of_engine(path, error))
}

fn guarded<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| damaged(path, "the engine found its pages to contradict each other"))
}

fn existing(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| of_system(path, &error))
}

/// A file that only its owner may read: what is in it is sealed, whom it is about need not be counted by others.
fn made(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::ParentMissing(parent(path).into()),
        _ => of_system(path, &error),
    })
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn damaged(path: &Path, detail: impl fmt::Display) -> OpenError {
    OpenError::Damaged {
        path: path.into(),
        detail: detail.to_string(),
    }
}

fn of_system(path: &Path, error: &io::Error) -> OpenError {
    match error.kind() {
        kind @ (io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            OpenError::Denied(path.into(), kind)
        }
        _ => OpenError::System(path.into(), error.to_string()),
    }
}

fn of_engine(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(path.into()),
        DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
            io::ErrorKind::InvalidData => OpenError::NotAStore(path.into()),
            io::ErrorKind::UnexpectedEof => damaged(path, "it is shorter than it says it is"),
            _ => of_system(path, &error),
        },
        error => damaged(path, error),
    }
}

fn of_fault(path: &Path, fault: Fault, given: KeyId) -> OpenError {
    match fault {
        Fault::Foreign => OpenError::NotAStore(path.into()),
        Fault::Newer(schema) => OpenError::Newer {
            path: path.into(),
            schema,
        },
        Fault::Unsealed(_, Unsealed::OtherKey { sealed_with }) => OpenError::WrongSealingKey {
            path: path.into(),
            sealed_with,
            given,
        },
        Fault::System(detail) => OpenError::System(path.into(), detail),
        fault => damaged(path, fault),
    }
}

// === impl OpenError ===

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SealingKey => BadSealingKey.fmt(f),
            Self::ParentMissing(folder) => write!(
                f,
                "the store's folder {} does not exist: make it, or change `path` in [store]",
                folder.display()
            ),
            Self::NotAFile(path) => write!(
                f,
                "{} is not a file: let `path` in [store] name one",
                path.display()
            ),
            Self::Denied(path, kind) => write!(
                f,
                "the store {} cannot be read and written ({kind}): it and its folder must belong to the user that \
                 Keyfob runs as, on a file system that can be written to",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "the store {} is in use by another process: one process owns a file; stop the other, or give \
                 this one a `path` of its own in [store]",
                path.display()
            ),
            Self::Empty(path) => write!(
                f,
                "the store {} is empty: something cut it off; put back a backup, or remove it to begin anew",
                path.display()
            ),
            Self::NotAStore(path) => write!(
                f,
                "{} is not a store of Keyfob, and was left as it is: let `path` in [store] name another file",
                path.display()
            ),
            Self::Newer { path, schema } => write!(
                f,
                "the store {} has schema {schema}, and this Keyfob knows up to {SCHEMA}: use the newer one again",
                path.display()
            ),
            Self::WrongSealingKey {
                path,
                sealed_with,
                given,
            } => write!(
                f,
                "the store {} is sealed with the key {sealed_with}, and `sealing_key` is the key {given}: nothing was \
                 changed; give it the key that it was made with",
                path.display()
            ),
            Self::Damaged { path, detail } => write!(
                f,
                "the store {} is damaged, and was left as it is: {detail}; put back a backup",
                path.display()
            ),
            Self::System(path, detail) => {
                write!(f, "the store {} cannot be opened: {detail}", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {}
