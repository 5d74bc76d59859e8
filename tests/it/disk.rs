//! Disks that refuse, and files that somebody spoiled, under the real daemon: valid tokens are served, nothing is
//! presented that could not be recorded, and a file that is refused stays as it was. What the store itself promises over
//! every bit and length is tested beside it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use keyfob::testing::Issuer;
use keyfob::testing::issuer::{Behaviour, Client, ClientAuth, IssuerConfig, RefreshRotation};
use keyfob_tests::daemon::{KeyfobDaemon, Launch};
use keyfob_tests::oidc::random_secret;
use keyfob_tests::process::run;
use serde_json::{Value, json};
use tempfile::TempDir;

/// While this passes, the disk fills up: the mark is made, the answer is not there yet.
const HELD_BACK: Duration = Duration::from_millis(500);
/// A limit below any page of the file but the first: every commit meets it. Reading does not.
const NO_ROOM: &str = "4096";
/// Ends nobody who meets the limit: the write fails instead, as on a full disk.
const TOLD_NOT_KILLED: &[&str] = &["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
/// Makes root obey the mode of a file, as everybody else does.
const WITHOUT_OVERRIDE: &[&str] = &["setpriv", "--bounding-set=-dac_override"];

/// An issuer, a folder for the store's file, and what a daemon is started with.
struct Stage {
    issuer: Issuer,
    dir: TempDir,
    secret: String,
    key: String,
    sealing_key: String,
}

impl Stage {
    fn set() -> anyhow::Result<Self> {
        let secret = random_secret()?;
        let client = Client::new("svc", ClientAuth::Basic(secret.clone()));
        let issuer = Issuer::start(IssuerConfig {
            clients: vec![client.rotation(RefreshRotation::SingleUse)],
            ..IssuerConfig::default()
        })?;
        Ok(Self {
            issuer,
            dir: tempfile::tempdir()?,
            secret,
            key: random_secret()?,
            sealing_key: STANDARD.encode(URL_SAFE_NO_PAD.decode(random_secret()?)?),
        })
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("keyfob.redb")
    }

    fn launch(&self) -> Launch {
        let (url, file) = (self.issuer.token_url(), self.file());
        let config = format!(
            r#"
            [store]
            kind = "embedded"
            path = {file:?}
            sealing_key = {{ env = "STORE_KEY" }}

            [providers.acme]
            plugin = "builtin:oauth2"
            allow = ["{url}"]
            insecure_http = true
            settings = {{ token_url = "{url}", client_id = "svc", grant = "refresh_token" }}
            secrets = {{ client_secret = {{ env = "ACME_SECRET" }} }}
            scopes = ["read"]
            refresh = {{ rotation = "single_use" }}

            [callers.app]
            key = {{ env = "APP_KEY" }}
            allow = [{{ provider = "acme", subjects = ["*"], scopes = ["read"], audiences = ["*"] }}]
            "#
        );
        Launch::new(config)
            .canary(self.issuer.canary())
            .secret("ACME_SECRET", &self.secret)
            .secret("APP_KEY", &self.key)
            .secret("STORE_KEY", &self.sealing_key)
    }

    async fn hand_over(&self, daemon: &KeyfobDaemon, subject: &str) -> anyhow::Result<()> {
        let grant = self.issuer.issue_refresh_token("svc", subject);
        let grant = grant.context("the issuer knows its client")?;
        daemon.hand_over(&format!("acme/{subject}"), &grant).await
    }

    /// A start that must fail: what it said.
    async fn refused(&self, launch: Launch) -> anyhow::Result<String> {
        let before = fs::read(self.file())?;
        let daemon = launch.spawn().await?;
        ensure!(!daemon.ready().await?, "it serves:\n{}", daemon.log());
        let (status, log) = daemon.bury().await?;
        ensure!(
            status.code().is_some_and(|code| code != 0),
            "{status}:\n{log}"
        );
        ensure!(!log.contains("panicked"), "{log}");
        ensure!(
            fs::read(self.file())? == before,
            "the file was written to:\n{log}"
        );
        Ok(log)
    }
}

fn wanted(subject: &str) -> Value {
    json!({ "provider": "acme", "subject": subject })
}

/// Sets how large the files of a daemon may be.
async fn limit(daemon: &KeyfobDaemon, size: &str) -> anyhow::Result<()> {
    let process = format!("--pid={}", daemon.id()?);
    // The soft limit alone: the hard one could not be raised again.
    let (status, said) = run("prlimit", [process, format!("--fsize={size}:")]).await?;
    ensure!(status.success(), "prlimit: {said}");
    Ok(())
}

async fn state(daemon: &KeyfobDaemon, subject: &str) -> anyhow::Result<Value> {
    let path = format!("/admin/v1/credentials/acme/{subject}");
    let answer = daemon.admin(Method::GET, &path, "").await?;
    ensure!(answer.status.is_success(), "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_disk_that_fills_up_during_a_refresh_costs_no_rotation() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let key = Some(stage.key.as_str());
    let daemon = stage.launch().through(TOLD_NOT_KILLED).spawn().await?;
    ensure!(daemon.ready().await?, "{}", daemon.log());
    stage.hand_over(&daemon, "alice").await?;
    stage.hand_over(&daemon, "bob").await?;
    let (alice, bob) = (wanted("alice"), wanted("bob"));
    let bobs = daemon.token(key, &bob).await?.token()?;

    // The grant is marked and sent; then there is no room any more; then the answer comes.
    stage.issuer.behave_next(1, Behaviour::Latency(HELD_BACK));
    let (token, limited) = tokio::join!(daemon.token(key, &alice), async {
        stage.issuer.ledger().wait_for(2).await;
        limit(&daemon, NO_ROOM).await
    });
    limited?;
    let token = token?
        .token()
        .context("the token is good, recorded or not")?;
    daemon
        .until("it is told", async |daemon| {
            Ok(daemon.log().contains("undurable"))
        })
        .await?;
    assert_eq!(
        daemon.get("/readyz").await?.json()?["status"],
        "degraded",
        "{}",
        daemon.log()
    );

    // What is valid is served; what would need a mark, or is not on record, is not presented.
    let again = daemon.token(key, &alice).await?.token()?;
    assert_eq!(again.generation, token.generation);
    let again = daemon.token(key, &bob).await?.token()?;
    assert_eq!(again.generation, bobs.generation);
    for (whose, generation) in [(&alice, token.generation), (&bob, bobs.generation)] {
        let answer = daemon.reject(&stage.key, whose, generation).await?;
        assert!(!answer.status.is_server_error() || answer.status == 503);
    }
    assert_eq!(stage.issuer.ledger().count(), 2, "nothing was presented");

    // Room again: it is recorded, and so well that a kill does not undo it.
    limit(&daemon, "unlimited").await?;
    daemon
        .until("all is recorded", async |daemon| {
            Ok(daemon.get("/readyz").await?.json()?["status"] == "ready")
        })
        .await?;
    assert!(daemon.log().contains("durable_again"));
    daemon.kill()?;
    daemon.bury().await?;
    let daemon = stage.launch().start().await?;
    for (subject, whose) in [("alice", &alice), ("bob", &bob)] {
        assert_eq!(state(&daemon, subject).await?["state"], "live");
        daemon.token(key, whose).await?.token()?;
    }
    assert_eq!(stage.issuer.ledger().replayed(), 0);
    daemon.stop().await
}

/// A refresh whose rotation the store cannot take, then a kill, then a start with room: the status of the next token request,
/// and how often a grant was presented.
async fn killed_while_undurable(room: &str) -> anyhow::Result<(u16, u64)> {
    let stage = Stage::set()?;
    let key = Some(stage.key.as_str());
    let daemon = stage.launch().through(TOLD_NOT_KILLED).spawn().await?;
    ensure!(daemon.ready().await?, "{}", daemon.log());
    stage.hand_over(&daemon, "alice").await?;
    let alice = wanted("alice");
    stage.issuer.behave_next(1, Behaviour::Latency(HELD_BACK));
    let (token, limited) = tokio::join!(daemon.token(key, &alice), async {
        stage.issuer.ledger().wait_for(1).await;
        limit(&daemon, room).await
    });
    limited?;
    token?.token()?;
    daemon.kill()?;
    let (_, log) = daemon.bury().await?;
    ensure!(log.contains("undurable"), "{log}");

    let daemon = stage.launch().start().await?;
    let answer = daemon.token(key, &alice).await?;
    ensure!(stage.issuer.ledger().replayed() == 0, "it was replayed");
    let presented = stage.issuer.ledger().count();
    daemon.stop().await?;
    Ok((answer.status.as_u16(), presented))
}

#[tokio::test]
async fn a_rotation_that_no_file_took_is_in_doubt_after_a_kill_and_not_replayed()
-> anyhow::Result<()> {
    // The mark was made while there was room, and it stands.
    let (status, presented) = killed_while_undurable("0").await?;
    assert!(matches!(status, 409 | 503), "{status}");
    assert_eq!(presented, 1, "it was not presented again");
    Ok(())
}

#[tokio::test]
async fn a_rotation_that_only_the_journal_took_is_made_after_a_kill() -> anyhow::Result<()> {
    let (status, presented) = killed_while_undurable(NO_ROOM).await?;
    assert_eq!((status, presented), (200, 2), "the new grant was presented");
    Ok(())
}

#[tokio::test]
async fn a_file_that_may_not_be_written_is_refused_with_what_to_do() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch().start().await?;
    stage.hand_over(&daemon, "alice").await?;
    daemon.stop().await?;
    fs::set_permissions(stage.file(), Permissions::from_mode(0o444))?;
    let root = fs::OpenOptions::new()
        .write(true)
        .open(stage.file())
        .is_ok();
    let launch = match root {
        true => stage.launch().through(WITHOUT_OVERRIDE),
        false => stage.launch(),
    };
    let said = stage.refused(launch).await?;
    assert!(said.contains("must belong to the user that"), "{said}");

    fs::set_permissions(stage.file(), Permissions::from_mode(0o600))?;
    let daemon = stage.launch().start().await?;
    daemon
        .token(Some(&stage.key), &wanted("alice"))
        .await?
        .token()?;
    daemon.stop().await
}

#[tokio::test]
async fn a_spoiled_file_is_refused_left_alone_and_good_again_once_put_back() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch().start().await?;
    stage.hand_over(&daemon, "alice").await?;
    daemon
        .token(Some(&stage.key), &wanted("alice"))
        .await?
        .token()?;
    // Not an orderly end: the file is then as a power cut leaves it.
    daemon.kill()?;
    daemon.bury().await?;
    let good = fs::read(stage.file())?;
    let used = good.iter().rposition(|byte| *byte != 0).unwrap_or(0);

    let mut spoiled = vec![good[..good.len() / 2].to_vec(), Vec::new()];
    // The header, and the last page in use.
    for at in [8, used] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        spoiled.push(bytes);
    }
    for bytes in spoiled {
        fs::write(stage.file(), &bytes)?;
        let daemon = stage.launch().spawn().await?;
        if daemon.ready().await? {
            // It was a bit that nobody reads: what is served is what was committed.
            assert_eq!(state(&daemon, "alice").await?["state"], "live");
            daemon.stop().await?;
            continue;
        }
        let (_, log) = daemon.bury().await?;
        ensure!(
            log.contains("put back a backup") || log.contains("not a store"),
            "{log}"
        );
        ensure!(
            fs::read(stage.file())? == bytes,
            "the file was written to:\n{log}"
        );
    }

    fs::write(stage.file(), &good)?;
    let daemon = stage.launch().start().await?;
    assert_eq!(state(&daemon, "alice").await?["state"], "live");
    daemon
        .token(Some(&stage.key), &wanted("alice"))
        .await?
        .token()?;
    assert_eq!(stage.issuer.ledger().replayed(), 0);
    daemon.stop().await
}
