//! Names of the files of a log, the lock on them, and how one is made. The log at `audit.log` has closed files beside it,
//! `audit.log.1` and so on, whose names never change; one that was found broken is `audit.log.7.broken`.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What a file is called that was found broken: it is never written to again, and never removed.
const BROKEN: &str = "broken";

/// The paths of a log.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    active: PathBuf,
}

/// A file that is not written to any more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Closed {
    pub(super) number: u64,
    pub(super) broken: bool,
    pub(super) path: PathBuf,
}

// === impl Paths ===

impl Paths {
    pub(super) fn new(active: &Path) -> Self {
        Self {
            active: active.to_owned(),
        }
    }

    /// The file that is written to.
    pub(super) fn active(&self) -> &Path {
        &self.active
    }

    /// The name that a file gets when it is closed.
    pub(super) fn closed(&self, number: u64) -> PathBuf {
        self.with(&number.to_string())
    }

    /// The name that a file gets when it is found broken.
    pub(super) fn broken(&self, number: u64) -> PathBuf {
        self.with(&format!("{number}.{BROKEN}"))
    }

    /// The folder that all of them are in.
    pub(super) fn folder(&self) -> &Path {
        let folder = self.active.parent();
        folder
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    }

    /// Every file that is not written to any more, by its number.
    pub(super) fn list(&self) -> io::Result<Vec<Closed>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.folder())? {
            found.extend(self.named(&entry?.file_name()));
        }
        found.sort();
        Ok(found)
    }

    /// The log that this path is a closed file of, where its name says so.
    pub(super) fn of_closed(path: &Path) -> Option<(Self, Closed)> {
        let name = path.file_name()?.to_str()?;
        let plain = name.strip_suffix(BROKEN).map(|name| name.strip_suffix('.'));
        let (base, _) = plain.unwrap_or(Some(name))?.rsplit_once('.')?;
        let paths = Self::new(&path.with_file_name(base));
        let closed = paths.named(path.file_name()?)?;
        Some((paths, closed))
    }

    /// A closed file by its name; none if the name is something else's.
    fn named(&self, name: &OsStr) -> Option<Closed> {
        let rest = name.to_str()?;
        let rest = rest.strip_prefix(self.active.file_name()?.to_str()?)?;
        let rest = rest.strip_prefix('.')?;
        let (number, broken) = match rest.split_once('.') {
            None => (rest, false),
            Some((number, BROKEN)) => (number, true),
            Some(_) => return None,
        };
        let number: u64 = number.parse().ok()?;
        let path = match broken {
            false => self.closed(number),
            true => self.broken(number),
        };
        // `01` is a number too, and no name of ours.
        (path.file_name() == Some(name)).then_some(Closed {
            number,
            broken,
            path,
        })
    }

    /// The lock of the log, which one process at a time holds. It is a file of its own, so that it stays where it is when
    /// the log goes on in another file.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = owners(&mut options).open(self.with("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether a process holds the lock right now.
    pub(super) fn is_locked(&self) -> bool {
        let lock = File::open(self.with("lock"));
        lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Makes the active file with this line in it. It gets its name only when the line is on disk, so that a crash leaves
    /// no empty file: one that is found empty was emptied.
    pub(super) fn create(&self, first_line: &str) -> io::Result<File> {
        let unfinished = self.with("new");
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        let mut file = owners(&mut options).open(&unfinished)?;
        file.write_all(first_line.as_bytes())?;
        file.sync_data()?;
        // Opened first: once the file has its name, it is the one that is written to.
        let folder = File::open(self.folder())?;
        std::fs::rename(&unfinished, &self.active)?;
        // A folder that cannot be flushed may lose the name in a power cut, and the chain says so then.
        drop(folder.sync_all());
        Ok(file)
    }

    /// Takes the active file out of the way, under a name that nothing has.
    pub(super) fn set_aside(&self, to: &Path) -> io::Result<()> {
        if to.try_exists()? {
            let why = format!("{} is there already", to.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        std::fs::rename(&self.active, to)?;
        self.sync_folder()
    }

    /// Opens the active file to write at its end.
    pub(super) fn append(&self) -> io::Result<File> {
        OpenOptions::new().append(true).open(&self.active)
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.folder())?.sync_all()
    }

    fn with(&self, ending: &str) -> PathBuf {
        let mut name = self
            .active
            .file_name()
            .map_or_else(OsString::new, Into::into);
        name.push(".");
        name.push(ending);
        self.active.with_file_name(name)
    }
}

/// Who was refused what is nobody else's to read.
fn owners(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_closed_files_are_read_as_they_are_written() {
        let paths = Paths::new(Path::new("/x/audit.log"));
        let named = |name: &str| {
            paths
                .named(OsStr::new(name))
                .map(|it| (it.number, it.broken))
        };
        assert_eq!(named("audit.log.12"), Some((12, false)));
        assert_eq!(named("audit.log.7.broken"), Some((7, true)));
        for other in [
            "audit.log",
            "audit.log.",
            "audit.log.01",
            "audit.log.new",
            "audit.log.lock",
            "b.log.1",
            "audit.log.1.gz",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
        let (of, closed) = Paths::of_closed(Path::new("/x/audit.log.7.broken")).unwrap();
        assert_eq!((of.active(), closed.number), (paths.active(), 7));
        assert!(Paths::of_closed(Path::new("/x/audit.log")).is_none());
    }
}
