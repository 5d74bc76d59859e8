//! Start, readiness, reload, end.

use std::fmt::Write as _;
use std::time::Duration;

use super::*;

/// Longer than a signal takes to be handled; the test holds whatever it is.
const SLOW: Duration = Duration::from_millis(300);

#[tokio::test]
async fn every_mistake_in_a_configuration_is_reported_at_once_with_its_line() -> anyhow::Result<()>
{
    let secret = random_secret()?;
    let lines = [
        "[server]",
        "listn = \"127.0.0.1:0\"", // 2
        "[providers.acme]",
        "plugin = \"builtin:oauth2\"",
        "allow = [\"ftp://login.acme.example/token\"]", // 5
        "settings = {}",
        &format!("secrets = {{ client_secret = {secret:?} }}"), // 7
        "[callers.app]",                                        // 8: no way to recognise it
        "allow = [{ provider = \"acmee\" }]",                   // 9
    ];
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("keyfob.toml");
    std::fs::write(&path, lines.join("\n"))?;
    let path = path.to_string_lossy();
    for command in ["check", "serve"] {
        let (succeeded, said) = keyfob(&[command, "--config", &path]).await?;
        assert!(!succeeded, "{command} takes it: {said}");
        for line in [2, 5, 7, 8, 9] {
            assert!(
                said.contains(&format!("keyfob.toml:{line}: ")),
                "{command} misses {line}:\n{said}"
            );
        }
        assert!(!said.contains(&secret), "{command} repeats a secret");
    }
    Ok(())
}

#[tokio::test]
async fn a_required_provider_decides_readiness_and_not_health() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    stage.issuer.behave(Behaviour::Status(503));
    let daemon = stage.launch("required = true").start().await?;
    stage.issuer.ledger().wait_for(1).await;
    assert_eq!(daemon.get("/readyz").await?.status, 503);
    assert_eq!(daemon.get("/healthz").await?.status, 200);
    stage.issuer.behave(Behaviour::Normal);
    let ready = async |daemon: &KeyfobDaemon| Ok(daemon.get("/readyz").await?.status == 200);
    daemon
        .until("readiness after the issuer healed", ready)
        .await?;
    daemon.stop().await
}

#[tokio::test]
async fn a_term_signal_waits_for_what_is_in_flight_and_ends_with_0() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    stage.issuer.behave_next(1, Behaviour::Latency(SLOW));
    let wanted = wanted();
    let (answer, signalled) = tokio::join!(daemon.token(stage.key(), &wanted), async {
        stage.issuer.ledger().wait_for(1).await;
        daemon.signal("TERM").await
    });
    signalled?;
    answer?.token()?;
    daemon.end().await
}

#[tokio::test]
async fn a_hup_signal_reads_the_configuration_again() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let before = daemon.token(stage.key(), &wanted()).await?.token()?;

    let late_key = random_secret()?;
    daemon.canary().add(&late_key);
    std::fs::write(daemon.dir().join("late.key"), &late_key)?;
    let mut config = std::fs::read_to_string(daemon.config())?;
    write!(
        config,
        "\n[callers.late]\nkey = {{ file = \"late.key\" }}\nallow = [{{ provider = \"acme\", subjects = [\"*\"], \
         scopes = [\"read\"], audiences = [\"*\"] }}]\n"
    )?;
    std::fs::write(daemon.config(), &config)?;
    daemon
        .token(Some(&late_key), &wanted())
        .await?
        .problem(401, "unauthenticated")?;
    daemon.signal("HUP").await?;
    let known = async |daemon: &KeyfobDaemon| {
        Ok(daemon
            .token(Some(&late_key), &wanted())
            .await?
            .status
            .is_success())
    };
    daemon.until("the new caller is known", known).await?;
    let after = daemon.token(stage.key(), &wanted()).await?.token()?;
    assert_eq!(
        after.generation, before.generation,
        "a reload loses no token"
    );
    daemon.stop().await
}

#[tokio::test]
async fn a_reload_of_a_broken_configuration_changes_nothing() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let broken = std::fs::read_to_string(daemon.config())? + "\n[callers.nobody]\nallow = []\n";
    std::fs::write(daemon.config(), broken)?;
    daemon.signal("HUP").await?;
    let told = async |daemon: &KeyfobDaemon| Ok(daemon.log().contains("nobody"));
    daemon.until("the mistake is in the log", told).await?;
    daemon.token(stage.key(), &wanted()).await?.token()?;
    daemon.stop().await
}
