//! The data plane: a token, or a token instead of one that a resource refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, post};
use http::{HeaderValue, header};
use serde::Serialize;

use super::body::{Members, bad_member};
use super::problem::{Problem, retry_after};
use super::{Front, uncached};
use crate::broker::{Issued, RejectOutcome, RejectReport};
use crate::model::key::{Audience, ProviderName, ScopeSet, Subject};
use crate::model::policy::TokenRequest;
use crate::model::time::UnixTime;
use crate::model::token::Generation;

/// The largest body of a call: 64 scopes and an audience fit thrice.
const BODY_MAX_BYTES: usize = 64 * 1024;
/// A caller that takes longer to say what it wants is holding a connection.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// A token with more life than this left is no access token.
const MIN_VALIDITY_MAX_SECS: u64 = 31 * 86_400;
/// The longest `WWW-Authenticate` that is looked at.
const CHALLENGE_MAX_BYTES: usize = 4 * 1024;

/// RFC 6749, section 5.1, and what else Keyfob knows of a token.
#[derive(Serialize)]
struct TokenAnswer<'t> {
    access_token: &'t str,
    token_type: &'t str,
    expires_in: u64,
    expires_at: u64,
    scope: String,
    generation: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<&'t str, &'t str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

pub(super) fn routes() -> Router<Arc<Front>> {
    Router::new()
        .route("/v1/token", post(token))
        .route("/v1/token/reject", post(reject))
}

async fn token(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (principal, request) = front.caller(request).await?;
        let mut members = Members::of(request, BODY_MAX_BYTES, BODY_WITHIN).await?;
        let wanted = wanted(&mut members)?;
        members.finish()?;
        let issued = front.broker.token(&principal, &wanted).await?;
        rendered(&issued, None, front.clock.now())
    };
    front.answer(answer.await)
}

async fn reject(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (principal, request) = front.caller(request).await?;
        let mut members = Members::of(request, BODY_MAX_BYTES, BODY_WITHIN).await?;
        let wanted = wanted(&mut members)?;
        let report = report(&mut members)?;
        members.finish()?;
        let (issued, outcome) = front.broker.reject(&principal, &wanted, &report).await?;
        rendered(&issued, Some(&outcome), front.clock.now())
    };
    front.answer(answer.await)
}

/// The members that say which token is wanted.
fn wanted(members: &mut Members) -> Result<TokenRequest, Problem> {
    let provider = members
        .named("provider", ProviderName::parse)?
        .ok_or_else(|| Problem::invalid("`provider` is missing"))?;
    let scopes = members.texts("scopes")?.map(|scopes| {
        let scopes = ScopeSet::parse(scopes.iter().map(String::as_str));
        scopes.map_err(|bad| bad_member("scopes", bad.fix))
    });
    let min_validity = members.number("min_validity_seconds", 0..=MIN_VALIDITY_MAX_SECS)?;
    Ok(TokenRequest {
        provider,
        subject: members.named("subject", Subject::parse)?,
        scopes: scopes.transpose()?,
        audience: members.named("audience", Audience::parse)?,
        min_validity: Duration::from_secs(min_validity.unwrap_or(0)),
    })
}

/// The members that say how a resource refused it.
fn report(members: &mut Members) -> Result<RejectReport, Problem> {
    let generation = members
        .number("generation", 1..=Generation::MAX)?
        .ok_or_else(|| Problem::invalid("`generation` is missing"))?;
    let status = members.number("status", 100..=599)?;
    let www_authenticate = members.text("www_authenticate")?;
    if www_authenticate
        .as_ref()
        .is_some_and(|text| text.len() > CHALLENGE_MAX_BYTES)
    {
        return Err(bad_member("www_authenticate", "at most 4096 bytes"));
    }
    let status = status.and_then(|status| u16::try_from(status).ok());
    Ok(RejectReport {
        generation,
        status,
        www_authenticate,
    })
}

fn rendered(
    issued: &Issued,
    outcome: Option<&RejectOutcome>,
    now: UnixTime,
) -> Result<Response, Problem> {
    let (word, wait) = match outcome {
        None => (None, None),
        Some(RejectOutcome::Refreshed) => (Some("refreshed"), None),
        Some(RejectOutcome::AlreadyReplaced) => (Some("already_replaced"), None),
        Some(RejectOutcome::Kept { retry_after }) => (Some("kept"), Some(*retry_after)),
    };
    let token = &issued.token;
    let answer = TokenAnswer {
        access_token: token.raw(),
        token_type: token.token_type(),
        // The broker hands out no token that is over; under a second left is told as one, never as none.
        expires_in: issued.expires.since(now).as_secs().max(1),
        expires_at: issued.expires.as_secs(),
        scope: issued.token.scopes().to_string(),
        generation: token.generation().number(),
        extra: token
            .extra()
            .map(|(name, value)| (name, value.expose().as_str()))
            .collect(),
        outcome: word,
    };
    let body = serde_json::to_vec(&answer)
        .map_err(|_| Problem::new(super::Slug::Internal, "the token cannot be written as JSON"))?;
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Some(wait) = wait {
        headers.insert(header::RETRY_AFTER, retry_after(wait));
    }
    Ok(uncached(response))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::token::{AccessToken, ObtainedToken, SlotId};

    const NOW: UnixTime = UnixTime::from_secs(1_700_000_000);

    fn issued(life: Duration) -> Issued {
        let obtained = ObtainedToken {
            value: "t0ken".into(),
            token_type: "bearer".into(),
            expires: NOW.plus(life),
            issued: NOW,
            scopes: ScopeSet::parse(["b", "a"]).unwrap(),
            extra: vec![("instance_url".to_owned(), "https://x.example".into())],
        };
        let generation = Generation::first(NOW);
        let token = AccessToken::new(SlotId(1), generation, &obtained).unwrap();
        Issued {
            expires: token.expires(),
            token: Arc::new(token),
        }
    }

    async fn json_of(response: Response) -> Value {
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn an_answer_says_what_the_contract_says_and_is_not_stored() {
        let response = rendered(&issued(Duration::from_millis(3_599_900)), None, NOW)
            .ok()
            .unwrap();
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let expected = json!({
            "access_token": "t0ken", "token_type": "Bearer", "expires_in": 3599,
            "expires_at": 1_700_003_599_u64, "scope": "a b", "generation": 1_700_000_000_000_u64,
            "extra": { "instance_url": "https://x.example" },
        });
        assert_eq!(json_of(response).await, expected);
    }

    #[tokio::test]
    async fn expires_in_is_never_zero() {
        let response = rendered(&issued(Duration::from_millis(300)), None, NOW)
            .ok()
            .unwrap();
        assert_eq!(json_of(response).await["expires_in"], 1);
    }

    #[tokio::test]
    async fn a_kept_token_says_when_to_complain_again() {
        let kept = RejectOutcome::Kept {
            retry_after: Duration::from_millis(2500),
        };
        let response = rendered(&issued(Duration::from_secs(60)), Some(&kept), NOW)
            .ok()
            .unwrap();
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
        assert_eq!(json_of(response).await["outcome"], "kept");
    }
}
