//! From the contract as generated to the contract as the host speaks it: what comes out of a guest.
//!
//! Counts, lengths and alphabets are checked here, once, against the limits that `wit/` states, so that nobody further
//! in meets a name of a megabyte. What a value may *do* (where a request may go, what a handle stands for) is not
//! decided here. A bound that is broken is the plugin's fault and says which field broke it.

use std::time::Duration;

use super::bindings::policy::exports::keyfob::policy::policy as policy_wit;
use super::bindings::policy::exports::keyfob::types::types as policy_types;
use super::bindings::provider::exports::keyfob::provider::provider as wit;
use super::bindings::provider::exports::keyfob::types::types;
use super::panic_text::printable;
use crate::model::contract::{
    Allowance, AnswerFormat, Auth, BasicEncoding, Body, BytesEncoding, Capture, Expiry, ExtraValue,
    Field, Holds, HttpRequest, Limited, Mistake, Needs, PluginFault, Reason, Refusal, RevokeStep,
    Rotation, SealedValue, Segment, SignRequest, Step, TokenSet, Verdict,
};

/// Names of fields, extra members, held and memo values.
const NAME_MAX_BYTES: usize = 128;
const HANDLE_MAX_BYTES: usize = 64;
const CODE_MAX_BYTES: usize = 64;
const MESSAGE_MAX_BYTES: usize = 512;
const URL_MAX_BYTES: usize = 2048;
/// Fields of a query, of headers or of a form, and segments of one value.
const FIELDS_MAX: usize = 64;
const CAPTURES_MAX: usize = 32;
const POINTER_MAX_BYTES: usize = 256;
/// A request, or a payload to sign: literals alone may not be longer than the whole.
const PAYLOAD_MAX_BYTES: usize = 64 << 10;
const JWT_HEADER_MAX_BYTES: usize = 4 << 10;
const JWT_CLAIMS_MAX_BYTES: usize = 16 << 10;
const EXTRA_MAX: usize = 16;
/// As long as a value of a request header usually may be.
const EXTRA_MAX_BYTES: usize = 8 << 10;
const HELD_MAX: usize = 8;
const MEMO_MAX: usize = 16;
const MEMO_MAX_BYTES: usize = 1 << 10;
/// Scopes of one token. Providers with the longest lists stay below a hundred.
const SCOPES_MAX: usize = 256;
const SCOPE_MAX_BYTES: usize = 256;
const TOKEN_TYPE_MAX_BYTES: usize = 64;
/// Lines an operator is asked to grant, per kind.
const NEEDS_MAX: usize = 64;
/// Mistakes shown at once; the rest appears once these are mended.
const MISTAKES_MAX: usize = 64;

pub(super) type Lifted<T> = Result<T, PluginFault>;

fn broken(what: impl Into<String>) -> PluginFault {
    PluginFault::Broken(what.into())
}

/// Text of at most `max` bytes.
fn text(what: &str, text: String, max: usize) -> Lifted<String> {
    if text.len() > max {
        return Err(broken(format!(
            "{what}: {} bytes, at most {max}",
            text.len()
        )));
    }
    Ok(text)
}

/// A name: text that is not empty and has no control characters.
fn name(what: &str, name: String) -> Lifted<String> {
    if name.is_empty() || name.contains(|c: char| c.is_control()) {
        return Err(broken(format!("{what}: empty, or with control characters")));
    }
    text(what, name, NAME_MAX_BYTES)
}

/// A code or the name of a secret: `a-z`, `0-9`, `_`.
fn word(what: &str, word: String) -> Lifted<String> {
    let fits = (1..=CODE_MAX_BYTES).contains(&word.len())
        && word
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fits {
        Ok(word)
    } else {
        Err(broken(format!("{what}: not 1 to 64 of a-z, 0-9 and _")))
    }
}

/// At most `max` items, each lifted by `lift`.
fn list<T, U>(
    what: &str,
    items: Vec<T>,
    max: usize,
    lift: impl Fn(T) -> Lifted<U>,
) -> Lifted<Vec<U>> {
    if items.len() > max {
        return Err(broken(format!(
            "{what}: {} entries, at most {max}",
            items.len()
        )));
    }
    items.into_iter().map(lift).collect()
}

fn sealed(value: types::SealedValue) -> Lifted<SealedValue> {
    if value.handle.is_empty() {
        return Err(broken("handle: empty"));
    }
    Ok(SealedValue {
        handle: text("handle", value.handle, HANDLE_MAX_BYTES)?,
    })
}

// === requests ===

fn segments(what: &str, value: Vec<types::Segment>) -> Lifted<Vec<Segment>> {
    list(what, value, FIELDS_MAX, |segment| {
        Ok(match segment {
            types::Segment::Literal(literal) => {
                Segment::Literal(text(what, literal, PAYLOAD_MAX_BYTES)?)
            }
            types::Segment::Secret(secret) => Segment::Secret(word("secret-ref", secret.name)?),
            types::Segment::Sealed(value) => Segment::Sealed(sealed(value)?),
        })
    })
}

fn fields(what: &str, fields: Vec<types::Field>) -> Lifted<Vec<Field>> {
    list(what, fields, FIELDS_MAX, |field| {
        Ok(Field {
            name: name(what, field.name)?,
            value: segments(what, field.value)?,
        })
    })
}

fn auth(auth: types::Auth) -> Lifted<Auth> {
    Ok(match auth {
        types::Auth::Basic(basic) => Auth::Basic {
            user: segments("basic.user", basic.user)?,
            password: segments("basic.password", basic.password)?,
            encoding: match basic.encoding {
                types::BasicEncoding::Form => BasicEncoding::Form,
                types::BasicEncoding::Raw => BasicEncoding::Raw,
            },
        },
        types::Auth::Bearer(token) => Auth::Bearer(segments("bearer", token)?),
    })
}

fn body(body: types::Body) -> Lifted<Body> {
    Ok(match body {
        types::Body::None => Body::None,
        types::Body::Form(form) => Body::Form(fields("form", form)?),
        types::Body::Json(json) => Body::Json(segments("json", json)?),
        types::Body::Text(plain) => Body::Text(segments("text", plain)?),
    })
}

fn holds(holds: types::Holds) -> Holds {
    match holds {
        types::Holds::AccessToken => Holds::AccessToken,
        types::Holds::RefreshToken => Holds::RefreshToken,
        types::Holds::IdToken => Holds::IdToken,
        types::Holds::Other => Holds::Other,
    }
}

fn http_request(request: types::HttpRequest) -> Lifted<HttpRequest> {
    if !matches!(
        request.method.as_str(),
        "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
    ) {
        return Err(broken("method: not GET, POST, PUT, PATCH or DELETE"));
    }
    Ok(HttpRequest {
        method: request.method,
        url: text("url", request.url, URL_MAX_BYTES)?,
        query: fields("query", request.query)?,
        headers: fields("headers", request.headers)?,
        auth: request.auth.map(auth).transpose()?,
        body: body(request.body)?,
        answer: match request.answer {
            types::Answer::Json => AnswerFormat::Json,
            types::Answer::Form => AnswerFormat::Form,
            types::Answer::Withheld => AnswerFormat::Withheld,
        },
        captures: list("captures", request.captures, CAPTURES_MAX, |capture| {
            let at = text("capture.at", capture.at, POINTER_MAX_BYTES)?;
            Ok(Capture {
                at,
                holds: holds(capture.holds),
            })
        })?,
    })
}

fn sign_request(request: types::SignRequest) -> Lifted<SignRequest> {
    Ok(match request {
        types::SignRequest::Jwt(jwt) => SignRequest::Jwt {
            key: word("jwt-request.key", jwt.key.name)?,
            header: text("jwt-request.header", jwt.header, JWT_HEADER_MAX_BYTES)?,
            claims: text("jwt-request.claims", jwt.claims, JWT_CLAIMS_MAX_BYTES)?,
        },
        types::SignRequest::Bytes(bytes) => SignRequest::Bytes {
            key: word("bytes-request.key", bytes.key.name)?,
            payload: segments("bytes-request.payload", bytes.payload)?,
            encoding: match bytes.encoding {
                types::BytesEncoding::Hex => BytesEncoding::Hex,
                types::BytesEncoding::Base64 => BytesEncoding::Base64,
                types::BytesEncoding::Base64url => BytesEncoding::Base64Url,
            },
        },
    })
}

// === provider ===

pub(super) fn step(step: wit::Step) -> Lifted<Step> {
    Ok(match step {
        wit::Step::Send(request) => Step::Send(http_request(request)?),
        wit::Step::Sign(request) => Step::Sign(sign_request(request)?),
        wit::Step::Done(tokens) => Step::Done(token_set(tokens)?),
    })
}

pub(super) fn revoke_step(step: wit::RevokeStep) -> Lifted<RevokeStep> {
    Ok(match step {
        wit::RevokeStep::Send(request) => RevokeStep::Send(http_request(request)?),
        wit::RevokeStep::Sign(request) => RevokeStep::Sign(sign_request(request)?),
        wit::RevokeStep::Done => RevokeStep::Done,
        wit::RevokeStep::Unsupported => RevokeStep::Unsupported,
    })
}

fn token_set(tokens: wit::TokenSet) -> Lifted<TokenSet> {
    Ok(TokenSet {
        access_token: sealed(tokens.access_token)?,
        token_type: token_type(tokens.token_type)?,
        expires: match tokens.expires {
            wit::Expiry::FromAnswer(seconds) => Expiry::FromAnswer(seconds),
            wit::Expiry::At(time) => Expiry::At(time),
            wit::Expiry::Unknown => Expiry::Unknown,
        },
        scopes: tokens.scopes.map(scopes).transpose()?,
        refresh_token: tokens.refresh_token.map(sealed).transpose()?,
        extra: list("extra", tokens.extra, EXTRA_MAX, |(key, value)| {
            let value = match value {
                wit::ExtraValue::Text(plain) => {
                    ExtraValue::Text(text("extra", plain, EXTRA_MAX_BYTES)?)
                }
                wit::ExtraValue::Sealed(value) => ExtraValue::Sealed(sealed(value)?),
            };
            Ok((name("extra", key)?, value))
        })?,
        held: list("held", tokens.held, HELD_MAX, |(key, value)| {
            Ok((name("held", key)?, sealed(value)?))
        })?,
        memo: list("memo", tokens.memo, MEMO_MAX, |(key, value)| {
            Ok((name("memo", key)?, text("memo", value, MEMO_MAX_BYTES)?))
        })?,
    })
}

/// It becomes the first word of a header: visible ASCII without spaces (RFC 6749, appendix A.13).
fn token_type(token_type: String) -> Lifted<String> {
    if token_type.is_empty() || !token_type.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(broken("token-type: not one word of visible ASCII"));
    }
    text("token-type", token_type, TOKEN_TYPE_MAX_BYTES)
}

/// Each is a `scope-token` (RFC 6749, section 3.3).
fn scopes(scopes: Vec<String>) -> Lifted<Vec<String>> {
    list("scopes", scopes, SCOPES_MAX, |scope| {
        let fits = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if scope.is_empty() || !scope.bytes().all(fits) {
            return Err(broken(
                "scopes: an entry is no scope-token of RFC 6749, section 3.3",
            ));
        }
        text("scopes", scope, SCOPE_MAX_BYTES)
    })
}

fn reason(reason: types::Reason) -> Lifted<Reason> {
    Ok(Reason {
        code: word("reason.code", reason.code)?,
        message: printable(&reason.message, MESSAGE_MAX_BYTES),
    })
}

pub(super) fn refusal(refusal: wit::Refusal) -> Lifted<Refusal> {
    let seconds = |seconds: Option<u32>| seconds.map(|s| Duration::from_secs(s.into()));
    Ok(match refusal {
        wit::Refusal::Reauthorize(why) => Refusal::Reauthorize(reason(why)?),
        wit::Refusal::Misconfigured(why) => Refusal::Misconfigured(reason(why)?),
        wit::Refusal::Transient(later) => Refusal::Transient {
            reason: reason(later.reason)?,
            after: seconds(later.after_seconds),
        },
        wit::Refusal::RateLimited(limit) => Refusal::RateLimited {
            after: seconds(limit.after_seconds),
            scope: match limit.scope {
                wit::Limited::Grant => Limited::Grant,
                wit::Limited::Client => Limited::Client,
            },
        },
        wit::Refusal::InDoubt(why) => Refusal::InDoubt(reason(why)?),
        wit::Refusal::Other(why) => Refusal::Other(reason(why)?),
    })
}

pub(super) fn needs(needs: wit::Needs) -> Lifted<Needs> {
    Ok(Needs {
        secrets: list("needs.secrets", needs.secrets, NEEDS_MAX, |secret| {
            word("needs.secrets", secret)
        })?,
        destinations: list("needs.destinations", needs.destinations, NEEDS_MAX, |url| {
            text("needs.destinations", url, URL_MAX_BYTES)
        })?,
        readable: list("needs.readable", needs.readable, NEEDS_MAX, |member| {
            name("needs.readable", member)
        })?,
        exposes: list("needs.exposes", needs.exposes, NEEDS_MAX, |member| {
            name("needs.exposes", member)
        })?,
        rotation: match needs.rotation {
            wit::Rotation::Unknown => Rotation::Unknown,
            wit::Rotation::Never => Rotation::Never,
            wit::Rotation::SingleUse => Rotation::SingleUse,
            wit::Rotation::Grace => Rotation::Grace,
        },
        grace: needs
            .grace_seconds
            .map(|seconds| Duration::from_secs(seconds.into())),
    })
}

/// Mistakes are words for a human: shortened rather than refused. None at all is no answer.
pub(super) fn mistakes(mistakes: Vec<wit::Mistake>) -> Lifted<Vec<Mistake>> {
    if mistakes.is_empty() {
        return Err(broken(
            "configure: settings refused without naming a mistake",
        ));
    }
    let shortened = mistakes
        .into_iter()
        .take(MISTAKES_MAX)
        .map(|mistake| Mistake {
            at: printable(&mistake.at, POINTER_MAX_BYTES),
            message: printable(&mistake.message, MESSAGE_MAX_BYTES),
            fix: printable(&mistake.fix, MESSAGE_MAX_BYTES),
        });
    Ok(shortened.collect())
}

pub(super) fn verdict(verdict: wit::Verdict) -> Verdict {
    match verdict {
        wit::Verdict::TokenDead => Verdict::TokenDead,
        wit::Verdict::ScopeMissing => Verdict::ScopeMissing,
        wit::Verdict::Unrelated => Verdict::Unrelated,
    }
}

// === policy ===

pub(super) fn allowance(allowance: policy_wit::Allowance) -> Lifted<Allowance> {
    let seconds = |seconds: Option<u32>| seconds.map(|s| Duration::from_secs(s.into()));
    Ok(Allowance {
        scopes: scopes(allowance.scopes)?,
        partial: allowance.partial,
        max_lifetime: seconds(allowance.max_lifetime_seconds),
        remember_for: seconds(allowance.remember_for_seconds),
    })
}

pub(super) fn denial(why: policy_types::Reason) -> Lifted<Reason> {
    reason(types::Reason {
        code: why.code,
        message: why.message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> types::HttpRequest {
        types::HttpRequest {
            method: "POST".into(),
            url: "https://login.example/token".into(),
            query: Vec::new(),
            headers: Vec::new(),
            auth: None,
            body: types::Body::None,
            answer: types::Answer::Json,
            captures: Vec::new(),
        }
    }

    fn field(name: &str, segments: usize) -> types::Field {
        let value = vec![types::Segment::Literal("x".into()); segments];
        types::Field {
            name: name.into(),
            value,
        }
    }

    fn tokens() -> wit::TokenSet {
        wit::TokenSet {
            access_token: types::SealedValue { handle: "h".into() },
            token_type: "Bearer".into(),
            expires: wit::Expiry::Unknown,
            scopes: None,
            refresh_token: None,
            extra: Vec::new(),
            held: Vec::new(),
            memo: Vec::new(),
        }
    }

    /// What the fault of an answer that must not pass says.
    fn complaint<T>(lifted: Lifted<T>) -> String {
        match lifted {
            Err(PluginFault::Broken(what)) => what,
            Err(other) => panic!("another fault: {other:?}"),
            Ok(_) => panic!("it passed"),
        }
    }

    #[test]
    fn a_request_at_every_limit_passes() {
        let full: Vec<_> = (0..64).map(|_| field(&"n".repeat(128), 64)).collect();
        let mut request = request();
        request.url = format!("https://{}", "u".repeat(2048 - 8));
        request.query = full.clone();
        request.headers = full.clone();
        request.body = types::Body::Form(full);
        request.captures = vec![
            types::Capture {
                at: "/".repeat(256),
                holds: types::Holds::Other
            };
            32
        ];
        assert!(http_request(request).is_ok());
    }

    #[test]
    fn one_beyond_a_limit_names_the_field_and_the_limit() {
        let refused = |change: &dyn Fn(&mut types::HttpRequest)| {
            let mut request = request();
            change(&mut request);
            complaint(http_request(request))
        };
        assert_eq!(
            refused(&|r| r.url = "u".repeat(2049)),
            "url: 2049 bytes, at most 2048"
        );
        assert_eq!(
            refused(&|r| r.headers = vec![field("n", 1); 65]),
            "headers: 65 entries, at most 64"
        );
        assert_eq!(
            refused(&|r| r.query = vec![field("n", 65)]),
            "query: 65 entries, at most 64"
        );
        assert!(refused(&|r| r.query = vec![field("", 1)]).starts_with("query: empty"));
        assert!(refused(&|r| r.headers = vec![field("a\r\nb", 1)]).contains("control"));
        assert!(refused(&|r| r.method = "CONNECT".into()).starts_with("method"));
        let capture = types::Capture {
            at: String::new(),
            holds: types::Holds::Other,
        };
        assert!(refused(&|r| r.captures = vec![capture.clone(); 33]).starts_with("captures: 33"));
    }

    #[test]
    fn secrets_and_handles_keep_to_their_alphabets() {
        let secret = |name: &str| {
            let name = name.to_owned();
            segments("s", vec![types::Segment::Secret(types::SecretRef { name })])
        };
        assert!(secret("client_secret2").is_ok());
        for bad in ["", "Client", "../x", "a b", &"a".repeat(65)] {
            assert!(complaint(secret(bad)).starts_with("secret-ref"));
        }
        assert!(
            sealed(types::SealedValue {
                handle: String::new()
            })
            .is_err()
        );
        assert!(
            sealed(types::SealedValue {
                handle: "h".repeat(65)
            })
            .is_err()
        );
    }

    #[test]
    fn a_token_type_cannot_carry_a_second_header() {
        for bad in ["", "Bearer x", "Bearer\r\nX-Evil: 1", "Bär"] {
            let tokens = wit::TokenSet {
                token_type: bad.into(),
                ..tokens()
            };
            assert!(complaint(token_set(tokens)).starts_with("token-type"));
        }
    }

    #[test]
    fn scopes_that_would_split_or_quote_are_refused() {
        for bad in ["", "a b", "a\"b", "a\\b", "a\nb"] {
            let tokens = wit::TokenSet {
                scopes: Some(vec![bad.into()]),
                ..tokens()
            };
            assert!(complaint(token_set(tokens)).starts_with("scopes"));
        }
    }

    #[test]
    fn what_a_flow_keeps_is_bounded() {
        let pair = |value: usize| ("n".to_owned(), "v".repeat(value));
        let memo = |memo| token_set(wit::TokenSet { memo, ..tokens() });
        assert!(memo(vec![pair(1024); 16]).is_ok());
        assert!(complaint(memo(vec![pair(1); 17])).starts_with("memo: 17"));
        assert!(complaint(memo(vec![pair(1025)])).starts_with("memo: 1025"));
    }

    #[test]
    fn messages_are_cut_and_codes_are_not_mended() {
        let long = types::Reason {
            code: "ok".into(),
            message: "m\n".repeat(1000),
        };
        let lifted = reason(long).unwrap();
        assert_eq!(lifted.message.len(), 512);
        assert!(!lifted.message.contains('\n'));
        let odd = types::Reason {
            code: "Not a label".into(),
            message: String::new(),
        };
        assert!(complaint(reason(odd)).starts_with("reason.code"));
    }

    #[test]
    fn settings_are_not_refused_without_a_reason() {
        assert!(complaint(mistakes(Vec::new())).starts_with("configure"));
        let one = wit::Mistake {
            at: "/a".into(),
            message: "m".into(),
            fix: "f".into(),
        };
        assert_eq!(mistakes(vec![one; 100]).unwrap().len(), 64);
    }
}
