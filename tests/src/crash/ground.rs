//! Where it all stands: the issuer, the store's file, the secrets, the credentials; and the few things that are done to a
//! process from outside.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::aim::Aim;
use super::memory::{self, Needle};
use super::oracle::{Oracle, Whose};
use super::report::Report;
use super::upstream::Upstream;
use super::{Plan, now_millis};
use crate::daemon::{KeyfobDaemon, Launch};
use crate::oidc::random_secret;

/// After so many violations the rest of a run says nothing new.
const VIOLATIONS_ENOUGH: usize = 10;
/// Signal 9, as a status tells it.
const KILLED: i32 = 9;

/// Everything of a run.
pub(super) struct Ground {
    common: Arc<Common>,
    dir: TempDir,
    sealing_key: String,
    config: String,
    /// Presentations that were absorbed.
    known: usize,
    pub(super) report: Report,
}

/// What callers need too.
pub(super) struct Common {
    pub(super) upstream: Upstream,
    pub(super) credentials: Vec<Whose>,
    /// The callers'.
    pub(super) key: String,
    /// Held for bookkeeping, never across `.await`.
    oracle: Mutex<Oracle>,
    /// By credential: a grant and its number whose handing over was not answered yet. As above.
    pending: Mutex<Vec<Option<(String, String)>>>,
}

// === impl Ground ===

impl Ground {
    pub(super) async fn prepare(plan: &Plan) -> anyhow::Result<Self> {
        let upstream = Upstream::start(plan.issuer).await?;
        let mut credentials = Vec::new();
        for &declared in upstream.plays() {
            credentials.extend((0..plan.credentials).map(|number| Whose {
                declared,
                subject: format!("user-{number}"),
            }));
        }
        let dir = tempfile::tempdir()?;
        let sealing_key = STANDARD.encode(URL_SAFE_NO_PAD.decode(random_secret()?)?);
        upstream.canary().add(&sealing_key);
        let mut config = format!(
            "[log]\nformat = \"json\"\n[store]\nkind = \"embedded\"\npath = {:?}\nsealing_key = {{ env = \"STORE_KEY\" }}\n",
            dir.path().join("keyfob.redb")
        );
        let mut rules = Vec::new();
        for &declared in upstream.plays() {
            config += &upstream.config(declared);
            let name = declared.label();
            rules.push(format!(
                "{{ provider = {name:?}, subjects = [\"*\"], scopes = [\"*\"], audiences = [\"*\"] }}"
            ));
        }
        config += &format!(
            "\n[callers.app]\nkey = {{ env = \"APP_KEY\" }}\nallow = [{}]\n",
            rules.join(", ")
        );
        let declared = credentials.iter().map(|whose| whose.declared).collect();
        let mut pending = Vec::new();
        let mut oracle = Oracle::new(declared);
        for (number, whose) in credentials.iter().enumerate() {
            let (grant, id) = upstream.mint(whose.declared, &whose.subject).await?;
            oracle.hand_over(number, id.clone(), 0);
            pending.push(Some((grant, id)));
        }
        let common = Common {
            upstream,
            credentials,
            key: random_secret()?,
            oracle: Mutex::new(oracle),
            pending: Mutex::new(pending),
        };
        Ok(Self {
            common: Arc::new(common),
            dir,
            sealing_key,
            config,
            known: 0,
            report: Report::new(plan),
        })
    }

    pub(super) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.common.upstream
    }

    pub(super) fn all_served(&self) -> bool {
        self.common.oracle().all_served()
    }

    pub(super) fn gave_up(&self) -> bool {
        self.common.oracle().violations.len() >= VIOLATIONS_ENOUGH
    }

    pub(super) fn next_round(&self) {
        self.common.oracle().next_round();
        self.common.upstream.behave();
    }

    /// A process on the same file; whether it comes up is to be seen.
    pub(super) async fn start(&mut self) -> anyhow::Result<KeyfobDaemon> {
        self.report.lives += 1;
        let common = &self.common;
        Launch::new(&self.config)
            .canary(common.upstream.canary())
            .log("info")
            .secret("CLIENT_SECRET", common.upstream.client_secret())
            .secret("STORE_KEY", &self.sealing_key)
            .secret("APP_KEY", &common.key)
            .spawn()
            .await
    }

    /// What a process that just came up says of each credential, and what is still to be handed over to it.
    pub(super) async fn audit(&self, daemon: &KeyfobDaemon) -> anyhow::Result<()> {
        for (number, whose) in self.common.credentials.iter().enumerate() {
            let answer = daemon.admin(Method::GET, &whose.path(), "").await?;
            let version = match answer.status.as_u16() {
                200 => answer.json()?["version"].as_u64().context("a version")?,
                404 => 0,
                _ => {
                    let said = format!("{} cannot be read: {}", whose.path(), answer.text());
                    self.common.oracle().violated(said);
                    continue;
                }
            };
            self.common.oracle().audited(number, version);
        }
        for number in 0..self.common.credentials.len() {
            self.common.hand_over_pending(daemon, number).await?;
        }
        Ok(())
    }

    pub(super) fn kill(&mut self, daemon: &KeyfobDaemon, aim: Aim) -> anyhow::Result<()> {
        // The clock first: what the issuer saw before it was before the kill.
        self.common.oracle().killed(now_millis());
        *self.report.kills.entry(aim.label()).or_default() += 1;
        daemon.kill()
    }

    /// After a kill: what the process said, what its callers got, what the issuer saw.
    pub(super) async fn bury(&mut self, daemon: KeyfobDaemon) -> anyhow::Result<()> {
        let (status, log) = daemon.bury().await?;
        if std::os::unix::process::ExitStatusExt::signal(&status) != Some(KILLED) {
            let said = format!("it ended by itself with {status}:\n{log}");
            self.common.oracle().violated(said);
        }
        self.take_down(&log).await
    }

    pub(super) async fn refused_start(&mut self, daemon: KeyfobDaemon) -> anyhow::Result<()> {
        self.report.refused_starts += 1;
        let (status, log) = daemon.bury().await?;
        let said = format!("it did not start, but ended with {status}:\n{log}");
        self.common.oracle().violated(said);
        Ok(())
    }

    /// Every credential's token once more: the newest there is.
    pub(super) async fn last_tokens(&self, daemon: &KeyfobDaemon) -> anyhow::Result<()> {
        for (number, whose) in self.common.credentials.iter().enumerate() {
            let wanted = json!({ "provider": whose.provider(), "subject": whose.subject });
            let answer = daemon.token(Some(&self.common.key), &wanted).await?;
            match answer.token() {
                Ok(token) => self.common.oracle().served(number, &token),
                Err(error) => {
                    let said = format!("{} has no token at the end: {error}", whose.path());
                    self.common.oracle().violated(said);
                }
            }
        }
        Ok(())
    }

    /// What a core dump at rest would hold.
    pub(super) fn look_into_memory(&mut self, daemon: &KeyfobDaemon) -> anyhow::Result<()> {
        let key = STANDARD.decode(&self.sealing_key)?;
        let current: Vec<String> = {
            let oracle = self.common.oracle();
            oracle.heard_now().map(str::to_owned).collect()
        };
        let (good, spent): (Vec<_>, Vec<_>) = {
            let grants = self.common.upstream.grants();
            grants.into_iter().partition(|(_, good)| *good)
        };
        let texts = |grants: Vec<(String, bool)>| grants.into_iter().map(|(grant, _)| grant);
        let needles = [
            Needle::new("the sealing key, as configured", [self.sealing_key.clone()]),
            Needle::new("the sealing key, as bytes", [key]),
            Needle::new(
                "the client's secret",
                [self.common.upstream.client_secret()],
            ),
            Needle::new("the caller's key", [&self.common.key]),
            Needle::new("access tokens of the last life", current),
            Needle::new("refresh tokens that are good", texts(good)),
            Needle::new("refresh tokens that are spent", texts(spent)),
        ];
        self.report.memory = memory::search(daemon.id()?, &needles)?;
        Ok(())
    }

    /// The orderly end.
    pub(super) async fn end(&mut self, daemon: KeyfobDaemon) -> anyhow::Result<()> {
        daemon.signal("TERM").await?;
        let (status, log) = daemon.bury().await?;
        if !status.success() {
            let said = format!("asked to end, it ended with {status}:\n{log}");
            self.common.oracle().violated(said);
        }
        self.take_down(&log).await
    }

    /// Fails when a secret or a token of the run is in the store's file.
    pub(super) fn search_file(&mut self) -> anyhow::Result<()> {
        let file = std::fs::read(self.file())?;
        let key = STANDARD.decode(&self.sealing_key)?;
        let canary = self.common.upstream.canary();
        self.report.file_bytes = file.len();
        self.report.secrets = canary.len();
        if let Some(leak) = canary.find(&file) {
            self.common
                .oracle()
                .violated(format!("the file holds a secret: {leak:?}"));
        }
        if file.windows(key.len()).any(|window| window == key) {
            self.common
                .oracle()
                .violated("the file holds the sealing key".to_owned());
        }
        // The search works: the engine keeps the names of its tables.
        let table = b"credentials";
        ensure!(
            file.windows(table.len()).any(|window| window == table),
            "the file is no store"
        );
        Ok(())
    }

    pub(super) async fn close(mut self) -> anyhow::Result<Report> {
        let cut_short = self.gave_up();
        let mut oracle = self.common.oracle();
        self.report.rotations = oracle.close(cut_short);
        self.report.tokens = oracle.tokens;
        self.report.violations = std::mem::take(&mut oracle.violations);
        drop(oracle);
        Ok(self.report)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("keyfob.redb")
    }

    async fn take_down(&mut self, log: &str) -> anyhow::Result<()> {
        let common = self.common.clone();
        let news = common.upstream.news(self.known).await?;
        self.known += news.len();
        common.oracle().absorb(news);
        let heard = common.oracle().heard();
        let tokens: Vec<String> = heard.iter().map(|(token, _)| token.clone()).collect();
        let beside = common.upstream.beside(&tokens).await?;
        {
            let mut oracle = common.oracle();
            for ((_, credential), grant) in heard.iter().zip(&beside) {
                oracle.told(*credential, grant.as_deref());
            }
        }
        common.upstream.note_issued().await?;
        for line in log.lines() {
            self.read_line(line);
        }
        Ok(())
    }

    /// A line of the log: a version that was told, or something that must not be there.
    fn read_line(&self, line: &str) {
        let mut oracle = self.common.oracle();
        let bad = ["panicked", "undurable", "record_lost", "orphan_grant"];
        if let Some(word) = bad.iter().find(|word| line.contains(**word)) {
            return oracle.violated(format!("{word} is in the log: {line}"));
        }
        // The last line of a process that was killed may be half of one.
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let fields = if line["fields"].is_object() {
            &line["fields"]
        } else {
            &line
        };
        let Some(version) = fields["version"].as_u64() else {
            return;
        };
        let found = self.common.credentials.iter().position(|whose| {
            fields["provider"] == whose.provider() && fields["subject"] == whose.subject.as_str()
        });
        if let Some(credential) = found {
            oracle.version(credential, version);
            if fields["message"] == "grant rotated" {
                oracle.recorded(credential);
            }
        }
    }
}

// === impl Common ===

impl Common {
    pub(super) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Vec<Option<(String, String)>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A caller was told that a human must act: looks why, and hands a new grant over.
    pub(super) async fn tend(
        &self,
        daemon: &KeyfobDaemon,
        credential: usize,
    ) -> anyhow::Result<()> {
        let whose = &self.credentials[credential];
        let state = daemon.admin(Method::GET, &whose.path(), "").await?.json()?;
        if state["state"] != "reauthorization_required" {
            return Ok(());
        }
        let cause = state["cause"].as_str().unwrap_or("none").to_owned();
        self.oracle().ended(credential, &cause);
        let (grant, id) = self.upstream.mint(whose.declared, &whose.subject).await?;
        // The old grant ended and is not presented any more; what is seen from now on is the new one's.
        let seen = self.upstream.seen().await?;
        self.oracle().hand_over(credential, id.clone(), seen);
        self.pending()[credential] = Some((grant, id));
        self.hand_over_pending(daemon, credential).await
    }

    /// Hands over what was not answered for. Not a grant that the issuer saw already: handed over again it would be an
    /// order to present it once more.
    async fn hand_over_pending(
        &self,
        daemon: &KeyfobDaemon,
        credential: usize,
    ) -> anyhow::Result<()> {
        let Some((grant, id)) = self.pending()[credential].clone() else {
            return Ok(());
        };
        if !self.oracle().was_presented(&id) {
            let path = self.credentials[credential].path();
            daemon
                .hand_over(&path["/admin/v1/credentials/".len()..], &grant)
                .await?;
        }
        self.pending()[credential] = None;
        Ok(())
    }
}

// === impl Whose ===

impl Whose {
    pub(super) fn provider(&self) -> &'static str {
        self.declared.label()
    }

    fn path(&self) -> String {
        format!("/admin/v1/credentials/{}/{}", self.provider(), self.subject)
    }
}

impl Report {
    fn new(plan: &Plan) -> Self {
        Self {
            issuer: plan.issuer,
            seed: plan.seed,
            ..Self::blank()
        }
    }

    pub(super) fn usual_start(&self) -> Duration {
        let mut starts = self.starts.clone();
        starts.sort_unstable();
        starts.get(starts.len() / 2).copied().unwrap_or_default()
    }
}
