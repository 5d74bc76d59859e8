//! Leases: who may send is asked of the store where a grant may be single-use, and nothing hangs on the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyfob::model::contract::Rotation;
use keyfob::model::error::{ErrorKind, Retry};
use keyfob::model::time::Clock as _;
use keyfob::store::memory::MemoryStore;
use keyfob::store::{Lease, Store};
use keyfob::testing::TestClock;
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::shaky::Shaky;
use keyfob_tests::stage::{Setting, Stage, credential, of};

/// Somebody else's.
const OTHER: [u8; 16] = [7; 16];
const TTL: Duration = Duration::from_secs(20);

/// A stage whose store is at hand, with a clock that jumps.
async fn open(rotation: Rotation) -> (Stage, Arc<Shaky>, Arc<TestClock>) {
    let (store, clock) = (
        Arc::new(Shaky::around(Arc::new(MemoryStore::new()))),
        Arc::new(TestClock::new()),
    );
    let mut setting = Setting::new().clock(clock.clone());
    setting.store = Some(store.clone());
    let setting = setting.acme(move |acme| acme.refresh.rotation = rotation);
    (setting.open().await, store, clock)
}

async fn acquire(store: &Shaky, clock: &TestClock) -> Lease {
    let key = credential(None);
    let now = clock.now();
    store.acquire(&key, OTHER, TTL, now).await.unwrap()
}

#[tokio::test]
async fn who_does_not_get_the_lease_does_not_send_and_says_when_to_come_again() {
    let (stage, store, clock) = open(Rotation::SingleUse).await;
    assert!(matches!(acquire(&store, &clock).await, Lease::Held { .. }));
    let error = stage.token().await.err().expect("somebody else sends");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.detail().contains("under way"), "{}", error.detail());
    let Retry::After(pause) = error.retry() else {
        panic!("{error:?}");
    };
    assert!(pause > TTL / 2 && pause <= TTL, "{pause:?}");
    assert_eq!(stage.calls(), 0);
    // It ends by itself.
    clock.jump(TTL);
    stage.token().await.unwrap();
    stage.close().await;
}

#[tokio::test]
async fn a_lease_is_given_back_however_the_flow_ended() {
    for behaviour in [Behaviour::Normal, Behaviour::Status(503)] {
        let (stage, store, clock) = open(Rotation::SingleUse).await;
        stage.issuer.behave(behaviour.clone());
        let answer = stage.token().await;
        assert_eq!(answer.is_ok(), behaviour == Behaviour::Normal);
        assert_eq!(stage.calls(), 1);
        let lease = acquire(&store, &clock).await;
        assert!(matches!(lease, Lease::Held { .. }), "{behaviour:?}");
        stage.close().await;
    }
}

#[tokio::test]
async fn where_nothing_is_spent_by_presenting_it_nobody_asks_for_a_lease() {
    let (stage, store, clock) = open(Rotation::Never).await;
    acquire(&store, &clock).await;
    store.no_leases.store(true, Ordering::SeqCst);
    stage.token().await.unwrap();
    stage.close().await;
}

#[tokio::test]
async fn a_store_that_does_not_answer_for_the_lease_is_one_that_does_not_answer() {
    let (stage, store, clock) = open(Rotation::SingleUse).await;
    store.no_leases.store(true, Ordering::SeqCst);
    let error = stage.token().await.err().expect("the store is away");
    assert!(error.detail().contains("no leases today"), "{error:?}");
    assert_eq!(stage.calls(), 0);
    assert!(stage.broker.ready().degraded);
    store.no_leases.store(false, Ordering::SeqCst);
    clock.jump(Duration::from_secs(60));
    stage.token().await.unwrap();
    assert!(!stage.broker.ready().degraded);
    // It was not held over either.
    let handle = stage.billing().token(&of("acme")).await;
    assert!(handle.is_ok());
    stage.close().await;
}
