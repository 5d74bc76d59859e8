//! How panic text leaves a sandbox that imports nothing: in a marked region of memory that the host finds in a core
//! dump.
//!
//! Layout of the region, 1024 bytes: the 16 bytes `KEYFOB-PANIC-V1` and NUL, the length of the text as a little-endian
//! `u32`, at most 1000 bytes of text in UTF-8. The marker is written last, and nothing else in memory spells it, so whoever finds it
//! finds a whole message.

use std::fmt::{self, Write};
use std::hint::black_box;
use std::sync::atomic::{AtomicU8, Ordering};

const MARKER: [u8; 16] = *b"KEYFOB-PANIC-V1\0";
const LENGTH_BYTES: usize = 4;
const REGION_BYTES: usize = 1024;
const TEXT_AT: usize = MARKER.len() + LENGTH_BYTES;

/// A longer text is one the host does not believe.
const TEXT_MAX_BYTES: usize = 1000;

/// Hides the marker from a scan of memory until there is a message.
const MASK: u8 = 0xa5;

const MASKED_MARKER: [u8; MARKER.len()] = {
    let mut masked = MARKER;
    let mut at = 0;
    while at < masked.len() {
        masked[at] ^= MASK;
        at += 1;
    }
    masked
};

/// Atomics because a `static` is shared; an instance has one thread.
struct Region([AtomicU8; REGION_BYTES]);

#[cfg(target_family = "wasm")]
static REGION: Region = Region([const { AtomicU8::new(0) }; REGION_BYTES]);

/// Makes panics leave their text in the region. Called first in every exported function.
#[cfg(target_family = "wasm")]
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|panic| {
        REGION.record(
            panic.location(),
            panic.payload_as_str().unwrap_or("a panic without text"),
        );
    }));
}

// === impl Region ===

impl Region {
    fn record(&self, location: Option<&std::panic::Location<'_>>, message: &str) {
        let mut text = Text {
            region: self,
            length: 0,
        };
        // Writing to the region cannot fail; what does not fit is cut.
        let _ = match location {
            Some(location) => write!(text, "{location}: {message}"),
            None => text.write_str(message),
        };
        let length = u32::try_from(text.length).unwrap_or(0);
        self.put(MARKER.len(), &length.to_le_bytes());
        for (at, masked) in MASKED_MARKER.iter().enumerate() {
            self.put(at, &[masked ^ black_box(MASK)]);
        }
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        for (cell, byte) in self.0.iter().skip(at).zip(bytes) {
            cell.store(*byte, Ordering::Relaxed);
        }
    }
}

struct Text<'r> {
    region: &'r Region,
    length: usize,
}

impl Write for Text<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = TEXT_MAX_BYTES - self.length;
        let piece = &piece[..piece.floor_char_boundary(room)];
        self.region.put(TEXT_AT + self.length, piece.as_bytes());
        self.length += piece.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region() -> Region {
        Region([const { AtomicU8::new(0) }; REGION_BYTES])
    }

    fn bytes(region: &Region) -> Vec<u8> {
        region
            .0
            .iter()
            .map(|cell| cell.load(Ordering::Relaxed))
            .collect()
    }

    #[test]
    fn a_message_lies_behind_the_marker_with_its_length() {
        let region = region();
        region.record(None, "boom");
        let bytes = bytes(&region);
        assert_eq!(&bytes[..16], b"KEYFOB-PANIC-V1\0");
        assert_eq!(&bytes[16..20], &[4, 0, 0, 0]);
        assert_eq!(&bytes[20..24], b"boom");
        assert_eq!(bytes[24], 0);
    }

    #[test]
    fn a_location_comes_first() {
        let region = region();
        region.record(Some(std::panic::Location::caller()), "boom");
        let bytes = bytes(&region);
        let length = usize::from(bytes[16]);
        let text = str::from_utf8(&bytes[20..20 + length]).expect("the text is UTF-8");
        assert!(
            text.contains("panic.rs:") && text.ends_with(": boom"),
            "{text}"
        );
    }

    #[test]
    fn a_long_message_is_cut_between_characters_and_stays_inside() {
        let region = region();
        // One byte first, so that the cap falls inside a character.
        region.record(None, &format!("x{}", "é".repeat(REGION_BYTES)));
        let bytes = bytes(&region);
        let length = usize::from(u16::from_le_bytes([bytes[16], bytes[17]]));
        assert_eq!(length, TEXT_MAX_BYTES - 1);
        assert!(str::from_utf8(&bytes[TEXT_AT..TEXT_AT + length]).is_ok());
    }

    #[test]
    fn the_masked_marker_does_not_spell_the_marker() {
        assert!(
            MASKED_MARKER
                .iter()
                .zip(MARKER)
                .all(|(masked, plain)| *masked != plain)
        );
    }
}
