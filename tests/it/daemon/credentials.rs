//! Credentials as operators handle them from the command line.

use std::time::Duration;

use keyfob::testing::issuer::{GrantType, RefreshRotation};

use super::store::{SEALED, Vaulted};
use super::*;

fn members(listed: &Value, member: &str) -> Vec<String> {
    let all = listed["credentials"].as_array().into_iter().flatten();
    all.map(|one| one[member].as_str().unwrap_or("-").to_owned())
        .collect()
}

#[tokio::test]
async fn a_grant_is_taken_from_a_file_or_standard_input_and_told_apart() -> anyhow::Result<()> {
    let vaulted = Vaulted::set()?;
    let daemon = vaulted.launch(SEALED).start().await?;
    let first = vaulted.grant("ann")?;
    let import = [
        "credentials",
        "import",
        "crm",
        "--subject",
        "ann",
        "--grant-file",
    ];
    let from = |file: &'static str| [&import[..], &[file]].concat();

    let said = daemon.cli_with(&from("-"), &format!("{first}\n")).await?;
    assert!(said.ok()?.contains("kept over a restart"));
    std::fs::write(daemon.dir().join("grant"), &first)?;
    let json = [&["--json"], &from("grant")[..]].concat();
    let again = daemon.cli(&json).await?.json()?;
    assert_eq!(again, json!({ "durable": true, "unchanged": true }));

    // Used, and so replaced by the issuer: the first one is spent.
    daemon
        .token(vaulted.key(), &vaulted.wanted("ann"))
        .await?
        .token()?;
    let words = daemon.cli(&from("grant")).await?.failed(8)?;
    assert!(
        words.contains("spent before") && words.contains("theft"),
        "{words}"
    );

    let shown = daemon
        .cli(&["credentials", "show", "crm", "--subject", "ann"])
        .await?;
    let shown = shown.ok()?;
    assert!(
        shown.contains("credential  live") && shown.contains("each use: yes"),
        "{shown}"
    );
    // Nothing was presented without an answer, so there is nothing to probe.
    let probe = ["credentials", "probe", "crm", "--subject", "ann"];
    let words = daemon.cli(&probe).await?.failed(1)?;
    assert!(
        words.contains("no answer about its grant was lost"),
        "{words}"
    );
    assert_eq!(vaulted.issuer.ledger().replayed(), 0);

    let revoke = ["--json", "revoke", "crm", "--subject", "ann"];
    assert_eq!(
        daemon.cli(&revoke).await?.json()?,
        json!({ "upstream": false })
    );
    let listed = ["--json", "credentials", "list", "--state", "revoked"];
    let listed = daemon.cli(&listed).await?.json()?;
    assert_eq!(members(&listed, "subject"), ["ann"]);
    daemon.stop().await
}

#[tokio::test]
async fn many_grants_are_taken_line_by_line_and_listed_page_by_page() -> anyhow::Result<()> {
    let vaulted = Vaulted::set()?;
    let daemon = vaulted.launch(SEALED).start().await?;
    let mut lines = String::new();
    for n in 0..5 {
        let grant = vaulted.grant(&format!("user {n}"))?;
        let tenant = if n == 4 { "other" } else { "default" };
        let line = json!({ "tenant": tenant, "provider": "crm", "subject": format!("user {n}"), "refresh_token": grant });
        lines.push_str(&format!("{line}\n\n"));
    }
    let stray = random_secret()?;
    daemon.canary().add(&stray);
    lines.push_str(&format!("{{\"refresh_token\":\"{stray}\"}}\n"));
    let nonesuch = json!({ "provider": "nonesuch", "refresh_token": stray });
    lines.push_str(&nonesuch.to_string());

    let said = daemon
        .cli_with(&["--json", "credentials", "import", "--lines", "-"], &lines)
        .await?;
    let tally: Value = serde_json::from_str(&said.out)?;
    assert_eq!(
        tally,
        json!({ "imported": 5, "unchanged": 0, "failed": 2, "durable": true })
    );
    assert_eq!(
        said.code, 2,
        "the first line that failed made no sense: {said:?}"
    );
    let told: Vec<Value> = said
        .err
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(
        (&told[0]["line"], &told[1]["line"]),
        (&json!(11), &json!(12))
    );
    assert_eq!(told[1]["type"], "urn:keyfob:problem:unknown_provider");

    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut list = vec![
            "--json",
            "credentials",
            "list",
            "--limit",
            "2",
            "--tenant",
            "default",
        ];
        list.extend(after.iter().flat_map(|next| ["--after", next.as_str()]));
        let page = daemon.cli(&list).await?.json()?;
        let found = members(&page, "subject");
        assert!(found.len() <= 2, "{page}");
        seen.extend(found);
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, ["user 0", "user 1", "user 2", "user 3"]);
    let odd = daemon
        .admin(Method::GET, "/admin/v1/credentials?after=x", "")
        .await?;
    odd.problem(400, "invalid_request")?;
    let odd = daemon
        .admin(Method::GET, "/admin/v1/credentials?state=dead", "")
        .await?;
    odd.problem(400, "invalid_request")?;
    daemon.stop().await
}

#[tokio::test]
async fn a_lost_answer_is_told_counted_and_probed_on_order_only() -> anyhow::Result<()> {
    let vaulted = Vaulted::set()?;
    let daemon = vaulted.launch(SEALED).start().await?;
    daemon.hand_over("crm/ann", &vaulted.grant("ann")?).await?;
    vaulted.issuer.behave_next(1, Behaviour::ResetAfterRequest);
    let lost = daemon.token(vaulted.key(), &vaulted.wanted("ann")).await?;
    lost.problem(503, "unavailable")?;
    let show = ["credentials", "show", "crm", "--subject", "ann"];
    let shown = daemon.cli(&show).await?.ok()?;
    for words in [
        "uncertain (lost_answer), since",
        "then a human must authorize",
        "keyfob credentials probe",
    ] {
        assert!(shown.contains(words), "{shown}");
    }
    let metrics = async || anyhow::Ok(daemon.admin(Method::GET, "/metrics", "").await?.text());
    let text = metrics().await?;
    for line in [
        "keyfob_grant_rotations_lost_total{provider=\"crm\"} 1",
        "keyfob_credentials{provider=\"crm\",state=\"uncertain\"} 1",
        "keyfob_undurable_records{provider=\"crm\"} 0",
        "keyfob_oldest_grant_age_seconds{provider=\"crm\"} ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(
        vaulted.issuer.ledger().replayed(),
        0,
        "nobody presented it again"
    );

    // The issuer had rotated it: presented once more, it is theft to it. That is what the order risks.
    // An order is taken once the request before it can no longer be acted on.
    let pause: u64 = lost.header("retry-after").parse()?;
    tokio::time::sleep(Duration::from_secs(pause)).await;
    let probed = daemon
        .cli(&["--json", "credentials", "probe", "crm", "--subject", "ann"])
        .await?;
    let probed = probed.json()?;
    assert_eq!(
        (&probed["state"], &probed["cause"]),
        (&json!("reauthorization_required"), &json!("refused"))
    );
    assert_eq!(vaulted.issuer.ledger().replayed(), 1);
    let text = metrics().await?;
    assert!(
        text.contains("keyfob_grant_rotations_replayed_total{provider=\"crm\"} 1"),
        "{text}"
    );
    assert!(
        text.contains("keyfob_grant_rotations_lost_total{provider=\"crm\"} 1"),
        "{text}"
    );
    daemon.stop().await
}

#[tokio::test]
async fn an_order_presents_a_kept_grant_once_more_and_it_may_be_good() -> anyhow::Result<()> {
    let vaulted = Vaulted::set()?;
    let daemon = vaulted.launch(SEALED).start().await?;
    daemon.hand_over("crm/ann", &vaulted.grant("ann")?).await?;
    // Somebody in between answers, and the issuer never saw it.
    vaulted.issuer.behave_next(1, Behaviour::Status(502));
    for (status, slug) in [(503, "unavailable"), (409, "reauthorization_required")] {
        let refused = async |daemon: &KeyfobDaemon| {
            let answer = daemon.token(vaulted.key(), &vaulted.wanted("ann")).await?;
            Ok(answer.problem(status, slug).is_ok())
        };
        daemon.until(slug, refused).await?;
    }
    assert_eq!(
        vaulted.issuer.ledger().count(),
        1,
        "no grant left twice by itself"
    );
    let probed = daemon
        .cli(&["--json", "credentials", "probe", "crm", "--subject", "ann"])
        .await?;
    assert_eq!(probed.json()?["state"], "live");
    daemon
        .token(vaulted.key(), &vaulted.wanted("ann"))
        .await?
        .token()?;
    assert_eq!(vaulted.issuer.ledger().count(), 2);
    daemon.stop().await
}

/// A grant that rotates at each use, as the tests' issuer gives them to its client `svc`.
pub(super) fn rotating(secret: &str) -> Client {
    Client::new("svc", ClientAuth::Basic(secret.to_owned()))
        .grants(&[GrantType::RefreshToken])
        .rotation(RefreshRotation::SingleUse)
}
