//! A store that goes away while grants rotate: nothing received is lost, nothing is presented twice, and all is well again
//! by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyfob::model::contract::Rotation;
use keyfob::model::event::Event;
use keyfob::model::secret::Secret;
use keyfob::store::memory::MemoryStore;
use keyfob::testing::issuer::RefreshRotation;
use keyfob_tests::shaky::Shaky;
use keyfob_tests::stage::{ACME, CLIENT, Setting, client, credential, of, subject};

const ALICE: &str = "alice";
/// Far longer than the first pauses between two tries.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_rotation_that_the_store_does_not_take_is_served_kept_and_recorded_later() {
    let store = Arc::new(Shaky::around(Arc::new(MemoryStore::new())));
    let mut setting = Setting::new().refresh_tokens(client().rotation(RefreshRotation::SingleUse));
    setting.store = Some(store.clone());
    setting.lifetime = Duration::from_secs(2);
    let setting = setting.provider(ACME, |acme, _| acme.refresh.rotation = Rotation::SingleUse);
    let stage = setting.open().await;
    let grant = stage.issuer.issue_refresh_token(CLIENT, ALICE).unwrap();
    let key = credential(Some(ALICE));
    stage
        .broker
        .import_credential(key.clone(), Secret::new(grant), "test")
        .await
        .unwrap();
    let alice = of(ACME).subject(subject(ALICE));

    store.marks_only.store(true, Ordering::SeqCst);
    stage
        .billing()
        .token(&alice)
        .await
        .expect("the token is good, recorded or not");
    assert!(stage.broker.ready().degraded);

    store.marks_only.store(false, Ordering::SeqCst);
    let back = |event: &Event| {
        matches!(
            event,
            Event::Notice {
                code: "durable_again",
                ..
            }
        )
    };
    let told = tokio::time::timeout(PATIENCE, stage.recorder.wait_for(back)).await;
    told.expect("what was kept is recorded once the store is back");
    assert!(!stage.broker.ready().degraded);
    assert_eq!(
        stage.broker.credential(&key).await.unwrap().unwrap().state,
        "live"
    );

    // The token ends; the next is obtained with the grant that was kept.
    while stage.billing().token(&alice).await.is_ok() && stage.issuer.ledger().granted() < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.billing().token(&alice).await.unwrap();
    assert_eq!(stage.issuer.ledger().replayed(), 0);
    stage.close().await;
}
