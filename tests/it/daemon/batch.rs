//! `POST /v1/tokens`: many tokens in one call.

use super::*;

/// As many as one call may ask for.
const MOST: usize = 256;

fn user(number: usize) -> Value {
    json!({ "provider": "acme", "subject": format!("user-{number}") })
}

#[tokio::test]
async fn many_tokens_come_in_the_order_asked_cold_and_warm() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let wanted: Vec<_> = [2, 0, 1, 0].map(user).into();
    let cold = daemon.tokens(&stage.key, &wanted).await?;
    assert_eq!(cold.header("cache-control"), "no-store");
    assert_eq!(cold.header("content-type"), "application/json");
    let tokens = |answer: &keyfob_tests::daemon::Answer| {
        let each = answer.tokens()?.into_iter();
        let each = each.map(|one| one.map_err(|problem| anyhow::anyhow!("{problem}")));
        each.collect::<anyhow::Result<Vec<_>>>()
    };
    let cold = tokens(&cold)?;
    assert_eq!(cold[1].access_token, cold[3].access_token);
    assert_eq!(stage.issuer.ledger().count(), 3, "one issuer call a key");
    for (wanted, cold) in wanted.iter().zip(&cold) {
        let single = daemon.token(stage.key(), wanted).await?.token()?;
        assert_eq!(single.access_token, cold.access_token);
    }
    let warm = tokens(&daemon.tokens(&stage.key, &wanted).await?)?;
    let names = |tokens: &[Token]| tokens.iter().map(|t| t.generation).collect::<Vec<_>>();
    assert_eq!(names(&warm), names(&cold));
    assert_eq!(stage.issuer.ledger().count(), 3);
    daemon.stop().await
}

#[tokio::test]
async fn what_cannot_be_had_is_a_problem_in_its_place() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let kept = daemon.token(stage.key(), &user(0)).await?.token()?;
    stage.issuer.behave(Behaviour::Status(500));
    let wanted = [json!({ "provider": "nowhere" }), user(0), user(1)];
    let answer = daemon.tokens(&stage.key, &wanted).await?;
    let mut each = answer.tokens()?.into_iter();
    let mut next = || each.next().ok_or_else(|| anyhow::anyhow!("too few"));
    let denied = next()?.err().unwrap_or_default();
    assert_eq!(denied["type"], "urn:keyfob:problem:denied");
    assert_eq!(denied["status"], 403);
    assert!(denied.get("retry_after_seconds").is_none(), "{denied}");
    let served = next()?.map_err(|problem| anyhow::anyhow!("{problem}"))?;
    assert_eq!(served.generation, kept.generation);
    let unavailable = next()?.err().unwrap_or_default();
    assert_eq!(unavailable["type"], "urn:keyfob:problem:unavailable");
    let wait = unavailable["retry_after_seconds"].as_u64();
    assert!(
        wait.is_some_and(|wait| (1..=30).contains(&wait)),
        "{unavailable}"
    );
    let id = unavailable["correlation_id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    daemon
        .until("the line of the failure", async |daemon| {
            Ok(daemon.log().contains(&id))
        })
        .await?;
    daemon.stop().await
}

#[tokio::test]
async fn a_call_has_at_least_one_and_not_too_many_requests() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    let most: Vec<_> = (0..MOST).map(|number| user(number % 4)).collect();
    let answer = daemon.tokens(&stage.key, &most).await?;
    assert_eq!(answer.tokens()?.len(), MOST);
    let too_many: Vec<_> = (0..=MOST).map(|_| user(0)).collect();
    for wanted in [&[], &*too_many] {
        let refused = daemon.tokens(&stage.key, wanted).await?;
        refused.problem(400, "invalid_request")?;
        assert!(refused.text().contains("1 to 256"), "{}", refused.text());
    }
    let json = "application/json";
    let big = "x".repeat(MOST * 4 * 1024 + 1);
    for (status, body, words) in [
        (400, "{}", "`requests` is missing"),
        (400, r#"{"requests":{}}"#, "`requests` must be"),
        (
            400,
            r#"{"requests":[1]}"#,
            "`requests[0]` must be: an object",
        ),
        (413, big.as_str(), "1048576 bytes"),
    ] {
        let answer = daemon.post("/v1/tokens", &stage.key, json, body.to_owned());
        let answer = answer.await?;
        answer.problem(status, "invalid_request")?;
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    daemon.stop().await
}

#[tokio::test]
async fn one_request_that_makes_no_sense_refuses_the_call_with_its_place() -> anyhow::Result<()> {
    let stage = Stage::set()?;
    let daemon = stage.launch("").start().await?;
    for (bad, words) in [
        (
            json!({ "provider": "acme", "subject": 1 }),
            "`requests[3].subject` must be: a string",
        ),
        (
            json!({ "subject": "x" }),
            "`requests[3].provider` is missing",
        ),
        (
            json!({ "provider": "acme", "scopes": ["a b"] }),
            "`requests[3].scopes` must be",
        ),
        (
            json!({ "provider": "acme", "generation": 1 }),
            "\\\"generation\\\" in `requests[3]`",
        ),
    ] {
        let answer = daemon
            .tokens(&stage.key, &[user(0), user(1), user(2), bad])
            .await?;
        answer.problem(400, "invalid_request")?;
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    assert_eq!(stage.issuer.ledger().count(), 0, "nothing was asked for");
    daemon
        .tokens("stranger", &[user(0)])
        .await?
        .problem(401, "unauthenticated")?;
    daemon.stop().await
}
