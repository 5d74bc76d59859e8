//! What a core dump of a process would hold: its readable memory is searched for values that are known here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use serde::Serialize;

/// Read at once; the kernel hands out no more than is asked for.
const CHUNK_BYTES: usize = 1 << 20;

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

/// Searches all memory of a child that it may write to, as it is now: what it only reads came from its files.
///
/// # Errors
///
/// When the system does not let us look.
pub fn search(process: u32, needles: &[Needle]) -> io::Result<Vec<Found>> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let memory = File::open(format!("/proc/{process}/mem"))?;
    let longest = needles
        .iter()
        .flat_map(|needle| &needle.values)
        .map(Vec::len)
        .max();
    let overlap = longest.unwrap_or(1).max(1) - 1;
    let mut copies: Vec<Vec<usize>> = needles.iter().map(|it| vec![0; it.values.len()]).collect();
    for (from, to) in maps.lines().filter_map(writable) {
        let mut tail = Vec::new();
        let mut at = from;
        while at < to {
            let room = usize::try_from(to - at).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let mut chunk = vec![0; room];
            // A mapping may be gone by now, or be a device's.
            let Ok(read @ 1..) = memory.read_at(&mut chunk, at) else {
                break;
            };
            chunk.truncate(read);
            at += read as u64;
            let before = tail.len();
            tail.extend_from_slice(&chunk);
            for (needle, copies) in needles.iter().zip(&mut copies) {
                for (value, copies) in needle.values.iter().zip(copies) {
                    *copies += count(&tail, value, before);
                }
            }
            tail.drain(..tail.len().saturating_sub(overlap));
        }
    }
    let found = needles.iter().zip(copies).map(|(needle, copies)| Found {
        what: needle.what,
        values: copies.len(),
        found: copies.iter().filter(|copies| **copies > 0).count(),
        copies: copies.iter().sum(),
    });
    Ok(found.collect())
}

/// How often a value is in a text, without those that end within its first `before` bytes: they were counted with them.
fn count(text: &[u8], value: &[u8], before: usize) -> usize {
    let Some(first) = value.first() else { return 0 };
    let starts = text.iter().enumerate().filter(|(_, byte)| *byte == first);
    starts
        .filter(|(at, _)| at + value.len() > before && text[*at..].starts_with(value))
        .count()
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
        let absent: Vec<u8> = secret.iter().map(|byte| byte ^ 1).collect();
        let needles = [
            Needle::new("there", [&secret]),
            Needle::new(
                "absent",
                [absent.iter().map(|byte| byte ^ 3).collect::<Vec<u8>>()],
            ),
        ];
        let found = search(std::process::id(), &needles).unwrap();
        assert!(found[0].found == 1 && found[0].copies > 0, "{found:?}");
    }

    #[test]
    fn a_value_across_two_pieces_counts_once() {
        assert_eq!(count(b"xxabc", b"abc", 0), 1);
        assert_eq!(count(b"abcab", b"abc", 3), 0);
        assert_eq!(count(b"ababc", b"abc", 4), 1);
    }
}
