//! The store as a whole: verified, compacted, backed up, sealed with another key; and tenants that are to be forgotten.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Name, json_body, one};
use crate::broker::OrderError;
use crate::daemon::config::Role;
use crate::daemon::server::json::{Members, bad_member};
use crate::daemon::server::problem::Problem;
use crate::daemon::server::{Front, uncached};
use crate::model::key::Tenant;

pub(super) async fn verify(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (operator, _) = front.operator(request, Role::Deploy).await?;
        let rows = front.broker.verify_store(&operator.name).await?;
        Ok(uncached(Json(json!({ "rows": rows })).into_response()))
    };
    front.answer(answer.await)
}

pub(super) async fn compact(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (operator, _) = front.operator(request, Role::Deploy).await?;
        let [before, after] = front.broker.compact_store(&operator.name).await?;
        let body = json!({ "bytes_before": before, "bytes_after": after });
        Ok(uncached(Json(body).into_response()))
    };
    front.answer(answer.await)
}

pub(super) async fn backup(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (operator, request) = front.operator(request, Role::Deploy).await?;
        let body = json_body(request).await?;
        let mut members = Members::parse(&body)?;
        let path = members.text("path")?;
        members.finish()?;
        let usable = path.filter(|path| !path.is_empty() && !path.contains('\0'));
        let path = usable.ok_or_else(|| {
            let expected =
                "a path of this machine, absolute or relative to the configuration's folder";
            bad_member("path", expected)
        })?;
        let path = front.live().folder.join(&*path);
        // Told in full: whoever asks may be on another machine.
        let path = std::path::absolute(&path).unwrap_or(path);
        let bytes = front.broker.backup_store(path.clone(), &operator.name);
        let body = json!({ "path": path, "bytes": bytes.await? });
        Ok(uncached(Json(body).into_response()))
    };
    front.answer(answer.await)
}

pub(super) async fn rotate_key(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (operator, _) = front.operator(request, Role::Deploy).await?;
        let live = front.live();
        let next = live.next_sealing_key.clone().ok_or_else(|| {
            let words = "`next_sealing_key` is not set: write it under [store], have the daemon reload, and ask again";
            OrderError::Inapplicable(words.to_owned())
        })?;
        if let Some(source) = &live.next_sealing_source {
            // What only this process still knows must not seal the file.
            let now = front.broker.read_secret(source).await;
            if !now.is_ok_and(|now| now.same_as(&next)) {
                let words = "`next_sealing_key` is not what it was when it was read: have the daemon reload, and ask again";
                return Err(OrderError::Inapplicable(words.to_owned()).into());
            }
        }
        let rotated = front.broker.rotate_sealing_key(next, &operator.name);
        Ok::<_, Problem>(uncached(Json(rotated.await?).into_response()))
    };
    front.answer(answer.await)
}

pub(super) async fn shred(
    State(front): State<Arc<Front>>,
    name: Name,
    request: Request,
) -> Response {
    let answer = async {
        let (operator, _) = front.operator(request, Role::Deploy).await?;
        let tenant = Tenant::parse(&one(name)?).map_err(|bad| bad_member("tenant", bad.fix))?;
        let shredded = front.broker.shred_tenant(tenant, &operator.name);
        Ok::<_, Problem>(uncached(Json(shredded.await?).into_response()))
    };
    front.answer(answer.await)
}
