//! The client side of the daemon's two planes: over TCP, TLS or a Unix socket, with a key that came from a variable or
//! a file.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, RequestBuilder};
use serde_json::Value;
use url::Url;

use super::args::{AdminArgs, DataArgs, KeyArgs};
use super::exit::{Exit, Failure};
use crate::daemon::environment::{self, Environment};
use crate::model::secret::Secret;
use crate::settings::SecretSource;

/// The longest a call may take: longer than any refresh that it may wait for.
const CALL_WITHIN: Duration = Duration::from_secs(150);
/// A daemon that does not take a connection within this is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The variable with a caller's key, unless another is named.
const KEY_VARIABLE: &str = "KEYFOB_KEY";
/// The variable with an operator's key, unless another is named.
const ADMIN_KEY_VARIABLE: &str = "KEYFOB_ADMIN_KEY";

/// One plane of a daemon.
pub(super) struct Daemon {
    client: Client,
    base: Url,
    key: Option<Secret<String>>,
    shown: String,
}

// === impl Daemon ===

impl Daemon {
    /// The data plane. A key is optional: over a Unix socket the daemon knows who is asking.
    pub(super) fn data(args: &DataArgs, environment: &Environment) -> Result<Self, Failure> {
        let key = key(&args.key, KEY_VARIABLE, environment)?;
        Self::new(&args.server, &args.key, key)
    }

    /// The admin plane.
    pub(super) fn admin(args: &AdminArgs, environment: &Environment) -> Result<Self, Failure> {
        let key = key(&args.key, ADMIN_KEY_VARIABLE, environment)?;
        if key.is_none() {
            let message =
                format!("no key: set {ADMIN_KEY_VARIABLE}, or use --key-env or --key-file");
            return Err(Failure::new(Exit::Usage, message));
        }
        Self::new(&args.admin, &args.key, key)
    }

    fn new(address: &str, args: &KeyArgs, key: Option<Secret<String>>) -> Result<Self, Failure> {
        let usage = |message: String| Failure::new(Exit::Usage, message);
        // A key belongs to the daemon at this address: no proxy and no redirect gets to see it.
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(CALL_WITHIN);
        if let Some(path) = &args.ca {
            let pem = std::fs::read(path)
                .map_err(|error| usage(format!("--ca {}: {error}", path.display())))?;
            let all = Certificate::from_pem_bundle(&pem)
                .map_err(|_| usage(format!("--ca {}: no PEM certificates", path.display())))?;
            builder = builder.tls_certs_only(all);
        }
        let written = match address.strip_prefix("unix:") {
            Some(path) => {
                builder = builder.unix_socket(path);
                "http://localhost"
            }
            None => address,
        };
        let base = Url::parse(written)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = base.ok_or_else(|| {
            usage(format!(
                "{address:?} is no address: write http://…, https://… or unix:/path"
            ))
        })?;
        let client = builder.build().map_err(|error| usage(error.to_string()))?;
        Ok(Self {
            client,
            base,
            key,
            shown: address.to_owned(),
        })
    }

    /// A URL from path segments and query parameters, each encoded.
    pub(super) fn url(&self, segments: &[&str], query: &[(&str, Option<&str>)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        for (name, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url
    }

    /// A request with a JSON body.
    pub(super) fn json(&self, method: Method, url: Url, body: &Value) -> RequestBuilder {
        self.bytes(
            method,
            url,
            "application/json",
            body.to_string().into_bytes(),
        )
    }

    /// A request with a body of this type.
    pub(super) fn bytes(
        &self,
        method: Method,
        url: Url,
        kind: &str,
        body: Vec<u8>,
    ) -> RequestBuilder {
        self.empty(method, url)
            .header(http::header::CONTENT_TYPE, kind)
            .body(body)
    }

    /// A request without a body.
    pub(super) fn empty(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.client.request(method, url);
        match &self.key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    /// The daemon's answer; `null` for one without a body.
    pub(super) async fn call(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let unreachable = |error: reqwest::Error| {
            let cause = innermost(&error);
            Failure::new(
                Exit::Unreachable,
                format!("no daemon at {}: {cause}", self.shown),
            )
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status.is_success() {
            Ok(json)
        } else {
            Err(Failure::problem(status.as_u16(), json))
        }
    }
}

/// The words of the first cause: the outer ones only say that something failed.
fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}

fn key(
    args: &KeyArgs,
    default: &str,
    environment: &Environment,
) -> Result<Option<Secret<String>>, Failure> {
    let source = match (&args.key_file, &args.key_env) {
        (Some(file), _) => SecretSource::File(file.clone()),
        (None, Some(name)) => SecretSource::Env(name.clone()),
        (None, None) if environment(default).is_none() => return Ok(None),
        (None, None) => SecretSource::Env(default.to_owned()),
    };
    let fetched = environment::fetch(&source, environment);
    fetched
        .map(Some)
        .map_err(|(what, fix)| Failure::new(Exit::Usage, format!("{what}: {fix}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    fn args(key_file: Option<&str>) -> KeyArgs {
        KeyArgs {
            key_env: None,
            key_file: key_file.map(Into::into),
            ca: None,
        }
    }

    fn environment() -> Environment {
        Arc::new(|name| (name == ADMIN_KEY_VARIABLE).then(|| "operators-key".to_owned()))
    }

    /// Answers one request and returns it.
    async fn answer(listener: &UnixListener, with: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(with.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_call_carries_the_key_encodes_names_and_follows_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let admin = AdminArgs {
            admin: format!("unix:{}", path.display()),
            key: args(None),
        };
        let daemon = Daemon::admin(&admin, &environment()).ok().unwrap();
        let url = daemon.url(&["a", "b/c d"], &[("scope", Some("x y")), ("none", None)]);
        let redirect =
            "HTTP/1.1 307 T\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        let call = daemon.call(daemon.empty(Method::GET, url));
        let (result, request) = tokio::join!(call, answer(&listener, redirect));
        assert_eq!(result.unwrap_err().exit, Exit::Failed);
        assert!(
            request.starts_with("GET /a/b%2Fc%20d?scope=x+y HTTP/1.1"),
            "{request}"
        );
        assert!(
            request.contains("authorization: Bearer operators-key"),
            "{request}"
        );
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_unreachable_and_the_key_stays_unsaid() {
        let admin = AdminArgs {
            admin: "unix:/nowhere/k.sock".to_owned(),
            key: args(None),
        };
        let daemon = Daemon::admin(&admin, &environment()).ok().unwrap();
        let failure = daemon
            .call(daemon.empty(Method::GET, daemon.url(&["x"], &[])))
            .await;
        let failure = failure.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(!format!("{failure:?}").contains("operators-key"));
    }

    #[test]
    fn arguments_that_cannot_work_are_refused_before_anything_is_sent() {
        let nothing: Environment = Arc::new(|_| None);
        let admin = |address: &str, key: KeyArgs, environment: &Environment| {
            let args = AdminArgs {
                admin: address.to_owned(),
                key,
            };
            Daemon::admin(&args, environment)
                .err()
                .map(|failure| failure.exit)
        };
        let usage = Some(Exit::Usage);
        assert_eq!(admin("http://127.0.0.1:1", args(None), &nothing), usage);
        assert_eq!(
            admin("http://127.0.0.1:1", args(Some("/no/file")), &environment()),
            usage
        );
        assert_eq!(admin("127.0.0.1:1", args(None), &environment()), usage);
        assert_eq!(
            admin("http://127.0.0.1:1", args(None), &environment()),
            None
        );
    }
}
