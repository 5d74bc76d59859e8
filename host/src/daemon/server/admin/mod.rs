//! The admin plane: what operators look at, hand over, swap and roll back. Every call says first which role it takes.

mod credentials;
mod listing;
mod providers;
mod store;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, delete, get, post, put};
use bytes::Bytes;
use http::header;

use super::body::{self, Parameters};
use super::json::bad_member;
use super::problem::{Problem, Slug};
use super::{Front, uncached};
use crate::daemon::config::Role;
use crate::model::key::{
    Audience, CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey,
};

/// The largest body of any other call.
const BODY_MAX_BYTES: usize = 64 * 1024;
/// How long that may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// OpenMetrics text as Prometheus asks for it.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The JSON in a request, unread.
async fn json_body(request: Request) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    body::json(&parts.headers, body, BODY_MAX_BYTES, BODY_WITHIN).await
}

type Name = Result<Path<String>, PathRejection>;
type Names = Result<Path<(String, String)>, PathRejection>;

pub(super) fn routes() -> Router<Arc<Front>> {
    let credential = get(credentials::credential_read)
        .put(credentials::credential_import)
        .delete(credentials::credential_revoke);
    let own = get(credentials::own_read)
        .put(credentials::own_import)
        .delete(credentials::own_revoke);
    Router::new()
        .route("/admin/v1/providers", get(providers::providers))
        .route("/admin/v1/providers/{name}", get(providers::provider))
        .route(
            "/admin/v1/providers/{name}/plugin",
            put(providers::provider_swap),
        )
        .route(
            "/admin/v1/providers/{name}/rollback",
            post(providers::provider_rollback),
        )
        .route("/admin/v1/policy/plugin", put(providers::policy_swap))
        .route(
            "/admin/v1/policy/rollback",
            post(providers::policy_rollback),
        )
        .route("/admin/v1/credentials/{provider}", own)
        .route("/admin/v1/credentials/{provider}/{subject}", credential)
        .route("/admin/v1/credentials", get(listing::list))
        .route("/admin/v1/probe/{provider}", post(credentials::own_probe))
        .route(
            "/admin/v1/probe/{provider}/{subject}",
            post(credentials::credential_probe),
        )
        .route("/admin/v1/store/verify", post(store::verify))
        .route("/admin/v1/store/compact", post(store::compact))
        .route("/admin/v1/store/backup", post(store::backup))
        .route("/admin/v1/store/rotate-key", post(store::rotate_key))
        .route("/admin/v1/tenants/{tenant}", delete(store::shred))
        .route("/admin/v1/explain/{provider}", get(explain))
        .route("/metrics", get(metrics))
}

// === explain, metrics ===

async fn explain(State(front): State<Arc<Front>>, name: Name, request: Request) -> Response {
    let answer = async {
        let (_, request) = front.operator(request, Role::Read).await?;
        let key = token_key(&front, &one(name)?, &request)?;
        let nothing = || Problem::new(Slug::NotFound, "nothing is known of this key");
        let explanation = front.broker.explain(&key).await.ok_or_else(nothing)?;
        Ok(uncached(Json(explanation).into_response()))
    };
    front.answer(answer.await)
}

fn token_key(front: &Front, provider: &str, request: &Request) -> Result<TokenKey, Problem> {
    let known = ["tenant", "subject", "scope", "audience"];
    let parameters = Parameters::of(request.uri().query(), &known)?;
    let scopes = parameters.named("scope", |text| {
        ScopeSet::parse(text.split_ascii_whitespace())
    })?;
    let default = || {
        front
            .live()
            .default_scopes
            .get(provider)
            .cloned()
            .unwrap_or_default()
    };
    Ok(TokenKey {
        credential: CredentialKey {
            tenant: parameters
                .named("tenant", Tenant::parse)?
                .unwrap_or_default(),
            provider: ProviderName::parse(provider)
                .map_err(|bad| bad_member("provider", bad.fix))?,
            subject: parameters.named("subject", Subject::parse)?,
        },
        audience: parameters.named("audience", Audience::parse)?,
        scopes: scopes.unwrap_or_else(default),
    })
}

async fn metrics(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = match front.operator(request, Role::Read).await {
        Ok(_) => {
            let kind = [(header::CONTENT_TYPE, METRICS_TYPE)];
            Ok(uncached(
                (kind, front.broker.metrics().await).into_response(),
            ))
        }
        Err(problem) => Err(problem),
    };
    front.answer(answer)
}

fn one(name: Name) -> Result<String, Problem> {
    name.map(|Path(name)| name)
        .map_err(|_| Problem::invalid("the path is not UTF-8"))
}

fn unknown_provider() -> Problem {
    Problem::new(Slug::UnknownProvider, "there is no such provider")
}
