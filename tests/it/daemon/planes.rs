//! What the two planes answer.

use super::*;

/// Callers that ask at once for a token that nobody holds yet.
const CALLERS: usize = 64;

#[tokio::test]
async fn a_token_is_asked_for_once_and_answered_as_the_contract_says() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    stage
        .issuer
        .behave_next(1, Behaviour::Latency(std::time::Duration::from_millis(50)));
    let daemon = stage.launch("").start().await?;
    let wanted = wanted();
    let answers = join_all((0..CALLERS).map(|_| daemon.token(stage.key(), &wanted))).await;
    let answers = answers.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let first: Token = answers[0].token()?;
    assert_eq!(answers[0].header("cache-control"), "no-store");
    assert_eq!(
        (first.token_type.as_str(), first.scope.as_str()),
        ("Bearer", "read")
    );
    assert!((1..=300).contains(&first.expires_in), "{first:?}");
    assert!(
        first.generation < 1 << 53,
        "every language can hold a generation"
    );
    assert!(stage.issuer.is_active(&first.access_token));
    for answer in &answers {
        assert_eq!(answer.token()?.access_token, first.access_token);
    }
    assert_eq!(stage.issuer.ledger().count(), 1);
    daemon.stop().await
}

#[tokio::test]
async fn without_a_good_key_there_is_a_challenge_and_nothing_else() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let stranger = random_secret()?;
    for key in [None, Some(""), Some(stranger.as_str())] {
        let answer = daemon.token(key, &wanted()).await?;
        answer.problem(401, "unauthenticated")?;
        assert!(
            answer.header("www-authenticate").starts_with("Bearer"),
            "{:?}",
            answer.headers
        );
    }
    assert_eq!(stage.issuer.ledger().count(), 0);
    daemon.stop().await
}

#[tokio::test]
async fn an_unknown_provider_is_denied_like_a_forbidden_one() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let more = stage
        .config("")
        .replace("[providers.acme]", "[providers.other]");
    let only_provider = more.split("[callers.app]").next().unwrap_or_default();
    let daemon = stage.with(stage.config("") + only_provider).start().await?;
    let mut words = Vec::new();
    for provider in ["other", "nonesuch"] {
        let answer = daemon
            .token(stage.key(), &json!({ "provider": provider }))
            .await?;
        answer.problem(403, "denied")?;
        let body = answer.json()?;
        words.push((body["title"].clone(), body["detail"].clone()));
    }
    assert_eq!(
        words[0], words[1],
        "a caller cannot learn which providers exist"
    );
    assert_eq!(stage.issuer.ledger().count(), 0);
    daemon.stop().await
}

#[tokio::test]
async fn a_request_that_makes_no_sense_says_so() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let json = "application/json";
    // Larger than a request may be, small enough to be written whole before the answer comes.
    let big = "x".repeat(100 * 1024);
    let cases = [
        (400, json, "{"),
        (400, json, "[]"),
        (400, json, "{}"),
        (400, json, r#"{"provider":"acme","scops":["read"]}"#),
        (400, json, r#"{"provider":"acme","scopes":"read"}"#),
        (415, "text/plain", r#"{"provider":"acme"}"#),
        (413, json, big.as_str()),
    ];
    for (status, kind, body) in cases {
        let answer = daemon
            .post("/v1/token", &stage.key, kind, body.to_owned())
            .await?;
        answer.problem(status, "invalid_request")?;
    }
    daemon.stop().await
}

#[tokio::test]
async fn a_failure_carries_an_id_that_finds_the_operators_line() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    stage.issuer.behave(Behaviour::Status(500));
    let daemon = stage.launch("").start().await?;
    let answer = daemon.token(stage.key(), &wanted()).await?;
    let id = answer.problem(503, "unavailable")?;
    let wait: u64 = answer.header("retry-after").parse()?;
    assert!(
        (1..=30).contains(&wait),
        "back-off is capped at 30 s, not {wait}"
    );
    daemon
        .until("the line of the failure", async |daemon| {
            Ok(daemon.log().contains(&id))
        })
        .await?;
    let body = answer.text();
    ensure!(
        !body.contains(stage.issuer.base_url()),
        "the caller learns the issuer: {body}"
    );
    daemon.stop().await
}

#[tokio::test]
async fn the_data_plane_has_no_admin_calls() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    for path in ["/admin/v1/providers", "/metrics"] {
        assert_eq!(daemon.get(path).await?.status, 404, "{path}");
    }
    let providers = daemon.admin(Method::GET, "/admin/v1/providers", "").await?;
    assert!(
        providers.status.is_success() && providers.text().contains("acme"),
        "{providers:?}"
    );
    daemon.stop().await
}

#[tokio::test]
async fn a_swap_to_garbage_is_refused_and_the_old_plugin_serves() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let path = "/admin/v1/providers/acme/plugin";
    let before = daemon.token(stage.key(), &wanted()).await?.token()?;
    let refused = daemon
        .admin(Method::PUT, path, "no component at all")
        .await?;
    assert_eq!(refused.status, 422, "{}", refused.text());
    // A new token, so that the old plugin is asked and not the cache.
    let after = daemon
        .reject(&stage.key, &wanted(), before.generation)
        .await?
        .token()?;
    assert_eq!(after.outcome.as_deref(), Some("refreshed"));
    daemon.stop().await
}

#[tokio::test]
async fn a_plugin_that_ships_can_be_exported_swapped_in_and_rolled_back() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let component = daemon.dir().join("oauth2.wasm");
    let output = component.to_string_lossy();
    let (exported, said) =
        keyfob(&["plugin", "export", "builtin:oauth2", "--output", &output]).await?;
    ensure!(exported, "{said}");
    let before = daemon.token(stage.key(), &wanted()).await?.token()?;
    let mut revisions = Vec::new();
    for _ in 0..2 {
        let bytes = std::fs::read(&component)?;
        let path = "/admin/v1/providers/acme/plugin";
        let swapped = daemon.admin(Method::PUT, path, bytes).await?;
        ensure!(swapped.status.is_success(), "{}", swapped.text());
        revisions.extend(swapped.json()?["revision"].as_u64());
    }
    assert!(
        revisions.len() == 2 && revisions[0] < revisions[1],
        "{revisions:?}"
    );
    let back = daemon
        .admin(Method::POST, "/admin/v1/providers/acme/rollback", "")
        .await?;
    ensure!(back.status.is_success(), "{}", back.text());
    let after = daemon
        .reject(&stage.key, &wanted(), before.generation)
        .await?
        .token()?;
    assert_eq!(after.outcome.as_deref(), Some("refreshed"));
    daemon.stop().await
}

#[tokio::test]
async fn a_unix_socket_serves_both_planes() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").unix().start().await?;
    daemon.token(stage.key(), &wanted()).await?.token()?;
    daemon.stop().await
}

#[tokio::test]
async fn both_planes_speak_tls_when_told_to() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let dir = tempfile::tempdir()?;
    let daemon = stage
        .launch("")
        .tls(&Pki::create(dir.path())?)
        .start()
        .await?;
    daemon.token(stage.key(), &wanted()).await?.token()?;
    daemon.stop().await
}
