//! What came back: status, headers, and members of the sealed body.
//!
//! Strings in a successful answer are handles; [`Response::sealed`] takes one, [`Response::text`] reads the members
//! that the host leaves open. Reading tokens and errors out of it lives in `tokens.rs` and `refusal.rs`.

use serde_json::{Map, Value};

use crate::bindings::provider::types::{Answer, HttpResponse, SealedValue};
use crate::time;

/// Longest wait taken from a server: past a day it is a mistake, not a schedule. The host clamps further.
const RETRY_AFTER_MAX_SECONDS: u32 = 24 * 60 * 60;

/// Thirty years: no distance is longer, and no moment since the web began is earlier.
const DISTANCE_MAX_SECONDS: u32 = 30 * 365 * 24 * 60 * 60;

/// The answer to one request.
#[derive(Debug)]
pub struct Response {
    raw: HttpResponse,
    /// The body as an object; `Null` where it is missing or unreadable.
    body: Value,
    pub(crate) presents_grant: bool,
    now: u32,
}

impl Response {
    pub(crate) fn new(raw: HttpResponse, answer: Answer, presents_grant: bool, now: u32) -> Self {
        let body = match answer {
            Answer::Json => serde_json::from_slice(&raw.body).unwrap_or_default(),
            Answer::Form => Value::Object(read_form(&raw.body)),
            Answer::Withheld => Value::Null,
        };
        Self {
            raw,
            body,
            presents_grant,
            now,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.raw.status
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        matches!(self.raw.status, 200..=299)
    }

    /// The first header of that name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.raw
            .headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    /// Why the body is missing, where it is.
    pub fn note(&self) -> Option<&str> {
        self.raw.note.as_deref()
    }

    /// The member at a JSON pointer.
    pub fn member(&self, pointer: &str) -> Option<&Value> {
        self.body.pointer(pointer)
    }

    /// The text at a JSON pointer: readable members only, anything else is a handle.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.member(pointer)?.as_str()
    }

    /// The string at a JSON pointer as the handle that stands for it; none where it is missing, empty or no string.
    pub fn sealed(&self, pointer: &str) -> Option<SealedValue> {
        let handle = self.text(pointer).filter(|handle| !handle.is_empty())?;
        Some(SealedValue {
            handle: handle.to_owned(),
        })
    }

    /// Seconds to wait, from `Retry-After` as a number or a date (RFC 9110, section 10.2.3), else from
    /// `X-RateLimit-Reset` where `X-RateLimit-Remaining` says that nothing is left.
    ///
    /// A date counts from the server's own `Date` where it sent one, so that a skewed clock does no
    /// harm.
    pub fn retry_after(&self) -> Option<u32> {
        let Some(value) = self.header("retry-after") else {
            return self.rate_limit_reset();
        };
        if let Some(seconds) = whole_seconds(value.trim()) {
            return Some(seconds.min(RETRY_AFTER_MAX_SECONDS));
        }
        time::parse_http_date(value).map(|until| self.seconds_until(until))
    }

    /// Servers disagree whether this is a moment or a distance; the size of the number tells.
    fn rate_limit_reset(&self) -> Option<u32> {
        let named = |name| self.header(name).map(str::trim);
        if named("x-ratelimit-remaining") != Some("0") {
            return None;
        }
        let reset = whole_seconds(named("x-ratelimit-reset")?)?;
        let distance = if reset > DISTANCE_MAX_SECONDS {
            self.seconds_until(reset)
        } else {
            reset
        };
        Some(distance.min(RETRY_AFTER_MAX_SECONDS))
    }

    /// Seconds from this answer until `until`, at most a day; 0 for a moment that has passed.
    pub fn seconds_until(&self, until: u32) -> u32 {
        let sent = self
            .header("date")
            .and_then(time::parse_http_date)
            .unwrap_or(self.now);
        until.saturating_sub(sent).min(RETRY_AFTER_MAX_SECONDS)
    }
}

/// Digits, with a fraction rounded up: some servers write `1.5`. More digits than fit mean "very long".
fn whole_seconds(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let seconds = whole.parse().unwrap_or(u32::MAX);
    Some(seconds.saturating_add(u32::from(fraction.bytes().any(|digit| digit != b'0'))))
}

/// `application/x-www-form-urlencoded` as an object; the first of several equal names counts.
fn read_form(body: &[u8]) -> Map<String, Value> {
    let mut members = Map::new();
    for pair in body
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
    {
        let cut = pair
            .iter()
            .position(|byte| *byte == b'=')
            .unwrap_or(pair.len());
        let (name, value) = (&pair[..cut], pair.get(cut + 1..).unwrap_or_default());
        members
            .entry(decode(name))
            .or_insert_with(|| decode(value).into());
    }
    members
}

fn decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match (first, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            (other, _) => *other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1_700_000_000;

    fn response(headers: &[(&str, &str)], answer: Answer, body: &str) -> Response {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        let raw = HttpResponse {
            status: 200,
            headers,
            body: body.into(),
            note: None,
        };
        Response::new(raw, answer, false, NOW)
    }

    fn wait(headers: &[(&str, &str)]) -> Option<u32> {
        response(headers, Answer::Json, "").retry_after()
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date_and_never_beyond_a_day() {
        assert_eq!(wait(&[]), None);
        assert_eq!(wait(&[("retry-after", "120")]), Some(120));
        assert_eq!(wait(&[("retry-after", " 1.2 ")]), Some(2));
        assert_eq!(wait(&[("retry-after", "0")]), Some(0));
        assert_eq!(
            wait(&[("retry-after", "99999999999999999999")]),
            Some(RETRY_AFTER_MAX_SECONDS)
        );
        assert_eq!(wait(&[("retry-after", "-5")]), None);
        assert_eq!(wait(&[("retry-after", "soon")]), None);
        assert_eq!(wait(&[("retry-after", "")]), None);
        // 1_700_000_000 is 22:13:20.
        assert_eq!(
            wait(&[("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT")]),
            Some(30)
        );
        assert_eq!(
            wait(&[("retry-after", "Tue, 14 Nov 2023 22:00:00 GMT")]),
            Some(0)
        );
    }

    #[test]
    fn a_date_counts_from_the_servers_own_clock() {
        let headers = [
            ("date", "Tue, 14 Nov 2023 23:00:00 GMT"),
            ("retry-after", "Tue, 14 Nov 2023 23:00:07 GMT"),
        ];
        assert_eq!(wait(&headers), Some(7));
    }

    #[test]
    fn a_used_up_rate_limit_states_its_own_wait() {
        let limit = |remaining, reset| {
            wait(&[
                ("x-ratelimit-remaining", remaining),
                ("x-ratelimit-reset", reset),
            ])
        };
        assert_eq!(limit("0", "1700000090"), Some(90));
        assert_eq!(limit("0", "45"), Some(45));
        assert_eq!(limit("0", "1600000000"), Some(0));
        assert_eq!(limit("0", "later"), None);
        assert_eq!(limit("12", "1700000090"), None);
        assert_eq!(
            wait(&[("retry-after", "soon"), ("x-ratelimit-remaining", "0")]),
            None
        );
    }

    #[test]
    fn a_form_answer_reads_like_a_json_one() {
        let answer = response(
            &[],
            Answer::Form,
            "access_token=sealed%3Aab&scope=a+b&scope=c&bad=%zz%4&empty&&=x",
        );
        assert_eq!(
            answer
                .sealed("/access_token")
                .map(|sealed| sealed.handle)
                .as_deref(),
            Some("sealed:ab")
        );
        assert_eq!(answer.text("/scope"), Some("a b"));
        assert_eq!(answer.text("/bad"), Some("%zz%4"));
        assert_eq!(answer.sealed("/empty"), None);
    }

    #[test]
    fn an_unreadable_body_has_no_members() {
        for body in [
            "",
            "<html>",
            "[]",
            "\"text\"",
            "{\"access_token\":\"sealed:ab\"",
        ] {
            assert_eq!(
                response(&[], Answer::Json, body).sealed("/access_token"),
                None,
                "{body}"
            );
        }
    }
}
