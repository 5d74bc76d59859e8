//! How input is read: bodies with a bound in bytes and in time, JSON and queries without a member nobody asked for.
//!
//! What is wrong is said with names and positions, never by repeating a value: a value may be a grant.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;

use super::problem::{Problem, Slug};
use crate::model::key::BadName;

/// The most members that an object may have: no call takes half as many.
const MEMBERS_MAX: usize = 32;

/// The most of an unwanted body that is read before it is refused. Answering earlier makes HTTP/2 reset the stream, and
/// some clients then show the reset and not the answer.
const DISCARD_MAX_BYTES: usize = 256 * 1024;
/// How long that may take.
const DISCARD_WITHIN: Duration = Duration::from_secs(1);

/// The whole body.
///
/// # Errors
///
/// A [`Problem`] when it is larger than `max_bytes`, takes longer than `within`, or breaks off.
pub(super) async fn read(
    request: Request,
    max_bytes: usize,
    within: Duration,
) -> Result<Bytes, Problem> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut body = request.into_body();
    let collect = async {
        if announced.is_some_and(|length| length > max_bytes) {
            return Ok(None);
        }
        let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if bytes.len() + data.len() > max_bytes {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
        Ok::<_, axum::Error>(Some(bytes.freeze()))
    };
    match tokio::time::timeout(within, collect).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            discard(body).await;
            Err(Problem::new(
                Slug::TooLarge,
                format!("the body may have {max_bytes} bytes"),
            ))
        }
        Ok(Err(_)) => Err(Problem::invalid("the body broke off")),
        Err(_) => Err(Problem::invalid(format!(
            "the body took longer than {within:?}"
        ))),
    }
}

/// Reads an unwanted body, within bounds, and forgets it.
pub(super) async fn discard(mut body: Body) {
    let read = async {
        let mut left = DISCARD_MAX_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else {
                return;
            };
            left = rest;
        }
    };
    // However far it came, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_WITHIN, read).await;
}

/// Whether the body says that it is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}

/// A JSON object, member by member.
pub(super) struct Members(Vec<(String, Value)>);

/// The parameters of a query, one by one.
pub(super) struct Parameters(Vec<(String, String)>);

// === impl Members ===

impl Members {
    /// Reads the object in a request's body.
    ///
    /// # Errors
    ///
    /// A [`Problem`] for a body that is no JSON object, or says that it is something else.
    pub(super) async fn of(
        request: Request,
        max_bytes: usize,
        within: Duration,
    ) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            discard(request.into_body()).await;
            let detail = "send `Content-Type: application/json`";
            return Err(Problem::new(Slug::UnsupportedMediaType, detail));
        }
        Self::parse(&read(request, max_bytes, within).await?)
    }

    fn parse(body: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(body).map_err(|error| {
            let at = format!("line {}, column {}", error.line(), error.column());
            Problem::invalid(match error.classify() {
                Category::Data => format!(
                    "the body must be one JSON object with members of different names ({at})"
                ),
                Category::Eof => "the body is JSON that ends too early".to_owned(),
                Category::Syntax | Category::Io => format!("the body is not JSON ({at})"),
            })
        })
    }

    /// The member of this name; `null` is none.
    fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(member, _)| member == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_null())
    }

    /// A member that must be a string, and is parsed.
    pub(super) fn named<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, BadName>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        parse(&text)
            .map(Some)
            .map_err(|bad| bad_member(name, bad.fix))
    }

    /// A member that must be a string.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(bad_member(name, "a string")),
        }
    }

    /// A member that must be a list of strings.
    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, Problem> {
        let list = || bad_member(name, "a list of strings");
        let text = |item| match item {
            Value::String(text) => Ok(text),
            _ => Err(list()),
        };
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(text)
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(list()),
        }
    }

    /// A member that must be a whole number inside `range`.
    pub(super) fn number(
        &mut self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let inside = value.as_u64().filter(|number| range.contains(number));
        let fix = format!("a whole number from {} to {}", range.start(), range.end());
        inside.map(Some).ok_or_else(|| bad_member(name, &fix))
    }

    /// Refuses members that nobody took.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.into_iter().find(|(_, value)| !value.is_null()) {
            Some((name, _)) => Err(Problem::invalid(format!("unknown member {}", shown(&name)))),
            None => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    // Two members of one name: readers disagree which counts (RFC 8259, section 4).
                    let twice = members.iter().any(|(member, _)| *member == name);
                    if twice || members.len() == MEMBERS_MAX {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

// === impl Parameters ===

impl Parameters {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names a parameter that is not `known` or comes twice.
    pub(super) fn of(query: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(Problem::invalid(format!(
                    "unknown parameter {}",
                    shown(&name)
                )));
            }
            if all.iter().any(|(seen, _)| *seen == name) {
                return Err(Problem::invalid(format!(
                    "parameter {} comes twice",
                    shown(&name)
                )));
            }
            all.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(all))
    }

    /// The parameter of this name, as it came.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The parameter of this name, parsed.
    pub(super) fn named<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, BadName>,
    ) -> Result<Option<T>, Problem> {
        self.text(name)
            .map(parse)
            .transpose()
            .map_err(|bad| bad_member(name, bad.fix))
    }
}

/// A member or parameter that is not what it must be.
pub(super) fn bad_member(name: &str, expected: &str) -> Problem {
    Problem::invalid(format!("`{name}` must be: {expected}"))
}

/// A name from outside, quoted, escaped and never longer than a line.
fn shown(name: &str) -> String {
    format!("{:?}", name.chars().take(64).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &[u8]) -> String {
        let problem = Members::parse(body).err().expect("refused");
        problem.line().expect("told")
    }

    #[test]
    fn what_is_not_one_json_object_is_refused_without_repeating_it() {
        let deep = "[".repeat(10_000);
        let deep_member = format!("{{\"a\":{}", "{\"a\":".repeat(10_000));
        let many: String = (0..=MEMBERS_MAX).map(|n| format!("\"m{n}\":1,")).collect();
        let many = format!("{{{}}}", many.trim_end_matches(','));
        for body in [
            &b""[..],
            b"hunter2",
            b"\"hunter2\"",
            b"[\"hunter2\"]",
            b"{\"a\":\"hunter2\"",
            b"{\"a\":\"hunter2\"} x",
            b"{\"a\":\"hunter2\",\"a\":\"hunter2\"}",
            b"{\"a\":\"\xff\xfehunter2\"}",
            b"{'a':1}",
            b"{\"a\":1,}",
            b"\xef\xbb\xbf{}",
            deep.as_bytes(),
            deep_member.as_bytes(),
            many.as_bytes(),
        ] {
            let words = refused(body);
            assert!(!words.contains("hunter2"), "{words}");
        }
    }

    #[test]
    fn a_member_nobody_asked_for_is_named_and_not_shown() {
        let mut members =
            Members::parse(b"{\"provider\":\"a\",\"colour\\n\":\"hunter2\"}").unwrap();
        assert_eq!(members.text("provider").unwrap().as_deref(), Some("a"));
        let words = members.finish().unwrap_err().line().unwrap();
        assert!(
            words.contains("\"colour\\n\"") && !words.contains("hunter2"),
            "{words}"
        );
    }

    #[test]
    fn members_have_types_and_null_is_absent() {
        let parse = |text: &str| Members::parse(text.as_bytes()).unwrap();
        assert!(parse("{\"a\":1}").text("a").is_err());
        assert!(parse("{\"a\":\"x\"}").texts("a").is_err());
        assert!(parse("{\"a\":[\"x\",1]}").texts("a").is_err());
        assert!(parse("{\"a\":-1}").number("a", 0..=9).is_err());
        assert!(parse("{\"a\":1.5}").number("a", 0..=9).is_err());
        assert!(parse("{\"a\":10}").number("a", 0..=9).is_err());
        assert!(parse("{\"a\":1e99}").number("a", 0..=9).is_err());
        assert_eq!(parse("{\"a\":9}").number("a", 0..=9).unwrap(), Some(9));
        let mut null = parse("{\"a\":null,\"b\":null}");
        assert_eq!(null.text("a").unwrap(), None);
        assert!(null.finish().is_ok());
    }

    #[test]
    fn parameters_are_known_and_come_once() {
        let known = ["tenant", "scope"];
        let parameters = Parameters::of(Some("scope=a%20b&tenant=x+y"), &known).unwrap();
        assert_eq!(parameters.text("scope"), Some("a b"));
        assert_eq!(parameters.text("tenant"), Some("x y"));
        assert!(Parameters::of(Some("scope=a&scope=b"), &known).is_err());
        assert!(Parameters::of(Some("scop=a"), &known).is_err());
        assert!(
            Parameters::of(None, &known)
                .unwrap()
                .text("scope")
                .is_none()
        );
    }

    #[test]
    fn only_json_is_json() {
        let says = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            is_json(&headers)
        };
        assert!(says("application/json") && says("Application/JSON; charset=utf-8"));
        assert!(!says("text/plain") && !says("application/x-www-form-urlencoded"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
