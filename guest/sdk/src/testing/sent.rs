//! What a plugin asked the host to do, with values written out for assertions.
//!
//! A secret reads `secret:NAME`, a sealed value reads as the plain value behind it.

use serde_json::Value;

use super::seal::Vault;
use crate::bindings::provider::types::{
    Auth, BasicEncoding, Body, Field, HttpRequest, Segment, SignRequest,
};

/// A request as the plugin shaped it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The record itself.
    pub request: HttpRequest,
    vault: Vault,
}

/// A signature the plugin asked for.
#[derive(Clone, Debug)]
pub struct Signs {
    /// The record itself.
    pub request: SignRequest,
}

// === impl Sent ===

impl Sent {
    pub(super) fn new(request: HttpRequest, vault: Vault) -> Self {
        Self { request, vault }
    }

    /// The URL, without what `query` adds.
    pub fn url(&self) -> &str {
        &self.request.url
    }

    /// The form member of that name.
    pub fn form(&self, name: &str) -> Option<String> {
        match &self.request.body {
            Body::Form(members) => self.find(members, name),
            _ => None,
        }
    }

    /// All form members, in order.
    pub fn form_members(&self) -> Vec<(String, String)> {
        match &self.request.body {
            Body::Form(members) => members
                .iter()
                .map(|member| (member.name.clone(), self.write(&member.value)))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<String> {
        self.find(&self.request.headers, name)
    }

    /// The query parameter of that name.
    pub fn query(&self, name: &str) -> Option<String> {
        self.find(&self.request.query, name)
    }

    /// User and password of HTTP Basic.
    pub fn basic(&self) -> Option<(String, String)> {
        match &self.request.auth {
            Some(Auth::Basic(basic)) => {
                Some((self.write(&basic.user), self.write(&basic.password)))
            }
            _ => None,
        }
    }

    /// How user and password are to be encoded.
    pub fn basic_encoding(&self) -> Option<BasicEncoding> {
        match &self.request.auth {
            Some(Auth::Basic(basic)) => Some(basic.encoding),
            _ => None,
        }
    }

    /// The bearer token.
    pub fn bearer(&self) -> Option<String> {
        match &self.request.auth {
            Some(Auth::Bearer(token)) => Some(self.write(token)),
            _ => None,
        }
    }

    /// The JSON body.
    ///
    /// # Panics
    ///
    /// Where the body is no JSON.
    pub fn json(&self) -> Value {
        let Body::Json(segments) = &self.request.body else {
            panic!("the body is {:?}", self.request.body)
        };
        let quoted = |text: &str| Value::from(text).to_string();
        let source: String = segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(source) => source.clone(),
                Segment::Secret(secret) => quoted(&format!("secret:{}", secret.name)),
                Segment::Sealed(sealed) => quoted(self.vault.open(sealed)),
            })
            .collect();
        match serde_json::from_str(&source) {
            Ok(body) => body,
            Err(error) => panic!("the body is no JSON: {error}: {source}"),
        }
    }

    /// The name of every secret in the request.
    pub fn secrets(&self) -> Vec<&str> {
        let named = self.request.segments().filter_map(|segment| match segment {
            Segment::Secret(secret) => Some(secret.name.as_str()),
            _ => None,
        });
        named.collect()
    }

    fn find(&self, fields: &[Field], name: &str) -> Option<String> {
        fields
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| self.write(&field.value))
    }

    fn write(&self, segments: &[Segment]) -> String {
        segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => text.clone(),
                Segment::Secret(secret) => format!("secret:{}", secret.name),
                Segment::Sealed(sealed) => self.vault.open(sealed).to_owned(),
            })
            .collect()
    }
}

// === impl Signs ===

impl Signs {
    /// The name of the key.
    pub fn key(&self) -> &str {
        match &self.request {
            SignRequest::Jwt(jwt) => &jwt.key.name,
            SignRequest::Bytes(bytes) => &bytes.key.name,
        }
    }

    /// The claims of a JWT.
    ///
    /// # Panics
    ///
    /// Where something else is to be signed, or the claims are no JSON.
    pub fn claims(&self) -> Value {
        let SignRequest::Jwt(jwt) = &self.request else {
            panic!("bytes are to be signed, not a JWT")
        };
        match serde_json::from_str(&jwt.claims) {
            Ok(claims) => claims,
            Err(error) => panic!("the claims are no JSON: {error}: {}", jwt.claims),
        }
    }
}
