//! The last words of a guest that trapped.
//!
//! A guest that imports nothing has nowhere to print to, so a panic would end as `unreachable` and no more. The SDK's
//! panic hook therefore leaves its text in the guest's memory behind a marker; after a trap the host looks for that
//! marker and reads the text. It reads nothing else. The text is whatever the plugin made it: printable characters
//! only, capped, for operators.

use wasmtime::{Store, WasmCoreDump};

use super::limits::Meter;

/// What stands in front of a panic's text: then its length in bytes, little-endian `u32`, then the text in UTF-8.
const MARKER: &[u8; 16] = b"KEYFOB-PANIC-V1\0";

/// The longest text the marker may announce.
const TEXT_MAX_BYTES: usize = 1000;

/// How much of a memory is searched. The SDK's buffer is static data, and toolchains put that, after at most a MiB of
/// stack, at the start.
const SEARCH_MAX_BYTES: usize = 4 << 20;

/// The text a guest left behind when it trapped, if it left one.
pub(super) fn find(dump: &WasmCoreDump, store: &Store<Meter>) -> Option<String> {
    dump.memories()
        .iter()
        .find_map(|memory| find_in(memory.data(store)))
}

fn find_in(memory: &[u8]) -> Option<String> {
    let mut rest = memory.get(..SEARCH_MAX_BYTES).unwrap_or(memory);
    // The marker may stand elsewhere too, as the constant it is copied from: what follows there is no text.
    while let Some(at) = position(rest) {
        rest = &rest[at + MARKER.len()..];
        if let Some(text) = text(rest) {
            return Some(printable(text, TEXT_MAX_BYTES));
        }
    }
    None
}

fn position(memory: &[u8]) -> Option<usize> {
    memory
        .windows(MARKER.len())
        .position(|window| window == MARKER)
}

fn text(after_marker: &[u8]) -> Option<&str> {
    let (length, rest) = after_marker.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > TEXT_MAX_BYTES {
        return None;
    }
    std::str::from_utf8(rest.get(..length)?).ok()
}

/// `text` on one line, without characters that change how a terminal or a log viewer shows the rest, cut at `max_bytes`.
pub(super) fn printable(text: &str, max_bytes: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(max_bytes));
    for c in text.chars() {
        let c = if shows(c) { c } else { ' ' };
        if clean.len() + c.len_utf8() > max_bytes {
            break;
        }
        clean.push(c);
    }
    clean
}

fn shows(c: char) -> bool {
    // Control characters; zero-width, line-breaking and direction-changing ones; private and tag characters.
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'
            | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(before: usize, length: u32, text: &[u8]) -> Vec<u8> {
        let mut memory = vec![7; before];
        memory.extend_from_slice(MARKER);
        memory.extend_from_slice(&length.to_le_bytes());
        memory.extend_from_slice(text);
        memory
    }

    #[test]
    fn the_text_behind_the_marker_is_found() {
        assert_eq!(
            find_in(&memory(5000, 4, b"boomrest")).as_deref(),
            Some("boom")
        );
    }

    #[test]
    fn a_marker_without_text_is_passed_over() {
        let mut both = memory(10, u32::MAX, b"");
        both.extend(memory(3, 0, b""));
        both.extend(memory(3, 2, b"\xff\xfe"));
        both.extend(memory(3, 4, b"boom"));
        assert_eq!(find_in(&both).as_deref(), Some("boom"));
    }

    #[test]
    fn a_length_that_points_past_the_memory_is_no_text() {
        assert_eq!(find_in(&memory(0, 900, b"short")), None);
        assert_eq!(find_in(&memory(0, 4, b"")), None);
        assert_eq!(find_in(MARKER), None);
        assert_eq!(find_in(b""), None);
    }

    #[test]
    fn a_text_longer_than_allowed_is_not_read() {
        assert_eq!(find_in(&memory(0, 1001, &[b'a'; 2000])), None);
        assert_eq!(
            find_in(&memory(0, 1000, &[b'a'; 2000])).map(|text| text.len()),
            Some(1000)
        );
    }

    #[test]
    fn only_printable_characters_pass() {
        assert_eq!(
            printable("a\r\nb\u{1b}[31mc\u{202e}d\u{200b}é", 100),
            "a  b [31mc d é"
        );
    }

    #[test]
    fn the_cut_falls_between_characters() {
        assert_eq!(printable("ééé", 5), "éé");
    }
}
