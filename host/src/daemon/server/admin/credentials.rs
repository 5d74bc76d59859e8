//! Credentials: handed over, looked at, revoked.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{Name, Names, json_body, one, unknown_provider};
use crate::broker::ImportError;
use crate::daemon::config::Role;
use crate::daemon::server::body::Parameters;
use crate::daemon::server::json::{Members, bad_member};
use crate::daemon::server::problem::{Problem, Slug};
use crate::daemon::server::{Front, uncached};
use crate::model::key::{CredentialKey, ProviderName, Subject, Tenant};
use crate::model::secret::Secret;

pub(super) async fn own_read(
    State(front): State<Arc<Front>>,
    name: Name,
    request: Request,
) -> Response {
    let named = one(name).map(|provider| (provider, None));
    front.answer(read_credential(&front, named, request).await)
}

pub(super) async fn own_import(
    State(front): State<Arc<Front>>,
    name: Name,
    request: Request,
) -> Response {
    let named = one(name).map(|provider| (provider, None));
    front.answer(import_credential(&front, named, request).await)
}

pub(super) async fn own_revoke(
    State(front): State<Arc<Front>>,
    name: Name,
    request: Request,
) -> Response {
    let named = one(name).map(|provider| (provider, None));
    front.answer(revoke_credential(&front, named, request).await)
}

pub(super) async fn credential_read(
    State(front): State<Arc<Front>>,
    names: Names,
    request: Request,
) -> Response {
    front.answer(read_credential(&front, two(names), request).await)
}

pub(super) async fn credential_import(
    State(front): State<Arc<Front>>,
    names: Names,
    request: Request,
) -> Response {
    front.answer(import_credential(&front, two(names), request).await)
}

pub(super) async fn credential_revoke(
    State(front): State<Arc<Front>>,
    names: Names,
    request: Request,
) -> Response {
    front.answer(revoke_credential(&front, two(names), request).await)
}

pub(super) async fn own_probe(
    State(front): State<Arc<Front>>,
    name: Name,
    request: Request,
) -> Response {
    let named = one(name).map(|provider| (provider, None));
    front.answer(probe_credential(&front, named, request).await)
}

pub(super) async fn credential_probe(
    State(front): State<Arc<Front>>,
    names: Names,
    request: Request,
) -> Response {
    front.answer(probe_credential(&front, two(names), request).await)
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
        status?.ok_or_else(|| Problem::new(Slug::NotFound, "there is no such credential"))?;
    Ok(uncached(Json(status).into_response()))
}

async fn import_credential(
    front: &Front,
    named: Named,
    request: Request,
) -> Result<Response, Problem> {
    let (operator, request) = front.operator(request, Role::Operate).await?;
    let key = credential_key(named, &request)?;
    let told = wants_telling(request.headers());
    let body = json_body(request).await?;
    let mut members = Members::parse(&body)?;
    let grant = members.text("refresh_token")?;
    let grant = grant.map(|grant| Secret::new(grant.into_owned()));
    members.finish()?;
    let grant = grant.filter(|grant| !grant.is_empty());
    let grant = grant.ok_or_else(|| Problem::invalid("`refresh_token` is missing or empty"))?;
    match front
        .broker
        .import_credential(key, grant, &operator.name)
        .await
    {
        Ok(outcome) if told => {
            let body = json!({ "durable": outcome.durable, "unchanged": outcome.unchanged });
            Ok(uncached(Json(body).into_response()))
        }
        Ok(outcome) if outcome.durable || outcome.unchanged => {
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Ok(_) => Ok(uncached(Json(json!({ "durable": false })).into_response())),
        Err(ImportError::UnknownProvider) => Err(unknown_provider()),
        Err(ImportError::AlreadySpent) => {
            let detail = "this grant was used here before and replaced by a newer one, and presenting it again would look like theft: hand over the newest, or have the user authorize again";
            Err(Problem::new(Slug::AlreadySpent, detail))
        }
        Err(ImportError::Failed(error)) => Err(error.into()),
    }
}

/// Whether a client would rather read what became of its request than nothing (RFC 7240, section 4.2).
fn wants_telling(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").iter();
    preferences
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .any(|preference| preference.trim() == "return=representation")
}

async fn probe_credential(
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
    let status = front.broker.probe_credential(&key, &operator.name).await?;
    Ok(uncached(Json(status).into_response()))
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

fn two(names: Names) -> Named {
    let names = names.map_err(|_| Problem::invalid("the path is not UTF-8"));
    names.map(|Path((provider, subject))| (provider, Some(subject)))
}
