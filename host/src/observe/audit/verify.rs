//! Verifies a log: every file of it in order, every entry against the one before. Says what holds, or where it first does not.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::entry::{
    Entry, FILE_BEGUN, FILE_CLOSED, Hash, Head, LOST, RECOVERED, STARTED, STOPPED, SUPPRESSED,
};
use super::files::Paths;
use super::log::first_entry;
use super::walk::{From, How, Walked, walk};
use crate::model::time::UnixTime;

/// How often a log is read again because it went on in another file meanwhile. One that does so three times in the time it
/// takes to read it is not a log that anybody can verify in place.
const TRIES: u32 = 3;

/// What holds of a log.
#[derive(Clone, Debug)]
pub struct Verified {
    /// How many files there are.
    pub files: u64,
    /// How many entries they have.
    pub entries: u64,
    /// The first entry. Its number is above 1 where older files have left.
    pub first: Moment,
    /// The last entry.
    pub last: Moment,
    /// The hash of that.
    pub head: Hash,
    /// What the end says.
    pub end: End,
    /// How many starts have no stop before them: the process was killed, or its end was cut off.
    pub unstopped: u64,
    /// How many writes were cut short, and told of.
    pub recovered: u64,
    /// How many events found no room.
    pub lost: u64,
    /// How many events of callers were beyond what a second may have.
    pub suppressed: u64,
    /// Where the heads are that were noted elsewhere, in the order they were asked for.
    pub expected: Vec<Expected>,
}

/// An entry by its number and time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Its number.
    pub seq: u64,
    /// When it was made.
    pub at: UnixTime,
}

/// What the last entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The process ended in order.
    Stopped,
    /// A file was closed, and the next one is not here.
    Closed,
    /// Nothing: the process runs, was killed, or the end was cut off.
    Open,
}

/// A head that was noted elsewhere, found again.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// It.
    pub hash: Hash,
    /// How many entries there are after it.
    pub entries_after: u64,
}

/// Where a log does not hold together first.
#[derive(Clone, Debug)]
pub struct Break {
    /// In which file.
    pub file: PathBuf,
    /// On which line, from 1; none concerns the file as a whole.
    pub line: Option<u64>,
    /// In which way.
    pub how: How,
    /// The words.
    pub detail: String,
    /// The last entry before it; none if there is none.
    pub good: Option<Moment>,
}

/// Why a log was not verified.
#[derive(Debug)]
pub enum VerifyError {
    /// There is none.
    Missing(PathBuf),
    /// It cannot be read.
    Unreadable(PathBuf, io::Error),
    /// It does not hold together.
    Broken(Break),
}

/// A file of a log, opened.
struct Part {
    number: u64,
    path: PathBuf,
    file: File,
}

/// What was seen so far.
#[derive(Default)]
struct Tally {
    entries: u64,
    first: Option<Moment>,
    last: Option<(Moment, Hash, String)>,
    /// The last entry that is not about the log itself.
    last_event: Option<String>,
    unstopped: u64,
    recovered: u64,
    lost: u64,
    suppressed: u64,
    /// What Keyfob found broken, as it wrote it down.
    broken: Option<String>,
    /// The heads that are looked for, and the number of the entry that each is of.
    expected: Vec<(Hash, Option<u64>)>,
}

/// Verifies the log at this path, all of its files, and that the heads in `expect` are in it. A closed file that is alone is
/// verified alone. A log may be verified while it is written.
///
/// # Errors
///
/// [`VerifyError::Broken`] with the first place that does not hold.
pub fn verify(path: &Path, expect: &[Hash]) -> Result<Verified, VerifyError> {
    let paths = Paths::new(path);
    let number = || {
        File::open(path)
            .ok()
            .and_then(|mut it| first_entry(&mut it).ok()?)
    };
    let mut tries = 0;
    loop {
        let before = number().and_then(|first| first.file);
        let verified = once(&paths, expect);
        tries += 1;
        // What looks like a missing file may have come and gone between two looks.
        if verified.is_ok() || tries == TRIES || before == number().and_then(|first| first.file) {
            return verified;
        }
    }
}

fn once(paths: &Paths, expect: &[Hash]) -> Result<Verified, VerifyError> {
    let (parts, oldest) = parts(paths)?;
    let count = parts.len();
    let mut tally = Tally {
        expected: expect.iter().map(|hash| (*hash, None)).collect(),
        ..Tally::default()
    };
    let broken = |path: &Path, line, how, detail: String, tally: &Tally| {
        VerifyError::Broken(Break {
            file: path.to_owned(),
            line,
            how,
            detail,
            good: tally.last.as_ref().map(|(moment, ..)| *moment),
        })
    };
    let mut head = None;
    let mut next = oldest;
    for (at, part) in parts.into_iter().enumerate() {
        let Part { number, path, file } = part;
        let wrong = |line, how, detail: &str, tally: &Tally| {
            Err(broken(&path, line, how, detail.to_owned(), tally))
        };
        if let Some(missing) = next.filter(|next| *next != number) {
            let path = paths.closed(missing.min(number));
            let detail = match missing < number {
                true => format!("file {missing} is missing: it was removed, or has another name"),
                false => format!("file {number} is there twice, or has the number of another"),
            };
            return Err(broken(&path, None, How::File, detail, &tally));
        }
        next = Some(number.saturating_add(1));
        let length = file
            .metadata()
            .map_err(|error| unreadable(&path, error))?
            .len();
        let start = if number == 1 { Some(Head::START) } else { head };
        // Not beyond what it was: the process may be writing at its end.
        let lines = BufReader::with_capacity(64 << 10, file.take(length));
        let walked = walk(lines, From::Start(number, start), &mut |entry| {
            tally.take(entry)
        });
        let walked: Walked = match walked.map_err(|error| unreadable(&path, error))? {
            Ok(walked) => walked,
            Err((it, _)) => return wrong(it.line, it.how, &it.detail, &tally),
        };
        if let Some(what) = &tally.broken {
            let what = format!("when Keyfob opened the log it found {what}");
            return wrong(Some(1), How::FoundBroken, &what, &tally);
        }
        let last = at + 1 == count;
        let whole = walked.closed && walked.terminated;
        if !last && !whole {
            let detail = "it does not end with the entry that closes it, and another file follows";
            return wrong(None, How::CutOff, detail, &tally);
        }
        if let Some(torn) = walked.torn
            && !paths.is_locked()
        {
            let detail = format!(
                "its last {} bytes are no entry: a crash leaves that, and so does whoever cuts a file; the next start of \
                 Keyfob closes them off",
                torn.bytes
            );
            return wrong(None, How::CutOff, &detail, &tally);
        }
        head = Some(walked.head);
    }
    if let Some(hash) = tally.missing() {
        let detail = format!(
            "no entry has the hash {hash}: the end was cut off before it, or the log was written anew, or it left with an \
             older file"
        );
        return Err(broken(paths.active(), None, How::CutOff, detail, &tally));
    }
    Ok(tally.verified(count as u64))
}

/// Every file of a log in order, and the number that the oldest should have.
fn parts(paths: &Paths) -> Result<(Vec<Part>, Option<u64>), VerifyError> {
    // The active file first: what it becomes meanwhile is noticed.
    let active = match File::open(paths.active()) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unreadable(paths.active(), error)),
    };
    let listed = paths.list();
    let listed = listed.map_err(|error| unreadable(paths.folder(), error))?;
    let mut parts = Vec::with_capacity(listed.len() + 1);
    for closed in listed {
        let file = File::open(&closed.path).map_err(|error| unreadable(&closed.path, error))?;
        parts.push(Part {
            number: closed.number,
            path: closed.path,
            file,
        });
    }
    let Some(mut active) = active else {
        return match parts.is_empty() {
            true => Err(VerifyError::Missing(paths.active().to_owned())),
            false => Ok((parts, None)),
        };
    };
    let first = first_entry(&mut active).map_err(|error| unreadable(paths.active(), error))?;
    let alone = Paths::of_closed(paths.active()).filter(|_| parts.is_empty());
    let next = parts.last().map_or(1, |last| last.number.saturating_add(1));
    let (number, oldest) = match (alone, first) {
        (Some((_, closed)), _) => (closed.number, None),
        (None, Some(first)) => (first.file.unwrap_or(next), first.oldest_file),
        (None, None) => (next, None),
    };
    parts.push(Part {
        number,
        path: paths.active().to_owned(),
        file: active,
    });
    // More may be there than are kept: one could not be removed, or is about to be.
    let oldest = oldest.map(|oldest| oldest.min(parts[0].number));
    Ok((parts, oldest))
}

fn unreadable(path: &Path, error: io::Error) -> VerifyError {
    VerifyError::Unreadable(path.to_owned(), error)
}

// === impl Tally ===

impl Tally {
    fn take(&mut self, entry: &Entry) {
        let moment = Moment {
            seq: entry.seq,
            at: UnixTime::from_millis(entry.at),
        };
        if self.first.is_none() {
            self.first = Some(moment);
            // The end of a file that has left is still named by the one after it.
            self.find(entry.prev, entry.seq.saturating_sub(1));
        }
        self.find(entry.hash, entry.seq);
        self.entries += 1;
        let count = entry.count.unwrap_or_default();
        match &*entry.event {
            FILE_BEGUN if self.broken.is_none() => self.broken = entry.broken.clone(),
            RECOVERED => self.recovered += 1,
            LOST => self.lost = self.lost.saturating_add(count),
            SUPPRESSED => self.suppressed = self.suppressed.saturating_add(count),
            STARTED => {
                let stopped = self
                    .last_event
                    .as_deref()
                    .is_none_or(|event| event == STOPPED);
                self.unstopped += u64::from(!stopped);
            }
            _ => {}
        }
        if !entry.is_about_the_log() {
            self.last_event = Some(entry.event.clone());
        }
        self.last = Some((moment, entry.hash, entry.event.clone()));
    }

    fn find(&mut self, hash: Hash, seq: u64) {
        for (expected, found) in &mut self.expected {
            if *expected == hash {
                *found = Some(seq);
            }
        }
    }

    /// A head that was expected and is not there.
    fn missing(&self) -> Option<Hash> {
        let missing = self.expected.iter().find(|(_, found)| found.is_none());
        missing.map(|(hash, _)| *hash)
    }

    fn verified(self, files: u64) -> Verified {
        let nowhere = Moment {
            seq: 0,
            at: UnixTime::default(),
        };
        let (last, head, event) = self.last.unwrap_or((nowhere, Hash::ZERO, String::new()));
        let expected = self.expected.iter().map(|(hash, found)| Expected {
            hash: *hash,
            entries_after: last.seq.saturating_sub(found.unwrap_or_default()),
        });
        Verified {
            files,
            entries: self.entries,
            first: self.first.unwrap_or(nowhere),
            last,
            head,
            end: match &*event {
                STOPPED => End::Stopped,
                FILE_CLOSED => End::Closed,
                _ => End::Open,
            },
            unstopped: self.unstopped,
            recovered: self.recovered,
            lost: self.lost,
            suppressed: self.suppressed,
            expected: expected.collect(),
        }
    }
}

// === impl End ===

impl End {
    /// For machines.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

// === impl Break ===

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {} ({})", self.detail, self.how)
    }
}

// === impl VerifyError ===

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "{}: there is no audit log", path.display()),
            Self::Unreadable(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Broken(found) => found.fmt(f),
        }
    }
}

impl std::error::Error for VerifyError {}
