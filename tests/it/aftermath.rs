//! What a change leaves behind: nothing of what it undid is handed out, nothing of what it mended is held against anybody.

use std::sync::Arc;
use std::time::Duration;

use keyfob::broker::builtin;
use keyfob::model::contract::Rotation;
use keyfob::model::credential::{Credential, Intent, Version};
use keyfob::model::event::Event;
use keyfob::model::time::{Clock, SystemClock};
use keyfob::store::Store;
use keyfob::store::memory::MemoryStore;
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::stage::{ACME, Setting, credential, of};

#[tokio::test]
async fn a_wish_for_more_life_never_brings_back_a_revoked_token() {
    let stage = Setting::new()
        .lifetime(Duration::from_secs(4))
        .acme(|acme| acme.refresh.timeout = Duration::from_secs(3))
        .open()
        .await;
    stage.token().await.unwrap();
    // Past half its life another one may be had, and is worth waiting for.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    stage.issuer.behave(Behaviour::Hang);
    let (caller, wish) = (
        stage.billing(),
        of(ACME).min_validity(Duration::from_secs(60)),
    );
    let waiting = tokio::spawn(async move { caller.token(&wish).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage
        .broker
        .revoke_credential(&credential(None), "test")
        .await
        .unwrap();
    assert!(waiting.await.unwrap().is_err());
    stage.close().await;
}

#[tokio::test]
async fn a_swap_forgives_what_the_issuer_held_against_the_plugin_before() {
    let stage = Setting::new().open().await;
    stage.issuer.behave(Behaviour::RateLimited {
        retry_after: "3600".to_owned(),
    });
    assert!(stage.token().await.is_err());
    stage.issuer.behave(Behaviour::Normal);
    assert!(stage.token().await.is_err());
    assert_eq!(stage.calls(), 1, "an hour was asked for");
    stage
        .swap(ACME, builtin("oauth2").unwrap().into())
        .await
        .unwrap();
    stage.token().await.unwrap();
    stage.close().await;
}

#[tokio::test]
async fn an_attempt_that_died_with_its_process_is_told_before_anybody_asks() {
    let store = Arc::new(MemoryStore::new());
    let now = SystemClock.now();
    let attempted = |over_at| Credential {
        refresh_token: Some("a grant that may be spent".into()),
        intent: Some(Intent {
            owner: [1; 16],
            at: now.minus(Duration::from_secs(20)),
            over_at,
        }),
        ..Credential::default()
    };
    // One is over; the other had an hour, and its owner is gone: nobody else had this store.
    let (over, long) = (credential(Some("alice")), credential(Some("bob")));
    for (key, over_at) in [
        (&over, now.minus(Duration::from_secs(5))),
        (&long, now.plus(Duration::from_secs(3600))),
    ] {
        store
            .commit(key, Version(0), attempted(over_at))
            .await
            .unwrap();
    }
    let mut setting = Setting::new().acme(|acme| acme.refresh.rotation = Rotation::SingleUse);
    setting.store = Some(store);
    let stage = setting.open().await;
    for key in [&over, &long] {
        let changed = stage.recorder.wait_for(|event| {
            matches!(event, Event::CredentialChanged { key: changed, by, .. } if changed == key && by == "recovery")
        });
        changed.await;
        let doubted = stage.broker.credential(key).await.unwrap().unwrap();
        assert_eq!(doubted.state, "uncertain");
        assert_eq!(doubted.cause.as_deref(), Some("lost_answer"));
    }
    assert_eq!(stage.calls(), 0);
    stage.close().await;
}
