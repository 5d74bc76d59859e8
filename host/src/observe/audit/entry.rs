//! One entry as a line: how it is written, what its hash covers, how it is read back. `docs/audit.md` describes the format
//! for others; what an entry tells of an event is said in `record`.

use std::fmt::{self, Write as _};

use aws_lc_rs::digest;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::model::time::UnixTime;

/// The longest text of a member: words are for people. What is longer ends in `…`.
const TEXT_MAX_BYTES: usize = 4096;
/// How a line ends, around the hash. It covers every byte of the line before this.
const HASH_OPENS: &[u8] = b",\"hash\":\"";
const HASH_CLOSES: &[u8] = b"\"}";
/// The hash in hexadecimal.
const HEX_BYTES: usize = 64;
/// What a hash does not cover: itself and what is around it.
const SUFFIX_BYTES: usize = HASH_OPENS.len() + HEX_BYTES + HASH_CLOSES.len();

/// A SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

/// The end of a chain, and all that the next entry needs of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The number of its last entry; 0 before the first.
    pub seq: u64,
    /// The hash of that entry.
    pub hash: Hash,
}

/// Something to write, not yet in a chain.
#[derive(Clone, Debug)]
pub(super) struct Record {
    at: UnixTime,
    event: &'static str,
    /// The members that follow, each after a comma.
    members: String,
}

/// An entry that was read, whose hash fits what it says.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) at: u64,
    pub(super) event: String,
    pub(super) prev: Hash,
    pub(super) hash: Hash,
    /// `file_begun`, `file_closed`: the number of the file.
    pub(super) file: Option<u64>,
    /// `file_begun`: the number of the oldest file that is kept.
    pub(super) oldest_file: Option<u64>,
    /// `file_begun`: what was wrong with the file before.
    pub(super) broken: Option<String>,
    /// `recovered`: how many bytes before it are no entry.
    pub(super) torn_bytes: Option<u64>,
    /// `recovered`: their hash.
    pub(super) torn_sha256: Option<Hash>,
    /// `lost`, `suppressed`: how many events are not here.
    pub(super) count: Option<u64>,
}

/// Why a line is no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unreadable {
    /// It does not end as an entry does: a write that was cut short leaves that.
    Unfinished,
    /// It ends as an entry does, and its hash does not fit.
    Changed,
}

// === impl Hash ===

impl Hash {
    /// What the first entry of all names as the one before it.
    pub const ZERO: Self = Self([0; 32]);

    /// Of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self::from_digest(&digest::digest(&digest::SHA256, bytes))
    }

    pub(super) fn from_digest(digest: &digest::Digest) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }

    /// From 64 lower-case hexadecimal digits: one hash is written in one way only.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut hash = [0; 32];
        if pairs.len() != hash.len() || !rest.is_empty() {
            return None;
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("no hash"))
    }
}

// === impl Head ===

impl Head {
    /// Of a chain without an entry.
    pub(super) const START: Self = Self {
        seq: 0,
        hash: Hash::ZERO,
    };
}

// === impl Record ===

impl Record {
    pub(super) fn new(at: UnixTime, event: &'static str) -> Self {
        Self {
            at,
            event,
            members: String::new(),
        }
    }

    pub(super) fn event(&self) -> &'static str {
        self.event
    }

    /// A member that is text, cut off where it is too long.
    pub(super) fn text(self, name: &'static str, text: &str) -> Self {
        let mut end = text.len().min(TEXT_MAX_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let value = match end == text.len() {
            true => serde_json::Value::from(text),
            false => serde_json::Value::from(format!("{}…", &text[..end])),
        };
        self.member(name, &value)
    }

    /// A member that is text, where there is any.
    pub(super) fn some(self, name: &'static str, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// A member that is a number.
    pub(super) fn number(self, name: &'static str, number: u64) -> Self {
        self.member(name, &number)
    }

    /// A member that is true or false.
    pub(super) fn flag(self, name: &'static str, flag: bool) -> Self {
        self.member(name, &flag)
    }

    fn member(mut self, name: &'static str, value: &dyn fmt::Display) -> Self {
        // Writing to a `String` cannot fail.
        let _ = write!(self.members, ",\"{name}\":{value}");
        self
    }

    /// The line of this record, as the entry after `before`, and the head that it makes.
    pub(super) fn seal(&self, before: &Head) -> (String, Head) {
        // Nobody writes that many; a forged number must not end in a panic.
        let seq = before.seq.saturating_add(1);
        let (at, event, prev) = (self.at.as_millis(), self.event, before.hash);
        let members = &self.members;
        let mut line = format!(
            "{{\"seq\":{seq},\"at\":{at},\"event\":\"{event}\"{members},\"prev\":\"{prev}\""
        );
        let hash = Hash::of(line.as_bytes());
        let _ = writeln!(line, ",\"hash\":\"{hash}\"}}");
        (line, Head { seq, hash })
    }
}

// === impl Entry ===

impl Entry {
    /// Reads a line, without its newline, and checks its hash.
    pub(super) fn read(line: &[u8]) -> Result<Self, Unreadable> {
        let at = line.len().checked_sub(SUFFIX_BYTES);
        let (covered, suffix) = line.split_at(at.ok_or(Unreadable::Unfinished)?);
        let hash = suffix
            .strip_prefix(HASH_OPENS)
            .and_then(|rest| rest.strip_suffix(HASH_CLOSES))
            .and_then(|hex| Hash::parse(std::str::from_utf8(hex).ok()?))
            .ok_or(Unreadable::Unfinished)?;
        if Hash::of(covered) != hash {
            return Err(Unreadable::Changed);
        }
        // Keyfob writes no such line: whoever did knew how to make a hash.
        serde_json::from_slice(line).map_err(|_| Unreadable::Changed)
    }

    /// The head that a chain has with this entry at its end.
    pub(super) fn head(&self) -> Head {
        Head {
            seq: self.seq,
            hash: self.hash,
        }
    }

    /// Whether it tells of the log itself and not of what happened.
    pub(super) fn is_about_the_log(&self) -> bool {
        [FILE_BEGUN, FILE_CLOSED, RECOVERED].contains(&&*self.event)
    }
}

/// The first entry of a file.
pub(super) const FILE_BEGUN: &str = "file_begun";
/// The last entry of a file that another follows.
pub(super) const FILE_CLOSED: &str = "file_closed";
/// Bytes before it are no entry: a write was cut short.
pub(super) const RECOVERED: &str = "recovered";
/// Events that found no room.
pub(super) const LOST: &str = "lost";
/// Events beyond what a second may have of callers.
pub(super) const SUPPRESSED: &str = "suppressed";
/// The process began.
pub(super) const STARTED: &str = "started";
/// The process ended in order.
pub(super) const STOPPED: &str = "stopped";

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> (String, Head) {
        let at = UnixTime::from_millis(1_795_227_854_528);
        let record = Record::new(at, "denied")
            .text("caller", "a\"b\n")
            .number("version", 7);
        record.seal(&Head::START)
    }

    #[test]
    fn an_entry_is_what_the_documentation_says() {
        let (line, head) = line();
        let zeros = "0".repeat(64);
        let covered = format!(
            "{{\"seq\":1,\"at\":1795227854528,\"event\":\"denied\",\"caller\":\"a\\\"b\\n\",\"version\":7,\"prev\":\"{zeros}\""
        );
        assert_eq!(line, format!("{covered},\"hash\":\"{}\"}}\n", head.hash));
        assert_eq!(head.hash, Hash::of(covered.as_bytes()));
        // The well-known hash of nothing: it is SHA-256, and hexadecimal is written as everywhere.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Hash::of(b"").to_string(), empty);
        assert_eq!(Hash::parse(empty), Some(Hash::of(b"")));
    }

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let (line, head) = line();
        let entry = Entry::read(line.trim_end().as_bytes()).unwrap();
        assert_eq!((entry.head(), entry.prev), (head, Hash::ZERO));
        assert_eq!((&*entry.event, entry.at), ("denied", 1_795_227_854_528));
    }

    #[test]
    fn a_hash_is_written_in_one_way_only() {
        let good = Hash::of(b"x").to_string();
        assert!(Hash::parse(&good).is_some());
        for bad in [
            &good.to_uppercase(),
            &good[1..],
            &format!("{good}0"),
            "",
            &"g".repeat(64),
        ] {
            assert_eq!(Hash::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn words_without_end_are_cut_at_a_character() {
        let (line, _) = Record::new(UnixTime::default(), "notice")
            .text("detail", &"ä".repeat(TEXT_MAX_BYTES))
            .seal(&Head::START);
        assert!(line.contains("ä…\"") && line.len() < TEXT_MAX_BYTES + 300);
        assert!(Entry::read(line.trim_end().as_bytes()).is_ok());
    }
}
