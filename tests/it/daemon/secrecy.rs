//! What must not come out, whatever happens. Every test of the daemon ends with this search; these provoke it.

use super::*;

#[tokio::test]
async fn a_log_at_trace_level_holds_no_secret_and_no_token() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let token = daemon.token(stage.key(), &wanted()).await?.token()?;
    let newer = daemon
        .reject(&stage.key, &wanted(), token.generation)
        .await?
        .token()?;
    assert_ne!(newer.access_token, token.access_token);
    let explained = daemon
        .admin(Method::GET, "/admin/v1/explain/acme", "")
        .await?;
    assert!(explained.status.is_success(), "{}", explained.text());
    // The kit's daemons write everything they may; an empty log would prove nothing.
    let log = daemon.log();
    assert!(log.contains("DEBUG keyfob::"), "{log}");
    daemon.stop().await
}

#[tokio::test]
async fn an_issuer_that_echoes_the_secret_does_not_get_it_into_errors_or_logs() -> anyhow::Result<()>
{
    let stage = Stage::set()?;
    let secret = &stage.secret;
    let echo =
        json!({ "error": "invalid_request", "error_description": format!("bad secret {secret}") });
    stage.issuer.behave(Behaviour::Custom {
        status: 400,
        content_type: "application/json".to_owned(),
        body: echo.to_string(),
    });
    let daemon = stage.launch("").start().await?;
    let answer = daemon.token(stage.key(), &wanted()).await?;
    assert!(
        answer.status.is_server_error() || answer.status == 409,
        "{}",
        answer.status
    );
    let explained = daemon
        .admin(Method::GET, "/admin/v1/explain/acme", "")
        .await?;
    assert!(explained.status.is_success(), "{}", explained.text());
    daemon.stop().await
}

#[tokio::test]
async fn a_grant_handed_over_is_never_shown_again() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let config = stage
        .config("")
        .replace("client_credentials", "refresh_token");
    let daemon = stage.with(config).start().await?;
    let grant = stage.issuer.issue_refresh_token("svc", "alice");
    let grant = grant.ok_or_else(|| anyhow::anyhow!("the issuer knows its client"))?;
    daemon.hand_over("acme/alice", &grant).await?;
    let wanted = json!({ "provider": "acme", "subject": "alice" });
    daemon.token(stage.key(), &wanted).await?.token()?;
    let state = daemon
        .admin(Method::GET, "/admin/v1/credentials/acme/alice", "")
        .await?;
    assert_eq!(state.json()?["state"], "live");
    let path = "/admin/v1/explain/acme?subject=alice";
    let explained = daemon.admin(Method::GET, path, "").await?;
    assert!(explained.status.is_success(), "{}", explained.text());
    daemon.stop().await
}
