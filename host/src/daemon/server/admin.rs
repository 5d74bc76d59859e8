//! The admin plane: what operators look at, hand over, swap and roll back. Every call says first which role it takes.

use std::io::Read;
use std::path::{Component, Path as FilePath};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, get, post, put};
use http::{StatusCode, header};
use serde_json::json;

use super::body::{self, Members, Parameters, bad_member};
use super::problem::{Problem, Slug};
use super::{Front, uncached};
use crate::broker::{ImportError, SwapError, Swapped};
use crate::daemon::config::Role;
use crate::model::key::{
    Audience, CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey,
};
use crate::model::secret::Secret;

/// The largest component that is taken: one with a scripting engine inside is about 12 MiB.
const PLUGIN_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long its upload may take.
const PLUGIN_WITHIN: Duration = Duration::from_secs(60);
/// The largest body of any other call.
const BODY_MAX_BYTES: usize = 64 * 1024;
/// How long that may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// OpenMetrics text as Prometheus asks for it.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Name = Result<Path<String>, PathRejection>;
type Names = Result<Path<(String, String)>, PathRejection>;

pub(super) fn routes() -> Router<Arc<Front>> {
    let credential = get(credential_read)
        .put(credential_import)
        .delete(credential_revoke);
    let own = get(own_read).put(own_import).delete(own_revoke);
    Router::new()
        .route("/admin/v1/providers", get(providers))
        .route("/admin/v1/providers/{name}", get(provider))
        .route("/admin/v1/providers/{name}/plugin", put(provider_swap))
        .route(
            "/admin/v1/providers/{name}/rollback",
            post(provider_rollback),
        )
        .route("/admin/v1/policy/plugin", put(policy_swap))
        .route("/admin/v1/policy/rollback", post(policy_rollback))
        .route("/admin/v1/credentials/{provider}", own)
        .route("/admin/v1/credentials/{provider}/{subject}", credential)
        .route("/admin/v1/explain/{provider}", get(explain))
        .route("/metrics", get(metrics))
}

// === providers ===

async fn providers(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = front.operator(request, Role::Read).await.map(|_| {
        let all = front.broker.providers();
        uncached(Json(json!({ "providers": all })).into_response())
    });
    front.answer(answer)
}

async fn provider(State(front): State<Arc<Front>>, name: Name, request: Request) -> Response {
    let answer = async {
        front.operator(request, Role::Read).await?;
        let status = front
            .broker
            .provider(&one(name)?)
            .ok_or_else(unknown_provider)?;
        Ok(uncached(Json(status).into_response()))
    };
    front.answer(answer.await)
}

async fn provider_swap(State(front): State<Arc<Front>>, name: Name, request: Request) -> Response {
    let answer = async {
        let (operator, request) = front.operator(request, Role::Deploy).await?;
        let component = component(&front, request).await?;
        let name = one(name)?;
        front.broker.provider(&name).ok_or_else(unknown_provider)?;
        swapped(
            front
                .broker
                .swap_provider(&name, component, &operator.name)
                .await,
        )
    };
    front.answer(answer.await)
}

async fn provider_rollback(
    State(front): State<Arc<Front>>,
    name: Name,
    request: Request,
) -> Response {
    let answer = async {
        let (operator, _) = front.operator(request, Role::Deploy).await?;
        let name = one(name)?;
        front.broker.provider(&name).ok_or_else(unknown_provider)?;
        swapped(front.broker.rollback_provider(&name, &operator.name).await)
    };
    front.answer(answer.await)
}

// === policy ===

async fn policy_swap(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (operator, request) = front.operator(request, Role::Deploy).await?;
        let component = component(&front, request).await?;
        swapped(front.broker.swap_policy(component, &operator.name).await)
    };
    front.answer(answer.await)
}

async fn policy_rollback(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (operator, _) = front.operator(request, Role::Deploy).await?;
        swapped(front.broker.rollback_policy(&operator.name).await)
    };
    front.answer(answer.await)
}

/// The component in a request: its bytes, or the file in `plugins_dir` that it names.
async fn component(front: &Front, request: Request) -> Result<Arc<[u8]>, Problem> {
    if !body::is_json(request.headers()) {
        let bytes = body::read(request, PLUGIN_MAX_BYTES, PLUGIN_WITHIN).await?;
        return Ok(Arc::from(&*bytes));
    }
    let mut members = Members::of(request, BODY_MAX_BYTES, BODY_WITHIN).await?;
    let name = members
        .text("name")?
        .ok_or_else(|| Problem::invalid("`name` is missing"))?;
    members.finish()?;
    let live = front.live();
    let dir = live.plugins_dir.as_deref();
    let dir = dir.ok_or_else(|| {
        Problem::invalid("`server.plugins_dir` is not set: send the component itself")
    })?;
    // One plain file name: the directory is the operator's, the rest of the disk is not.
    let mut parts = FilePath::new(&name).components();
    let plain = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    );
    if !plain || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Err(bad_member("name", "the name of a file inside plugins_dir"));
    }
    let path = dir.join(&name);
    let read = tokio::task::spawn_blocking(move || read_component(&path)).await;
    read.unwrap_or_else(|_| Err(Problem::new(Slug::Internal, "reading the file failed")))
}

fn read_component(path: &FilePath) -> Result<Arc<[u8]>, Problem> {
    let unreadable = |error: std::io::Error| {
        Problem::invalid(format!("the file cannot be read: {}", error.kind()))
    };
    // A link could lead out of the directory, a pipe would never end.
    let kind = std::fs::symlink_metadata(path).map_err(unreadable)?;
    if !kind.is_file() {
        return Err(bad_member("name", "the name of a regular file"));
    }
    let most = u64::try_from(PLUGIN_MAX_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(most)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > PLUGIN_MAX_BYTES {
        return Err(Problem::new(
            Slug::TooLarge,
            format!("a component may have {PLUGIN_MAX_BYTES} bytes"),
        ));
    }
    Ok(bytes.into())
}

fn swapped(result: Result<Swapped, SwapError>) -> Result<Response, Problem> {
    let swapped = result.map_err(|error| {
        Problem::new(Slug::PluginRefused, error.message).because(error.code, error.mistakes)
    })?;
    let body = json!({ "revision": swapped.revision, "digest": swapped.digest });
    Ok(uncached(Json(body).into_response()))
}

// === credentials ===

async fn own_read(State(front): State<Arc<Front>>, name: Name, request: Request) -> Response {
    let named = one(name).map(|provider| (provider, None));
    front.answer(read_credential(&front, named, request).await)
}

async fn own_import(State(front): State<Arc<Front>>, name: Name, request: Request) -> Response {
    let named = one(name).map(|provider| (provider, None));
    front.answer(import_credential(&front, named, request).await)
}

async fn own_revoke(State(front): State<Arc<Front>>, name: Name, request: Request) -> Response {
    let named = one(name).map(|provider| (provider, None));
    front.answer(revoke_credential(&front, named, request).await)
}

async fn credential_read(
    State(front): State<Arc<Front>>,
    names: Names,
    request: Request,
) -> Response {
    front.answer(read_credential(&front, two(names), request).await)
}

async fn credential_import(
    State(front): State<Arc<Front>>,
    names: Names,
    request: Request,
) -> Response {
    front.answer(import_credential(&front, two(names), request).await)
}

async fn credential_revoke(
    State(front): State<Arc<Front>>,
    names: Names,
    request: Request,
) -> Response {
    front.answer(revoke_credential(&front, two(names), request).await)
}

/// A provider and perhaps a subject, from a path.
type Named = Result<(String, Option<String>), Problem>;

async fn read_credential(
    front: &Front,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    let (_, request) = front.operator(request, Role::Read).await?;
    let key = credential_key(named, &request)?;
    let status = front.broker.credential(&key).await;
    let status =
        status.ok_or_else(|| Problem::new(Slug::NotFound, "there is no such credential"))?;
    Ok(uncached(Json(status).into_response()))
}

async fn import_credential(
    front: &Front,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    let (operator, request) = front.operator(request, Role::Operate).await?;
    let key = credential_key(named, &request)?;
    let mut members = Members::of(request, BODY_MAX_BYTES, BODY_WITHIN).await?;
    let grant = members.text("refresh_token")?.map(Secret::new);
    members.finish()?;
    let grant = grant.filter(|grant| !grant.is_empty());
    let grant = grant.ok_or_else(|| Problem::invalid("`refresh_token` is missing or empty"))?;
    match front
        .broker
        .import_credential(key, grant, &operator.name)
        .await
    {
        Ok(outcome) if outcome.durable || outcome.unchanged => {
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Ok(_) => Ok(uncached(Json(json!({ "durable": false })).into_response())),
        Err(ImportError::UnknownProvider) => Err(unknown_provider()),
        Err(ImportError::AlreadySpent) => {
            let detail = "this grant was used here before and replaced by a newer one";
            Err(Problem::new(Slug::AlreadySpent, detail))
        }
        Err(ImportError::Failed(error)) => Err(error.into()),
    }
}

async fn revoke_credential(
    front: &Front,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    let (operator, request) = front.operator(request, Role::Operate).await?;
    let key = credential_key(named, &request)?;
    front
        .broker
        .provider(key.provider.as_str())
        .ok_or_else(unknown_provider)?;
    let outcome = front.broker.revoke_credential(&key, &operator.name).await?;
    Ok(uncached(Json(outcome).into_response()))
}

fn credential_key(named: Named, request: &Request) -> Result<CredentialKey, Problem> {
    let (provider, subject) = named?;
    let parameters = Parameters::of(request.uri().query(), &["tenant"])?;
    let subject = subject.map(|subject| Subject::parse(&subject)).transpose();
    Ok(CredentialKey {
        tenant: parameters
            .named("tenant", Tenant::parse)?
            .unwrap_or_default(),
        provider: ProviderName::parse(&provider).map_err(|bad| bad_member("provider", bad.fix))?,
        subject: subject.map_err(|bad| bad_member("subject", bad.fix))?,
    })
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

fn two(names: Names) -> Named {
    let names = names.map_err(|_| Problem::invalid("the path is not UTF-8"));
    names.map(|Path((provider, subject))| (provider, Some(subject)))
}

fn unknown_provider() -> Problem {
    Problem::new(Slug::UnknownProvider, "there is no such provider")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_by_name_is_a_regular_file_of_bounded_size() {
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().join("good.wasm");
        std::fs::write(&good, b"\0asm").unwrap();
        assert_eq!(&*read_component(&good).ok().unwrap(), b"\0asm");
        let link = dir.path().join("link.wasm");
        std::os::unix::fs::symlink(&good, &link).unwrap();
        assert!(read_component(&link).is_err());
        assert!(read_component(dir.path()).is_err());
        assert!(read_component(&dir.path().join("none")).is_err());
        let huge = dir.path().join("huge.wasm");
        std::fs::File::create(&huge)
            .unwrap()
            .set_len(PLUGIN_MAX_BYTES as u64 + 1)
            .unwrap();
        assert_eq!(read_component(&huge).err().unwrap().slug(), Slug::TooLarge);
    }
}
