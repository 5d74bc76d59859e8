//! Two HTTP planes over one broker: the data plane answers callers, the admin plane answers operators.
//!
//! [`Front`] is what both share; `data` and `admin` say what each call means, `problem` what a failure looks like and
//! `answer` a token, `watch` a stream of events, `body`, `json` and `wanted` how input is read. Sockets, TLS and connections are below them and know
//! nothing of tokens.

mod admin;
mod answer;
mod body;
mod connection;
mod data;
mod json;
mod listen;
mod problem;
mod reply;
#[cfg(test)]
mod tests;
mod tls;
mod wanted;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, get};
use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::json;

pub use self::connection::{Connections, Plane};
pub(super) use self::listen::BIND_SUFFIX_MAX_BYTES;
pub use self::listen::Listener;
use self::problem::{Problem, Slug};
pub use self::tls::server_config;
use super::authn::{Directory, Operator, Refused};
use super::config::{Config, Role};
use crate::broker::Broker;
use crate::model::event::{Event, Observer};
use crate::model::key::ScopeSet;
use crate::model::secret::Secret;
use crate::model::time::Clock;
use crate::settings::SecretSource;

/// Refused requests that are told to operators, a second: enough to find one's own, too few to fill a disk.
const NOTICES_PER_SECOND: u64 = 10;

/// What both planes share.
pub struct Front {
    broker: Broker,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
    /// What a reload replaces, as a whole. The lock is held for a pointer's copy, never across an await.
    live: RwLock<Arc<Live>>,
    /// Set once, when the process was asked to end.
    draining: AtomicBool,
    /// Grows with each change of the two above.
    changes: tokio::sync::watch::Sender<u64>,
    /// The second in the upper 32 bits, how many notices it had in the lower.
    notices: AtomicU64,
}

/// What a plane answers with.
#[derive(Clone)]
pub enum Served {
    /// The data plane: calls for tokens take a shorter way than through its router.
    Data(Arc<Front>, Router),
    /// Whatever the router does.
    Routed(Router),
}

/// What a reload replaces.
#[derive(Debug, Default)]
pub struct Live {
    /// Who is known.
    pub directory: Directory,
    /// How TCP planes speak TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where a swap by name finds its component.
    pub plugins_dir: Option<PathBuf>,
    /// Where relative paths of operators start: the folder of the configuration.
    pub folder: PathBuf,
    /// What the store is to be sealed with next. It comes from the configuration only: no key travels over HTTP.
    pub next_sealing_key: Option<Secret<String>>,
    /// Where that was read.
    pub next_sealing_source: Option<SecretSource>,
    /// Scopes of callers that name none, by provider: `explain` names a key the same way.
    pub default_scopes: BTreeMap<String, ScopeSet>,
}

/// The data plane.
pub fn data_plane(front: Arc<Front>) -> Served {
    let router = finish(data::routes(), front.clone());
    Served::Data(front, router)
}

/// The admin plane.
pub fn admin_plane(front: Arc<Front>) -> Served {
    Served::Routed(finish(admin::routes(), front))
}

/// What every plane answers, and how each says that it has no such call.
fn finish(routes: Router<Arc<Front>>, front: Arc<Front>) -> Router {
    routes
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(front)
}

async fn healthz() -> Response {
    uncached(Json(json!({ "status": "ok" })).into_response())
}

async fn readyz(State(front): State<Arc<Front>>) -> Response {
    let readiness = front.broker.ready();
    let draining = front.draining.load(Ordering::Acquire);
    let (status, word) = match (draining, readiness.ready, readiness.degraded) {
        (true, _, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (false, false, _) => (StatusCode::SERVICE_UNAVAILABLE, "waiting"),
        (false, true, true) => (StatusCode::OK, "degraded"),
        (false, true, false) => (StatusCode::OK, "ready"),
    };
    let body = json!({ "status": word, "waiting_for": readiness.waiting_for });
    uncached((status, Json(body)).into_response())
}

async fn not_found(State(front): State<Arc<Front>>, request: Request) -> Response {
    body::discard(request.into_body()).await;
    front.answer(Err(Problem::new(Slug::NotFound, "there is no such call")))
}

async fn method_not_allowed(State(front): State<Arc<Front>>, request: Request) -> Response {
    body::discard(request.into_body()).await;
    let detail = "the call exists, with another method: see the Allow header";
    front.answer(Err(Problem::new(Slug::MethodNotAllowed, detail)))
}

/// Keeps an answer out of every cache.
fn uncached(mut response: Response) -> Response {
    let no_store = http::HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

// === impl Front ===

impl Front {
    /// Puts a broker behind a front.
    pub fn new(
        broker: Broker,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        live: Live,
    ) -> Arc<Self> {
        Arc::new(Self {
            broker,
            clock,
            observer,
            live: RwLock::new(Arc::new(live)),
            draining: AtomicBool::new(false),
            changes: tokio::sync::watch::Sender::new(0),
            notices: AtomicU64::new(0),
        })
    }

    /// What is in force now.
    pub fn live(&self) -> Arc<Live> {
        self.live
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts something else in force.
    pub fn replace(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// From now on the process is not ready for traffic.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Tells operators something, within a bound.
    fn notice(&self, code: &'static str, detail: String) {
        let second = self.clock.now().as_secs() & u64::from(u32::MAX);
        let counted = self
            .notices
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                let (at, count) = (packed >> 32, packed & u64::from(u32::MAX));
                match at == second {
                    true if count >= NOTICES_PER_SECOND => None,
                    true => Some(packed + 1),
                    false => Some(second << 32 | 1),
                }
            });
        if counted.is_ok() {
            self.observer.observe(&Event::Notice { code, detail });
        }
    }

    /// The answer, or the problem as an answer; operators hear of problems that nobody told them yet.
    fn answer(&self, result: Result<Response, Problem>) -> Response {
        result.unwrap_or_else(|problem| self.refusal(problem).map(axum::body::Body::from))
    }

    /// A problem as an answer.
    fn refusal(&self, problem: Problem) -> http::Response<Bytes> {
        if let Some(line) = problem.line() {
            self.notice(problem.slug().label(), line);
        }
        problem.into_answer()
    }

    /// The operator who sent this, if the role suffices; the request comes back for whoever reads its body.
    async fn operator(
        &self,
        request: Request,
        needed: Role,
    ) -> Result<(Operator, Request), Problem> {
        let known = self
            .live()
            .directory
            .operator(request.headers())
            .map_err(unauthenticated);
        let problem = match known {
            Ok(operator) if operator.role.covers(needed) => return Ok((operator, request)),
            Ok(operator) => {
                let (needed, has) = (needed.label(), operator.role.label());
                let name = operator.name;
                let detail = format!("this takes the role `{needed}`; {name:?} has `{has}`");
                Problem::new(Slug::Denied, detail)
            }
            Err(problem) => problem,
        };
        body::discard(request.into_body()).await;
        Err(problem)
    }
}

fn unauthenticated(refused: Refused) -> Problem {
    // RFC 6750, section 3.1: no error code when nothing was presented.
    let (detail, challenge) = match refused {
        Refused::Missing => ("send `Authorization: Bearer KEY`", "Bearer"),
        Refused::Wrong => (
            "nobody here is known by that",
            "Bearer error=\"invalid_token\"",
        ),
    };
    Problem::new(Slug::Unauthenticated, detail).challenge(challenge)
}

// === impl Live ===

impl Live {
    /// What a configuration puts in force, from parts that were loaded without a mistake.
    pub fn new(
        config: &Config,
        directory: Directory,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let providers = config.broker.providers.iter();
        Self {
            directory,
            tls,
            plugins_dir: config.server.plugins_dir.clone(),
            folder: config.folder().to_owned(),
            next_sealing_key: None,
            next_sealing_source: None,
            default_scopes: providers
                .map(|p| (p.name.to_string(), p.scopes.clone()))
                .collect(),
        }
    }
}
