//! Who may have what: denials say what to write to operators and nothing to callers, a policy narrows and never widens,
//! and tenants share nothing (I9).

use keyfob::broker::builtin;
use keyfob::model::error::{Error, ErrorKind, Retry};
use keyfob::model::event::Event;
use keyfob::model::key::Tenant;
use keyfob::model::policy::TokenRequest;
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::guests;
use keyfob_tests::stage::{
    ACME, Caller, Setting, Stage, anything, audience, generation, of, scopes, subject, with_scope,
};
use serde_json::json;

const REPORTS: &str = "reports";

/// A caller that may read at ACME, for Alice, at one audience.
async fn narrow() -> (Stage, Caller) {
    let rules = json!({ "allow": [{
        "provider": ACME, "subjects": [], "scopes": ["read"], "audiences": ["*"],
    }] });
    let stage = Setting::new()
        .caller(REPORTS, "default", rules)
        .open()
        .await;
    let caller = stage.caller(REPORTS, Tenant::default());
    (stage, caller)
}

async fn denied(caller: &Caller, request: &TokenRequest) -> Error {
    let error = caller
        .token(request)
        .await
        .err()
        .expect("it is not allowed");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.retry(), Retry::Never);
    error
}

#[tokio::test]
async fn what_is_not_listed_is_denied_and_the_operator_reads_the_line_to_add() {
    let (stage, caller) = narrow().await;
    assert!(caller.token(&of(ACME)).await.is_ok());
    let calls = stage.calls();
    for (request, code, line) in [
        (of("nowhere"), "unknown_provider", "[providers.nowhere]"),
        (
            with_scope("write"),
            "scope_not_allowed",
            "scopes = [\"write\"]",
        ),
        (
            of(ACME).scopes(scopes(&["read", "write"])),
            "scope_not_allowed",
            "\"write\"",
        ),
        (
            of(ACME).scopes(scopes(&[])),
            "scopes_unbounded",
            "scopes = [\"*\"]",
        ),
        (
            of(ACME).subject(subject("mallory")),
            "subject_not_allowed",
            "mallory",
        ),
    ] {
        let error = denied(&caller, &request).await;
        assert!(error.detail().contains(line), "{error:?}");
        assert!(
            !error.to_string().contains(line),
            "callers get the host's words"
        );
        let told = stage.recorder.count(|event| {
            matches!(event, Event::Denied { code: said, correlation, .. }
                if said == code && *correlation == error.correlation())
        });
        assert_eq!(told, 1, "{code}: {error:?}");
    }
    assert_eq!(stage.calls(), calls, "a denial reaches no issuer");
    stage.close().await;
}

#[tokio::test]
async fn a_caller_nobody_configured_is_denied() {
    let (stage, _) = narrow().await;
    let stranger = stage.caller("stranger", Tenant::default());
    let error = denied(&stranger, &of(ACME)).await;
    assert!(error.detail().contains("[callers.stranger]"), "{error:?}");
    stage.close().await;
}

#[tokio::test]
async fn a_rejection_needs_the_same_permission_as_a_token() {
    let (stage, caller) = narrow().await;
    let issued = stage.billing().token(&with_scope("write")).await.unwrap();
    let rejection = keyfob_tests::stage::refused(generation(&issued));
    let answer = caller.reject(&with_scope("write"), &rejection).await;
    assert_eq!(
        answer.err().map(|error| error.kind()),
        Some(ErrorKind::Denied)
    );
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn a_swapped_policy_decides_from_the_next_request_on() {
    let (stage, caller) = narrow().await;
    let mut handle = stage
        .broker
        .handle(
            &keyfob::model::policy::Principal::new(REPORTS, Tenant::default(), vec![]),
            &of(ACME),
        )
        .await
        .unwrap();
    assert!(handle.token().await.is_ok());
    denied(&caller, &with_scope("write")).await;
    // This one lets everybody have everything, for thirty seconds at most.
    stage
        .broker
        .swap_policy(guests::hostile(), "admin")
        .await
        .unwrap();
    let issued = caller.token(&with_scope("write")).await.unwrap();
    assert!(
        issued.expires < issued.token.expires(),
        "the permit ends before the token"
    );
    // What was allowed, and remembered, under one policy is worth nothing under the next.
    let closed = guests::hostile_at_birth("deny");
    stage.broker.swap_policy(closed, "admin").await.unwrap();
    denied(&caller, &of(ACME)).await;
    denied(&caller, &with_scope("write")).await;
    assert!(handle.get().is_err());
    assert_eq!(
        handle.token().await.err().map(|error| error.kind()),
        Some(ErrorKind::Denied)
    );
    stage.broker.rollback_policy("admin").await.unwrap();
    assert!(caller.token(&with_scope("write")).await.is_ok());
    stage
        .broker
        .swap_policy(builtin("allowlist").unwrap().into(), "admin")
        .await
        .unwrap();
    denied(&caller, &with_scope("write")).await;
    assert!(caller.token(&of(ACME)).await.is_ok());
    assert!(handle.token().await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn a_policy_that_is_no_policy_changes_nothing() {
    let (stage, caller) = narrow().await;
    for (component, code) in [
        (builtin("oauth2").unwrap().into(), Some("no_world")),
        (std::sync::Arc::from(&b"garbage"[..]), None),
        (guests::hostile_at_birth("loop"), None),
    ] {
        let error = stage
            .broker
            .swap_policy(component, "admin")
            .await
            .expect_err("it is none");
        stage.record(&error);
        assert!(code.is_none_or(|code| code == error.code), "{error}");
        assert!(caller.token(&of(ACME)).await.is_ok());
        denied(&caller, &with_scope("write")).await;
    }
    stage.close().await;
}

#[tokio::test]
async fn a_policy_that_fails_denies_and_is_not_remembered() {
    // The hostile policy does what a caller's rules say.
    let stage = Setting::new()
        .caller("trap", "default", json!({ "do": "trap" }))
        .caller("loop", "default", json!({ "do": "loop" }))
        .open()
        .await;
    let before = stage.token().await.unwrap();
    stage
        .broker
        .swap_policy(guests::hostile(), "admin")
        .await
        .unwrap();
    for word in ["trap", "loop"] {
        let caller = stage.caller(word, Tenant::default());
        for _ in 0..2 {
            let error = denied(&caller, &of(ACME)).await;
            assert!(error.detail().contains("policy_failed"), "{error:?}");
        }
        // Nobody else notices.
        assert_eq!(
            generation(&stage.token().await.unwrap()),
            generation(&before)
        );
    }
    stage.broker.rollback_policy("admin").await.unwrap();
    assert_eq!(
        generation(&stage.token().await.unwrap()),
        generation(&before)
    );
    stage.close().await;
}

#[tokio::test]
async fn new_rules_decide_from_the_next_request_on() {
    let (stage, caller) = narrow().await;
    assert!(caller.token(&of(ACME)).await.is_ok());
    let mut settings = stage.settings.clone();
    for caller in settings
        .callers
        .iter_mut()
        .filter(|caller| caller.name == REPORTS)
    {
        caller.rules = json!({ "allow": [] });
    }
    stage.broker.apply(settings).await.unwrap();
    denied(&caller, &of(ACME)).await;
    assert!(stage.token().await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn tenants_never_share_a_token_a_failure_or_a_grant() {
    let stage = Setting::new()
        .caller("tenant-b", "b", anything())
        .open()
        .await;
    let b = stage.caller("tenant-b", Tenant::parse("b").unwrap());
    // The failure of one is not remembered for the other.
    stage.issuer.behave_next(1, Behaviour::Status(500));
    assert!(stage.token().await.is_err());
    let theirs = b.token(&of(ACME)).await.unwrap();
    assert_eq!(stage.calls(), 2);
    let same = b.token(&of(ACME)).await.unwrap();
    assert_eq!(same.token.raw(), theirs.token.raw());
    let ours = stage.billing().token(&with_scope("write")).await.unwrap();
    let also = b.token(&with_scope("write")).await.unwrap();
    assert_ne!(ours.token.raw(), also.token.raw());
    stage.close().await;
}

#[tokio::test]
async fn what_reaches_the_wire_makes_another_token() {
    let stage = Setting::new().open().await;
    let caller = stage.billing();
    let mut seen = std::collections::HashSet::new();
    for request in [
        of(ACME),
        with_scope("write"),
        of(ACME).scopes(scopes(&["read", "write"])),
        of(ACME).audience(audience("https://api.example")),
        of(ACME).subject(subject("alice")),
    ] {
        assert!(seen.insert(caller.token(&request).await.unwrap().token.raw().to_owned()));
    }
    // The same set in another order is the same token.
    let again = caller
        .token(&of(ACME).scopes(scopes(&["write", "read"])))
        .await
        .unwrap();
    assert!(seen.contains(again.token.raw()));
    stage.close().await;
}

#[tokio::test]
async fn changed_settings_make_old_tokens_absent() {
    let stage = Setting::new().open().await;
    let before = stage.token().await.unwrap();
    let mut settings = stage.settings.clone();
    stage.broker.apply(settings.clone()).await.unwrap();
    assert_eq!(
        generation(&stage.token().await.unwrap()),
        generation(&before)
    );
    settings.providers[0].settings["params"] = json!({ "x": "1" });
    stage.broker.apply(settings).await.unwrap();
    let after = stage.token().await.unwrap();
    assert_ne!(after.token.raw(), before.token.raw());
    assert!(generation(&after) > generation(&before));
    stage.close().await;
}
