//! The `keyfob` binary as its users have it: a configuration file, an environment, two planes of HTTP. A daemon of the kit
//! logs at trace level, and [`KeyfobDaemon::stop`] searches everything it let out for every secret it was given.

mod answer;
mod binary;
mod launch;
mod shell;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http::Method;
use keyfob::testing::Canary;
use serde_json::Value;
use tempfile::TempDir;

pub use self::answer::{Answer, Token};
pub use self::binary::{binary, keyfob};
use self::launch::Attempt;
pub use self::launch::Launch;
pub use self::shell::Said;
use self::shell::Shell;
use crate::leak::LeakCheck;
use crate::process::{PATIENCE, Process};

/// Between two looks at something that is going to happen: short beside it, long beside the cost of looking.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running daemon.
#[derive(Debug)]
pub struct KeyfobDaemon {
    process: Option<Process>,
    shell: Shell,
    dir: TempDir,
    data: Plane,
    admin: Plane,
    leaks: LeakCheck,
}

/// One plane: a client and where it finds the server.
#[derive(Debug)]
struct Plane {
    client: reqwest::Client,
    base: String,
}

// === impl KeyfobDaemon ===

impl KeyfobDaemon {
    /// Starts one over TCP with secrets in its environment: the ordinary case of [`Launch`].
    ///
    /// # Errors
    ///
    /// As [`Launch::start`].
    pub async fn start(config: &str, secrets: &[(&str, &str)]) -> anyhow::Result<Self> {
        let launch = secrets
            .iter()
            .fold(Launch::new(config), |l, (name, value)| {
                l.secret(name, value)
            });
        launch.start().await
    }

    /// Waits until it answers, or ended.
    async fn settle(mut self) -> anyhow::Result<Attempt> {
        if self.ready().await? {
            return Ok(Attempt::Ready(Box::new(self)));
        }
        let (status, output) = self.take()?.end().await?;
        if output.contains("in use") {
            return Ok(Attempt::PortTaken(output));
        }
        bail!("keyfob ended with {status}:\n{output}");
    }

    /// Waits until it answers: true; or ended by itself: false.
    ///
    /// # Errors
    ///
    /// When it does neither within [`PATIENCE`]; the error holds its log.
    pub async fn ready(&self) -> anyhow::Result<bool> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if self.running()?.ended()?.is_some() {
                return Ok(false);
            }
            let health = self
                .data
                .client
                .get(format!("{}/healthz", self.data.base))
                .send()
                .await;
            if health.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(true);
            }
            if tokio::time::Instant::now() > deadline {
                bail!("keyfob is not up:\n{}", self.log());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The secrets that must not get out.
    pub fn canary(&self) -> &Canary {
        self.leaks.canary()
    }

    /// Everything logged so far.
    pub fn log(&self) -> String {
        self.process
            .as_ref()
            .map(Process::output)
            .unwrap_or_default()
    }

    /// The configuration file; rewrite it and send `HUP`.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("keyfob.toml")
    }

    /// The directory of the configuration file.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the data plane is, for a test with a client of its own: `http://127.0.0.1:PORT`.
    pub fn data_url(&self) -> &str {
        &self.data.base
    }

    /// Asks for a token as a caller with this key, or with none.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn token(&self, key: Option<&str>, wanted: &Value) -> anyhow::Result<Answer> {
        self.ask("/v1/token", key, wanted).await
    }

    /// Asks for many tokens in one call, as a caller with this key.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn tokens(&self, key: &str, wanted: &[Value]) -> anyhow::Result<Answer> {
        let wanted = serde_json::json!({ "requests": wanted });
        self.ask("/v1/tokens", Some(key), &wanted).await
    }

    /// Reports a token that a resource refused.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn reject(
        &self,
        key: &str,
        wanted: &Value,
        generation: u64,
    ) -> anyhow::Result<Answer> {
        let mut report = wanted.clone();
        report["generation"] = generation.into();
        report["status"] = 401.into();
        self.ask("/v1/token/reject", Some(key), &report).await
    }

    /// A `GET` of the data plane, without credentials.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        let request = self.data.client.get(format!("{}{path}", self.data.base));
        self.send(path, request).await
    }

    /// A client of the data plane, for what [`KeyfobDaemon::get`] and [`KeyfobDaemon::post`] cannot ask: answers that do not end.
    pub fn client(&self) -> &reqwest::Client {
        &self.data.client
    }

    /// A `POST` to the data plane, as a caller with this key, of anything.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn post(
        &self,
        path: &str,
        key: &str,
        kind: &'static str,
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Answer> {
        let request = self.data.client.post(format!("{}{path}", self.data.base));
        let request = request
            .bearer_auth(key)
            .header(http::header::CONTENT_TYPE, kind)
            .body(body);
        self.send(path, request).await
    }

    /// Any request to the admin plane, as the operator with all roles.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub async fn admin(
        &self,
        method: Method,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.admin.base);
        self.send(path, self.admin.client.request(method, url).body(body))
            .await
    }

    /// Hands a refresh token over.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn hand_over(&self, credential: &str, refresh_token: &str) -> anyhow::Result<()> {
        self.canary().add(refresh_token);
        let path = format!("/admin/v1/credentials/{credential}");
        let body = serde_json::json!({ "refresh_token": refresh_token }).to_string();
        let request = self.admin.client.put(format!("{}{path}", self.admin.base));
        let request = request
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body);
        let answer = self.send(&path, request).await?;
        ensure!(
            answer.status.is_success(),
            "{}: {}",
            answer.status,
            answer.text()
        );
        Ok(())
    }

    /// Sends a signal by name.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        self.running()?.signal(signal).await
    }

    /// The number of its process.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn id(&self) -> anyhow::Result<u32> {
        self.running()?.id()
    }

    /// `kill -9`, at once; whoever talks to it meanwhile finds the connection broken.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.running()?.kill()
    }

    /// Waits for the end of a daemon that was killed, searches everything that came out for secrets, and returns its log.
    ///
    /// # Errors
    ///
    /// When it does not end.
    ///
    /// # Panics
    ///
    /// When a secret came out.
    pub async fn bury(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let (status, output) = self.take()?.end().await?;
        self.leaks.saw("the log", output.clone());
        self.leaks.assert_clean();
        Ok((status, output))
    }

    /// Waits until something asked again and again is so.
    ///
    /// # Errors
    ///
    /// When it is not within [`PATIENCE`], with the daemon's log.
    pub async fn until(
        &self,
        what: &str,
        so: impl AsyncFn(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !so(self).await? {
            ensure!(
                tokio::time::Instant::now() < deadline,
                "never came: {what}\n{}",
                self.log()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Asks for an orderly end, and searches everything that came out for secrets.
    ///
    /// # Errors
    ///
    /// When it ends otherwise than with 0.
    ///
    /// # Panics
    ///
    /// When a secret came out.
    pub async fn stop(self) -> anyhow::Result<()> {
        let metrics = self.admin(Method::GET, "/metrics", "").await?;
        ensure!(metrics.status.is_success(), "metrics: {}", metrics.status);
        self.signal("TERM").await?;
        self.end().await
    }

    /// Waits for the end of a daemon that was asked to go, and searches everything that came out for secrets.
    ///
    /// # Errors
    ///
    /// When it ends otherwise than with 0.
    ///
    /// # Panics
    ///
    /// When a secret came out.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let (status, output) = self.take()?.end().await?;
        ensure!(status.success(), "keyfob ended with {status}:\n{output}");
        self.leaks.saw("the log", output);
        self.leaks.assert_clean();
        Ok(())
    }

    async fn ask(&self, path: &str, key: Option<&str>, wanted: &Value) -> anyhow::Result<Answer> {
        let mut request = self.data.client.post(format!("{}{path}", self.data.base));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let json = "application/json";
        let request = request
            .header(http::header::CONTENT_TYPE, json)
            .body(wanted.to_string());
        self.send(path, request).await
    }

    async fn send(&self, path: &str, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let failed = || format!("{path} got no answer; the log:\n{}", self.log());
        let response = request.send().await.with_context(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.with_context(failed)?.to_vec();
        let answer = Answer {
            status,
            headers,
            body,
        };
        self.leaks.saw(
            format!("a header of {path}"),
            format!("{:?}", answer.headers),
        );
        if path == "/v1/tokens"
            && let Ok(each) = answer.tokens()
        {
            for one in each {
                match one {
                    Ok(token) => self.canary().add(&token.access_token),
                    Err(problem) => self
                        .leaks
                        .saw("a problem among tokens", problem.to_string()),
                }
            }
            return Ok(answer);
        }
        match answer.token() {
            // The one other answer that may hold a token.
            Ok(token) if path.starts_with("/v1/token") => self.canary().add(&token.access_token),
            _ => self
                .leaks
                .saw(format!("an answer of {path}"), answer.body.clone()),
        }
        Ok(answer)
    }

    fn running(&self) -> anyhow::Result<&Process> {
        self.process.as_ref().context("the daemon was stopped")
    }

    fn take(&mut self) -> anyhow::Result<Process> {
        self.process.take().context("the daemon was stopped")
    }
}

impl Drop for KeyfobDaemon {
    /// Only a test that fails gets here with a running daemon; the harness then shows its log.
    fn drop(&mut self) {
        if self.process.is_some() {
            eprintln!("--- keyfob was not stopped; its log:\n{}", self.log());
        }
    }
}
