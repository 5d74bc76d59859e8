//! How a token is written on the wire (RFC 6749, section 5.1, and what else Keyfob knows of it).
//!
//! A token is written by hand, member by member: what is in it was checked when it was published, so that nothing has to
//! be looked at again byte by byte.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::problem::retry_after;
use crate::broker::RejectOutcome;
use crate::model::time::UnixTime;
use crate::model::token::AccessToken;

/// What an answer with a token has around the token, its scopes and its further members, generously.
const AROUND_BYTES: usize = 192;

/// How much room [`write_token`] takes, about.
pub(super) fn room_for(token: &AccessToken) -> usize {
    let scopes: usize = token.scopes().iter().map(|scope| scope.len() + 1).sum();
    token.raw_bytes().len() + scopes + AROUND_BYTES
}

/// Writes a token that ends at `expires`, and the word for what became of a rejection.
pub(super) fn write_token(
    out: &mut Vec<u8>,
    token: &AccessToken,
    expires: UnixTime,
    outcome: Option<&'static str>,
    now: UnixTime,
) {
    if token.is_plain() {
        out.extend_from_slice(b"{\"access_token\":\"");
        out.extend_from_slice(token.raw_bytes());
        out.extend_from_slice(b"\",\"token_type\":\"");
        out.extend_from_slice(token.token_type().as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(b"{\"access_token\":");
        write_text(out, token.raw());
        out.extend_from_slice(b",\"token_type\":");
        write_text(out, token.token_type());
    }
    // The broker hands out no token that is over; under a second left is told as one, never as none.
    out.extend_from_slice(b",\"expires_in\":");
    write_json(out, &expires.since(now).as_secs().max(1));
    out.extend_from_slice(b",\"expires_at\":");
    write_json(out, &expires.as_secs());
    out.extend_from_slice(b",\"scope\":\"");
    // A scope token has no byte that JSON would have escaped (RFC 6749, section 3.3).
    for (at, scope) in token.scopes().iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(scope.as_bytes());
    }
    out.extend_from_slice(b"\",\"generation\":");
    write_json(out, &token.generation().number());
    let extra = token.extra().map(|(name, value)| (name, value.expose()));
    let extra: BTreeMap<&str, &String> = extra.collect();
    if !extra.is_empty() {
        out.extend_from_slice(b",\"extra\":");
        write_json(out, &extra);
    }
    if let Some(outcome) = outcome {
        out.extend_from_slice(b",\"outcome\":");
        write_text(out, outcome);
    }
    out.push(b'}');
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    write_json(out, &text);
}

/// Writes anything that JSON can hold.
pub(super) fn write_json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(out, value).expect("names and texts can be written to memory");
}

/// An answer of JSON that no cache may keep.
pub(super) fn uncached_json(body: Vec<u8>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    response
}

/// The word for what became of a rejection, and when to complain again.
pub(super) fn told(outcome: &RejectOutcome) -> (&'static str, Option<HeaderValue>) {
    let wait = match outcome {
        RejectOutcome::Refreshed | RejectOutcome::AlreadyReplaced => None,
        RejectOutcome::Kept { retry_after } => Some(*retry_after),
    };
    (
        outcome.label(),
        wait.map(|wait: Duration| retry_after(wait)),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::key::ScopeSet;
    use crate::model::token::{Generation, ObtainedToken, SlotId};

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn token(value: &str, kind: &str, life: Duration) -> AccessToken {
        let obtained = ObtainedToken {
            value: value.into(),
            token_type: kind.into(),
            expires: NOW.plus(life),
            issued: NOW,
            scopes: ScopeSet::parse(["b", "a"]).unwrap(),
            extra: vec![
                ("instance_url".to_owned(), "https://x.example/\"".into()),
                ("a".to_owned(), "1".into()),
            ],
        };
        AccessToken::new(
            SlotId(1),
            Generation::first(NOW),
            &obtained,
            &obtained.scopes,
        )
        .unwrap()
    }

    fn written(token: &AccessToken, outcome: Option<&'static str>) -> Value {
        let mut out = Vec::new();
        write_token(&mut out, token, token.expires(), outcome, NOW);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn an_answer_says_what_the_contract_says() {
        let token = token("t0ken", "bearer", Duration::from_millis(3_599_900));
        let expected = json!({
            "access_token": "t0ken", "token_type": "Bearer", "expires_in": 3599,
            "expires_at": 1_700_003_599_u64, "scope": "a b", "generation": 1_700_000_000_000_u64,
            "extra": { "a": "1", "instance_url": "https://x.example/\"" },
        });
        assert_eq!(written(&token, None), expected);
        assert_eq!(written(&token, Some("kept"))["outcome"], "kept");
    }

    #[test]
    fn a_token_with_quotes_in_it_is_escaped() {
        for odd in ["a\"b", "a\\b", "\"}{\""] {
            let token = token(odd, "x", Duration::from_secs(60));
            assert_eq!(written(&token, None)["access_token"], odd);
        }
        let odd_type = token("t", "a\"b", Duration::from_secs(60));
        assert_eq!(written(&odd_type, None)["token_type"], "a\"b");
    }

    #[test]
    fn expires_in_is_never_zero() {
        let token = token("t", "Bearer", Duration::from_millis(300));
        assert_eq!(written(&token, None)["expires_in"], 1);
    }

    #[test]
    fn an_answer_fits_the_room_that_was_made_for_it() {
        let token = token(&"t".repeat(1200), "Bearer", Duration::from_secs(3600));
        let mut out = Vec::with_capacity(room_for(&token));
        let room = out.capacity();
        write_token(&mut out, &token, token.expires(), None, NOW);
        assert_eq!(out.capacity(), room);
    }

    #[test]
    fn a_kept_token_says_when_to_complain_again() {
        let kept = RejectOutcome::Kept {
            retry_after: Duration::from_millis(2500),
        };
        let (word, wait) = told(&kept);
        assert_eq!((word, wait.unwrap()), ("kept", HeaderValue::from(3)));
        assert_eq!(told(&RejectOutcome::Refreshed), ("refreshed", None));
    }
}
