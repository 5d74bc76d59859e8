//! A provider whose plugin means harm: it gets a typed error, its neighbours do not notice, and no secret gets out
//! (I8, I11). The leak check at the end of each test is half of the promise.

use keyfob::model::error::{Error, ErrorKind};
use keyfob::model::event::Event;
use keyfob::settings::PluginSource;
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::guests;
use keyfob_tests::stage::{ACME, CLIENT_SECRET, Setting, Stage, of};
use serde_json::json;

/// [`ACME`] does what the word says; "beta" is an honest neighbour.
async fn stage(word: &str, more: serde_json::Value) -> Stage {
    let word = word.to_owned();
    Setting::new()
        .provider(ACME, move |acme, _| {
            acme.plugin = PluginSource::Bytes(guests::hostile());
            acme.settings["do"] = word.into();
            for (name, value) in more.as_object().into_iter().flatten() {
                acme.settings[name] = value.clone();
            }
            acme.expose = vec!["echo".to_owned()];
            acme.readable = vec!["note".to_owned()];
        })
        .provider("beta", |beta, _| {
            beta.secrets.push(keyfob_tests::stage::secret(
                "another_secret",
                "beta-secret-0123456789",
            ));
        })
        .open()
        .await
}

/// An issuer that repeats the client's secret.
fn echoing(stage: &Stage) {
    stage.canary.add("echoed-token-0123456789");
    stage.issuer.behave_next(
        1,
        Behaviour::Custom {
            status: 200,
            content_type: "application/json".to_owned(),
            body: json!({
                "access_token": "echoed-token-0123456789", "token_type": "Bearer", "expires_in": 60,
                "echo": CLIENT_SECRET, "note": format!("your password is {CLIENT_SECRET}"),
            })
            .to_string(),
        },
    );
}

async fn fails(stage: &Stage, word: &str) -> Error {
    let error = stage.token().await.err();
    let error = error.unwrap_or_else(|| panic!("{word} went unpunished"));
    let neighbour = stage.billing().token(&of("beta")).await;
    assert!(
        neighbour.is_ok(),
        "{word} hurt its neighbour: {:?}",
        neighbour.err()
    );
    error
}

fn blamed(stage: &Stage) -> bool {
    stage
        .recorder
        .count(|event| matches!(event, Event::PluginFailed { provider, .. } if provider == ACME))
        > 0
}

#[tokio::test]
async fn an_honest_plugin_of_the_same_build_is_served() {
    let stage = stage("honest", json!({})).await;
    assert!(stage.token().await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn what_is_not_granted_does_not_leave() {
    for word in [
        "header-value",
        "header-name",
        "other-secret",
        "secret-in-header",
        "secret-in-query",
        "foreign-handle",
        "early",
    ] {
        let stage = stage(word, json!({})).await;
        let error = fails(&stage, word).await;
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{word}: {error:?}");
        assert!(blamed(&stage), "{word}");
        assert_eq!(
            stage.calls(),
            1,
            "{word}: only the neighbour's request left"
        );
        stage.close().await;
    }
}

#[tokio::test]
async fn a_url_outside_the_allow_list_is_not_called() {
    let token_url = |stage: &Stage| stage.issuer.token_url().to_owned();
    let probe = stage("honest", json!({})).await;
    let url = token_url(&probe);
    probe.close().await;
    let origin = url.strip_suffix("/token").unwrap();
    let authority = origin.strip_prefix("http://").unwrap();
    for target in [
        format!("{origin}/token/../admin"),
        format!("{origin}/token/%2e%2e/admin"),
        format!("{origin}/%74oken"),
        format!("{origin}/token2"),
        format!("{origin}/Token"),
        format!("{origin}//token"),
        format!("{origin}/"),
        format!("{origin}/token?x=1"),
        format!("{origin}/token#x"),
        format!("http://user:pw@{authority}/token"),
        format!("https://{authority}/token"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://[::1]/token".to_owned(),
        "http://2130706433/token".to_owned(),
        "file:///etc/passwd".to_owned(),
        "https://evil.example/token".to_owned(),
        "/token".to_owned(),
        String::new(),
        "http://127.0.0.1:1\\\\@evil.example/token".replace("\\\\", ""),
    ] {
        let stage = stage("target", json!({ "target": target })).await;
        let error = fails(&stage, &target).await;
        assert_eq!(
            error.kind(),
            ErrorKind::Misconfigured,
            "{target}: {error:?}"
        );
        assert_eq!(
            stage.calls(),
            1,
            "{target}: only the neighbour's request left"
        );
        stage.close().await;
    }
}

#[tokio::test]
async fn an_echoed_secret_does_not_get_out() {
    for (word, refused) in [
        ("echo-extra", true),
        ("echo-token", true),
        ("echo-handle-query", true),
        ("echo-handle-form", true),
        // What a plugin may read has the secret taken out of it: repeating that is no harm.
        ("echo-text", false),
        ("echo-next", false),
        ("echo-refusal", true),
    ] {
        let stage = stage(word, json!({})).await;
        echoing(&stage);
        let answer = stage.token().await;
        assert_eq!(answer.is_err(), refused, "{word}");
        if let Ok(issued) = answer {
            for (name, value) in issued.token.extra() {
                assert!(!value.expose().contains(CLIENT_SECRET), "{word}: {name}");
            }
        }
        assert!(stage.billing().token(&of("beta")).await.is_ok(), "{word}");
        stage.close().await;
    }
}

#[tokio::test]
async fn an_extra_member_that_is_not_exposed_is_refused() {
    let stage = stage("extra", json!({})).await;
    let error = fails(&stage, "extra").await;
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.detail().contains("surplus"), "{error:?}");
    stage.close().await;
}

#[tokio::test]
async fn a_handle_of_another_flow_opens_nothing() {
    let stage = stage("kept-handle", json!({})).await;
    // The first flow has nothing to replay yet; what it keeps must be of no use to the next.
    let _ = stage.token().await;
    let audience = keyfob_tests::stage::audience("https://api.example");
    let second = stage.billing().token(&of(ACME).audience(audience)).await;
    assert_eq!(
        second.err().map(|error| error.kind()),
        Some(ErrorKind::Misconfigured)
    );
    stage.close().await;
}

#[tokio::test]
async fn a_plugin_that_never_finishes_is_stopped() {
    let stage = stage("endless", json!({})).await;
    let error = fails(&stage, "endless").await;
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(stage.calls() <= 10, "{} requests", stage.calls());
    stage.close().await;
}

#[tokio::test]
async fn a_plugin_that_fails_in_the_middle_of_a_flow_hurts_itself_only() {
    for word in [
        "loop",
        "allocate",
        "trap",
        "panic",
        "recurse",
        "then-loop",
        "then-trap",
        "then-panic",
        "then-allocate",
    ] {
        let stage = stage("honest", json!({})).await;
        drop_in(&stage, word).await;
        stage.close().await;
    }
}

/// Puts the word into force by new settings, asks, and looks at the neighbour meanwhile.
async fn drop_in(stage: &Stage, word: &str) {
    let mut settings = stage.settings.clone();
    let acme = settings
        .providers
        .iter_mut()
        .find(|p| p.name.as_str() == ACME)
        .unwrap();
    // `configure` would misbehave too: only what waits for an answer gets this far.
    acme.settings["do"] = word.into();
    match stage.broker.apply(settings).await {
        Err(error) => {
            stage.record(&error);
            assert!(!word.starts_with("then-"), "{word}: {error}");
            assert!(
                stage.token().await.is_ok(),
                "{word}: the old settings stay in force"
            );
        }
        Ok(_) => {
            let error = fails(stage, word).await;
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{word}: {error:?}");
            assert!(blamed(stage), "{word}");
        }
    }
}
