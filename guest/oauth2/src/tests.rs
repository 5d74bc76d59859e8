//! What `builtin:oauth2` promises, driven by the SDK's harness.

use keyfob_guest::bindings::provider::types::BasicEncoding;
use keyfob_guest::serde_json::{Value, json};
use keyfob_guest::testing::{Harness, NOW};
use keyfob_guest::{Expiry, Holds, Refusal, Revoked, Rotation, Verdict};

use super::OAuth2;

const URL: &str = "https://login.acme.example/oauth2/token";

fn settings(more: Value) -> Value {
    let mut settings = json!({"token_url": URL, "client_id": "svc", "grant": "client_credentials"});
    for (name, value) in more.as_object().into_iter().flatten() {
        settings[name] = value.clone();
    }
    settings
}

fn harness(more: Value) -> Harness<OAuth2> {
    Harness::new(settings(more))
}

#[test]
fn client_credentials_are_one_request() {
    let acme = harness(json!({})).call(|call| {
        call.scopes = vec!["orders.read".into(), "orders.write".into()];
        call.audience = Some("https://api.acme.example".into());
    });
    let mut flow = acme.refresh();
    let sent = flow.sends();
    assert_eq!((sent.request.method.as_str(), sent.url()), ("POST", URL));
    assert_eq!(
        sent.basic(),
        Some(("svc".into(), "secret:client_secret".into()))
    );
    assert_eq!(sent.basic_encoding(), Some(BasicEncoding::Form));
    assert_eq!(sent.header("Accept").as_deref(), Some("application/json"));
    let members = [
        ("grant_type", "client_credentials"),
        ("scope", "orders.read orders.write"),
        ("audience", "https://api.acme.example"),
    ];
    assert_eq!(
        sent.form_members(),
        members.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );

    flow.answer(200, json!({"access_token": "t-1", "token_type": "bearer", "expires_in": 3600, "scope": "orders.read"}));
    let done = flow.done();
    assert_eq!(done.access_token, "t-1");
    assert_eq!(done.tokens.token_type, "Bearer");
    assert_eq!(done.tokens.expires, Expiry::FromAnswer(3600));
    assert_eq!(done.tokens.scopes, Some(vec!["orders.read".into()]));
}

#[test]
fn what_was_not_asked_for_is_not_sent() {
    let members = harness(json!({})).refresh().sends().form_members();
    assert_eq!(
        members,
        [("grant_type".to_owned(), "client_credentials".to_owned())]
    );
}

#[test]
fn a_stray_refresh_token_beside_client_credentials_is_left_alone() {
    let mut flow = harness(json!({})).refresh();
    flow.answer(
        200,
        json!({"access_token": "t-1", "refresh_token": "stray"}),
    );
    assert_eq!(flow.done().refresh_token, None);
}

#[test]
fn every_client_authentication_shapes_its_own_request() {
    let sent = harness(json!({"client_auth": "client_secret_basic_raw"}))
        .refresh()
        .sends();
    assert_eq!(sent.basic_encoding(), Some(BasicEncoding::Raw));

    let sent = harness(json!({"client_auth": "client_secret_post"}))
        .refresh()
        .sends();
    assert_eq!(sent.form("client_id").as_deref(), Some("svc"));
    assert_eq!(
        sent.form("client_secret").as_deref(),
        Some("secret:client_secret")
    );
    assert_eq!(sent.basic(), None);

    let sent = harness(json!({"client_auth": "none"})).refresh().sends();
    assert_eq!(sent.form("client_id").as_deref(), Some("svc"));
    assert!(sent.secrets().is_empty());
}

#[test]
fn private_key_jwt_signs_first_and_then_sends_the_assertion() {
    let mut flow = harness(json!({"client_auth": "private_key_jwt"})).refresh();
    let signs = flow.signs();
    assert_eq!(signs.key(), "signing_key");
    let claims = signs.claims();
    assert_eq!(
        claims,
        json!({"iss": "svc", "sub": "svc", "aud": URL, "iat": NOW, "exp": NOW + 300, "jti": claims["jti"]})
    );
    flow.sign("h.c.s");
    let sent = flow.sends();
    assert_eq!(sent.form("client_assertion").as_deref(), Some("h.c.s"));
    assert_eq!(
        sent.form("client_assertion_type").as_deref(),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    );
    flow.answer(200, json!({"access_token": "t-1"}));
    assert_eq!(flow.done().tokens.expires, Expiry::Unknown);
}

#[test]
fn an_assertion_goes_to_the_audience_that_the_server_wants() {
    let more = json!({"client_auth": "private_key_jwt", "assertion_audience": "https://login.acme.example"});
    assert_eq!(
        harness(more).refresh().signs().claims()["aud"],
        "https://login.acme.example"
    );
}

#[test]
fn a_jwt_bearer_speaks_for_the_subject_or_for_itself() {
    let more = json!({"grant": "jwt_bearer", "client_auth": "none"});
    assert_eq!(
        harness(more.clone()).refresh().signs().claims()["sub"],
        "svc"
    );

    let mut flow = harness(more)
        .call(|call| call.subject = Some("alice".into()))
        .refresh();
    let claims = flow.signs().claims();
    assert_eq!(
        (&claims["iss"], &claims["sub"]),
        (&json!("svc"), &json!("alice"))
    );
    flow.sign("h.c.s");
    let sent = flow.sends();
    assert_eq!(
        sent.form("grant_type").as_deref(),
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer")
    );
    assert_eq!(sent.form("assertion").as_deref(), Some("h.c.s"));
}

#[test]
fn two_assertions_of_one_flow_differ() {
    let mut flow =
        harness(json!({"grant": "jwt_bearer", "client_auth": "private_key_jwt"})).refresh();
    let first = flow.signs().claims()["jti"].clone();
    flow.sign("assertion");
    let second = flow.signs().claims()["jti"].clone();
    flow.sign("client-assertion");
    assert_ne!(first, second);
    let sent = flow.sends();
    assert_eq!(sent.form("assertion").as_deref(), Some("assertion"));
    assert_eq!(
        sent.form("client_assertion").as_deref(),
        Some("client-assertion")
    );
}

#[test]
fn a_rotated_refresh_token_comes_back_with_the_token() {
    let mut flow = harness(json!({"grant": "refresh_token"}))
        .grant("r-1")
        .refresh();
    let sent = flow.sends();
    assert_eq!(sent.form("grant_type").as_deref(), Some("refresh_token"));
    assert_eq!(sent.form("refresh_token").as_deref(), Some("r-1"));
    flow.answer(
        200,
        json!({"access_token": "t-2", "refresh_token": "r-2", "expires_in": "nonsense"}),
    );
    let done = flow.done();
    assert_eq!(
        (done.access_token.as_str(), done.refresh_token.as_deref()),
        ("t-2", Some("r-2"))
    );
}

#[test]
fn without_a_grant_nothing_is_sent() {
    let Refusal::Reauthorize(reason) = harness(json!({"grant": "refresh_token"}))
        .refresh()
        .refused()
    else {
        panic!("only a new grant helps")
    };
    assert_eq!(reason.code, "no_grant");
}

#[test]
fn a_dead_grant_needs_a_human_and_a_wrong_client_an_operator() {
    let refused = |grant: &str, status, error: &str| {
        let mut flow = harness(json!({"grant": grant})).grant("r-1").refresh();
        flow.answer(
            status,
            json!({"error": error, "error_description": "words"}),
        );
        flow.refused()
    };
    let code = |refusal| match refusal {
        Refusal::Reauthorize(reason) | Refusal::Misconfigured(reason) => reason.code,
        other => panic!("{other:?}"),
    };
    let dead = refused("refresh_token", 400, "invalid_grant");
    assert!(matches!(dead, Refusal::Reauthorize(_)));
    assert_eq!(code(dead), "invalid_grant");
    // A client that holds a grant it did not present has lost nothing.
    assert!(matches!(
        refused("client_credentials", 400, "invalid_grant"),
        Refusal::Misconfigured(_)
    ));
    assert!(matches!(
        refused("refresh_token", 401, "invalid_client"),
        Refusal::Misconfigured(_)
    ));
}

#[test]
fn an_empty_200_leaves_a_presented_grant_in_doubt_and_anything_else_for_later() {
    let mut flow = harness(json!({"grant": "refresh_token"}))
        .grant("r-1")
        .refresh();
    flow.answer_unreadable(200, "empty");
    let Refusal::InDoubt(reason) = flow.refused() else {
        panic!("the grant may have been spent")
    };
    assert_eq!(reason.message, "the server answered 200: empty");

    let mut flow = harness(json!({})).refresh();
    flow.answer_unreadable(200, "not_json");
    assert!(matches!(flow.refused(), Refusal::Transient(_)));
}

#[test]
fn an_unreachable_server_is_tried_later() {
    let mut flow = harness(json!({})).refresh();
    flow.unreachable();
    assert!(matches!(flow.refused(), Refusal::Transient(_)));
}

#[test]
fn a_rate_limit_carries_the_servers_wait() {
    let mut flow = harness(json!({})).refresh();
    flow.answer_with(429, &[("retry-after", "30")], json!({}));
    let Refusal::RateLimited(limit) = flow.refused() else {
        panic!("429 is a rate limit")
    };
    assert_eq!(limit.after_seconds, Some(30));
}

#[test]
fn extra_members_and_the_resource_go_into_the_form() {
    let sent =
        harness(json!({"audience_as": "resource", "params": {"tenant": "x", "resource_set": "y"}}))
            .call(|call| call.audience = Some("https://api.acme.example".into()))
            .refresh()
            .sends();
    assert_eq!(
        sent.form("resource").as_deref(),
        Some("https://api.acme.example")
    );
    assert_eq!(sent.form("audience"), None);
    assert_eq!(
        (sent.form("tenant"), sent.form("resource_set")),
        (Some("x".into()), Some("y".into()))
    );
}

#[test]
fn needs_follow_from_the_settings() {
    let needs = |more| harness(more).configure().expect("the settings are right");
    let plain = needs(json!({}));
    assert_eq!(
        (plain.secrets, plain.destinations),
        (vec!["client_secret".into()], vec![URL.into()])
    );
    assert_eq!(plain.rotation, Rotation::Never);
    assert_eq!(needs(json!({"client_auth": "none"})).secrets, [""; 0]);
    assert_eq!(
        needs(json!({"client_auth": "private_key_jwt"})).secrets,
        ["signing_key"]
    );
    assert_eq!(
        needs(json!({"grant": "jwt_bearer"})).secrets,
        ["client_secret", "signing_key"]
    );
    let both = json!({"grant": "jwt_bearer", "client_auth": "private_key_jwt", "revocation_url": "https://a.example/r"});
    let both = needs(both);
    assert_eq!(both.secrets, ["signing_key"]);
    assert_eq!(both.destinations, [URL, "https://a.example/r"]);
    assert_eq!(
        needs(json!({"grant": "refresh_token"})).rotation,
        Rotation::Unknown
    );
}

#[test]
fn wrong_settings_are_reported_together() {
    let settings = json!({"token_url": "login.acme.example", "grant": "password", "client_auth": "mtls",
                          "params": {"scope": "a", "client_secret": "hunter2"}, "client_secret": "hunter2"});
    let mistakes = Harness::<OAuth2>::new(settings)
        .configure()
        .expect_err("nothing is right");
    let places: Vec<_> = mistakes.iter().map(|mistake| mistake.at.as_str()).collect();
    assert_eq!(
        places,
        [
            "/token_url",
            "/client_id",
            "/client_auth",
            "/grant",
            "/params/client_secret",
            "/params/scope",
            "/client_secret"
        ]
    );
    assert!(!format!("{mistakes:?}").contains("hunter2"));
}

#[test]
fn a_call_with_wrong_settings_is_a_typed_refusal() {
    let Refusal::Misconfigured(reason) = Harness::<OAuth2>::new("{}").refresh().refused() else {
        panic!("an operator must act")
    };
    assert_eq!(reason.code, "settings");
}

#[test]
fn revocation_names_the_token_and_its_kind() {
    let acme = harness(
        json!({"grant": "refresh_token", "revocation_url": "https://login.acme.example/revoke"}),
    );
    let mut flow = acme.revoke("r-1", Holds::RefreshToken);
    let sent = flow.sends();
    assert_eq!(
        (
            sent.form("token").as_deref(),
            sent.form("token_type_hint").as_deref()
        ),
        (Some("r-1"), Some("refresh_token"))
    );
    assert_eq!(
        sent.basic(),
        Some(("svc".into(), "secret:client_secret".into()))
    );
    flow.answer_unreadable(200, "empty");
    assert_eq!(flow.revoked(), Revoked::Done);

    let mut flow = acme.revoke("t-1", Holds::AccessToken);
    flow.answer(400, json!({"error": "unsupported_token_type"}));
    assert_eq!(flow.revoked(), Revoked::Unsupported);

    let mut flow = acme.revoke("t-1", Holds::AccessToken);
    flow.answer(503, json!({}));
    assert!(matches!(flow.refused(), Refusal::Transient(_)));

    assert_eq!(
        acme.revoke("i-1", Holds::IdToken).revoked(),
        Revoked::Unsupported
    );
    assert_eq!(
        harness(json!({}))
            .revoke("t-1", Holds::AccessToken)
            .revoked(),
        Revoked::Unsupported
    );
}

#[test]
fn a_resources_refusal_is_read_as_rfc_6750_says() {
    let acme = harness(json!({}));
    assert_eq!(
        acme.classify(401, Some("Bearer error=\"invalid_token\"")),
        Verdict::TokenDead
    );
    assert_eq!(
        acme.classify(403, Some("Bearer error=\"insufficient_scope\"")),
        Verdict::ScopeMissing
    );
    assert_eq!(acme.classify(404, None), Verdict::Unrelated);
}

#[test]
fn the_plugin_introduces_itself() {
    let description = harness(json!({})).describe();
    assert_eq!(description.name, "oauth2");
    let schema: Value =
        keyfob_guest::serde_json::from_str(&description.settings_schema).expect("a schema is JSON");
    assert_eq!(schema["required"], json!(["token_url", "client_id"]));
    let names: Vec<_> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "assertion_audience",
            "audience_as",
            "client_auth",
            "client_id",
            "grant",
            "params",
            "revocation_url",
            "token_url"
        ]
    );
}
