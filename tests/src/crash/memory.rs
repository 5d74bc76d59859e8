//! What a core dump of a process would hold: its readable memory is searched for values that are known here.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use serde::Serialize;

/// Read at once; the kernel hands out no more than is asked for.
const CHUNK_BYTES: usize = 1 << 20;
/// By so many first bytes a value is recognised before it is compared.
const START_BYTES: usize = 8;

/// Values of one kind.
#[derive(Debug)]
pub struct Needle {
    what: &'static str,
    values: Vec<Vec<u8>>,
}

/// What was found of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Which kind.
    pub what: &'static str,
    /// How many different values were searched for.
    pub values: usize,
    /// How many of them were there at least once.
    pub found: usize,
    /// How many copies there were of all of them.
    pub copies: usize,
}

// === impl Needle ===

impl Needle {
    /// Of this kind.
    pub fn new(what: &'static str, values: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let values = values.into_iter().map(|value| value.as_ref().to_vec());
        Self {
            what,
            values: values.collect(),
        }
    }
}

/// Searches all memory of a child that it may write to, as it is now: what it only reads came from its files. Values
/// shorter than `START_BYTES` are not searched for.
///
/// # Errors
///
/// When the system does not let us look.
pub fn search(process: u32, needles: &[Needle]) -> io::Result<Vec<Found>> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let memory = File::open(format!("/proc/{process}/mem"))?;
    let mut sought = Sought::new(needles);
    for (from, to) in maps.lines().filter_map(writable) {
        let mut text = Vec::new();
        let mut at = from;
        while at < to {
            let room = usize::try_from(to - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let before = text.len();
            text.resize(before + room, 0);
            // A mapping may be gone by now, or be a device's.
            let Ok(read @ 1..) = memory.read_at(&mut text[before..], at) else {
                break;
            };
            text.truncate(before + read);
            at += read as u64;
            // Most of what a program reserves was never touched.
            if text.iter().any(|byte| *byte != 0) {
                sought.count(&text, before);
            }
            text.drain(..text.len().saturating_sub(sought.longest - 1));
        }
    }
    let found = needles.iter().zip(sought.copies);
    let found = found.map(|(needle, copies)| Found {
        what: needle.what,
        values: copies.len(),
        found: copies.iter().filter(|copies| **copies > 0).count(),
        copies: copies.iter().sum(),
    });
    Ok(found.collect())
}

/// All values by how they start, so that one pass finds all of them.
struct Sought<'a> {
    starts: HashMap<[u8; START_BYTES], Vec<Value<'a>>>,
    /// Of each value of each needle.
    copies: Vec<Vec<usize>>,
    longest: usize,
}

/// One value: the how-manieth of which needle.
struct Value<'a> {
    needle: usize,
    number: usize,
    bytes: &'a [u8],
}

// === impl Sought ===

impl<'a> Sought<'a> {
    fn new(needles: &'a [Needle]) -> Self {
        let mut starts: HashMap<_, Vec<_>> = HashMap::new();
        for (needle, it) in needles.iter().enumerate() {
            for (number, bytes) in it.values.iter().enumerate() {
                if let Some(start) = bytes.first_chunk() {
                    starts.entry(*start).or_default().push(Value {
                        needle,
                        number,
                        bytes,
                    });
                }
            }
        }
        let values = needles.iter().flat_map(|needle| &needle.values);
        Self {
            starts,
            copies: needles.iter().map(|it| vec![0; it.values.len()]).collect(),
            longest: values.map(Vec::len).max().unwrap_or(1).max(1),
        }
    }

    /// Counts what is in a text, without what ends within its first `before` bytes: that was counted with them.
    fn count(&mut self, text: &[u8], before: usize) {
        for (at, start) in text.windows(START_BYTES).enumerate() {
            let Some(start) = start
                .first_chunk()
                .filter(|start| **start != [0; START_BYTES])
            else {
                continue;
            };
            for value in self.starts.get(start).into_iter().flatten() {
                if at + value.bytes.len() > before && text[at..].starts_with(value.bytes) {
                    self.copies[value.needle][value.number] += 1;
                }
            }
        }
    }
}

/// From where to where, of a line of `maps` that says that the process may write there.
fn writable(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    rest.starts_with("rw")
        .then_some((address(from)?, address(to)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_this_process_is_found_in_its_memory() {
        let secret = format!("needle-{}-in-a-haystack", std::process::id()).into_bytes();
        let needles = [Needle::new("there", [&secret]), Needle::new("none", [""])];
        let found = search(std::process::id(), &needles).unwrap();
        assert!(found[0].found == 1 && found[0].copies > 0, "{found:?}");
        assert_eq!(found[1].found, 0, "nothing was sought");
    }

    #[test]
    fn a_value_across_two_pieces_counts_once() {
        let needles = [Needle::new("it", ["abcdefghij"])];
        let mut sought = Sought::new(&needles);
        sought.count(b"xxabcdefghij", 0);
        sought.count(b"abcdefghijyy", 10);
        sought.count(b"abcdefghijyy", 4);
        assert_eq!(sought.copies, [[2]]);
    }
}
