//! Grants that are good once (I6, I7): presented once each, never lost, ended by the issuer's word or an operator's only.

use std::time::Duration;

use keyfob::broker::ImportError;
use keyfob::model::contract::Rotation;
use keyfob::model::error::{Error, ErrorKind, Retry};
use keyfob::model::event::Event;
use keyfob::model::secret::Secret;
use keyfob::testing::issuer::{Behaviour, RefreshRotation};
use keyfob_tests::stage::{
    ACME, CLIENT, Setting, Stage, client, credential, generation, of, provider_name, refused,
    scopes, subject,
};

const ALICE: &str = "alice";

/// An issuer that rotates, and a provider that says so.
async fn rotating(rotation: RefreshRotation, declared: Rotation) -> Stage {
    let setting = Setting::new().refresh_tokens(client().rotation(rotation));
    setting
        .provider(ACME, move |acme, issuer| {
            acme.refresh.rotation = declared;
            acme.settings["revocation_url"] = issuer.revoke_url().into();
        })
        .open()
        .await
}

async fn single_use() -> Stage {
    rotating(RefreshRotation::SingleUse, Rotation::SingleUse).await
}

fn alice() -> keyfob::model::policy::TokenRequest {
    of(ACME).subject(subject(ALICE))
}

/// A new grant of Alice's, as an authorization code flow would have left it.
fn grant(stage: &Stage) -> String {
    stage
        .issuer
        .issue_refresh_token(CLIENT, ALICE)
        .expect("the client is registered")
}

async fn import(stage: &Stage, grant: &str) -> Result<bool, ImportError> {
    let key = credential(Some(ALICE));
    let grant = Secret::new(grant.to_owned());
    let outcome = stage.broker.import_credential(key, grant, "admin").await;
    stage.record(&outcome);
    outcome.map(|outcome| outcome.durable)
}

async fn state(stage: &Stage) -> &'static str {
    let status = stage.broker.credential(&credential(Some(ALICE))).await;
    stage.record(&status);
    status.unwrap().map_or("none", |status| status.state)
}

async fn fails(stage: &Stage) -> Error {
    stage
        .billing()
        .token(&alice())
        .await
        .err()
        .expect("no token")
}

/// Refreshes by rejecting the current token; protection of replacements is short where lives are.
async fn renew(stage: &Stage) -> u64 {
    let current = stage.billing().token(&alice()).await.unwrap();
    let before = generation(&current);
    let rejection = refused(before);
    let (issued, _) = stage.billing().reject(&alice(), &rejection).await.unwrap();
    generation(&issued)
}

async fn sit_out(error: &Error) {
    let Retry::After(pause) = error.retry() else {
        panic!("{error:?}")
    };
    tokio::time::sleep(pause + Duration::from_millis(5)).await;
}

#[tokio::test]
async fn without_a_grant_a_human_must_authorize() {
    let stage = single_use().await;
    let error = fails(&stage).await;
    assert_eq!(error.kind(), ErrorKind::ReauthorizationRequired);
    assert_eq!(error.retry(), Retry::Human);
    assert_eq!(stage.calls(), 0);
    // The import takes effect at once: no back-off stands in the way.
    import(&stage, &grant(&stage)).await.unwrap();
    assert!(stage.billing().token(&alice()).await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn each_refresh_token_is_presented_once() {
    // Short lives: every token is renewed for its own sake, many times over.
    let stage = Setting::new()
        .lifetime(Duration::from_secs(1))
        .refresh_tokens(client().rotation(RefreshRotation::SingleUse))
        .open()
        .await;
    import(&stage, &grant(&stage)).await.unwrap();
    while stage.calls() < 5 {
        let issued = stage.billing().token(&alice()).await.unwrap();
        assert!(stage.issuer.is_active(issued.token.raw()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let entries = stage.issuer.ledger().entries();
    let mut presented: Vec<_> = entries.iter().filter_map(|entry| entry.presented).collect();
    let all = presented.len();
    presented.dedup();
    assert_eq!(presented.len(), all);
    assert_eq!(stage.issuer.ledger().replayed(), 0);
    stage.close().await;
}

#[tokio::test]
async fn a_dropped_caller_does_not_lose_a_rotated_token() {
    let stage = single_use().await;
    stage
        .issuer
        .behave_next(1, Behaviour::Latency(Duration::from_millis(200)));
    import(&stage, &grant(&stage)).await.unwrap();
    let caller = stage.billing();
    let impatient = tokio::spawn(async move { caller.token(&alice()).await.is_ok() });
    stage.issuer.ledger().wait_for(1).await;
    impatient.abort();
    let issued = stage.billing().token(&alice()).await.unwrap();
    assert!(stage.issuer.is_active(issued.token.raw()));
    renew(&stage).await;
    assert_eq!((stage.calls(), stage.issuer.ledger().replayed()), (2, 0));
    stage.close().await;
}

#[tokio::test]
async fn a_single_use_grant_whose_answer_was_lost_is_never_presented_again() {
    for lost in [
        Behaviour::ResetAfterRequest,
        Behaviour::TruncatedBody,
        Behaviour::EmptyOk,
        Behaviour::Html,
        Behaviour::WrongTypes,
        Behaviour::Status(502),
        Behaviour::Status(504),
    ] {
        let stage = single_use().await;
        import(&stage, &grant(&stage)).await.unwrap();
        stage.issuer.behave_next(1, lost.clone());
        let first = fails(&stage).await;
        assert_eq!(first.kind(), ErrorKind::Unavailable, "{lost:?}");
        assert_eq!(state(&stage).await, "uncertain", "{lost:?}");
        sit_out(&first).await;
        // There is no token left to serve and no safe way to a new one.
        let second = fails(&stage).await;
        assert_eq!(
            second.kind(),
            ErrorKind::ReauthorizationRequired,
            "{lost:?}"
        );
        assert_eq!(state(&stage).await, "reauthorization_required");
        assert_eq!(stage.calls(), 1, "{lost:?}");
        // A new grant from there revives it at once.
        import(&stage, &grant(&stage)).await.unwrap();
        assert!(stage.billing().token(&alice()).await.is_ok(), "{lost:?}");
        assert_eq!(stage.issuer.ledger().replayed(), 0);
        stage.close().await;
    }
}

#[tokio::test]
async fn while_the_token_lives_a_lost_answer_costs_nobody_anything() {
    let stage = single_use().await;
    import(&stage, &grant(&stage)).await.unwrap();
    let current = stage.billing().token(&alice()).await.unwrap();
    stage.issuer.behave_next(1, Behaviour::ResetAfterRequest);
    let rejection = refused(generation(&current));
    assert!(stage.billing().reject(&alice(), &rejection).await.is_err());
    assert_eq!(state(&stage).await, "uncertain");
    let served = stage.billing().token(&alice()).await.unwrap();
    assert_eq!(generation(&served), generation(&current));
    assert_eq!((stage.calls(), stage.issuer.ledger().replayed()), (2, 0));
    stage.close().await;
}

#[tokio::test]
async fn an_outage_that_says_so_never_costs_a_grant() {
    for outage in [
        Behaviour::Status(500),
        Behaviour::Status(503),
        Behaviour::RateLimited {
            retry_after: "1".to_owned(),
        },
        Behaviour::Refuse("temporarily_unavailable"),
    ] {
        let stage = single_use().await;
        import(&stage, &grant(&stage)).await.unwrap();
        stage.issuer.behave_next(1, outage.clone());
        let error = fails(&stage).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{outage:?}");
        sit_out(&error).await;
        assert!(stage.billing().token(&alice()).await.is_ok(), "{outage:?}");
        assert_eq!(state(&stage).await, "live");
        assert_eq!(stage.issuer.ledger().replayed(), 0);
        stage.close().await;
    }
}

#[tokio::test]
async fn an_issuer_out_of_reach_never_costs_a_grant() {
    let stage = single_use().await;
    import(&stage, &grant(&stage)).await.unwrap();
    stage.issuer.refuse_connections(true).await;
    let error = fails(&stage).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    stage.issuer.refuse_connections(false).await;
    sit_out(&error).await;
    assert!(stage.billing().token(&alice()).await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn a_refused_grant_ends_the_credential_and_a_new_one_revives_it_at_once() {
    let stage = single_use().await;
    let first = grant(&stage);
    import(&stage, &first).await.unwrap();
    stage.issuer.revoke(&first);
    let error = fails(&stage).await;
    assert_eq!(error.kind(), ErrorKind::ReauthorizationRequired);
    assert_eq!(error.retry(), Retry::Human);
    assert_eq!(state(&stage).await, "reauthorization_required");
    let calls = stage.calls();
    assert_eq!(
        fails(&stage).await.kind(),
        ErrorKind::ReauthorizationRequired
    );
    assert_eq!(stage.calls(), calls, "a dead grant is not presented again");
    import(&stage, &grant(&stage)).await.unwrap();
    assert_eq!(state(&stage).await, "live");
    assert!(stage.billing().token(&alice()).await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn a_spent_grant_is_refused_and_the_current_one_again_changes_nothing() {
    let stage = single_use().await;
    let first = grant(&stage);
    assert!(
        !import(&stage, &first).await.unwrap(),
        "memory is not durable"
    );
    let version = async || {
        let status = stage.broker.credential(&credential(Some(ALICE))).await;
        status.unwrap().unwrap().version
    };
    let before = version().await;
    import(&stage, &first).await.unwrap();
    let again = version().await;
    assert_eq!(before, again);
    stage.billing().token(&alice()).await.unwrap();
    let spent = import(&stage, &first).await;
    assert!(matches!(spent, Err(ImportError::AlreadySpent)));
    assert!(stage.billing().token(&alice()).await.is_ok());
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn a_grant_for_a_provider_that_is_not_there_is_refused() {
    let stage = single_use().await;
    let mut key = credential(Some(ALICE));
    key.provider = provider_name("nowhere");
    let outcome = stage
        .broker
        .import_credential(key, Secret::new(grant(&stage)), "admin")
        .await;
    assert!(matches!(outcome, Err(ImportError::UnknownProvider)));
    stage.close().await;
}

#[tokio::test]
async fn a_revoked_credential_is_gone_here_at_once_and_at_the_issuer_too() {
    let stage = single_use().await;
    import(&stage, &grant(&stage)).await.unwrap();
    let issued = stage.billing().token(&alice()).await.unwrap();
    let outcome = stage
        .broker
        .revoke_credential(&credential(Some(ALICE)), "admin")
        .await
        .unwrap();
    assert!(outcome.upstream);
    assert!(!stage.issuer.is_active(issued.token.raw()));
    assert_eq!(state(&stage).await, "revoked");
    let error = fails(&stage).await;
    assert_eq!(error.kind(), ErrorKind::ReauthorizationRequired);
    import(&stage, &grant(&stage)).await.unwrap();
    assert!(stage.billing().token(&alice()).await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn a_revocation_takes_effect_even_where_the_issuer_is_out_of_reach() {
    let stage = single_use().await;
    import(&stage, &grant(&stage)).await.unwrap();
    stage.billing().token(&alice()).await.unwrap();
    stage.issuer.refuse_connections(true).await;
    let key = credential(Some(ALICE));
    let outcome = stage.broker.revoke_credential(&key, "admin").await.unwrap();
    assert!(!outcome.upstream);
    assert_eq!(
        fails(&stage).await.kind(),
        ErrorKind::ReauthorizationRequired
    );
    stage.close().await;
}

#[tokio::test]
async fn a_revocation_during_a_refresh_wins() {
    let stage = single_use().await;
    import(&stage, &grant(&stage)).await.unwrap();
    stage
        .issuer
        .behave_next(1, Behaviour::Latency(Duration::from_millis(200)));
    let caller = stage.billing();
    let asking = tokio::spawn(async move { caller.token(&alice()).await.map(|_| ()) });
    stage.issuer.ledger().wait_for(1).await;
    let key = credential(Some(ALICE));
    stage.broker.revoke_credential(&key, "admin").await.unwrap();
    let error = asking.await.unwrap().expect_err("it was revoked meanwhile");
    assert_eq!(error.kind(), ErrorKind::ReauthorizationRequired);
    assert_eq!(state(&stage).await, "revoked");
    // The grant that came back belongs to nobody: the issuer is told.
    stage
        .recorder
        .wait_for(|event| {
            matches!(
                event,
                Event::Notice {
                    code: "orphan_grant",
                    ..
                }
            )
        })
        .await;
    assert_eq!(stage.issuer.ledger().replayed(), 0);
    stage.close().await;
}

#[tokio::test]
async fn keys_of_one_credential_take_turns_at_its_grant() {
    let stage = single_use().await;
    stage
        .issuer
        .behave(Behaviour::Latency(Duration::from_millis(50)));
    import(&stage, &grant(&stage)).await.unwrap();
    let wanted = ["read", "write", "orders.read", "orders.write"];
    let asking: Vec<_> = wanted
        .iter()
        .map(|scope| {
            let (caller, request) = (stage.billing(), alice().scopes(scopes(&[scope])));
            tokio::spawn(async move { caller.token(&request).await.map(|issued| issued.token) })
        })
        .collect();
    for (scope, asking) in wanted.iter().zip(asking) {
        let token = asking.await.unwrap().unwrap();
        assert_eq!(token.scopes(), &scopes(&[scope]));
        assert!(stage.issuer.is_active(token.raw()));
    }
    assert_eq!((stage.calls(), stage.issuer.ledger().replayed()), (4, 0));
    stage.close().await;
}

#[tokio::test]
async fn a_grant_that_was_never_seen_rotating_is_probed_once_when_nothing_is_left_to_lose() {
    let stage = rotating(RefreshRotation::Never, Rotation::Unknown).await;
    import(&stage, &grant(&stage)).await.unwrap();
    stage.issuer.behave_next(1, Behaviour::ResetAfterRequest);
    let error = fails(&stage).await;
    assert_eq!(state(&stage).await, "uncertain");
    sit_out(&error).await;
    assert!(stage.billing().token(&alice()).await.is_ok());
    assert_eq!((state(&stage).await, stage.calls()), ("live", 2));
    stage.close().await;
}
