//! What a daemon answers: a token as the contract has it, or a refusal as RFC 9457 has it.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::Value;

/// An answer of either plane.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// A token as `/v1/token` and `/v1/token/reject` answer.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The token.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds left.
    pub expires_in: u64,
    /// Unix seconds.
    pub expires_at: u64,
    /// Granted scopes.
    pub scope: String,
    /// Names this token of this key for ever.
    pub generation: u64,
    /// Members that the operator exposes.
    #[serde(default)]
    pub extra: BTreeMap<String, String>,
    /// What became of a rejection.
    pub outcome: Option<String>,
}

/// What `/v1/tokens` answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    tokens: Vec<One>,
}

/// One element of it.
#[derive(Deserialize)]
#[serde(untagged)]
enum One {
    Token(Token),
    Problem { problem: Value },
}

// === impl Answer ===

impl Answer {
    /// A header as text, empty when missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }

    /// The token in the body.
    ///
    /// # Errors
    ///
    /// When this is a refusal, or does not look as the contract says.
    pub fn token(&self) -> anyhow::Result<Token> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.text());
        // The body may be a token with a member too many: it is not repeated.
        serde_json::from_slice(&self.body).context("no token as the contract has it")
    }

    /// What an answer to a call for many tokens holds: each a token, or the problem in its place.
    ///
    /// # Errors
    ///
    /// When this is a refusal of the whole call, or does not look as the contract says.
    pub fn tokens(&self) -> anyhow::Result<Vec<Result<Token, Value>>> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.text());
        let many: Many =
            serde_json::from_slice(&self.body).context("no tokens as the contract has them")?;
        let each = many.tokens.into_iter().map(|one| match one {
            One::Token(token) => Ok(token),
            One::Problem { problem } => Err(problem),
        });
        Ok(each.collect())
    }

    /// Checks that this is a refusal as RFC 9457 and the contract have it, and returns its correlation id.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn problem(&self, status: u16, slug: &str) -> anyhow::Result<String> {
        let body = self.json()?;
        ensure!(
            self.status == status,
            "{} instead of {status}: {body}",
            self.status
        );
        let kind = self.header("content-type");
        ensure!(
            kind.starts_with("application/problem+json"),
            "content-type {kind:?}"
        );
        ensure!(
            body["type"] == format!("urn:keyfob:problem:{slug}"),
            "type: {body}"
        );
        ensure!(body["status"] == status, "status: {body}");
        for member in ["title", "detail", "correlation_id"] {
            ensure!(
                body[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member}: {body}"
            );
        }
        Ok(body["correlation_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }
}

// === impl Token ===

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Token of generation {}, {} s left",
            self.generation, self.expires_in
        )
    }
}
