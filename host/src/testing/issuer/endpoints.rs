//! The token, revocation and resource endpoints: from a request to an answer, without a socket.
//!
//! Strict where issuers may be strict: a duplicate parameter, a second way to authenticate, a secret in the URL, a wrong
//! content type or an unknown scope is refused, so that what passes here passes elsewhere.

use std::sync::PoisonError;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use serde_json::json;

use super::Shared;
use super::book::RefreshRefusal;
use super::client::{AssertionRules, Client, GrantType, Presented};
use super::ledger::{Entry, Outcome};

/// A request, read in full.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
    pub(super) connection: u64,
    /// The connection brought a verified client certificate.
    pub(super) certificate: bool,
}

/// An answer, before a behaviour spoils it.
pub(super) struct Plain {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Members that may be repeated (RFC 8707 section 2, RFC 8693 section 2.1).
const REPEATABLE: [&str; 2] = ["resource", "audience"];

/// An OAuth error code on its way out.
enum Refusal {
    Error(StatusCode, &'static str),
    Replayed,
}

impl From<&'static str> for Refusal {
    fn from(code: &'static str) -> Self {
        match code {
            "invalid_client" => Self::Error(StatusCode::UNAUTHORIZED, code),
            _ => Self::Error(StatusCode::BAD_REQUEST, code),
        }
    }
}

/// The token endpoint (RFC 6749, section 3.2). `life` replaces the configured lifetime; `process` is false when the
/// behaviour in force keeps the request from taking effect.
pub(super) fn token(
    shared: &Shared,
    asked: &Asked<'_>,
    life: Option<Duration>,
    behaviour: &'static str,
    process: bool,
) -> Plain {
    let mut entry = blank(shared, asked, behaviour);
    let result = read_form(asked, &mut entry).and_then(|form| {
        let find = |name: &str| {
            form.iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        entry.grant = find("grant_type").unwrap_or_default().to_owned();
        entry.presented = find("refresh_token").and_then(|t| shared.book().refresh_token_id(t));
        if !process {
            return Ok(None);
        }
        let client = authenticate(shared, asked, &find)?;
        entry.client = Some(client.id.clone());
        let answer = grant(shared, client, &find, life.unwrap_or(shared.lifetime))?;
        let brought = answer["refresh_token"].as_str();
        entry.brought = brought.and_then(|token| shared.book().refresh_token_id(token));
        Ok(Some(answer))
    });
    let (outcome, answer) = match result {
        Ok(Some(answer)) => (Outcome::Granted, Plain::json(StatusCode::OK, &answer)),
        Ok(None) => (
            Outcome::Unprocessed,
            Plain::json(StatusCode::OK, &json!({})),
        ),
        Err(refusal) => refuse(refusal, asked),
    };
    shared.ledger.record(Entry { outcome, ..entry });
    answer
}

/// The revocation endpoint (RFC 7009).
pub(super) fn revoke(
    shared: &Shared,
    asked: &Asked<'_>,
    behaviour: &'static str,
    process: bool,
) -> Plain {
    let mut entry = Entry {
        grant: "revoke".to_owned(),
        ..blank(shared, asked, behaviour)
    };
    let result = read_form(asked, &mut entry).and_then(|form| {
        let find = |name: &str| {
            form.iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        if !process {
            return Ok(false);
        }
        let client = authenticate(shared, asked, &find)?;
        entry.client = Some(client.id.clone());
        shared
            .book()
            .revoke(find("token").ok_or("invalid_request")?, Some(&client.id));
        Ok(true)
    });
    let (outcome, answer) = match result {
        Ok(true) => (Outcome::Granted, Plain::empty(StatusCode::OK)),
        Ok(false) => (Outcome::Unprocessed, Plain::empty(StatusCode::OK)),
        Err(refusal) => refuse(refusal, asked),
    };
    shared.ledger.record(Entry { outcome, ..entry });
    answer
}

/// A resource that wants a token (RFC 6750).
pub(super) fn resource(shared: &Shared, asked: &Asked<'_>) -> Plain {
    let presented = asked
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok());
    let token = presented
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token);
    let held = token.and_then(|token| shared.book().active(token, shared.clock.now()).cloned());
    match held {
        Some(held) => Plain::json(
            StatusCode::OK,
            &json!({ "client": held.client, "subject": held.subject, "scope": held.scopes.join(" ") }),
        ),
        None => {
            let mut answer = Plain::empty(StatusCode::UNAUTHORIZED);
            let challenge = match token {
                Some(_) => "Bearer error=\"invalid_token\"",
                None => "Bearer",
            };
            answer.headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
            answer
        }
    }
}

fn blank(shared: &Shared, asked: &Asked<'_>, behaviour: &'static str) -> Entry {
    Entry {
        number: 0,
        at: shared.clock.now(),
        connection: asked.connection,
        client: None,
        grant: String::new(),
        presented: None,
        brought: None,
        left: None,
        members: Vec::new(),
        behaviour,
        outcome: Outcome::Unprocessed,
    }
}

fn read_form(asked: &Asked<'_>, entry: &mut Entry) -> Result<Vec<(String, String)>, Refusal> {
    if asked.method != Method::POST {
        return Err(Refusal::Error(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request",
        ));
    }
    let content_type = asked
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let essence = content_type
        .and_then(|text| text.split(';').next())
        .map(str::trim);
    if !essence.is_some_and(|e| e.eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
        return Err("invalid_request".into());
    }
    if asked.uri.query().is_some() {
        return Err("invalid_request".into());
    }
    let form: Vec<(String, String)> = url::form_urlencoded::parse(asked.body)
        .into_owned()
        .collect();
    entry.members = form.iter().map(|(name, _)| name.clone()).collect();
    for (at, (name, _)) in form.iter().enumerate() {
        let twice = form[..at].iter().any(|(earlier, _)| earlier == name);
        if twice && !REPEATABLE.contains(&name.as_str()) {
            return Err("invalid_request".into());
        }
    }
    // RFC 6749, section 3.2: a parameter without a value is treated as omitted.
    Ok(form
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect())
}

fn authenticate<'s, 'f>(
    shared: &'s Shared,
    asked: &Asked<'_>,
    find: &impl Fn(&str) -> Option<&'f str>,
) -> Result<&'s Client, Refusal> {
    let authorization = match asked.headers.get(header::AUTHORIZATION) {
        Some(value) => Some(value.to_str().map_err(|_| "invalid_client")?),
        None => None,
    };
    let presented = Presented {
        authorization,
        client_id: find("client_id"),
        client_secret: find("client_secret"),
        assertion_type: find("client_assertion_type"),
        assertion: find("client_assertion"),
        certificate: asked.certificate,
    };
    let mut book = shared.book();
    Ok(presented.authenticate(&shared.clients, rules(shared, &mut book.spent_assertions))?)
}

fn rules<'a>(
    shared: &'a Shared,
    spent: &'a mut std::collections::HashSet<String>,
) -> AssertionRules<'a> {
    AssertionRules {
        audiences: [&shared.token_url, &shared.base_url],
        now: shared.clock.now(),
        spent,
    }
}

fn grant<'f>(
    shared: &Shared,
    client: &Client,
    find: &impl Fn(&str) -> Option<&'f str>,
    life: Duration,
) -> Result<serde_json::Value, Refusal> {
    let kind = find("grant_type").ok_or("invalid_request")?;
    let kind = GrantType::parse(kind).ok_or("unsupported_grant_type")?;
    if !client.grants.contains(&kind) {
        return Err("unauthorized_client".into());
    }
    let asked: Option<Vec<String>> =
        find("scope").map(|text| text.split(' ').map(str::to_owned).collect());
    if asked
        .iter()
        .flatten()
        .any(|scope| !client.scopes.contains(scope))
    {
        return Err("invalid_scope".into());
    }
    let now = shared.clock.now();
    let mut book = shared.book();
    let scopes = || asked.clone().unwrap_or_else(|| client.scopes.clone());
    let (access_token, refresh_token, scopes) = match kind {
        GrantType::ClientCredentials => (
            book.issue(client, None, &scopes(), life, now),
            None,
            scopes(),
        ),
        GrantType::JwtBearer => {
            let key = client.assertions.as_ref().ok_or("unauthorized_client")?;
            let assertion = find("assertion").ok_or("invalid_request")?;
            let said = key.verify(
                assertion,
                &mut rules(shared, &mut book.spent_assertions),
                false,
            )?;
            (
                book.issue(client, Some(said.subject), &scopes(), life, now),
                None,
                scopes(),
            )
        }
        GrantType::RefreshToken => {
            let presented = find("refresh_token").ok_or("invalid_request")?;
            let done = book
                .refresh(client, presented, asked.clone(), life, now)
                .map_err(|refusal| match refusal {
                    RefreshRefusal::Error(code) => Refusal::from(code),
                    RefreshRefusal::Replayed => Refusal::Replayed,
                })?;
            (done.access_token, done.refresh_token, done.scopes)
        }
    };
    let mut answer = json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": life.as_secs(),
        "scope": scopes.join(" "),
    });
    if let Some(refresh_token) = refresh_token {
        answer["refresh_token"] = refresh_token.into();
    }
    Ok(answer)
}

fn refuse(refusal: Refusal, asked: &Asked<'_>) -> (Outcome, Plain) {
    let (outcome, status, code) = match refusal {
        Refusal::Error(status, code) => (Outcome::Refused(code.to_owned()), status, code),
        Refusal::Replayed => (Outcome::Replayed, StatusCode::BAD_REQUEST, "invalid_grant"),
    };
    let mut answer = Plain::json(status, &json!({ "error": code }));
    if status == StatusCode::UNAUTHORIZED && asked.headers.contains_key(header::AUTHORIZATION) {
        let challenge = HeaderValue::from_static("Basic realm=\"issuer\"");
        answer.headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        answer
            .headers
            .insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    (outcome, answer)
}

// === impl Plain ===

impl Plain {
    pub(super) fn empty(status: StatusCode) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Self {
            status,
            headers,
            body: Vec::new(),
        }
    }

    pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        Self::text(
            status,
            HeaderValue::from_static("application/json"),
            value.to_string(),
        )
    }

    pub(super) fn text(
        status: StatusCode,
        content_type: HeaderValue,
        body: impl Into<Vec<u8>>,
    ) -> Self {
        let mut answer = Self {
            body: body.into(),
            ..Self::empty(status)
        };
        answer.headers.insert(header::CONTENT_TYPE, content_type);
        answer
    }
}

// === impl Shared ===

impl Shared {
    /// The book. Held for one request's bookkeeping, never across `.await`.
    pub(super) fn book(&self) -> std::sync::MutexGuard<'_, super::book::Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
