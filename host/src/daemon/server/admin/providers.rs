//! Providers and policy: what is in force, swapped and rolled back.

use std::io::Read;
use std::path::{Component, Path as FilePath};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{Name, json_body, one, unknown_provider};
use crate::broker::{SwapError, Swapped};
use crate::daemon::config::Role;
use crate::daemon::server::body;
use crate::daemon::server::json::{Members, bad_member};
use crate::daemon::server::problem::{Problem, Slug};
use crate::daemon::server::{Front, uncached};

/// The largest component that is taken: one with a scripting engine inside is about 12 MiB.
const PLUGIN_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long its upload may take.
const PLUGIN_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn providers(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = front.operator(request, Role::Read).await.map(|_| {
        let all = front.broker.providers();
        uncached(Json(json!({ "providers": all })).into_response())
    });
    front.answer(answer)
}

pub(super) async fn provider(
    State(front): State<Arc<Front>>,
    name: Name,
    request: Request,
) -> Response {
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

pub(super) async fn provider_swap(
    State(front): State<Arc<Front>>,
    name: Name,
    request: Request,
) -> Response {
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

pub(super) async fn provider_rollback(
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

pub(super) async fn policy_swap(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (operator, request) = front.operator(request, Role::Deploy).await?;
        let component = component(&front, request).await?;
        swapped(front.broker.swap_policy(component, &operator.name).await)
    };
    front.answer(answer.await)
}

pub(super) async fn policy_rollback(State(front): State<Arc<Front>>, request: Request) -> Response {
    let answer = async {
        let (operator, _) = front.operator(request, Role::Deploy).await?;
        swapped(front.broker.rollback_policy(&operator.name).await)
    };
    front.answer(answer.await)
}

/// The component in a request: its bytes, or the file in `plugins_dir` that it names.
async fn component(front: &Front, request: Request) -> Result<Arc<[u8]>, Problem> {
    if !body::is_json(request.headers()) {
        let (parts, body) = request.into_parts();
        let bytes = body::read(&parts.headers, body, PLUGIN_MAX_BYTES, PLUGIN_WITHIN).await?;
        return Ok(Arc::from(&*bytes));
    }
    let body = json_body(request).await?;
    let mut members = Members::parse(&body)?;
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
    let mut parts = FilePath::new(&*name).components();
    let plain = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    );
    if !plain || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Err(bad_member("name", "the name of a file inside plugins_dir"));
    }
    let path = dir.join(&*name);
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
