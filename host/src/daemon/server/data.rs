//! The data plane: a token, many at once, or one instead of one that a resource refused.
//!
//! A connection hands these calls over without asking the router, which serves them too: both end in [`answer`].

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::routing::{Router, get, post};
use bytes::Bytes;
use http::{Method, Response, header};
use hyper::body::Body;

use super::answer::{room_for, told, uncached_json, write_json, write_token};
use super::problem::Problem;
use super::{Front, body, wanted, watch};
use crate::broker::Issued;
use crate::daemon::authn::Peer;
use crate::model::error::Error;
use crate::model::policy::{Principal, TokenRequest};

/// The largest body of a call for one token: 64 scopes and an audience fit thrice.
const BODY_MAX_BYTES: usize = 64 * 1024;
/// The largest body of a call for many: 4 KiB for each, where an ordinary one takes 100 bytes.
const BATCH_BODY_MAX_BYTES: usize = TOKENS_MAX * 4 * 1024;
/// A caller that takes longer to say what it wants is holding a connection.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(10);
/// The most tokens in one call: enough that framing does not matter any more, and an answer of half a megabyte.
const TOKENS_MAX: usize = 256;

/// A call that hands out tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// One.
    Token,
    /// Many.
    Tokens,
    /// One instead of another.
    Reject,
}

pub(super) fn routes() -> Router<Arc<Front>> {
    let served = |call| {
        post(
            async move |State(front): State<Arc<Front>>, request: Request| {
                let peer = request.extensions().get::<Peer>().cloned();
                let peer = peer.unwrap_or_default();
                answer(&front, call, &peer, request)
                    .await
                    .map(axum::body::Body::from)
            },
        )
    };
    let calls = [Call::Token, Call::Tokens, Call::Reject];
    let routes = Router::new().route("/v1/watch", get(watch::by_query).post(watch::by_body));
    calls.into_iter().fold(routes, |router, call| {
        router.route(call.path(), served(call))
    })
}

/// Answers a call.
///
/// # Cancel safety
///
/// Safe: refreshes belong to the broker.
pub(super) async fn answer<B>(
    front: &Front,
    call: Call,
    peer: &Peer,
    request: http::Request<B>,
) -> Response<Bytes>
where
    B: Body<Data = Bytes> + Unpin + Send,
    B::Error: Send,
{
    let answer = async {
        let (parts, body) = request.into_parts();
        let principal = match front.live().directory.caller(&parts.headers, peer) {
            Ok(principal) => principal,
            Err(refused) => {
                body::discard(body).await;
                return Err(super::unauthenticated(refused));
            }
        };
        let max_bytes = match call {
            Call::Token | Call::Reject => BODY_MAX_BYTES,
            Call::Tokens => BATCH_BODY_MAX_BYTES,
        };
        let body = body::json(&parts.headers, body, max_bytes, BODY_WITHIN).await?;
        match call {
            Call::Token => token(front, &principal, &body).await,
            Call::Tokens => tokens(front, &principal, &body).await,
            // On the heap, so that the future of a hit is small: it is moved to where the connection polls it.
            Call::Reject => Box::pin(reject(front, &principal, &body)).await,
        }
    };
    match answer.await {
        Ok(response) => response,
        Err(problem) => front.refusal(problem),
    }
}

async fn token(
    front: &Front,
    principal: &Principal,
    body: &[u8],
) -> Result<Response<Bytes>, Problem> {
    let request = wanted::one(body)?;
    let hit = front
        .broker
        .hit(principal, &request, |token, expires, now| {
            let mut out = Vec::with_capacity(room_for(token));
            write_token(&mut out, token, expires, None, now);
            out
        });
    if let Some(out) = hit {
        return Ok(uncached_json(out));
    }
    let issued = Box::pin(front.broker.token(principal, &request)).await?;
    let mut out = Vec::with_capacity(room_for(&issued.token));
    write_token(
        &mut out,
        &issued.token,
        issued.expires,
        None,
        front.clock.now(),
    );
    Ok(uncached_json(out))
}

async fn tokens(
    front: &Front,
    principal: &Principal,
    body: &[u8],
) -> Result<Response<Bytes>, Problem> {
    let requests = wanted::many(body, "requests", TOKENS_MAX)?;
    if let Some(out) = tokens_at_hand(front, principal, &requests) {
        return Ok(uncached_json(out));
    }
    let issued = Box::pin(front.broker.tokens(principal, &requests)).await;
    Ok(uncached_json(written(&issued, front)))
}

/// The answer when every token is in memory and needs nothing.
fn tokens_at_hand(
    front: &Front,
    principal: &Principal,
    requests: &[TokenRequest],
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    out.extend_from_slice(b"{\"tokens\":[");
    for (at, request) in requests.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        front
            .broker
            .hit(principal, request, |token, expires, now| {
                if at == 0 {
                    // Tokens of one caller are about as long as each other.
                    out.reserve(room_for(token) * requests.len());
                }
                write_token(&mut out, token, expires, None, now);
            })?;
    }
    out.extend_from_slice(b"]}");
    Some(out)
}

/// The answer when some had to be obtained, or could not be.
fn written(issued: &[Result<Issued, Error>], front: &Front) -> Vec<u8> {
    let now = front.clock.now();
    let mut out = Vec::new();
    out.extend_from_slice(b"{\"tokens\":[");
    for (at, issued) in issued.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match issued {
            Ok(issued) => write_token(&mut out, &issued.token, issued.expires, None, now),
            Err(error) => {
                out.extend_from_slice(b"{\"problem\":");
                write_json(&mut out, &Problem::from(error.clone()).enclosed());
                out.push(b'}');
            }
        }
    }
    out.extend_from_slice(b"]}");
    out
}

async fn reject(
    front: &Front,
    principal: &Principal,
    body: &[u8],
) -> Result<Response<Bytes>, Problem> {
    let (request, report) = wanted::refused(body)?;
    let (issued, outcome) = front.broker.reject(principal, &request, &report).await?;
    let (word, wait) = told(&outcome);
    let mut out = Vec::with_capacity(room_for(&issued.token));
    write_token(
        &mut out,
        &issued.token,
        issued.expires,
        Some(word),
        front.clock.now(),
    );
    let mut response = uncached_json(out);
    if let Some(wait) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, wait);
    }
    Ok(response)
}

// === impl Call ===

impl Call {
    /// The call that a request is, if it is one of these.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let call = match path {
            "/v1/token" => Self::Token,
            "/v1/tokens" => Self::Tokens,
            "/v1/token/reject" => Self::Reject,
            _ => return None,
        };
        (method == Method::POST).then_some(call)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Token => "/v1/token",
            Self::Tokens => "/v1/tokens",
            Self::Reject => "/v1/token/reject",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_path() {
        for call in [Call::Token, Call::Tokens, Call::Reject] {
            assert_eq!(Call::of(&Method::POST, call.path()), Some(call));
            assert_eq!(Call::of(&Method::GET, call.path()), None);
        }
        assert_eq!(Call::of(&Method::POST, "/v1/token/"), None);
    }
}
