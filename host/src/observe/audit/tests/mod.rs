//! What the audit log promises, over real files.

mod disk;
mod events;
mod tampering;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::entry::{Entry, Record};
use super::files::Paths;
use super::log::{Log, Sink};
use super::*;
use crate::model::time::SystemClock;

/// Small enough that a few entries fill a file.
const SMALL: u64 = 2_500;

fn settings(dir: &Path, max_bytes: u64) -> Settings {
    Settings {
        path: dir.join("audit.log"),
        max_bytes,
        keep: 8,
    }
}

fn through(sink: impl Fn(fs::File) -> Box<dyn Sink> + Send + 'static) -> Through {
    Box::new(sink)
}

fn opened(settings: Settings) -> Log {
    opened_through(settings, through(|file| Box::new(file)))
}

fn opened_through(settings: Settings, through: Through) -> Log {
    let paths = Paths::new(&settings.path);
    let lock = paths.lock().unwrap().expect("nobody else has this log");
    Log::new(settings, paths, lock, Arc::new(SystemClock), through)
}

/// A record with a number of its own.
fn record(number: usize) -> Record {
    let record = Record::new(SystemClock.now(), "notice").text("code", "test");
    record.text("detail", &format!("record {number}"))
}

fn written(log: &mut Log, numbers: std::ops::Range<usize>) {
    log.add(numbers.map(record));
    log.write().unwrap();
}

/// A log of three files or more, closed by nobody, and its head.
fn grown() -> (TempDir, Head) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = opened(settings(dir.path(), SMALL));
    for number in 0..20 {
        written(&mut log, number..number + 1);
    }
    let head = log.head();
    (dir, head)
}

fn checked(dir: &TempDir) -> Result<Verified, VerifyError> {
    verify(&dir.path().join("audit.log"), &[])
}

#[track_caller]
fn assert_sound(dir: &TempDir) -> Verified {
    checked(dir).unwrap_or_else(|error| panic!("{error}\n{}", everything(dir)))
}

#[track_caller]
fn assert_broken(dir: &TempDir) -> Break {
    match checked(dir) {
        Err(VerifyError::Broken(found)) => found,
        other => panic!("{other:?}\n{}", everything(dir)),
    }
}

/// All files of a log as one text, for numbers of records to be found in.
fn everything(dir: &TempDir) -> String {
    let paths = Paths::new(&dir.path().join("audit.log"));
    let mut text = String::new();
    let closed = paths.list().unwrap().into_iter().map(|closed| closed.path);
    for path in closed.chain([paths.active().to_owned()]) {
        text.push_str(&String::from_utf8_lossy(
            &fs::read(path).unwrap_or_default(),
        ));
    }
    text
}

/// How many entries of the log are about each of the first records.
fn occurrences(dir: &TempDir, records: usize) -> Vec<usize> {
    let text = everything(dir);
    let entries = text
        .lines()
        .filter(|line| Entry::read(line.as_bytes()).is_ok());
    let entries: Vec<_> = entries.collect();
    let is_about = |line: &&&str, number| line.contains(&format!("\"record {number}\""));
    let count = |number| entries.iter().filter(|line| is_about(line, number)).count();
    (0..records).map(count).collect()
}

/// Keeps what the log has to tell.
#[derive(Default)]
struct Told(Mutex<Vec<(&'static str, String)>>, Condvar);

impl Told {
    fn count(&self, code: &str) -> usize {
        let told = self.0.lock().unwrap();
        told.iter().filter(|(told, _)| *told == code).count()
    }

    /// Waits until this was told.
    fn wait_for(&self, code: &str) {
        let told = self.0.lock().unwrap();
        let missing = |told: &mut Vec<(&str, String)>| !told.iter().any(|(told, _)| *told == code);
        drop(self.1.wait_while(told, missing).unwrap());
    }
}

impl Observer for Told {
    fn observe(&self, event: &Event) {
        if let Event::Notice { code, detail } = event {
            self.0.lock().unwrap().push((code, detail.clone()));
            self.1.notify_all();
        }
    }
}

#[test]
fn a_log_goes_on_over_files_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    for start in 0..4 {
        let mut log = opened(settings(dir.path(), SMALL));
        for number in 0..7 {
            written(&mut log, start * 7 + number..start * 7 + number + 1);
        }
    }
    let verified = assert_sound(&dir);
    assert!(verified.files > 3, "{verified:?}");
    assert_eq!(occurrences(&dir, 28), [1; 28]);
    // Every file but the last has an entry that begins and one that closes it.
    assert_eq!(verified.entries, 28 + 2 * verified.files - 1);
    assert_eq!(
        (verified.first.seq, verified.last.seq),
        (1, verified.entries)
    );
    assert_eq!(verified.end, End::Open);
}

#[test]
fn no_file_grows_beyond_its_size_and_the_oldest_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        keep: 2,
        ..settings(dir.path(), SMALL)
    };
    let mut log = opened(settings);
    written(&mut log, 0..40);
    let verified = assert_sound(&dir);
    assert_eq!(verified.files, 3);
    assert!(verified.first.seq > 1, "{verified:?}");
    for entry in fs::read_dir(dir.path()).unwrap() {
        let found = entry.unwrap().metadata().unwrap();
        assert!(found.len() <= SMALL, "{found:?}");
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::MetadataExt::mode(&found) & 0o777, 0o600);
    }
    // The head of a file that left is still known: the file after it names it.
    let first = fs::read_to_string(
        Paths::new(&dir.path().join("audit.log")).list().unwrap()[0]
            .path
            .clone(),
    );
    let first: serde_json::Value =
        serde_json::from_str(first.unwrap().lines().next().unwrap()).unwrap();
    let left = Hash::parse(first["prev"].as_str().unwrap()).unwrap();
    let verified = verify(&dir.path().join("audit.log"), &[left]).unwrap();
    assert_eq!(verified.expected[0].entries_after, verified.entries);
}

#[test]
fn an_entry_larger_than_a_file_is_written_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = opened(settings(dir.path(), 1_000));
    written(&mut log, 0..5);
    assert_eq!(assert_sound(&dir).files, 5);
    assert_eq!(occurrences(&dir, 5), [1; 5]);
}

#[test]
fn a_log_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let run = Run {
            version: "1",
            config: "k.toml".into(),
        };
        let settings = settings(dir.path(), 1 << 20);
        Audit::open(
            settings,
            &run,
            Arc::new(SystemClock),
            Arc::new(Told::default()),
        )
    };
    let first = open().unwrap();
    let refused = open().unwrap_err().to_string();
    assert!(
        refused.contains("another process") && refused.contains("[audit]"),
        "{refused}"
    );
    first.close("test");
    assert_eq!(assert_sound(&dir).end, End::Stopped);
    let missing = Settings {
        path: dir.path().join("no/audit.log"),
        ..settings(dir.path(), 1 << 20)
    };
    let run = Run {
        version: "1",
        config: "k.toml".into(),
    };
    let refused = Audit::open(
        missing,
        &run,
        Arc::new(SystemClock),
        Arc::new(Told::default()),
    );
    assert!(
        matches!(refused, Err(OpenError::FolderMissing(_))),
        "{refused:?}"
    );
}

#[test]
fn a_closed_file_is_verified_alone() {
    let (dir, _) = grown();
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().join("audit.log.2");
    fs::copy(dir.path().join("audit.log.2"), &path).unwrap();
    let verified = verify(&path, &[]).unwrap();
    assert_eq!((verified.files, verified.end), (1, End::Closed));
    // Closed files without the one that is written to are a log that ends with the last of them.
    fs::copy(
        dir.path().join("audit.log.1"),
        elsewhere.path().join("audit.log.1"),
    )
    .unwrap();
    let verified = verify(&elsewhere.path().join("audit.log"), &[]).unwrap();
    assert_eq!((verified.files, verified.end), (2, End::Closed));
    let nothing = verify(&elsewhere.path().join("other.log"), &[]);
    assert!(
        matches!(nothing, Err(VerifyError::Missing(_))),
        "{nothing:?}"
    );
}

#[test]
fn a_start_without_a_stop_before_it_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let started = || Record::new(SystemClock.now(), STARTED);
    let stopped = || Record::new(SystemClock.now(), STOPPED);
    for records in [
        vec![started(), record(0), stopped()],
        vec![started(), record(1)],
        vec![started(), stopped()],
    ] {
        let mut log = opened(settings(dir.path(), SMALL));
        log.add(records);
        log.write().unwrap();
    }
    let verified = assert_sound(&dir);
    assert_eq!((verified.unstopped, verified.end), (1, End::Stopped));
}
