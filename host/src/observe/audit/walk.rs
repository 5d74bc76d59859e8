//! Reads one file from its first byte to its last and follows the chain through it: the same eyes for opening a log and for
//! verifying one.

use std::fmt;
use std::io::{self, BufRead, Read};

use aws_lc_rs::digest;

use super::entry::{Entry, FILE_BEGUN, FILE_CLOSED, Hash, Head, RECOVERED, Unreadable};

/// The longest line that is read. An entry with the longest words, all of it escaped, has a quarter of that.
pub(super) const LINE_MAX_BYTES: u64 = 1 << 20;

/// Where a chain goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// On which line, from 1; none concerns the file as a whole.
    pub(super) line: Option<u64>,
    /// In which way.
    pub(super) how: How,
    /// The words.
    pub(super) detail: String,
}

/// In which way a chain goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// An entry does not say what it said when it was written.
    Changed,
    /// A line that is no entry, and no entry tells why.
    NotAnEntry,
    /// Entries are missing.
    Removed,
    /// Entries stand in another order.
    Reordered,
    /// Entries or lines were brought in.
    Added,
    /// The end is missing.
    CutOff,
    /// A whole file is missing, or is another one.
    File,
    /// Keyfob itself found the chain broken, and began a new file.
    FoundBroken,
}

/// What one file holds.
#[derive(Debug)]
pub(super) struct Walked {
    /// The last entry that fits.
    pub(super) head: Head,
    /// Whether that says that the file is closed.
    pub(super) closed: bool,
    /// How many entries it has.
    pub(super) entries: u64,
    /// How many bytes are good: up to the end of the last entry.
    pub(super) bytes: u64,
    /// Whether the last entry has its newline.
    pub(super) terminated: bool,
    /// What stands after the last entry: a write that was cut short.
    pub(super) torn: Option<Torn>,
}

/// Bytes that are no entry.
#[derive(Clone, Debug)]
pub(super) struct Torn {
    /// How many, without a newline at their end.
    pub(super) bytes: u64,
    /// The hash of them.
    pub(super) hash: Hash,
    /// Whether a newline follows them.
    pub(super) terminated: bool,
}

/// Where the walk begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    /// At the first byte of the file with this number, after this head. None is for a file whose predecessors have left.
    Start(u64, Option<Head>),
    /// In the middle, after this head.
    Middle(Head),
}

/// A walk in progress.
struct Walk<'e> {
    from: From,
    head: Option<Head>,
    line: u64,
    closed: bool,
    entries: u64,
    /// Unfinished lines in a row. A crash leaves one; a disk that is full and now and then has a little room leaves many.
    torn: Option<Unfinished>,
    each: &'e mut dyn FnMut(&Entry),
}

/// Unfinished lines, joined by newlines.
struct Unfinished {
    /// The line of the first.
    line: u64,
    bytes: u64,
    digest: digest::Context,
}

/// Walks through a file; `each` sees every entry that fits.
///
/// # Errors
///
/// The outer one when it cannot be read, the inner one where it goes wrong.
pub(super) fn walk(
    mut file: impl BufRead,
    from: From,
    each: &mut dyn FnMut(&Entry),
) -> io::Result<Result<Walked, (Wrong, Option<Head>)>> {
    let mut walk = Walk {
        from,
        head: match from {
            From::Start(_, head) => head,
            From::Middle(head) => Some(head),
        },
        line: 0,
        closed: false,
        entries: 0,
        torn: None,
        each,
    };
    let (mut bytes, mut read, mut terminated) = (0, 0, true);
    let mut line = Vec::new();
    let wrong = loop {
        line.clear();
        let length = (&mut file)
            .take(LINE_MAX_BYTES)
            .read_until(b'\n', &mut line)?;
        if length == 0 {
            break walk.end(terminated);
        }
        read += length as u64;
        walk.line += 1;
        terminated = line.last() == Some(&b'\n');
        if terminated {
            line.pop();
        }
        let wrong = match Entry::read(&line) {
            Ok(entry) => walk.entry(&entry, &mut file).map(|()| bytes = read),
            Err(Unreadable::Unfinished) => walk.unfinished(&line),
            Err(Unreadable::Changed) => Err(walk.wrong(
                How::Changed,
                "its hash does not fit what it says: it was changed after it was written",
            )),
        };
        if let Err(wrong) = wrong {
            break Err(wrong);
        }
    };
    let head = walk.head;
    if let Err(wrong) = wrong {
        return Ok(Err((wrong, head)));
    }
    let torn = walk.torn.map(|torn| torn.end(terminated));
    Ok(Ok(Walked {
        head: head.unwrap_or(Head::START),
        closed: walk.closed,
        entries: walk.entries,
        bytes,
        // What is torn ends without a newline, and the entry before it has one.
        terminated: terminated || torn.is_some(),
        torn,
    }))
}

// === impl Walk ===

impl Walk<'_> {
    fn entry(&mut self, entry: &Entry, rest: &mut impl BufRead) -> Result<(), Wrong> {
        if let Some(unfinished) = self.torn.take() {
            let line = unfinished.line;
            let torn = unfinished.end(true);
            let told = entry.event == RECOVERED
                && entry.torn_bytes == Some(torn.bytes)
                && entry.torn_sha256 == Some(torn.hash);
            if !told {
                return Err(not_an_entry(line));
            }
        }
        self.place(entry)?;
        if let Some(head) = self.head {
            self.fits(head, entry, rest)?;
        }
        self.head = Some(entry.head());
        self.closed = entry.event == FILE_CLOSED;
        self.entries += 1;
        (self.each)(entry);
        Ok(())
    }

    /// Whether an entry may stand where it does in its file.
    fn place(&self, entry: &Entry) -> Result<(), Wrong> {
        if self.closed {
            return Err(self.wrong(How::Added, "it stands after the entry that closed the file"));
        }
        let first = matches!(self.from, From::Start(..)) && self.entries == 0;
        match (self.from, &*entry.event) {
            (From::Start(number, _), FILE_BEGUN) if first && entry.file == Some(number) => Ok(()),
            (From::Start(number, _), FILE_BEGUN) if first => {
                let other = entry.file.unwrap_or_default();
                let detail = format!("this is file {other} in the place of file {number}");
                Err(self.wrong(How::File, detail))
            }
            (_, FILE_BEGUN) => {
                Err(self.wrong(How::Added, "a file begins in the middle of another"))
            }
            _ if first => Err(self.wrong(How::Removed, "the entry that began the file is missing")),
            _ => Ok(()),
        }
    }

    /// Whether an entry is the one after `head`.
    fn fits(&self, head: Head, entry: &Entry, rest: &mut impl BufRead) -> Result<(), Wrong> {
        let (expected, found) = (head.seq.saturating_add(1), entry.seq);
        if found > expected {
            return Err(match is_ahead(rest, expected) {
                true => self.wrong(
                    How::Reordered,
                    format!("entry {found} stands before entry {expected}"),
                ),
                false => self.wrong(
                    How::Removed,
                    format!(
                        "entry {found} follows entry {}: those between are missing",
                        head.seq
                    ),
                ),
            });
        }
        if found < expected || found == head.seq {
            let detail = format!("entry {found} stands after entry {}", head.seq);
            return Err(self.wrong(How::Added, detail));
        }
        if entry.prev != head.hash {
            let detail = format!(
                "entry {found} was written after another entry {}: one of them was replaced",
                head.seq
            );
            return Err(self.wrong(How::Changed, detail));
        }
        Ok(())
    }

    fn unfinished(&mut self, line: &[u8]) -> Result<(), Wrong> {
        if self.closed {
            return Err(not_an_entry(self.line));
        }
        match &mut self.torn {
            Some(torn) => torn.add(b"\n"),
            None => self.torn = Some(Unfinished::new(self.line)),
        }
        if let Some(torn) = &mut self.torn {
            torn.add(line);
        }
        Ok(())
    }

    /// A write that was cut short has no newline; anything else that is unfinished at the end was made so. Only who has
    /// just written there knows better: of a newline and an entry, a full disk may have taken the newline.
    fn end(&self, terminated: bool) -> Result<(), Wrong> {
        if matches!(self.from, From::Middle(_)) {
            return Ok(());
        }
        if self.entries == 0 {
            let detail =
                "it has no entry: Keyfob gives a file its name when its first entry is in it";
            return Err(Wrong {
                line: None,
                how: How::CutOff,
                detail: detail.to_owned(),
            });
        }
        match &self.torn {
            Some(torn) if terminated => Err(not_an_entry(torn.line)),
            _ => Ok(()),
        }
    }

    fn wrong(&self, how: How, detail: impl Into<String>) -> Wrong {
        Wrong {
            line: Some(self.line),
            how,
            detail: detail.into(),
        }
    }
}

fn not_an_entry(line: u64) -> Wrong {
    Wrong {
        line: Some(line),
        how: How::NotAnEntry,
        detail: "this is no entry, and no entry after it tells why".to_owned(),
    }
}

/// Whether an entry with this number comes later in the file: only asked once something is wrong.
fn is_ahead(rest: &mut impl BufRead, seq: u64) -> bool {
    let mut line = Vec::new();
    loop {
        line.clear();
        match rest.take(LINE_MAX_BYTES).read_until(b'\n', &mut line) {
            Ok(1..) => {
                if Entry::read(line.trim_ascii_end()).is_ok_and(|entry| entry.seq == seq) {
                    return true;
                }
            }
            Ok(0) | Err(_) => return false,
        }
    }
}

// === impl Unfinished ===

impl Unfinished {
    fn new(line: u64) -> Self {
        Self {
            line,
            bytes: 0,
            digest: digest::Context::new(&digest::SHA256),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    fn end(self, terminated: bool) -> Torn {
        Torn {
            bytes: self.bytes,
            terminated,
            hash: Hash::from_digest(&self.digest.finish()),
        }
    }
}

// === impl How ===

impl How {
    /// For machines.
    pub fn label(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::NotAnEntry => "not_an_entry",
            Self::Removed => "removed",
            Self::Reordered => "reordered",
            Self::Added => "added",
            Self::CutOff => "cut_off",
            Self::File => "file",
            Self::FoundBroken => "found_broken",
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
