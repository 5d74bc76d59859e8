//! From an answer to what a plugin reads of it, and what the flow must know before the plugin is called again: whether a
//! grant came back, and whether the issuer did what it was asked.

use std::fmt;

use http::{HeaderMap, StatusCode};

use super::json::{Findings, is_pointer};
use super::vault::Vault;
use super::violation::shown;
use super::{CAPTURE_MAX_BYTES, CAPTURES_MAX, Violation, form, json};
use crate::model::contract::{AnswerFormat, Capture, Holds, HttpRequest, HttpResponse};
use crate::model::secret::Secret;
use crate::model::transport::Answer;

/// Headers that a plugin may read.
const READABLE_HEADERS: [&str; 4] = ["content-type", "date", "retry-after", "www-authenticate"];

/// How rate-limit headers begin, standard and not.
const RATE_LIMIT_PREFIXES: [&str; 3] = ["ratelimit", "x-ratelimit", "x-rate-limit"];

/// The most headers shown; those above are fewer in any real answer.
const HEADERS_MAX: usize = 32;

/// The longest header shown, in bytes; a longer one is left out.
const HEADER_MAX_BYTES: usize = 1024;

/// An answer, opened.
pub struct Opened {
    /// What the plugin reads.
    pub response: HttpResponse,
    /// A refresh token in a successful answer that is not the grant the flow began with. To be made durable before the
    /// plugin is called again.
    pub grant: Option<Secret<String>>,
    /// What the answer says about the request.
    pub verdict: Completeness,
}

/// What an answer says about the request, as far as the host can tell without the plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Completeness {
    /// A well-formed 2xx with an access token: done.
    Token,
    /// A 2xx that is empty, truncated, in another format, of wrong types, or without a token: it may have been done.
    NoToken,
    /// A 4xx or 2xx that names an error as RFC 6749, section 5.2 does, and holds no token if it is a 2xx; a 429, 500 or
    /// 503: it was not done.
    Refused,
    /// Another 4xx or 5xx, or a redirect: somebody other than the issuer may have answered, such as a proxy that had passed
    /// the request on (408, 499, 502, 504).
    Ambiguous,
}

/// A captured member.
pub(super) struct Found {
    /// JSON pointer or form name.
    pub(super) at: String,
    pub(super) holds: Holds,
    /// None when it is no string or an empty one.
    pub(super) value: Option<Secret<String>>,
}

/// A body fit for a plugin, and why it is missing if it is.
type Shown = Result<String, &'static str>;

// === impl Opened ===

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answer, {:?}", self.response.status, self.verdict)
    }
}

// === impl Vault ===

impl Vault {
    /// Opens the answer to `request`: every string of a successful one behind a handle unless it is granted to be read,
    /// every known value out of everything else.
    ///
    /// # Errors
    ///
    /// [`Violation::DuplicateMember`]; [`Vault::captured_grant`] then still knows a refresh token that came with it.
    pub fn read(&mut self, request: &HttpRequest, answer: &Answer) -> Result<Opened, Violation> {
        let success = answer.status.is_success();
        let body =
            std::str::from_utf8(&answer.body).map(|text| text.trim_start_matches('\u{feff}'));
        let (findings, shown) = match (request.answer, body) {
            (_, Ok(text)) if text.trim().is_empty() => (Findings::default(), Err("empty")),
            (AnswerFormat::Form, Ok(text)) => self.open_form(text, request, success)?,
            (AnswerFormat::Json | AnswerFormat::Withheld, Ok(text)) => {
                self.open_json(text, request, success)?
            }
            (AnswerFormat::Form, Err(_)) => (Findings::default(), Err("not_form")),
            (_, Err(_)) => (Findings::default(), Err("not_json")),
        };
        let shown = if request.answer == AnswerFormat::Withheld {
            Err("withheld")
        } else {
            shown
        };
        let (body, note) = match shown {
            Ok(body) => (body.into_bytes(), None),
            Err(note) => (Vec::new(), Some(note.to_owned())),
        };
        let headers = self.headers(&answer.headers);
        Ok(Opened {
            response: HttpResponse {
                status: answer.status.as_u16(),
                headers,
                body,
                note,
            },
            grant: if success {
                self.new_grant(&findings)
            } else {
                None
            },
            verdict: verdict(answer.status, &findings),
        })
    }

    fn open_json(
        &mut self,
        text: &str,
        request: &HttpRequest,
        success: bool,
    ) -> Result<(Findings, Shown), Violation> {
        let Some(document) = json::parse(text) else {
            return Ok((Findings::default(), Err("not_json")));
        };
        let findings = json::find(document, &request.captures);
        self.learn(&findings, success)?;
        let shown = json::show(self, document, &findings.found, success);
        Ok((findings, shown))
    }

    fn open_form(
        &mut self,
        text: &str,
        request: &HttpRequest,
        success: bool,
    ) -> Result<(Findings, Shown), Violation> {
        let Some(members) = form::parse(text) else {
            // Some servers that answer in forms report errors as RFC 6749 has them all the same.
            let error = json::parse(text).is_some_and(json::names_error);
            let findings = Findings {
                error: error && !success,
                ..Findings::default()
            };
            return Ok((findings, Err("not_form")));
        };
        let findings = form::find(&members, &request.captures);
        self.learn(&findings, success)?;
        let shown = form::show(self, members, &findings.found, success);
        Ok((findings, shown))
    }

    /// Knows the tokens of an answer before any of it is shown: they may be repeated in its readable parts.
    fn learn(&mut self, findings: &Findings, success: bool) -> Result<(), Violation> {
        for found in &findings.found {
            let Some(value) = &found.value else { continue };
            self.echo.add(found.holds.into(), value.expose());
        }
        if success && let Some(grant) = self.new_grant(findings) {
            self.captured_grant = Some(grant);
        }
        match &findings.duplicate {
            Some(member) => Err(Violation::DuplicateMember {
                member: self.echo.apply(&shown(member)).into_owned(),
            }),
            None => Ok(()),
        }
    }

    fn new_grant(&self, findings: &Findings) -> Option<Secret<String>> {
        let value = findings
            .found
            .iter()
            .filter(|found| found.holds == Holds::RefreshToken)
            .find_map(|found| found.value.as_ref())?;
        let unchanged = self
            .grant
            .as_ref()
            .is_some_and(|grant| grant.same_as(value));
        (!unchanged).then(|| value.clone())
    }

    fn headers(&self, headers: &HeaderMap) -> Vec<(String, String)> {
        headers
            .iter()
            .filter(|(name, value)| is_readable(name.as_str()) && value.len() <= HEADER_MAX_BYTES)
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .take(HEADERS_MAX)
            .map(|(name, value)| (name.to_owned(), self.echo.apply(value).into_owned()))
            .collect()
    }
}

fn is_readable(header: &str) -> bool {
    READABLE_HEADERS.contains(&header)
        || RATE_LIMIT_PREFIXES
            .iter()
            .any(|prefix| header.starts_with(prefix))
}

fn verdict(status: StatusCode, findings: &Findings) -> Completeness {
    let token = findings
        .found
        .iter()
        .any(|found| found.holds == Holds::AccessToken && found.value.is_some());
    match status.as_u16() {
        200..=299 if token => Completeness::Token,
        200..=299 if findings.error => Completeness::Refused,
        200..=299 => Completeness::NoToken,
        400..=499 if findings.error => Completeness::Refused,
        429 | 500 | 503 => Completeness::Refused,
        _ => Completeness::Ambiguous,
    }
}

/// Refuses captures that can name nothing, before anything is sent for them.
pub(super) fn check_captures(captures: &[Capture], format: AnswerFormat) -> Result<(), Violation> {
    if captures.len() > CAPTURES_MAX {
        return Err(Violation::TooLarge {
            what: "captures",
            max: CAPTURES_MAX,
        });
    }
    for capture in captures {
        let why = if capture.at.len() > CAPTURE_MAX_BYTES {
            "is longer than 256 bytes"
        } else if format != AnswerFormat::Form && !is_pointer(&capture.at) {
            "is no JSON pointer, such as \"/token\""
        } else if format == AnswerFormat::Form && capture.at.is_empty() {
            "is no form member"
        } else {
            continue;
        };
        return Err(Violation::Capture {
            at: shown(&capture.at),
            why,
        });
    }
    Ok(())
}
