//! What an answer without a token means: the classification of RFC 6749, section 5.2, and of what servers do instead.
//!
//! Only a code that says *this grant is dead*, in an answer to a request that presented the grant, ends a credential.
//! Everything else leaves it alone: wrong settings wait for an operator, outages and rate limits wait for time, and an
//! answer that does not tell whether the grant was spent is in doubt.

use serde_json::Value;

use crate::bindings::provider::types::Reason;
use crate::bindings::provider::{Later, Limited, RateLimit, Refusal};
use crate::response::Response;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The grant is dead.
    Dead,
    /// An operator must act.
    Misconfigured,
    Transient,
    Limited,
}

/// Codes with one meaning everywhere. A code is also the label of a metric, so an unknown one is not repeated there.
const CODES: [(&str, Meaning); 24] = [
    // RFC 6749, section 5.2
    ("invalid_grant", Meaning::Dead),
    ("invalid_client", Meaning::Misconfigured),
    ("unauthorized_client", Meaning::Misconfigured),
    ("unsupported_grant_type", Meaning::Misconfigured),
    ("invalid_scope", Meaning::Misconfigured),
    ("invalid_request", Meaning::Misconfigured),
    // RFC 6749, section 4.1.2.1, used at token endpoints too
    ("access_denied", Meaning::Misconfigured),
    ("unsupported_response_type", Meaning::Misconfigured),
    ("server_error", Meaning::Transient),
    ("temporarily_unavailable", Meaning::Transient),
    // RFC 8707, RFC 8628, RFC 9449
    ("invalid_target", Meaning::Misconfigured),
    ("authorization_pending", Meaning::Transient),
    ("slow_down", Meaning::Limited),
    ("invalid_dpop_proof", Meaning::Misconfigured),
    // OpenID Connect Core, section 3.1.2.6: a human must sign in again
    ("interaction_required", Meaning::Dead),
    ("login_required", Meaning::Dead),
    ("consent_required", Meaning::Dead),
    // GitHub and Slack, inside a 200
    ("bad_refresh_token", Meaning::Dead),
    ("invalid_refresh_token", Meaning::Dead),
    ("incorrect_client_credentials", Meaning::Misconfigured),
    ("bad_client_secret", Meaning::Misconfigured),
    // Rate limits said in words
    ("rate_limit_exceeded", Meaning::Limited),
    ("too_many_requests", Meaning::Limited),
    ("ratelimited", Meaning::Limited),
];

impl Response {
    /// Why this answer is no success.
    pub fn refusal(&self) -> Refusal {
        let error = self.error_code();
        let known = error.and_then(|error| {
            CODES
                .iter()
                .find(|(code, _)| error.eq_ignore_ascii_case(code))
        });
        let (label, meaning) = known.map_or(("", None), |(code, meaning)| (*code, Some(*meaning)));
        match (self.status(), meaning) {
            // What the transport says comes first: a proxy in trouble may repeat any code.
            (429, _) | (200..=499, Some(Meaning::Limited)) => self.rate_limited(),
            (500 | 503, _) => self.transient("http_5xx"),
            (500.., _) if self.presents_grant => Refusal::InDoubt(self.reason("http_5xx")),
            (500.., _) => self.transient("http_5xx"),

            (200..=499, Some(Meaning::Dead)) if self.presents_grant => {
                Refusal::Reauthorize(self.reason(label))
            }
            (200..=499, Some(Meaning::Dead | Meaning::Misconfigured)) => {
                Refusal::Misconfigured(self.reason(label))
            }
            (200..=499, Some(Meaning::Transient)) => self.transient(label),

            (200..=299, None) if error.is_some() => {
                Refusal::Other(self.reason("unrecognised_error"))
            }
            (200..=299, None) if self.presents_grant => Refusal::InDoubt(self.reason("no_token")),
            (200..=299, None) => self.transient("no_token"),

            (403, None) if self.retry_after().is_some() => self.rate_limited(),
            (401, None) => Refusal::Misconfigured(self.reason("http_401")),
            (404 | 405 | 406 | 410 | 411 | 413 | 414 | 415, None) => {
                Refusal::Misconfigured(self.reason("wrong_endpoint"))
            }
            (408 | 425, None) => self.transient("http_408"),
            (400..=499, None) if error.is_some() => {
                Refusal::Other(self.reason("unrecognised_error"))
            }
            (400..=499, None) => Refusal::Other(self.reason("http_4xx")),
            // A redirect is never followed; somebody is in the way.
            _ => self.transient("http_3xx"),
        }
    }

    /// A rate limit for the whole client, since servers rarely say whom they mean, with the wait stated here.
    pub fn rate_limited(&self) -> Refusal {
        let after_seconds = self.retry_after();
        Refusal::RateLimited(RateLimit {
            after_seconds,
            scope: Limited::Client,
        })
    }

    fn transient(&self, code: &str) -> Refusal {
        Refusal::later(self.reason(code), self.retry_after())
    }

    /// The server's error code. `error` is text in the RFC; some wrap it in an object.
    fn error_code(&self) -> Option<&str> {
        const UNNAMED: &str = "an error without a name";
        let code = match self.member("/error")? {
            Value::String(code) => code.as_str(),
            Value::Object(error) => {
                let named = ["code", "type", "status"]
                    .iter()
                    .find_map(|name| error.get(*name)?.as_str());
                named.unwrap_or(UNNAMED)
            }
            Value::Null | Value::Bool(false) => "",
            _ => UNNAMED,
        };
        Some(code.trim()).filter(|code| !code.is_empty())
    }

    /// A reason with the server's words for the operator. The host filters and caps them.
    pub fn reason(&self, code: &str) -> Reason {
        let mut message = format!("the server answered {}", self.status());
        // In a successful answer any other member's text is a handle.
        let plain = || self.text("/message").filter(|_| !self.is_success());
        let words = self
            .text("/error_description")
            .or_else(|| self.text("/error/message"));
        let words = words.or_else(plain);
        for said in [self.error_code(), words, self.note()]
            .into_iter()
            .flatten()
        {
            message.push_str(": ");
            message.push_str(said);
        }
        Reason::new(code, message)
    }
}

// === impl Reason ===

impl Reason {
    /// A code out of a closed set (`a-z`, `0-9`, `_`; a metric label) and words for operators.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// Later may succeed, after so many seconds where the server said.
    pub fn later(reason: Reason, after_seconds: Option<u32>) -> Self {
        Self::Transient(Later {
            reason,
            after_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::provider::types::{Answer, HttpResponse};

    const DEAD: &str = "reauthorize";
    const WRONG: &str = "misconfigured";
    const LATER: &str = "transient";
    const LIMITED: &str = "rate limited";
    const DOUBT: &str = "in doubt";
    const OTHER: &str = "other";

    fn response(status: u16, body: &str, presents_grant: bool) -> Response {
        let raw = HttpResponse {
            status,
            headers: vec![],
            body: body.into(),
            note: None,
        };
        Response::new(raw, Answer::Json, presents_grant, 0)
    }

    fn class(refusal: &Refusal) -> (&'static str, &str) {
        match refusal {
            Refusal::Reauthorize(reason) => (DEAD, &reason.code),
            Refusal::Misconfigured(reason) => (WRONG, &reason.code),
            Refusal::Transient(later) => (LATER, &later.reason.code),
            Refusal::RateLimited(_) => (LIMITED, ""),
            Refusal::InDoubt(reason) => (DOUBT, &reason.code),
            Refusal::Other(reason) => (OTHER, &reason.code),
        }
    }

    /// Status, body, what it means with a grant presented, what it means without, label.
    const MATRIX: [(u16, &str, &str, &str, &str); 42] = [
        (
            400,
            r#"{"error":"invalid_grant"}"#,
            DEAD,
            WRONG,
            "invalid_grant",
        ),
        (
            400,
            r#"{"error":"INVALID_GRANT "}"#,
            DEAD,
            WRONG,
            "invalid_grant",
        ),
        (
            401,
            r#"{"error":"invalid_grant"}"#,
            DEAD,
            WRONG,
            "invalid_grant",
        ),
        (
            403,
            r#"{"error":"invalid_grant"}"#,
            DEAD,
            WRONG,
            "invalid_grant",
        ),
        (
            200,
            r#"{"error":"invalid_grant"}"#,
            DEAD,
            WRONG,
            "invalid_grant",
        ),
        (
            200,
            r#"{"error":"bad_refresh_token"}"#,
            DEAD,
            WRONG,
            "bad_refresh_token",
        ),
        (
            200,
            r#"{"ok":false,"error":"invalid_refresh_token"}"#,
            DEAD,
            WRONG,
            "invalid_refresh_token",
        ),
        (
            400,
            r#"{"error":"interaction_required"}"#,
            DEAD,
            WRONG,
            "interaction_required",
        ),
        (
            400,
            r#"{"error":{"code":"invalid_grant","message":"gone"}}"#,
            DEAD,
            WRONG,
            "invalid_grant",
        ),
        (
            500,
            r#"{"error":"invalid_grant"}"#,
            LATER,
            LATER,
            "http_5xx",
        ),
        (
            502,
            r#"{"error":"invalid_grant"}"#,
            DOUBT,
            LATER,
            "http_5xx",
        ),
        (429, r#"{"error":"invalid_grant"}"#, LIMITED, LIMITED, ""),
        (
            401,
            r#"{"error":"invalid_client"}"#,
            WRONG,
            WRONG,
            "invalid_client",
        ),
        (
            400,
            r#"{"error":"invalid_client"}"#,
            WRONG,
            WRONG,
            "invalid_client",
        ),
        (
            200,
            r#"{"error":"incorrect_client_credentials"}"#,
            WRONG,
            WRONG,
            "incorrect_client_credentials",
        ),
        (
            400,
            r#"{"error":"unauthorized_client"}"#,
            WRONG,
            WRONG,
            "unauthorized_client",
        ),
        (
            400,
            r#"{"error":"unsupported_grant_type"}"#,
            WRONG,
            WRONG,
            "unsupported_grant_type",
        ),
        (
            400,
            r#"{"error":"invalid_scope"}"#,
            WRONG,
            WRONG,
            "invalid_scope",
        ),
        (
            400,
            r#"{"error":"invalid_request"}"#,
            WRONG,
            WRONG,
            "invalid_request",
        ),
        (
            400,
            r#"{"error":"invalid_target"}"#,
            WRONG,
            WRONG,
            "invalid_target",
        ),
        (
            403,
            r#"{"error":"access_denied"}"#,
            WRONG,
            WRONG,
            "access_denied",
        ),
        (
            400,
            r#"{"error":"temporarily_unavailable"}"#,
            LATER,
            LATER,
            "temporarily_unavailable",
        ),
        (
            200,
            r#"{"error":"server_error"}"#,
            LATER,
            LATER,
            "server_error",
        ),
        (400, r#"{"error":"slow_down"}"#, LIMITED, LIMITED, ""),
        (
            200,
            r#"{"ok":false,"error":"ratelimited"}"#,
            LIMITED,
            LIMITED,
            "",
        ),
        (
            400,
            r#"{"error":"acme_is_sad"}"#,
            OTHER,
            OTHER,
            "unrecognised_error",
        ),
        (
            200,
            r#"{"error":"acme_is_sad"}"#,
            OTHER,
            OTHER,
            "unrecognised_error",
        ),
        (400, r#"{"error":17}"#, OTHER, OTHER, "unrecognised_error"),
        (400, "", OTHER, OTHER, "http_4xx"),
        (401, "<html>who are you</html>", WRONG, WRONG, "http_401"),
        (403, "<html>blocked</html>", OTHER, OTHER, "http_4xx"),
        (404, "not found", WRONG, WRONG, "wrong_endpoint"),
        (405, "", WRONG, WRONG, "wrong_endpoint"),
        (408, "", LATER, LATER, "http_408"),
        (200, "", DOUBT, LATER, "no_token"),
        (200, "<html>sign in</html>", DOUBT, LATER, "no_token"),
        (200, r#"{"access_token":17}"#, DOUBT, LATER, "no_token"),
        (204, "", DOUBT, LATER, "no_token"),
        (307, "", LATER, LATER, "http_3xx"),
        (500, "", LATER, LATER, "http_5xx"),
        (503, "<html>down</html>", LATER, LATER, "http_5xx"),
        (504, "", DOUBT, LATER, "http_5xx"),
    ];

    #[test]
    fn every_row_of_the_matrix_means_what_it_says() {
        for (status, body, with_grant, without_grant, label) in MATRIX {
            for (presents_grant, expected) in [(true, with_grant), (false, without_grant)] {
                let response = response(status, body, presents_grant);
                let refusal = response.refusal();
                assert_eq!(
                    class(&refusal),
                    (expected, label),
                    "{status} {body} grant: {presents_grant}"
                );
                assert!(response.tokens().is_err(), "{status} {body}");
            }
        }
    }

    #[test]
    fn only_a_presented_grant_can_be_declared_dead() {
        for (status, body, ..) in MATRIX {
            let refusal = response(status, body, false).refusal();
            assert!(
                !matches!(refusal, Refusal::Reauthorize(_)),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn no_status_goes_without_an_answer() {
        for status in 0..=u16::MAX {
            let refusal = response(status, "", true).refusal();
            assert!(!matches!(refusal, Refusal::Reauthorize(_)), "{status}");
        }
    }

    #[test]
    fn the_label_comes_from_a_closed_set_and_the_words_from_the_server() {
        let refusal = response(
            400,
            r#"{"error":"acme_is_sad","error_description":"it rains"}"#,
            true,
        )
        .refusal();
        let Refusal::Other(reason) = refusal else {
            panic!("an unknown code is no more than that")
        };
        assert_eq!(
            reason,
            Reason::new(
                "unrecognised_error",
                "the server answered 400: acme_is_sad: it rains"
            )
        );
        for (code, _) in CODES {
            assert!(
                code.bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
                "{code}"
            );
        }
    }

    #[test]
    fn a_wait_travels_with_the_refusal() {
        let headers = vec![("retry-after".to_owned(), "7".to_owned())];
        let refusal = |status| {
            let raw = HttpResponse {
                status,
                headers: headers.clone(),
                body: vec![],
                note: None,
            };
            Response::new(raw, Answer::Json, false, 0).refusal()
        };
        let limited = Refusal::RateLimited(RateLimit {
            after_seconds: Some(7),
            scope: Limited::Client,
        });
        assert_eq!(refusal(429), limited);
        assert_eq!(refusal(403), limited);
        let Refusal::Transient(later) = refusal(503) else {
            panic!("an outage passes")
        };
        assert_eq!(later.after_seconds, Some(7));
    }
}
