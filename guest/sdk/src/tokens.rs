//! Reads the token answers of RFC 6749, section 5.1, as servers really send them.
//!
//! A usable access token is all that is insisted on. An odd `expires_in` or `scope` never costs the caller a token nor
//! the owner a rotated grant: what cannot be understood counts as not stated.

use serde_json::{Number, Value};

use crate::bindings::provider::types::SealedValue;
use crate::bindings::provider::{Expiry, TokenSet};
use crate::flow::Result;
use crate::response::Response;

/// Ten years. More is a unit mixed up (milliseconds, a date) or a way to say "for ever"; the host decides what then.
const LIFETIME_MAX_SECONDS: u32 = 10 * 365 * 24 * 60 * 60;

impl Response {
    /// The tokens in this answer.
    ///
    /// # Errors
    ///
    /// Refuses with [`Response::refusal`] where there is no access token. An answer that holds both a token and an
    /// error is believed: the token is there.
    pub fn tokens(&self) -> Result<TokenSet> {
        match self.sealed("/access_token") {
            Some(access_token) if self.is_success() => Ok(TokenSet {
                token_type: token_type(self.text("/token_type")),
                expires: self.member("/expires_in").map_or(Expiry::Unknown, expiry),
                scopes: self.member("/scope").and_then(scopes),
                refresh_token: self.sealed("/refresh_token"),
                ..TokenSet::new(access_token)
            }),
            _ => Err(self.refusal().into()),
        }
    }
}

// === impl TokenSet ===

impl TokenSet {
    /// A bearer token of which nothing else is known.
    pub fn new(access_token: SealedValue) -> Self {
        Self {
            access_token,
            token_type: token_type(None),
            expires: Expiry::Unknown,
            scopes: None,
            refresh_token: None,
            extra: Vec::new(),
            held: Vec::new(),
            memo: Vec::new(),
        }
    }
}

/// `Bearer` as HTTP writes it, where the server says so in any case or says nothing.
fn token_type(stated: Option<&str>) -> String {
    match stated.map(str::trim) {
        None | Some("") => "Bearer".into(),
        Some(stated) if stated.eq_ignore_ascii_case("bearer") => "Bearer".into(),
        Some(other) => other.into(),
    }
}

/// Zero and less say nothing usable: some servers write 0 or -1 for "does not expire".
fn expiry(stated: &Value) -> Expiry {
    let number = match stated {
        Value::Number(number) => Some(number.clone()),
        Value::String(text) => serde_json::from_str::<Number>(text.trim()).ok(),
        _ => None,
    };
    match number.as_ref().and_then(Number::as_f64) {
        // The cast truncates; the value is between 1 and ten years.
        Some(seconds) if seconds >= 1.0 => {
            Expiry::FromAnswer(seconds.min(LIFETIME_MAX_SECONDS.into()) as u32)
        }
        _ => Expiry::Unknown,
    }
}

/// A list as the RFC has it, a list with commas, or an array. Nothing in it means nothing was said.
fn scopes(stated: &Value) -> Option<Vec<String>> {
    let scopes: Vec<String> = match stated {
        Value::String(list) => {
            // A comma may be part of a scope (RFC 6749, section 3.3), so it separates only where no space does.
            let spaced = list.trim().contains(char::is_whitespace);
            let separates = |mark: char| mark.is_whitespace() || (mark == ',' && !spaced);
            list.split(separates)
                .filter(|scope| !scope.is_empty())
                .map(str::to_owned)
                .collect()
        }
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .filter(|scope| !scope.is_empty())
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    (!scopes.is_empty()).then_some(scopes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bindings::provider::types::{Answer, HttpResponse};

    fn read(body: Value) -> Result<TokenSet> {
        let raw = HttpResponse {
            status: 200,
            headers: vec![],
            body: body.to_string().into(),
            note: None,
        };
        Response::new(raw, Answer::Json, false, 0).tokens()
    }

    fn with(member: &str, value: Value) -> TokenSet {
        read(json!({"access_token": "sealed:a", member: value})).expect("there is a token")
    }

    #[test]
    fn a_plain_answer_is_read_whole() {
        let body = json!({"access_token": "sealed:a", "refresh_token": "sealed:r", "token_type": "bearer",
                          "expires_in": 3600, "scope": "read write"});
        let expected = TokenSet {
            expires: Expiry::FromAnswer(3600),
            scopes: Some(vec!["read".into(), "write".into()]),
            refresh_token: Some(SealedValue {
                handle: "sealed:r".into(),
            }),
            ..TokenSet::new(SealedValue {
                handle: "sealed:a".into(),
            })
        };
        assert_eq!(read(body).expect("there is a token"), expected);
    }

    #[test]
    fn no_expires_in_costs_the_token_whatever_it_looks_like() {
        let cap = Expiry::FromAnswer(LIFETIME_MAX_SECONDS);
        for (stated, expected) in [
            (json!(3600), Expiry::FromAnswer(3600)),
            (json!("3600"), Expiry::FromAnswer(3600)),
            (json!(" 3600 "), Expiry::FromAnswer(3600)),
            (json!(3600.0), Expiry::FromAnswer(3600)),
            (json!(3599.97), Expiry::FromAnswer(3599)),
            (json!("3600.5"), Expiry::FromAnswer(3600)),
            (json!(1), Expiry::FromAnswer(1)),
            (json!(0), Expiry::Unknown),
            (json!(0.4), Expiry::Unknown),
            (json!("0"), Expiry::Unknown),
            (json!(-1), Expiry::Unknown),
            (json!("-1"), Expiry::Unknown),
            (json!(1e12), cap),
            (json!(1_000_000_000_000_u64), cap),
            (json!("1000000000000"), cap),
            (json!(u64::MAX), cap),
            (json!(1e300), cap),
            (json!(null), Expiry::Unknown),
            (json!(""), Expiry::Unknown),
            (json!("soon"), Expiry::Unknown),
            (json!("NaN"), Expiry::Unknown),
            (json!(true), Expiry::Unknown),
            (json!([3600]), Expiry::Unknown),
            (json!({"seconds": 3600}), Expiry::Unknown),
        ] {
            assert_eq!(
                with("expires_in", stated.clone()).expires,
                expected,
                "{stated}"
            );
        }
        assert_eq!(with("other", json!(1)).expires, Expiry::Unknown);
    }

    #[test]
    fn scopes_come_as_text_or_array_and_emptiness_says_nothing() {
        let some = |scopes: &[&str]| Some(scopes.iter().map(|scope| (*scope).to_owned()).collect());
        for (stated, expected) in [
            (json!("a b"), some(&["a", "b"])),
            (json!("  a   b "), some(&["a", "b"])),
            (json!("repo,gist"), some(&["repo", "gist"])),
            (json!("a,b c"), some(&["a,b", "c"])),
            (json!(["a", "b", "", 3]), some(&["a", "b"])),
            (json!(""), None),
            (json!(" "), None),
            (json!([]), None),
            (json!(null), None),
            (json!(7), None),
        ] {
            assert_eq!(with("scope", stated.clone()).scopes, expected, "{stated}");
        }
    }

    #[test]
    fn a_bearer_type_is_written_one_way_and_another_type_is_kept() {
        for (stated, expected) in [
            (json!("BEARER"), "Bearer"),
            (json!(""), "Bearer"),
            (json!(null), "Bearer"),
            (json!("DPoP"), "DPoP"),
        ] {
            assert_eq!(with("token_type", stated).token_type, expected);
        }
    }

    #[test]
    fn a_token_beside_an_error_is_a_token() {
        for error in [json!(""), json!(null), json!(false), json!("invalid_grant")] {
            assert_eq!(with("error", error).access_token.handle, "sealed:a");
        }
    }
}
