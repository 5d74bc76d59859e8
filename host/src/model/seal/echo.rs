//! The echo filter: finds the flow's own values in text, however they are encoded, and cuts them out.
//!
//! Servers repeat what they were sent: an error description quotes the form, a debug header the credentials. A plugin
//! reads such text, and operators read what plugins say, so every such text goes through here first.
//!
//! A text is read several ways (as it is, with JSON escapes resolved, percent-decoded once and twice, `+` as a space),
//! and each reading is searched for each value: raw, in hexadecimal, and in base64 at its three alignments, so that a
//! value is found inside longer base64, too, as in HTTP Basic credentials.

use std::borrow::Cow;
use std::ops::Range;

use super::writing::{Beginnings, Writing};
use crate::model::contract::Holds;
use crate::model::secret::Secret;

/// What stands where a value was.
pub(super) const REDACTED: &str = "[redacted]";

/// Shorter values are replaced only where they stand alone, unencoded. Five letters occur in ordinary words: replacing
/// them there would hide little, and the pattern of holes would give them away.
const ANYWHERE_MIN_BYTES: usize = 6;

/// What a known value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// A secret of the provider.
    Secret,
    /// A refresh token.
    Grant,
    /// An ID token.
    Identity,
    /// Any other value that was sent or captured.
    Value,
}

/// Every class.
pub(super) const ANY: [Class; 4] = [Class::Secret, Class::Grant, Class::Identity, Class::Value];

/// The values of one flow.
#[derive(Default)]
pub(super) struct EchoFilter {
    /// Values that are found anywhere.
    long: Vec<(Class, Secret<Vec<u8>>)>,
    /// Values that count only where they stand alone.
    short: Vec<(Class, Secret<Vec<u8>>)>,
    /// How every long value may begin: one pass over a text finds all of them, however many a hostile plugin has collected.
    beginnings: Beginnings,
}

/// One reading of a text.
struct Reading<'t> {
    bytes: Cow<'t, [u8]>,
    /// Where each byte, and the end, stands in the text itself; none when they are the same.
    origin: Option<Vec<usize>>,
}

// === impl Class ===

impl From<Holds> for Class {
    fn from(holds: Holds) -> Self {
        match holds {
            Holds::RefreshToken => Self::Grant,
            Holds::IdToken => Self::Identity,
            Holds::AccessToken | Holds::Other => Self::Value,
        }
    }
}

// === impl EchoFilter ===

impl EchoFilter {
    /// Knows one more value. An empty one is nowhere to be found.
    pub(super) fn add(&mut self, class: Class, value: &str) {
        let value = value.as_bytes();
        let long = value.len() >= ANYWHERE_MIN_BYTES;
        let list = if long {
            &mut self.long
        } else {
            &mut self.short
        };
        let known = list
            .iter()
            .any(|(its, bytes)| *its == class && bytes.expose() == value);
        if value.is_empty() || known {
            return;
        }
        list.push((class, Secret::new(value.to_vec())));
        if !long {
            return;
        }
        let at = self.long.len() - 1;
        for writing in Writing::ALL {
            for beginning in writing.beginnings(value) {
                self.beginnings.add(beginning, (at, writing));
            }
        }
    }

    /// The text with every known value replaced.
    pub(super) fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let spans = self.spans(text);
        if spans.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut clean = Vec::with_capacity(text.len());
        let mut from = 0;
        for span in spans {
            clean.extend_from_slice(&text.as_bytes()[from..span.start]);
            clean.extend_from_slice(REDACTED.as_bytes());
            from = span.end;
        }
        clean.extend_from_slice(&text.as_bytes()[from..]);
        Cow::Owned(String::from_utf8_lossy(&clean).into_owned())
    }

    /// Whether text is or holds a value of one of these classes. Short values count only as the whole text: a token may
    /// hold any five letters by chance.
    pub(super) fn holds(&self, classes: &[Class], text: &str) -> bool {
        let whole = |(class, bytes): &(Class, Secret<Vec<u8>>)| {
            classes.contains(class) && bytes.expose() == text.as_bytes()
        };
        self.short.iter().any(whole)
            || readings(text).iter().any(|reading| {
                self.found(reading)
                    .any(|(class, _)| classes.contains(&class))
            })
    }

    /// Where known values stand: sorted, apart from each other.
    fn spans(&self, text: &str) -> Vec<Range<usize>> {
        if self.long.is_empty() && self.short.is_empty() {
            return Vec::new();
        }
        let mut spans: Vec<Range<usize>> = Vec::new();
        for reading in readings(text) {
            let alone = self.short.iter().flat_map(|(_, value)| {
                let bytes = &*reading.bytes;
                occurrences(bytes, value.expose()).filter(|span| is_alone(bytes, span))
            });
            let found = self.found(&reading).map(|(_, span)| span);
            spans.extend(found.chain(alone).map(|span| reading.in_text(span)));
        }
        spans.sort_unstable_by_key(|span| (span.start, span.end));
        let mut apart: Vec<Range<usize>> = Vec::with_capacity(spans.len());
        for span in spans {
            match apart.last_mut() {
                Some(last) if span.start < last.end => last.end = last.end.max(span.end),
                _ => apart.push(span),
            }
        }
        apart
    }

    /// Every form of a long value in one reading.
    fn found<'a>(
        &'a self,
        reading: &'a Reading<'_>,
    ) -> impl Iterator<Item = (Class, Range<usize>)> + 'a {
        let text = &*reading.bytes;
        let windows = text.array_windows().enumerate();
        let begun = windows.filter(|(_, start)| self.beginnings.know(**start));
        begun.flat_map(move |(at, start)| {
            let here = self.beginnings.of(*start).iter();
            here.filter_map(move |&(value, writing)| {
                let (class, value) = &self.long[value];
                Some((*class, writing.span(value.expose(), text, at)?))
            })
        })
    }
}

fn occurrences<'a>(text: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let first = needle.first()?;
        loop {
            let last_start = text.len().checked_sub(needle.len())?;
            let at = from
                + text
                    .get(from..=last_start)?
                    .iter()
                    .position(|byte| byte == first)?;
            from = at + 1;
            if text[at..].starts_with(needle) {
                return Some(at..at + needle.len());
            }
        }
    })
}

fn is_alone(text: &[u8], span: &Range<usize>) -> bool {
    let word = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii())
    };
    !word(span.start.checked_sub(1).and_then(|at| text.get(at))) && !word(text.get(span.end))
}

// === impl Reading ===

impl Reading<'_> {
    fn in_text(&self, span: Range<usize>) -> Range<usize> {
        match &self.origin {
            None => span,
            Some(origin) => origin[span.start]..origin[span.end],
        }
    }

    fn origin(&self, at: usize) -> usize {
        self.origin.as_ref().map_or(at, |origin| origin[at])
    }

    /// This reading with `decode` applied at every byte: how many bytes it takes and what they mean. None when it never
    /// applies.
    fn decoded(
        &self,
        decode: impl Fn(&[u8]) -> Option<(usize, Decoded)>,
    ) -> Option<Reading<'static>> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut origin = Vec::with_capacity(self.bytes.len() + 1);
        let mut at = 0;
        let mut changed = false;
        while let Some(byte) = self.bytes.get(at) {
            let start = self.origin(at);
            match decode(&self.bytes[at..]) {
                Some((taken, decoded)) => {
                    changed = true;
                    at += taken;
                    let meant = decoded.bytes();
                    origin.resize(origin.len() + meant.len(), start);
                    bytes.extend_from_slice(meant);
                }
                None => {
                    at += 1;
                    origin.push(start);
                    bytes.push(*byte);
                }
            }
        }
        origin.push(self.origin(at));
        changed.then_some(Reading {
            bytes: Cow::Owned(bytes),
            origin: Some(origin),
        })
    }
}

/// Up to four bytes that an escape stands for.
struct Decoded {
    buffer: [u8; 4],
    len: usize,
}

impl Decoded {
    fn byte(byte: u8) -> Self {
        Self {
            buffer: [byte, 0, 0, 0],
            len: 1,
        }
    }

    fn char(c: char) -> Self {
        let mut buffer = [0; 4];
        let len = c.encode_utf8(&mut buffer).len();
        Self { buffer, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// Every reading of a text, the text itself first.
fn readings(text: &str) -> Vec<Reading<'_>> {
    let mut all = vec![Reading {
        bytes: Cow::Borrowed(text.as_bytes()),
        origin: None,
    }];
    let has = |byte: u8| text.as_bytes().contains(&byte);
    // Nearly every token and word is written in one way only.
    if has(b'\\') {
        let unescaped = all[0].decoded(json_escape);
        all.extend(unescaped);
    } else if !has(b'%') && !has(b'+') {
        return all;
    }
    for at in 0..all.len() {
        let once = all[at].decoded(percent);
        let plus = all[at].decoded(|rest| percent(rest).or_else(|| plus_as_space(rest)));
        if let Some(once) = once {
            let twice = once.decoded(percent);
            all.extend([Some(once), twice].into_iter().flatten());
        }
        all.extend(plus);
    }
    all
}

fn percent(rest: &[u8]) -> Option<(usize, Decoded)> {
    let [b'%', high, low, ..] = rest else {
        return None;
    };
    Some((
        3,
        Decoded::byte(u8::try_from(digits(&[*high, *low])?).ok()?),
    ))
}

fn plus_as_space(rest: &[u8]) -> Option<(usize, Decoded)> {
    (rest.first() == Some(&b'+')).then(|| (1, Decoded::byte(b' ')))
}

/// RFC 8259, section 7.
fn json_escape(rest: &[u8]) -> Option<(usize, Decoded)> {
    let [b'\\', escape, ..] = rest else {
        return None;
    };
    let byte = match escape {
        b'"' | b'\\' | b'/' => *escape,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => return unicode_escape(rest),
        _ => return None,
    };
    Some((2, Decoded::byte(byte)))
}

fn unicode_escape(rest: &[u8]) -> Option<(usize, Decoded)> {
    let unit = |at: usize| match rest.get(at..at + 6)? {
        [b'\\', b'u', hex @ ..] => digits(hex),
        _ => None,
    };
    let first = unit(0)?;
    if let Some(c) = char::from_u32(first) {
        return Some((6, Decoded::char(c)));
    }
    let second = unit(6).filter(|low| (0xdc00..0xe000).contains(low) && first < 0xdc00)?;
    let c = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?;
    Some((12, Decoded::char(c)))
}

fn digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |sum, byte| {
        Some(sum * 16 + char::from(*byte).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::keys::hex;

    fn filter(values: &[&str]) -> EchoFilter {
        let mut filter = EchoFilter::default();
        for value in values {
            filter.add(Class::Secret, value);
        }
        filter
    }

    #[test]
    fn a_value_is_found_in_every_encoding_a_server_may_repeat_it_in() {
        let value = "s3cr+t/\"ü~ ?";
        let filter = filter(&[value]);
        let form: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        let percent =
            percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
                .to_string();
        let twice =
            percent_encoding::utf8_percent_encode(&percent, percent_encoding::NON_ALPHANUMERIC)
                .to_string();
        let every_byte: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let every_unit: String = value
            .encode_utf16()
            .map(|unit| format!("\\u{unit:04X}"))
            .collect();
        let json = serde_json::to_string(value).unwrap();
        let mut cases = vec![
            value.to_owned(),
            form,
            percent,
            twice,
            every_byte,
            every_unit,
            json,
            hex(value.as_bytes()),
        ];
        for before in ["", "u", "us", "use"] {
            for after in ["", "x", "xy", "xyz"] {
                let around = format!("{before}{value}{after}");
                cases.push(STANDARD.encode(&around));
                cases.push(URL_SAFE_NO_PAD.encode(&around));
            }
        }
        for case in cases {
            let clean = filter.apply(&case).into_owned();
            assert!(clean.contains(REDACTED), "{case}");
            let text = format!("before: {case} after");
            assert!(filter.apply(&text).starts_with("before: "), "{text}");
            assert!(filter.apply(&text).ends_with(" after"), "{text}");
            assert!(filter.holds(&[Class::Secret], &text), "{text}");
        }
    }

    #[test]
    fn basic_credentials_give_nothing_of_the_password_away() {
        let filter = filter(&["correct-horse"]);
        for user in ["a", "ab", "abc", "abcd"] {
            let header = STANDARD.encode(format!("{user}:correct-horse"));
            let clean = filter.apply(&header).into_owned();
            let rest = clean.replace(REDACTED, "");
            let known = user.len() + 1;
            assert!(
                rest.trim_end_matches('=').len() <= known * 8 / 6,
                "{user}: {clean}"
            );
        }
    }

    #[test]
    fn short_values_go_only_where_they_stand_alone() {
        let filter = filter(&["dev"]);
        assert_eq!(
            filter.apply("dev: developer=dev, 3dev"),
            "[redacted]: developer=[redacted], 3dev"
        );
        assert!(filter.holds(&[Class::Secret], "dev"));
        assert!(!filter.holds(&[Class::Secret], "my-dev-token"));
    }

    #[test]
    fn overlapping_values_leave_no_rest() {
        let filter = filter(&["abcdefgh", "efghijkl"]);
        assert_eq!(filter.apply("xabcdefghijkly"), "x[redacted]y");
    }

    #[test]
    fn text_without_values_is_not_touched() {
        let filter = filter(&["hunter22", ""]);
        assert!(matches!(
            filter.apply("100% of \\u00zz + \\ud800 nothing"),
            Cow::Borrowed(_)
        ));
        assert_eq!(EchoFilter::default().apply("hunter22"), "hunter22");
    }
}
