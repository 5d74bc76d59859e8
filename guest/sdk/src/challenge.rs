//! What a resource's refusal says about the token (RFC 6750, section 3).

use crate::bindings::provider::{Rejection, Verdict};

/// The verdict of RFC 6750: `invalid_token` is dead, `insufficient_scope` would not be helped by another token, and a
/// bare 401 counts as dead, since many resources send nothing else.
pub fn classify_bearer(rejection: &Rejection) -> Verdict {
    let error = rejection
        .www_authenticate
        .as_deref()
        .and_then(error_parameter);
    match (rejection.status, error.as_deref()) {
        (_, Some("invalid_token")) => Verdict::TokenDead,
        (_, Some("insufficient_scope")) => Verdict::ScopeMissing,
        (401, None) => Verdict::TokenDead,
        _ => Verdict::Unrelated,
    }
}

/// The `error` parameter of a challenge, quoted or not; never `error_description`, nor text inside another's quotes.
fn error_parameter(challenge: &str) -> Option<String> {
    let mut rest = challenge;
    while !rest.is_empty() {
        // A name runs up to `=`; a scheme such as `Bearer` or a separator ends one.
        let end = rest.find(['=', ',', ' ', '\t', '"']).unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        let Some(value) = tail.trim_start().strip_prefix('=') else {
            rest = tail.get(1..).unwrap_or_default();
            continue;
        };
        let (value, tail) = parameter_value(value.trim_start());
        if name.eq_ignore_ascii_case("error") {
            return Some(value);
        }
        rest = tail;
    }
    None
}

/// A token or quoted string (RFC 9110, section 5.6.4), and what follows.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut marks = quoted.char_indices();
    while let Some((at, mark)) = marks.next() {
        match mark {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(marks.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, challenge: Option<&str>) -> Verdict {
        let www_authenticate = challenge.map(str::to_owned);
        classify_bearer(&Rejection {
            status,
            www_authenticate,
            settings: "{}".into(),
        })
    }

    #[test]
    fn the_resource_says_whether_another_token_would_help() {
        use Verdict::{ScopeMissing, TokenDead, Unrelated};
        for (status, challenge, expected) in [
            (401, None, TokenDead),
            (401, Some("Bearer"), TokenDead),
            (401, Some("Bearer realm=\"api\""), TokenDead),
            (
                401,
                Some(
                    "Bearer realm=\"api\", error=\"invalid_token\", error_description=\"expired\"",
                ),
                TokenDead,
            ),
            (401, Some("Bearer error=invalid_token"), TokenDead),
            (403, Some("bearer ERROR = \"invalid_token\""), TokenDead),
            (
                400,
                Some("Basic realm=\"x\", Bearer error=\"invalid_token\""),
                TokenDead,
            ),
            (
                403,
                Some("Bearer error=\"insufficient_scope\", scope=\"a b\""),
                ScopeMissing,
            ),
            (
                401,
                Some("Bearer error=\"insufficient_scope\""),
                ScopeMissing,
            ),
            (400, Some("Bearer error=\"invalid_request\""), Unrelated),
            (401, Some("Bearer error=\"invalid_request\""), Unrelated),
            (403, None, Unrelated),
            (
                403,
                Some("Bearer error_description=\"error=invalid_token\""),
                Unrelated,
            ),
            (
                403,
                Some("Bearer realm=\"say \\\"error=invalid_token\\\"\""),
                Unrelated,
            ),
            (403, Some("Bearer realm=\"unclosed, error=\\"), Unrelated),
            (403, Some("=,= =\"\" é=é"), Unrelated),
            (500, None, Unrelated),
        ] {
            assert_eq!(
                verdict(status, challenge),
                expected,
                "{status} {challenge:?}"
            );
        }
    }
}
