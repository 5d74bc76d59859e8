//! The files of a log as one log: finding its end, writing there, beginning another file. Whatever goes wrong, the next write
//! looks at the disk again and goes on from what it finds. Nothing that stands in a file is ever written over or removed.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;

use super::Settings;
use super::entry::{Entry, FILE_BEGUN, FILE_CLOSED, Hash, Head, RECOVERED, Record};
use super::files::{Closed, Paths};
use super::walk::{From, How, LINE_MAX_BYTES, Torn, Walked, Wrong, walk};
use crate::model::time::Clock;

/// Room kept for the entry that closes a file, and for one that tells of a write that was cut short: 300 bytes each.
const CLOSING_MAX_BYTES: u64 = 1024;

/// Where lines go; tests have one that fills up.
pub(super) trait Sink: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// How a file becomes a sink.
pub(super) type Through = Box<dyn Fn(File) -> Box<dyn Sink> + Send>;

/// Something that an operator should know of the log: a code, and the words.
pub(super) type News = (&'static str, String);

/// A log that one process writes.
pub(super) struct Log {
    settings: Settings,
    paths: Paths,
    clock: Arc<dyn Clock>,
    through: Through,
    /// The file that is written to; none before it is opened, and after a failure.
    sink: Option<Box<dyn Sink>>,
    /// How far the log is known to be on disk.
    spot: Option<Spot>,
    /// What is to be written, oldest first.
    pending: Vec<Record>,
    news: Vec<News>,
    /// Held as long as this lives.
    _lock: File,
}

/// A place in a log.
#[derive(Clone, Copy, Debug)]
struct Spot {
    file: u64,
    head: Head,
    /// From the beginning of the file.
    bytes: u64,
    /// In this file.
    entries: u64,
    closed: bool,
}

/// What is wrong with the file before, in words, and a name for it as it was found.
struct Broken {
    what: String,
    hash: Option<Hash>,
}

// === impl Sink ===

impl Sink for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

// === impl Log ===

impl Log {
    /// A log at these paths, whose lock is held. Nothing is read or written before the first write.
    pub(super) fn new(
        settings: Settings,
        paths: Paths,
        lock: File,
        clock: Arc<dyn Clock>,
        through: Through,
    ) -> Self {
        Self {
            settings,
            paths,
            clock,
            through,
            sink: None,
            spot: None,
            pending: Vec::new(),
            news: Vec::new(),
            _lock: lock,
        }
    }

    /// Adds what is to be written next.
    pub(super) fn add(&mut self, records: impl IntoIterator<Item = Record>) {
        self.pending.extend(records);
    }

    /// How many records are not written.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The end of the log on disk.
    pub(super) fn head(&self) -> Head {
        self.spot.map_or(Head::START, |spot| spot.head)
    }

    /// What there is to tell since the last call.
    pub(super) fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Writes everything that is to be written, and has it on disk.
    ///
    /// # Errors
    ///
    /// What could not be written stays; the next call goes on where this one failed.
    pub(super) fn write(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            // A failure drops the file: what became of the write is looked up on disk.
            let sink = self.sink.take();
            let mut sink = match sink {
                Some(sink) => sink,
                None => self.resume()?,
            };
            // A record may have been found on disk.
            if self.pending.is_empty() || self.write_some(&mut *sink)? {
                self.sink = Some(sink);
            }
        }
        Ok(())
    }

    /// Writes what fits into this file; false when it was closed.
    fn write_some(&mut self, sink: &mut dyn Sink) -> io::Result<bool> {
        let Some(mut spot) = self.spot else {
            return Ok(false);
        };
        let mut text = String::new();
        let mut taken = 0;
        for record in &self.pending {
            let (line, head) = record.seal(&spot.head);
            let length = spot.bytes + line.len() as u64;
            // One entry at least has room in every file, however small a file may be.
            if length + CLOSING_MAX_BYTES > self.settings.max_bytes && spot.entries > 1 {
                break;
            }
            text.push_str(&line);
            (spot.head, spot.bytes) = (head, length);
            spot.entries += 1;
            taken += 1;
        }
        let full = taken < self.pending.len();
        if full {
            let record = Record::new(self.clock.now(), FILE_CLOSED).number("file", spot.file);
            let (line, head) = record.seal(&spot.head);
            text.push_str(&line);
            (spot.head, spot.bytes, spot.closed) = (head, spot.bytes + line.len() as u64, true);
        }
        sink.append(text.as_bytes())?;
        sink.sync()?;
        self.pending.drain(..taken);
        self.spot = Some(spot);
        Ok(!full)
    }

    /// Finds the end of the log on disk and opens it for writing.
    fn resume(&mut self) -> io::Result<Box<dyn Sink>> {
        let closed = self.paths.list()?;
        match File::open(self.paths.active()) {
            Ok(file) => self.resume_active(file, &closed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.resume_after(&closed),
            Err(error) => Err(error),
        }
    }

    fn resume_active(&mut self, mut file: File, closed: &[Closed]) -> io::Result<Box<dyn Sink>> {
        // What a write that failed has put there all the same need not be written again.
        let mut found = 0;
        let (number, walked) = match self.spot {
            Some(spot) => (spot.file, walk_on(file, spot, &mut found)?),
            None => {
                let next = closed
                    .last()
                    .map_or(1, |last| last.number.saturating_add(1));
                let first = first_entry(&mut file)?.and_then(|first| first.file);
                let number = first.unwrap_or(next).max(next);
                let from = From::Start(number, (number == 1).then_some(Head::START));
                (number, walk(BufReader::new(file), from, &mut |_| {})?)
            }
        };
        let walked = match walked {
            Ok(walked) => walked,
            Err((wrong, head)) => {
                let path = self.paths.broken(number);
                let hash = hash_of(self.paths.active())?;
                self.paths.set_aside(&path)?;
                let broken = Broken::new(&path, &wrong, Some(hash));
                let head = head.or_else(|| head_before(closed));
                return self.begin(
                    number.saturating_add(1),
                    head.unwrap_or(Head::START),
                    Some(broken),
                );
            }
        };
        let sink = self.mend(number, &walked, found)?;
        if walked.closed {
            let path = self.paths.closed(number);
            self.paths.set_aside(&path)?;
            let (seq, hash) = (walked.head.seq, walked.head.hash);
            let detail = format!("{} is closed with entry {seq}, head {hash}", path.display());
            self.news.push(("audit_rotated", detail));
            return self.begin(number.saturating_add(1), walked.head, None);
        }
        Ok(sink)
    }

    /// Opens a file that was walked, and closes off what a write that was cut short left at its end.
    /// It is known to be on disk from then on, and so are the first `found` of the records to write.
    fn mend(&mut self, number: u64, walked: &Walked, found: usize) -> io::Result<Box<dyn Sink>> {
        let mut sink = (self.through)(self.paths.append()?);
        let mut spot = Spot {
            file: number,
            head: walked.head,
            bytes: walked.bytes,
            entries: walked.entries,
            closed: walked.closed,
        };
        if !walked.terminated {
            sink.append(b"\n")?;
            spot.bytes += 1;
        }
        if let Some(torn) = &walked.torn {
            let Torn { bytes, hash, .. } = torn;
            let record = Record::new(self.clock.now(), RECOVERED).number("torn_bytes", *bytes);
            let record = record.text("torn_sha256", &hash.to_string());
            let (line, head) = record.seal(&spot.head);
            let newline = if torn.terminated { "" } else { "\n" };
            sink.append(format!("{newline}{line}").as_bytes())?;
            spot.head = head;
            spot.bytes += bytes + 1 + line.len() as u64;
            spot.entries += 1;
            let detail = format!(
                "{}: {bytes} bytes after entry {} are no entry: a write was cut short",
                self.paths.active().display(),
                walked.head.seq
            );
            self.news.push(("audit_recovered", detail));
        }
        sink.sync()?;
        // Both or neither: a try that fails before this finds the same records again.
        self.spot = Some(spot);
        self.pending.drain(..found.min(self.pending.len()));
        Ok(sink)
    }

    /// Goes on where there is no active file: a crash came between two files, or somebody took it.
    fn resume_after(&mut self, closed: &[Closed]) -> io::Result<Box<dyn Sink>> {
        if let Some(spot) = self.spot {
            let there = |closed: &Closed| closed.number == spot.file && !closed.broken;
            let broken = match spot.closed && closed.iter().any(there) {
                true => None,
                false => Some(Broken {
                    what: format!("{} was taken away", self.paths.active().display()),
                    hash: None,
                }),
            };
            return self.begin(spot.file.saturating_add(1), spot.head, broken);
        }
        let Some(last) = closed.last() else {
            return self.begin(1, Head::START, None);
        };
        let (head, broken) = match walk_closed(last)? {
            Ok(walked) if walked.closed => (Some(walked.head), None),
            Ok(walked) => {
                let wrong = Wrong {
                    line: None,
                    how: How::CutOff,
                    detail: "the entry that closes it is missing".to_owned(),
                };
                (Some(walked.head), Some(wrong))
            }
            Err((wrong, head)) => (head, Some(wrong)),
        };
        let head = head.or_else(|| head_before(&closed[..closed.len() - 1]));
        let broken = match broken {
            Some(wrong) => Some(Broken::new(&last.path, &wrong, Some(hash_of(&last.path)?))),
            None => None,
        };
        self.begin(
            last.number.saturating_add(1),
            head.unwrap_or(Head::START),
            broken,
        )
    }

    /// Begins a file.
    fn begin(
        &mut self,
        number: u64,
        head: Head,
        broken: Option<Broken>,
    ) -> io::Result<Box<dyn Sink>> {
        let mut kept: Vec<Closed> = self.paths.list()?;
        kept.retain(|closed| !closed.broken);
        let surplus = kept.len().saturating_sub(self.settings.keep);
        let surplus: Vec<_> = kept.drain(..surplus).collect();
        let oldest = kept.first().map_or(number, |oldest| oldest.number);
        let mut record = Record::new(self.clock.now(), FILE_BEGUN)
            .number("file", number)
            .number("oldest_file", oldest);
        if let Some(Broken { what, hash }) = &broken {
            let hash = hash.map(|hash| hash.to_string());
            record = record
                .text("broken", what)
                .some("broken_sha256", hash.as_deref());
            self.news.push(("audit_broken", what.clone()));
        }
        let (line, head) = record.seal(&head);
        let file = self.paths.create(&line)?;
        self.spot = Some(Spot {
            file: number,
            head,
            bytes: line.len() as u64,
            entries: 1,
            closed: false,
        });
        // Only now: before, the newest file said that they are there.
        for Closed { path, .. } in surplus {
            if let Err(error) = std::fs::remove_file(&path) {
                let detail = format!("{} cannot be removed: {error}", path.display());
                self.news.push(("audit_not_removed", detail));
            }
        }
        Ok((self.through)(file))
    }
}

/// The first entry of a file, if that is one.
pub(super) fn first_entry(file: &mut File) -> io::Result<Option<Entry>> {
    let mut line = Vec::new();
    let start = BufReader::new(&mut *file);
    start.take(LINE_MAX_BYTES).read_until(b'\n', &mut line)?;
    file.rewind()?;
    Ok(Entry::read(line.trim_ascii_end()).ok())
}

/// Walks the rest of a file that this process has written up to a place, and counts the records found there.
fn walk_on(
    mut file: File,
    spot: Spot,
    found: &mut usize,
) -> io::Result<Result<Walked, (Wrong, Option<Head>)>> {
    if file.metadata()?.len() < spot.bytes {
        let wrong = Wrong {
            line: None,
            how: How::CutOff,
            detail: format!("entry {} was in it, and is not any more", spot.head.seq),
        };
        return Ok(Err((wrong, Some(spot.head))));
    }
    file.seek(SeekFrom::Start(spot.bytes))?;
    let mut count = |entry: &Entry| *found += usize::from(!entry.is_about_the_log());
    let walked = walk(BufReader::new(file), From::Middle(spot.head), &mut count)?;
    Ok(walked.map(|walked| Walked {
        closed: walked.closed || spot.closed,
        entries: walked.entries + spot.entries,
        bytes: walked.bytes + spot.bytes,
        ..walked
    }))
}

fn walk_closed(closed: &Closed) -> io::Result<Result<Walked, (Wrong, Option<Head>)>> {
    let file = BufReader::new(File::open(&closed.path)?);
    let head = (closed.number == 1).then_some(Head::START);
    walk(file, From::Start(closed.number, head), &mut |_| {})
}

/// The last head that can be read in these files.
fn head_before(closed: &[Closed]) -> Option<Head> {
    closed
        .iter()
        .rev()
        .find_map(|closed| match walk_closed(closed).ok()? {
            Ok(walked) => Some(walked.head),
            Err((_, head)) => head,
        })
}

fn hash_of(path: &Path) -> io::Result<Hash> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut file = File::open(path)?;
    let mut bytes = vec![0; 64 << 10];
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(Hash::from_digest(&context.finish())),
            length => context.update(&bytes[..length]),
        }
    }
}

// === impl Broken ===

impl Broken {
    fn new(path: &Path, wrong: &Wrong, hash: Option<Hash>) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let line = wrong.line.map(|line| format!(", line {line}"));
        let what = format!("{name}{}: {}", line.unwrap_or_default(), wrong.detail);
        Self { what, hash }
    }
}
