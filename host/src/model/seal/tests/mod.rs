//! A provider with one secret of each kind, and requests and answers to try on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::*;
use crate::model::contract::*;
use crate::model::key::{ProviderName, ScopeSet};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
use crate::model::transport::{Answer, OutgoingRequest};
use crate::settings::*;

mod properties;
mod read;
mod rules;
mod settle;
mod write;

const TOKEN_URL: &str = "https://login.acme.example/oauth2/token";
const NARROW_URL: &str = "https://login.acme.example/oauth2/narrow";
const CLIENT_SECRET: &str = "correct-horse-battery";
const API_KEY: &str = "api+key/for=headers";
const NARROW: &str = "narrow-secret-value";
const KEY: &str = "0123456789abcdef0123456789abcdef";
const GRANT: &str = "grant-r1-zzyyxxwwvv";
const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

fn secret(name: &str) -> SecretSettings {
    SecretSettings {
        name: name.to_owned(),
        source: SecretSource::Env("UNREAD".to_owned()),
        to: None,
        places: None,
        alg: None,
        key_id: None,
        audiences: None,
    }
}

fn provider() -> ProviderSettings {
    ProviderSettings {
        name: ProviderName::parse("acme").unwrap(),
        plugin: PluginSource::Builtin("oauth2".to_owned()),
        allow: strings(&["https://login.acme.example/oauth2"]),
        insecure_http: false,
        allow_addresses: Vec::new(),
        required: false,
        settings: serde_json::json!({}),
        secrets: vec![
            secret("client_secret"),
            SecretSettings {
                places: Some(strings(&["header:X-Api-Key", "form:api_key"])),
                ..secret("api_key")
            },
            SecretSettings {
                to: Some(strings(&[NARROW_URL])),
                ..secret("narrow")
            },
            SecretSettings {
                alg: Some("HS256".to_owned()),
                key_id: Some("k1".to_owned()),
                to: Some(strings(&[NARROW_URL])),
                places: Some(strings(&["form:client_assertion"])),
                ..secret("signing_key")
            },
        ],
        refresh: RefreshSettings::default(),
        readable: strings(&["expires_at", "/data/plan"]),
        expose: strings(&["instance_url", "text"]),
        scopes: ScopeSet::default(),
        tls: None,
        proxy: None,
        wasi: Wasi::None,
    }
}

fn vault_with(seed: u8, more: &[(&str, &str)]) -> Vault {
    let mut settings = provider();
    let mut values = vec![
        ("client_secret", CLIENT_SECRET),
        ("api_key", API_KEY),
        ("narrow", NARROW),
        ("signing_key", KEY),
    ];
    values.extend(more);
    settings
        .secrets
        .extend(more.iter().map(|(name, _)| secret(name)));
    let rules = Rules::new(&settings).unwrap();
    let values = values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    Vault::new(Arc::new(rules), values, Secret::new([seed; 32]))
}

fn vault() -> Vault {
    vault_with(1, &[])
}

fn lit(text: &str) -> Segment {
    Segment::Literal(text.to_owned())
}

fn sec(name: &str) -> Segment {
    Segment::Secret(name.to_owned())
}

fn sealed(value: &SealedValue) -> Segment {
    Segment::Sealed(value.clone())
}

fn field(name: &str, value: impl Into<Vec<Segment>>) -> Field {
    Field {
        name: name.to_owned(),
        value: value.into(),
    }
}

fn post(body: Body) -> HttpRequest {
    HttpRequest {
        method: "POST".to_owned(),
        url: TOKEN_URL.to_owned(),
        query: Vec::new(),
        headers: Vec::new(),
        auth: None,
        body,
        answer: AnswerFormat::Json,
        captures: Vec::new(),
    }
}

fn form(fields: &[(&str, Segment)]) -> HttpRequest {
    post(Body::Form(
        fields
            .iter()
            .map(|(name, value)| field(name, [value.clone()]))
            .collect(),
    ))
}

fn capturing(captures: &[(&str, Holds)]) -> HttpRequest {
    let captures = captures
        .iter()
        .map(|(at, holds)| Capture {
            at: (*at).to_owned(),
            holds: *holds,
        })
        .collect();
    HttpRequest {
        captures,
        ..post(Body::None)
    }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from(body.to_owned()),
        sent_at: NOW,
        took: Duration::from_millis(20),
    }
}

fn body_of(request: &OutgoingRequest) -> &str {
    std::str::from_utf8(request.body.expose()).unwrap()
}

/// The body a plugin reads, as JSON.
fn json_of(opened: &Opened) -> serde_json::Value {
    serde_json::from_slice(&opened.response.body).unwrap()
}

/// The handle at a JSON pointer of it.
fn handle_at(opened: &Opened, pointer: &str) -> SealedValue {
    let body = json_of(opened);
    let handle = body
        .pointer(pointer)
        .and_then(serde_json::Value::as_str)
        .unwrap();
    assert!(handle.starts_with("sealed:"), "{handle}");
    SealedValue {
        handle: handle.to_owned(),
    }
}
