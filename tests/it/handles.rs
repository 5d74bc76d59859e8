//! Handles: a route's token, read without asking anybody, and never past what ended it.

use std::time::Duration;

use keyfob::cache::NotReady;
use keyfob::model::error::ErrorKind;
use keyfob::model::key::Tenant;
use keyfob::model::policy::Principal;
use keyfob::model::time::{Clock, SystemClock};
use keyfob_tests::stage::{ACME, BILLING, Setting, Stage, credential, of};

async fn handle(stage: &Stage) -> keyfob::broker::TokenHandle {
    let billing = Principal::new(BILLING, Tenant::default(), Vec::new());
    stage.broker.handle(&billing, &of(ACME)).await.unwrap()
}

#[tokio::test]
async fn a_handle_waits_once_and_then_reads_memory() {
    let stage = Setting::new().open().await;
    let mut route = handle(&stage).await;
    assert!(matches!(route.get(), Err(NotReady::Absent)));
    let first = route.token().await.unwrap();
    for _ in 0..1_000 {
        assert_eq!(route.get().unwrap().generation(), first.generation());
    }
    let mut other = route.clone();
    assert_eq!(other.get().unwrap().raw(), first.raw());
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn a_revoked_credential_is_gone_from_every_handle_at_its_next_look() {
    let stage = Setting::new().open().await;
    let mut routes = [handle(&stage).await, handle(&stage).await];
    for route in &mut routes {
        route.token().await.unwrap();
    }
    stage
        .broker
        .revoke_credential(&credential(None), "test")
        .await
        .unwrap();
    for route in &mut routes {
        assert!(route.get().is_err());
        let error = route.token().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReauthorizationRequired);
    }
    stage.close().await;
}

#[tokio::test]
async fn a_policy_swap_makes_every_handle_ask_again() {
    let stage = Setting::new().open().await;
    let mut route = handle(&stage).await;
    let held = route.token().await.unwrap();
    let policy = keyfob::broker::builtin("allowlist").unwrap();
    stage
        .broker
        .swap_policy(policy.into(), "test")
        .await
        .unwrap();
    assert!(matches!(route.get(), Err(NotReady::Denied)));
    let again = route.token().await.unwrap();
    assert_eq!(
        again.generation(),
        held.generation(),
        "allowed again, and still the same token"
    );
    assert!(route.get().is_ok());
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn a_handle_goes_over_to_the_next_token_and_never_holds_one_past_its_end() {
    let stage = Setting::new().lifetime(Duration::from_secs(1)).open().await;
    let mut route = handle(&stage).await;
    let first = route.token().await.unwrap();
    loop {
        // One that is over must not be handed out; whether it was renewed ahead of that or is absent now is timing.
        if let Ok(token) = route.get() {
            assert!(token.expires() > SystemClock.now());
            if token.generation() != first.generation() {
                break;
            }
        } else {
            assert!(route.token().await.unwrap().generation() > first.generation());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stage.close().await;
}
