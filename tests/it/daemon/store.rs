//! The store as operators tend it: replaced keys, tenants that go, copies that come back.

use std::path::Path;

use super::credentials::rotating;
use super::*;

/// A file, sealed with the key in the variable `SEALING_KEY`.
pub(super) const SEALED: &str =
    "[store]\nkind = \"embedded\"\npath = \"keyfob.redb\"\nsealing_key = { env = \"SEALING_KEY\" }";

/// An issuer whose grants rotate, two callers of two tenants, and a sealing key.
pub(super) struct Vaulted {
    pub(super) issuer: Issuer,
    key: String,
    other_key: String,
    secret: String,
    sealing_key: String,
}

// === impl Vaulted ===

impl Vaulted {
    pub(super) fn set() -> anyhow::Result<Self> {
        let secret = random_secret()?;
        let issuer = Issuer::start(IssuerConfig {
            clients: vec![rotating(&secret)],
            ..IssuerConfig::default()
        })?;
        Ok(Self {
            issuer,
            key: random_secret()?,
            other_key: random_secret()?,
            secret,
            sealing_key: sealing_key()?,
        })
    }

    pub(super) fn launch(&self, store: &str) -> Launch {
        let token_url = self.issuer.token_url();
        let config = format!(
            r#"
            {store}

            [providers.crm]
            plugin = "builtin:oauth2"
            allow = ["{token_url}"]
            insecure_http = true
            settings = {{ token_url = "{token_url}", client_id = "svc", grant = "refresh_token" }}
            secrets = {{ client_secret = {{ env = "CRM_SECRET" }} }}
            refresh = {{ rotation = "single_use" }}

            [callers.app]
            key = {{ env = "APP_KEY" }}
            allow = [{{ provider = "crm", subjects = ["*"], scopes = ["*"] }}]

            [callers.other]
            tenant = "other"
            key = {{ env = "OTHER_KEY" }}
            allow = [{{ provider = "crm", subjects = ["*"], scopes = ["*"] }}]
            "#
        );
        Launch::new(config)
            .canary(self.issuer.canary())
            .secret("APP_KEY", &self.key)
            .secret("OTHER_KEY", &self.other_key)
            .secret("CRM_SECRET", &self.secret)
            .secret("SEALING_KEY", &self.sealing_key)
    }

    pub(super) fn key(&self) -> Option<&str> {
        Some(&self.key)
    }

    pub(super) fn other_key(&self) -> Option<&str> {
        Some(&self.other_key)
    }

    pub(super) fn wanted(&self, subject: &str) -> Value {
        json!({ "provider": "crm", "subject": subject })
    }

    /// A new grant of somebody's, as an authorization code flow would have left it.
    pub(super) fn grant(&self, subject: &str) -> anyhow::Result<String> {
        let grant = self.issuer.issue_refresh_token("svc", subject);
        let grant = grant.ok_or_else(|| anyhow::anyhow!("the client is registered"))?;
        self.issuer.canary().add(&grant);
        Ok(grant)
    }
}

/// As `head -c 32 /dev/urandom | base64` prints it.
pub(super) fn sealing_key() -> anyhow::Result<String> {
    // The kit's secrets are 32 bytes in the alphabet of URLs.
    Ok(random_secret()?.replace('-', "+").replace('_', "/") + "=")
}

/// The configuration with something in place of something.
pub(super) fn rewrite(daemon: &KeyfobDaemon, old: &str, new: &str) -> anyhow::Result<()> {
    let config = std::fs::read_to_string(daemon.config())?;
    ensure!(config.contains(old), "{old:?} is not in the configuration");
    Ok(std::fs::write(daemon.config(), config.replace(old, new))?)
}

/// Has the daemon read its configuration again, and waits until it said so once more.
pub(super) async fn reload(daemon: &KeyfobDaemon) -> anyhow::Result<()> {
    let count = |daemon: &KeyfobDaemon| daemon.log().matches("configuration reloaded").count();
    let before = count(daemon);
    daemon.signal("HUP").await?;
    let again = async |daemon: &KeyfobDaemon| Ok(count(daemon) > before);
    daemon.until("a reload", again).await
}

async fn ann_is_live(daemon: &KeyfobDaemon) -> anyhow::Result<()> {
    let shown = daemon
        .cli(&["--json", "credentials", "show", "crm", "--subject", "ann"])
        .await?;
    ensure!(shown.json()?["state"] == "live");
    Ok(())
}

#[tokio::test]
async fn a_sealing_key_is_replaced_step_by_step_whatever_kills_the_daemon() -> anyhow::Result<()> {
    const NOW: &str = "sealing_key = { env = \"SEALING_KEY\" }";
    const MOVE: &str = "move it to `sealing_key`";
    let vaulted = Vaulted::set()?;
    let mut daemon = vaulted.launch(SEALED).start().await?;
    daemon.hand_over("crm/ann", &vaulted.grant("ann")?).await?;
    let rotate = ["--json", "store", "rotate-key"];

    // Without a next key there is nothing to do.
    let words = daemon.cli(&rotate).await?.failed(1)?;
    assert!(words.contains("next_sealing_key"), "{words}");

    // 1. Name the next key, and have the daemon read it.
    let next = sealing_key()?;
    daemon.canary().add(&next);
    std::fs::write(daemon.dir().join("next.key"), &next)?;
    rewrite(
        &daemon,
        NOW,
        &format!("{NOW}\nnext_sealing_key = {{ file = \"next.key\" }}"),
    )?;
    reload(&daemon).await?;
    daemon.cut_off().await?;
    daemon = daemon.start_again().await?;
    assert!(
        !daemon.log().contains(MOVE),
        "it is sealed with the old one still"
    );
    ann_is_live(&daemon).await?;

    // 2. Rotate.
    let rotated = daemon.cli(&rotate).await?.json()?;
    assert_eq!(rotated["compacted"], true);
    assert_ne!(rotated["from"], rotated["to"]);
    daemon.cut_off().await?;
    daemon = daemon.start_again().await?;
    let told = async |daemon: &KeyfobDaemon| Ok(daemon.log().contains(MOVE));
    daemon.until("it says what is left to do", told).await?;
    ann_is_live(&daemon).await?;
    let words = daemon.cli(&rotate).await?.failed(1)?;
    assert!(words.contains("already"), "{words}");

    // 3. Move it, at leisure.
    rewrite(&daemon, NOW, "sealing_key = { file = \"next.key\" }")?;
    rewrite(&daemon, "\nnext_sealing_key = { file = \"next.key\" }", "")?;
    reload(&daemon).await?;
    assert!(
        !daemon.log().contains("restart_needed"),
        "nothing waits for a restart"
    );
    daemon.cut_off().await?;
    daemon = daemon.start_again().await?;
    assert!(!daemon.log().contains("config_warning"), "{}", daemon.log());
    ann_is_live(&daemon).await?;
    daemon
        .token(vaulted.key(), &vaulted.wanted("ann"))
        .await?
        .token()?;

    // The old key is of no use any more.
    rewrite(&daemon, "sealing_key = { file = \"next.key\" }", NOW)?;
    reload(&daemon).await?;
    let warned =
        async |daemon: &KeyfobDaemon| Ok(daemon.log().contains("the next start would refuse it"));
    daemon
        .until("a key that does not fit is told of", warned)
        .await?;
    daemon.pause().await?;
    let words = daemon
        .cli(&["store", "verify", "--offline"])
        .await?
        .failed(3)?;
    assert!(words.contains("is sealed with the key"), "{words}");
    rewrite(&daemon, NOW, "sealing_key = { file = \"next.key\" }")?;
    daemon.start_again().await?.stop().await
}

#[tokio::test]
async fn a_tenant_is_forgotten_with_its_tokens_and_may_come_back_as_a_new_one() -> anyhow::Result<()>
{
    let vaulted = Vaulted::set()?;
    let daemon = vaulted.launch(SEALED).start().await?;
    daemon.hand_over("crm/ann", &vaulted.grant("ann")?).await?;
    daemon
        .hand_over("crm/eve?tenant=other", &vaulted.grant("eve")?)
        .await?;
    let kept = daemon
        .token(vaulted.key(), &vaulted.wanted("ann"))
        .await?
        .token()?;
    daemon
        .token(vaulted.other_key(), &vaulted.wanted("eve"))
        .await?
        .token()?;

    let words = daemon.cli(&["store", "shred", "other"]).await?.failed(2)?;
    assert!(words.contains("--yes"), "{words}");
    let shredded = daemon
        .cli(&["--json", "store", "shred", "other", "--yes"])
        .await?
        .json()?;
    assert_eq!(shredded, json!({ "credentials": 1, "compacted": true }));
    let gone = daemon
        .token(vaulted.other_key(), &vaulted.wanted("eve"))
        .await?;
    ensure!(
        !gone.status.is_success(),
        "its token is gone from memory too"
    );
    let same = daemon
        .token(vaulted.key(), &vaulted.wanted("ann"))
        .await?
        .token()?;
    assert_eq!(
        same.generation, kept.generation,
        "other tenants notice nothing"
    );
    let show = [
        "credentials",
        "show",
        "crm",
        "--tenant",
        "other",
        "--subject",
        "eve",
    ];
    daemon.cli(&show).await?.failed(1)?;

    daemon
        .hand_over("crm/eve?tenant=other", &vaulted.grant("eve")?)
        .await?;
    daemon
        .token(vaulted.other_key(), &vaulted.wanted("eve"))
        .await?
        .token()?;
    assert!(
        daemon
            .cli(&["store", "verify"])
            .await?
            .ok()?
            .contains("what was written")
    );
    let metrics = daemon.admin(Method::GET, "/metrics", "").await?.text();
    let line = "keyfob_store_orders_total{what=\"shred\",outcome=\"done\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    daemon.stop().await
}

#[tokio::test]
async fn a_backup_of_a_running_store_comes_back_on_another_path() -> anyhow::Result<()> {
    let vaulted = Vaulted::set()?;
    let mut daemon = vaulted.launch(SEALED).start().await?;
    daemon.hand_over("crm/ann", &vaulted.grant("ann")?).await?;

    // As docs/store.md has it: back up while it runs …
    let made = daemon
        .cli(&["--json", "store", "backup", "keyfob.backup.redb"])
        .await?
        .json()?;
    let path = made["path"].as_str().unwrap_or_default();
    assert!(
        Path::new(path).is_absolute() && Path::new(path).exists(),
        "{made}"
    );
    let words = daemon
        .cli(&["store", "backup", "keyfob.backup.redb"])
        .await?
        .failed(1)?;
    assert!(words.contains("is there already"), "{words}");
    let words = daemon
        .cli(&["store", "backup", "nowhere/copy"])
        .await?
        .failed(1)?;
    assert!(words.contains("does not exist"), "{words}");
    // … lose what was done since …
    daemon.hand_over("crm/bob", &vaulted.grant("bob")?).await?;
    // … and put the copy where the configuration says.
    let words = daemon
        .cli(&["store", "verify", "--offline"])
        .await?
        .failed(7)?;
    assert!(words.contains("in use by another process"), "{words}");
    daemon.cut_off().await?;
    std::fs::create_dir(daemon.dir().join("elsewhere"))?;
    let restored = daemon.dir().join("elsewhere/restored.redb");
    std::fs::copy(path, &restored)?;
    rewrite(&daemon, "keyfob.redb", "elsewhere/restored.redb")?;
    let verified = daemon
        .cli(&["--json", "store", "verify", "--offline"])
        .await?
        .json()?;
    assert_eq!(verified["rows"], 1);
    daemon = daemon.start_again().await?;
    ann_is_live(&daemon).await?;
    daemon
        .cli(&["credentials", "show", "crm", "--subject", "bob"])
        .await?
        .failed(1)?;
    daemon
        .token(vaulted.key(), &vaulted.wanted("ann"))
        .await?
        .token()?;
    daemon.stop().await
}
