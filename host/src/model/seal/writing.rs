//! The ways in which a value may be written that look the same whatever stands around it: as it is, in hexadecimal, and in
//! base64 at its three alignments.
//!
//! No encoding of a value is ever made. Text is compared with what the encoding would be, digit by digit, and only where it
//! begins as one: a token of 1 KiB in all its forms would be 10 KiB to encode, to keep and to wipe, in every flow.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;

/// Pairs of bytes there are.
const PAIRS: usize = 1 << 16;

/// One way to write a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Writing {
    /// As it is.
    Raw,
    /// In hexadecimal digits of either case.
    Hex,
    /// In base64 of either alphabet, this many bytes into a group of three.
    Base64 {
        /// 0, 1 or 2.
        shift: usize,
    },
}

/// Which writings begin with a pair of bytes. A text has hundreds of pairs and few of them begin anything, so that one bit for
/// each pair there is comes before the table.
#[derive(Default)]
pub(super) struct Beginnings {
    /// Made with the first entry.
    known: Box<[u64]>,
    table: HashMap<[u8; 2], Vec<Begun>, RandomState>,
}

/// A value, by its number, and how it is written.
type Begun = (usize, Writing);

// === impl Beginnings ===

impl Beginnings {
    pub(super) fn add(&mut self, beginning: [u8; 2], begun: Begun) {
        if self.known.is_empty() {
            self.known = vec![0; PAIRS / 64].into();
        }
        let (word, bit) = place(beginning);
        self.known[word] |= bit;
        let here = self.table.entry(beginning).or_default();
        if !here.contains(&begun) {
            here.push(begun);
        }
    }

    /// Whether anything begins so.
    pub(super) fn know(&self, beginning: [u8; 2]) -> bool {
        let (word, bit) = place(beginning);
        self.known.get(word).is_some_and(|known| known & bit != 0)
    }

    pub(super) fn of(&self, beginning: [u8; 2]) -> &[Begun] {
        self.table.get(&beginning).map_or(&[], Vec::as_slice)
    }
}

fn place(beginning: [u8; 2]) -> (usize, u64) {
    let pair = usize::from(u16::from_le_bytes(beginning));
    (pair / 64, 1 << (pair % 64))
}

// === impl Writing ===

impl Writing {
    pub(super) const ALL: [Self; 5] = [
        Self::Raw,
        Self::Hex,
        Self::Base64 { shift: 0 },
        Self::Base64 { shift: 1 },
        Self::Base64 { shift: 2 },
    ];

    /// The first two bytes of the value so written, in every variant.
    pub(super) fn beginnings(self, value: &[u8]) -> Vec<[u8; 2]> {
        if self.len(value) < 2 {
            return Vec::new();
        }
        let (first, second) = (self.variants(value, 0), self.variants(value, 1));
        let pairs = first.map(|first| second.map(|second| [first, second]));
        pairs.into_iter().flatten().collect()
    }

    /// Where the value stands so written, if it begins `at` this place of a text: with the base64 digits before and after it
    /// that hold bits of it, too.
    pub(super) fn span(self, value: &[u8], text: &[u8], at: usize) -> Option<Range<usize>> {
        let len = self.len(value);
        let written = text.get(at..at + len)?;
        let same = match self {
            Self::Raw => written == value,
            Self::Hex | Self::Base64 { .. } => written
                .iter()
                .enumerate()
                .all(|(place, byte)| self.variants(value, place).contains(byte)),
        };
        if !same {
            return None;
        }
        let end = at + len;
        let Self::Base64 { shift } = self else {
            return Some(at..end);
        };
        let digit = |at: usize| text.get(at).is_some_and(|byte| is_base64(*byte));
        let before = shift > 0 && at > 0 && digit(at - 1);
        let whole = ((shift + value.len()) * 8).is_multiple_of(6);
        let after = !whole && digit(end);
        Some(at - usize::from(before)..end + usize::from(after))
    }

    /// How many bytes of it are the same wherever it stands.
    fn len(self, value: &[u8]) -> usize {
        match self {
            Self::Raw => value.len(),
            Self::Hex => value.len() * 2,
            // Digits that hold bits of what stands before or after the value differ from place to place.
            Self::Base64 { shift } => (shift + value.len()) * 8 / 6 - first_digit(shift),
        }
    }

    /// What may stand at one place of it: two spellings of a digit, or twice the same.
    fn variants(self, value: &[u8], place: usize) -> [u8; 2] {
        match self {
            Self::Raw => [value[place]; 2],
            Self::Hex => {
                let byte = value[place / 2];
                let digit = if place.is_multiple_of(2) {
                    byte >> 4
                } else {
                    byte & 15
                };
                [
                    b"0123456789abcdef"[usize::from(digit)],
                    b"0123456789ABCDEF"[usize::from(digit)],
                ]
            }
            Self::Base64 { shift } => {
                let bit = (first_digit(shift) + place) * 6;
                let byte = |at: usize| {
                    let byte = at.checked_sub(shift).and_then(|at| value.get(at));
                    u16::from(byte.copied().unwrap_or(0))
                };
                let pair = byte(bit / 8) << 8 | byte(bit / 8 + 1);
                match (pair >> (10 - bit % 8)) & 63 {
                    letter @ 0..26 => [b'A' + letter as u8; 2],
                    letter @ 26..52 => [b'a' + (letter - 26) as u8; 2],
                    number @ 52..62 => [b'0' + (number - 52) as u8; 2],
                    62 => *b"+-",
                    _ => *b"/_",
                }
            }
        }
    }
}

/// The first digit of base64 that holds nothing of the bytes before.
fn first_digit(shift: usize) -> usize {
    (shift * 8).div_ceil(6)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;
    use crate::keys::hex;

    /// Where a value is found in a text, by looking for every writing at every place that begins like one.
    fn found(value: &[u8], text: &[u8]) -> Vec<Range<usize>> {
        let mut beginnings = Beginnings::default();
        for writing in Writing::ALL {
            for beginning in writing.beginnings(value) {
                beginnings.add(beginning, (0, writing));
            }
        }
        let windows = text.array_windows().enumerate();
        let begun = windows.filter(|(_, start)| beginnings.know(**start));
        begun
            .flat_map(|(at, start)| {
                let here = beginnings.of(*start).iter();
                here.filter_map(move |(_, writing)| writing.span(value, text, at))
            })
            .collect()
    }

    #[test]
    fn the_digits_around_a_value_that_hold_bits_of_it_go_with_it() {
        // Of "u:secret-1!", with a byte of something else at either end.
        let text = STANDARD_NO_PAD.encode("u:secret-1!x");
        let found = found(b"secret-1", text.as_bytes());
        let [span] = &found[..] else {
            panic!("{text}: {found:?}");
        };
        assert_eq!((span.start, span.end), (2, 14), "{text}");
    }

    #[test]
    fn the_end_of_a_text_is_no_value() {
        let half = &STANDARD.encode("hunter22")[..8];
        assert!(found(b"hunter22", half.as_bytes()).is_empty());
        assert!(found(b"hunter22", b"hunter2").is_empty());
        assert!(found(b"hunter22", b"").is_empty());
    }

    proptest! {
        #[test]
        fn a_value_is_found_in_every_encoding_wherever_it_stands(
            value in proptest::collection::vec(any::<u8>(), 6..40),
            before in proptest::collection::vec(any::<u8>(), 0..5),
            after in proptest::collection::vec(any::<u8>(), 0..5),
        ) {
            let whole = [&before[..], &value, &after].concat();
            let lower = hex(&whole);
            for text in [
                whole.clone(),
                lower.to_uppercase().into_bytes(),
                lower.into_bytes(),
                STANDARD.encode(&whole).into_bytes(),
                URL_SAFE_NO_PAD.encode(&whole).into_bytes(),
            ] {
                prop_assert!(!found(&value, &text).is_empty(), "{}", String::from_utf8_lossy(&text));
            }
        }

        #[test]
        fn what_is_found_is_the_value(
            value in proptest::collection::vec(any::<u8>(), 6..12),
            text in "[a-zA-Z0-9+/_-]{0,200}",
        ) {
            // By chance a text holds 48 bits of a value in one of 2^45 cases.
            prop_assert!(found(&value, text.as_bytes()).is_empty());
        }
    }
}
