//! The audit log: who changed what, who was refused what, and what went wrong, in a file that only grows, each entry bound
//! to the one before by a hash. `docs/audit.md` has the format, what it guarantees and what it cannot.
//!
//! An [`Audit`] is an observer like any other. Nobody waits for it: entries go through a bounded queue to one thread, and
//! what finds no room there is counted, and the count is an entry. [`verify`] reads a log again.

mod entry;
mod files;
mod log;
mod queue;
mod record;
#[cfg(test)]
mod tests;
mod verify;
mod walk;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

pub use self::entry::{Hash, Head};
pub use self::verify::{Break, End, Expected, Moment, Verified, VerifyError, verify};
pub use self::walk::How;

use self::entry::{Record, STARTED, STOPPED};
use self::files::Paths;
use self::log::{Log, Through};
use self::queue::Queue;
use self::record::Audited;
use crate::model::event::{Event, Observer};
use crate::model::time::Clock;
use crate::observe::Fanout;

/// How long the end waits for the disk. A disk that hangs must not keep a process from ending.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Where a log is and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file that is written to; closed ones stand beside it.
    pub path: PathBuf,
    /// A file is closed before it is larger.
    pub max_bytes: u64,
    /// How many closed files are kept.
    pub keep: usize,
}

/// Whose log it is, for its first entry.
#[derive(Clone, Debug)]
pub struct Run {
    /// The version of the program.
    pub version: &'static str,
    /// The configuration that it runs with.
    pub config: PathBuf,
}

/// Why a log was not opened, and what to do about it.
#[derive(Debug)]
pub enum OpenError {
    /// The folder of the file does not exist.
    FolderMissing(PathBuf),
    /// Another process writes it.
    InUse(PathBuf),
    /// The system did not do what was asked.
    System(PathBuf, io::Error),
}

/// Writes events into an audit log.
pub struct Audit {
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    tell: Arc<Tell>,
    /// Whether the thread has ended. Held to set or to look, never while anything is written.
    ended: Arc<(Mutex<bool>, Condvar)>,
}

/// Where notices of the log itself go: never into the log, which may be what is failing.
struct Tell(RwLock<Arc<dyn Observer>>);

/// Tells that the thread has ended, however it did.
struct Ending(Arc<(Mutex<bool>, Condvar)>);

// === impl Audit ===

impl Audit {
    /// Opens a log, or begins one, and has an entry on disk that says so. Notices about the log itself go to `tell`.
    ///
    /// A log whose end does not hold together is set aside as it is, and another file begins with what was found: to
    /// refuse would let whoever can touch the file stop the process.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when it cannot be written, or another process writes it.
    pub fn open(
        settings: Settings,
        run: &Run,
        clock: Arc<dyn Clock>,
        tell: Arc<dyn Observer>,
    ) -> Result<Self, OpenError> {
        Self::open_through(settings, run, clock, tell, Box::new(|file| Box::new(file)))
    }

    fn open_through(
        settings: Settings,
        run: &Run,
        clock: Arc<dyn Clock>,
        tell: Arc<dyn Observer>,
        through: Through,
    ) -> Result<Self, OpenError> {
        let path = settings.path.clone();
        let system = |error| OpenError::System(path.clone(), error);
        let paths = Paths::new(&path);
        if !paths.folder().is_dir() {
            return Err(OpenError::FolderMissing(paths.folder().to_owned()));
        }
        let lock = paths.lock().map_err(system)?;
        let lock = lock.ok_or_else(|| OpenError::InUse(path.clone()))?;
        let mut log = Log::new(settings, paths, lock, clock.clone(), through);
        let started = Record::new(clock.now(), STARTED)
            .text("version", run.version)
            .text("config", &run.config.to_string_lossy())
            .number("process", std::process::id().into());
        log.add([started]);
        log.write().map_err(system)?;
        let tell = Arc::new(Tell(RwLock::new(tell)));
        for (code, detail) in log.news() {
            tell.notice(code, detail);
        }
        let Head { seq, hash } = log.head();
        let shown = path.display();
        tell.notice("audit_opened", format!("{shown}: entry {seq}, head {hash}"));

        let audit = Self {
            queue: Arc::default(),
            clock,
            tell,
            ended: Arc::default(),
        };
        let ending = Ending(audit.ended.clone());
        let (queue, clock, tell) = (audit.queue.clone(), audit.clock.clone(), audit.tell.clone());
        let thread = std::thread::Builder::new().name("keyfob-audit".into());
        let started = thread.spawn(move || {
            writer::run(log, &queue, &clock, &tell);
            drop(ending);
        });
        started.map_err(|error| OpenError::System(path.clone(), error))?;
        Ok(audit)
    }

    /// Tells notices about the log to somebody else from now on. One that holds this log is let go of by
    /// [`Audit::close`].
    pub fn tell(&self, observer: Arc<dyn Observer>) {
        *self.tell.0.write().unwrap_or_else(PoisonError::into_inner) = observer;
    }

    /// Writes the last entry, which says why, and waits until all is on disk, for five seconds at most. What happens
    /// afterwards is not audited. Blocks: call it where blocking is allowed.
    pub fn close(&self, reason: &str) {
        let last = Record::new(self.clock.now(), STOPPED).text("reason", reason);
        self.queue.end(last);
        let (ended, told) = &*self.ended;
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = told.wait_timeout_while(ended, CLOSE_WITHIN, |ended| !*ended);
        let (ended, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !*ended {
            let detail = format!("the disk did not take the last entries within {CLOSE_WITHIN:?}");
            self.tell.notice("audit_incomplete", detail);
        }
        drop(ended);
        self.tell(Arc::new(Fanout::default()));
    }
}

impl Observer for Audit {
    fn observe(&self, event: &Event) {
        let now = self.clock.now();
        match record::of(event, now) {
            Some(Audited::Always(record)) => self.queue.push(record, now),
            Some(Audited::Limited(record)) => self.queue.push_limited(record, now),
            None => {}
        }
    }
}

impl Drop for Audit {
    /// Ends the thread of a log that nobody closed; its last entry says so.
    fn drop(&mut self) {
        let last = Record::new(self.clock.now(), STOPPED).text("reason", "dropped");
        self.queue.end(last);
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Audit")
    }
}

// === impl Tell ===

impl Tell {
    fn notice(&self, code: &'static str, detail: String) {
        // The lock is not held while it is told: whoever listens may take its time.
        let observer = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        observer.observe(&Event::Notice { code, detail });
    }
}

// === impl Ending ===

impl Drop for Ending {
    fn drop(&mut self) {
        let (ended, told) = &*self.0;
        *ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        told.notify_all();
    }
}

// === impl OpenError ===

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FolderMissing(folder) => write!(
                f,
                "the audit log's folder {} does not exist: make it, or change `path` in [audit]",
                folder.display()
            ),
            Self::InUse(path) => write!(
                f,
                "the audit log {} is written by another process: stop that, or give this one a `path` of its own in [audit]",
                path.display()
            ),
            Self::System(path, error) => write!(
                f,
                "the audit log {} cannot be written ({error}): it and its folder must belong to the user that Keyfob runs \
                 as, on a disk with room",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}
