//! Watching over HTTP: server-sent events that say which copies of tokens are stale. An event holds a number and a time,
//! never a token.
//!
//! Events are made when the connection has room for them. A client that reads slowly is told less, not later: what became
//! of a key last.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderValue, header};

use super::data::BODY_WITHIN;
use super::problem::Problem;
use super::{Front, body, unauthenticated, wanted};
use crate::broker::{Watch, WatchEvent};
use crate::daemon::authn::Peer;
use crate::model::policy::{Principal, TokenRequest};

/// The most keys of one watch: as many as one call reads, and a gateway with more opens another connection.
const KEYS_MAX: usize = 1024;
/// The largest body: 1 KiB for each, where an ordinary one takes 100 bytes.
const BODY_MAX_BYTES: usize = KEYS_MAX * 1024;
/// How often a connection on which nothing happens says that it is there: proxies close what is silent for a minute.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// The most events that are written at once.
const EVENTS_AT_ONCE: usize = 256;
/// How long a client waits before it comes back, in milliseconds: as long as a process takes to start.
const RETRY_MILLIS: u32 = 1000;

/// One client that watches.
struct Client {
    front: Arc<Front>,
    watch: Watch,
    changes: tokio::sync::watch::Receiver<u64>,
    principal: Principal,
    /// What it came with, to be judged again after a reload.
    headers: HeaderMap,
    peer: Peer,
    stage: Stage,
}

enum Stage {
    /// Nothing was said yet.
    New,
    Telling,
    Over,
}

pub(super) async fn by_query(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (parts, body) = request.into_parts();
        body::discard(body).await;
        let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
        let principal = known(&front, &parts.headers, &peer)?;
        let keys = wanted::queried(parts.uri.query(), "key", KEYS_MAX)?;
        watching(&front, principal, &keys, parts.headers, peer)
    };
    front.answer(answer.await)
}

pub(super) async fn by_body(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get::<Peer>().cloned().unwrap_or_default();
        let principal = match known(&front, &parts.headers, &peer) {
            Ok(principal) => principal,
            Err(problem) => {
                body::discard(body).await;
                return Err(problem);
            }
        };
        let body = body::json(&parts.headers, body, BODY_MAX_BYTES, BODY_WITHIN).await?;
        let keys = wanted::many(&body, "keys", KEYS_MAX)?;
        watching(&front, principal, &keys, parts.headers, peer)
    };
    front.answer(answer.await)
}

fn known(front: &Front, headers: &HeaderMap, peer: &Peer) -> Result<Principal, Problem> {
    let known = front.live().directory.caller(headers, peer);
    known.map_err(unauthenticated)
}

fn watching(
    front: &Arc<Front>,
    principal: Principal,
    keys: &[TokenRequest],
    mut headers: HeaderMap,
    peer: Peer,
) -> Result<Response, Problem> {
    // Before anything is looked at: a change from here on is seen.
    let changes = front.changes.subscribe();
    let watch = front.broker.watch(&principal, keys)?;
    let authorization = headers.remove(header::AUTHORIZATION);
    let headers = authorization.map(|value| (header::AUTHORIZATION, value));
    let client = Client {
        front: front.clone(),
        watch,
        changes,
        principal,
        headers: headers.into_iter().collect(),
        peer,
        stage: Stage::New,
    };
    let events = stream::unfold(client, |mut client| async {
        let said = client.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(said)), client))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

// === impl Client ===

impl Client {
    /// What is said next; `None` ends the connection.
    async fn next(&mut self) -> Option<String> {
        match self.stage {
            Stage::Over => return None,
            Stage::New => {
                self.stage = Stage::Telling;
                return Some(format!("retry: {RETRY_MILLIS}\n\n"));
            }
            Stage::Telling => {}
        }
        loop {
            if self.front.draining.load(Ordering::Acquire) {
                self.stage = Stage::Over;
                return Some("event: draining\ndata: {}\n\n".to_owned());
            }
            tokio::select! {
                biased;
                _ = self.changes.changed() => {
                    if !self.is_still_known() {
                        self.stage = Stage::Over;
                        let keys = 0..self.watch.len();
                        return Some(keys.map(|key| told(WatchEvent::Denied { key })).collect());
                    }
                }
                event = tokio::time::timeout(HEARTBEAT_EVERY, self.watch.next()) => {
                    return match event {
                        Ok(event) => Some(self.with_more(event?)),
                        Err(_) => Some(":\n\n".to_owned()),
                    };
                }
            }
        }
    }

    /// An event, and those that can be told at once.
    fn with_more(&mut self, first: WatchEvent) -> String {
        let mut said = told(first);
        for _ in 1..EVENTS_AT_ONCE {
            match self.watch.next().now_or_never().flatten() {
                Some(event) => said.push_str(&told(event)),
                None => break,
            }
        }
        said
    }

    /// Whether what it came with is still the same caller's.
    fn is_still_known(&self) -> bool {
        let live = self.front.live();
        let known = live.directory.caller(&self.headers, &self.peer);
        known.is_ok_and(|known| known == self.principal)
    }
}

fn told(event: WatchEvent) -> String {
    match event {
        WatchEvent::Generation {
            key,
            generation,
            expires,
        } => {
            let (generation, expires_at) = (generation.number(), expires.as_secs());
            format!(
                "event: generation\ndata: {{\"key\":{key},\"generation\":{generation},\"expires_at\":{expires_at}}}\n\n"
            )
        }
        WatchEvent::Revoked { key } => format!("event: revoked\ndata: {{\"key\":{key}}}\n\n"),
        WatchEvent::Denied { key } => format!("event: denied\ndata: {{\"key\":{key}}}\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::UnixTime;
    use crate::model::token::Generation;

    #[test]
    fn an_event_is_its_name_and_one_line_of_json() {
        let generation = WatchEvent::Generation {
            key: 3,
            generation: Generation::first(UnixTime::from_secs(1_700_000_000)),
            expires: UnixTime::from_millis(1_700_003_599_900),
        };
        assert_eq!(
            told(generation),
            "event: generation\ndata: {\"key\":3,\"generation\":1700000000000,\"expires_at\":1700003599}\n\n"
        );
        let revoked = told(WatchEvent::Revoked { key: 0 });
        assert_eq!(revoked, "event: revoked\ndata: {\"key\":0}\n\n");
    }
}
