//! The audit log of a real daemon: what is in it, what is not, and what `keyfob audit verify` says of it.

use std::path::Path;

use keyfob_tests::daemon::binary;
use keyfob_tests::process::run;

use super::*;

/// The exit code for a log that does not hold together.
const BROKEN: i32 = 9;

/// A daemon that keeps its log in a folder that outlives it.
fn launch(stage: &Stage, log: &Path) -> Launch {
    let config = stage
        .config("")
        .replace("client_credentials", "refresh_token");
    stage.with(format!("{config}\n[audit]\npath = {log:?}\n"))
}

/// Runs `keyfob audit verify` on a log: its exit code, and what it said as JSON.
async fn verify(log: &Path, more: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
    let log = log.to_string_lossy();
    let arguments = ["audit", "verify", &log, "--json"];
    let (status, said) = run(binary().await?, arguments.iter().chain(more)).await?;
    Ok((status.code(), serde_json::from_str(&said)?))
}

/// The entries of a log that has one file.
fn entries(log: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(log)?;
    let lines = text.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn what_operators_do_is_in_a_log_that_holds_over_a_kill_and_has_no_secret()
-> anyhow::Result<()> {
    let stage = Stage::set()?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("audit.log");
    let daemon = launch(&stage, &log).start().await?;
    let grant = stage.issuer.issue_refresh_token("svc", "alice");
    let grant = grant.ok_or_else(|| anyhow::anyhow!("the issuer knows its client"))?;
    daemon.hand_over("acme/alice", &grant).await?;
    let wanted = json!({ "provider": "acme", "subject": "alice" });
    let token = daemon.token(stage.key(), &wanted).await?.token()?;
    let newer = daemon.reject(&stage.key, &wanted, token.generation).await?;
    newer.token()?;
    let nonesuch = json!({ "provider": "nonesuch" });
    let denied = daemon.token(stage.key(), &nonesuch);
    let denied = denied.await?.problem(403, "denied")?;
    let stranger = random_secret()?;
    daemon.canary().add(&stranger);
    let refused = daemon.token(Some(&stranger), &wanted).await?;
    refused.problem(401, "unauthenticated")?;

    let component = folder.path().join("oauth2.wasm");
    let output = component.to_string_lossy();
    let (exported, said) =
        keyfob(&["plugin", "export", "builtin:oauth2", "--output", &output]).await?;
    ensure!(exported, "{said}");
    let plugin = "/admin/v1/providers/acme/plugin";
    let rollback = "/admin/v1/providers/acme/rollback";
    let swapped = daemon.admin(Method::PUT, plugin, std::fs::read(&component)?);
    assert_eq!(swapped.await?.status, 200);
    let garbage = daemon.admin(Method::PUT, plugin, "no component").await?;
    assert_eq!(garbage.status, 422);
    assert_eq!(daemon.admin(Method::POST, rollback, "").await?.status, 200);
    let credential = "/admin/v1/credentials/acme/alice";
    let revoked = daemon.admin(Method::DELETE, credential, "").await?;
    ensure!(revoked.status.is_success(), "{}", revoked.text());
    let gone = daemon.token(stage.key(), &wanted).await?;
    assert!(!gone.status.is_success(), "{}", gone.text());
    // The log is not written before its answer goes out: nobody waits for it.
    let told = async |_: &KeyfobDaemon| {
        Ok(entries(&log)?
            .iter()
            .any(|entry| entry["state"] == "revoked"))
    };
    daemon.until("the revocation is in the log", told).await?;
    // While it runs, beside it.
    assert_eq!(verify(&log, &[]).await?.1["end"], "open");
    let canary = daemon.canary().clone();
    daemon.signal("KILL").await?;
    assert!(daemon.end().await.is_err(), "it was killed");

    let (code, said) = verify(&log, &[]).await?;
    assert_eq!((code, &said["end"]), (Some(0), &json!("open")), "{said}");
    let found = entries(&log)?;
    assert_eq!(said["entries"], found.len());
    let of = |event: &str| {
        let event = event.to_owned();
        found.iter().filter(move |entry| entry["event"] == event)
    };
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        of("started").next().map(|it| &it["version"]),
        Some(&json!(version))
    );
    let states = of("credential_changed").map(|it| (&it["state"], &it["by"], &it["subject"]));
    let by = json!("admin_key");
    let (live, revoked, alice) = (json!("live"), json!("revoked"), json!("alice"));
    let states: Vec<_> = states.filter(|(_, it, _)| **it == by).collect();
    assert_eq!(states, [(&live, &by, &alice), (&revoked, &by, &alice)]);
    let swaps = of("plugin_swapped").map(|it| (&it["rollback"], &it["by"]));
    let swaps: Vec<_> = swaps.collect();
    assert_eq!(swaps, [(&json!(false), &by), (&json!(true), &by)]);
    let why = of("plugin_refused").next().map(|it| it["why"].to_string());
    assert!(
        why.is_some_and(|why| why.contains("not_wasm")),
        "{found:#?}"
    );
    let denial = of("denied")
        .next()
        .map(|it| (&it["caller"], &it["correlation"]));
    assert_eq!(denial, Some((&json!("app"), &json!(denied))));
    assert_eq!(
        of("token_rejected").next().map(|it| &it["outcome"]),
        Some(&json!("refreshed"))
    );
    assert!(
        of("notice").any(|it| it["code"] == "unauthenticated"),
        "{found:#?}"
    );

    // The next process goes on where that one was killed, and ends in order.
    let daemon = launch(&stage, &log).canary(&canary).start().await?;
    daemon.stop().await?;
    let (code, said) = verify(&log, &[]).await?;
    assert_eq!((code, &said["end"]), (Some(0), &json!("stopped")), "{said}");
    assert_eq!(said["unstopped"], 1);
    assert!(canary.len() > 5, "what could leak is known");
    canary.assert_absent("the audit log", std::fs::read(&log)?);
    Ok(())
}

#[tokio::test]
async fn an_entry_that_was_changed_is_named_and_the_head_in_the_log_finds_a_cut()
-> anyhow::Result<()> {
    let stage = Stage::set()?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("audit.log");
    let daemon = launch(&stage, &log).start().await?;
    let nonesuch = json!({ "provider": "nonesuch" });
    let denied = daemon.token(stage.key(), &nonesuch);
    denied.await?.problem(403, "denied")?;
    daemon.stop().await?;
    let whole = std::fs::read_to_string(&log)?;
    let (code, said) = verify(&log, &[]).await?;
    assert_eq!((code, &said["end"]), (Some(0), &json!("stopped")), "{said}");
    let head = said["head"].as_str().unwrap_or_default().to_owned();
    let (code, said) = verify(&log, &["--expect", &head]).await?;
    assert_eq!(code, Some(0));
    assert_eq!(
        said["expected"],
        json!([{ "hash": head, "entries_after": 0 }])
    );

    std::fs::write(&log, whole.replace("nonesuch", "nonsuch2"))?;
    let (code, said) = verify(&log, &[]).await?;
    let line = whole.lines().position(|line| line.contains("nonesuch"));
    assert_eq!((code, &said["how"]), (Some(BROKEN), &json!("changed")));
    assert_eq!(said["line"].as_u64(), line.map(|line| line as u64 + 1));
    assert_eq!(said["file"], json!(log));

    let mut lines: Vec<_> = whole.split_inclusive('\n').collect();
    lines.pop();
    std::fs::write(&log, lines.concat())?;
    assert_eq!(verify(&log, &[]).await?.1["end"], "open");
    let (code, said) = verify(&log, &["--expect", &head]).await?;
    assert_eq!((code, &said["how"]), (Some(BROKEN), &json!("cut_off")));
    Ok(())
}

#[tokio::test]
async fn a_second_daemon_on_one_log_is_told_so_and_the_first_goes_on() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("audit.log");
    let daemon = launch(&stage, &log).start().await?;
    let config = folder.path().join("keyfob.toml");
    let text = format!("[server]\nlisten = \"127.0.0.1:0\"\n\n[audit]\npath = {log:?}\n");
    std::fs::write(&config, text)?;
    let config = config.to_string_lossy();
    let (started, said) = keyfob(&["serve", "--config", &config]).await?;
    assert!(!started, "{said}");
    assert!(
        said.contains("keyfob.toml:4: [audit]") && said.contains("by another process"),
        "{said}"
    );
    // The path comes from the configuration, where none is named.
    let (sound, said) = keyfob(&["audit", "verify", "--config", &config]).await?;
    assert!(sound && said.contains("holds together"), "{said}");
    daemon.stop().await?;
    let (_, said) = verify(&log, &[]).await?;
    assert_eq!(
        (&said["end"], &said["unstopped"]),
        (&json!("stopped"), &json!(0))
    );
    Ok(())
}
