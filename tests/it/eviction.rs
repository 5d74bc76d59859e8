//! Keys that nobody asks for lapse, and no number of keys fills the memory (I12).

use std::time::Duration;

use futures_util::FutureExt as _;
use keyfob::model::error::ErrorKind;
use keyfob::model::event::Event;
use keyfob::model::key::Tenant;
use keyfob::model::policy::{Principal, TokenRequest};
use keyfob_tests::hand::Hand;
use keyfob_tests::stage::{ACME, BILLING, Setting, Stage, anything, audience, of};

const LATENCY: Duration = Duration::ZERO;

fn numbered(number: usize) -> TokenRequest {
    of(ACME).audience(audience(&format!("https://api-{number}.example")))
}

fn evicted(stage: &Stage) -> usize {
    stage
        .recorder
        .count(|event| matches!(event, Event::KeyEvicted { .. }))
}

#[tokio::test]
async fn a_key_that_nobody_asks_for_stops_being_renewed() {
    let hand = Hand::take(LATENCY);
    let setting = Setting::new()
        .lifetime(Duration::from_secs(20))
        .clock(hand.clock.clone());
    let stage = setting.open().await;
    assert!(stage.token().await.is_ok());
    // Asked for during its life, it is renewed once for that, and then left to lapse.
    assert!(stage.token().now_or_never().is_some());
    for _ in 0..200 {
        hand.pass(Duration::from_secs(1), &stage).await;
    }
    let calls = stage.calls();
    assert!((1..=2).contains(&calls), "{calls} requests");
    // The next one who asks finds it lapsed and gets another.
    assert!(stage.token().await.is_ok());
    assert_eq!(stage.calls(), calls + 1);
    drop(hand);
    stage.close().await;
}

#[tokio::test]
async fn the_number_of_keys_is_bounded_and_everybody_is_served() {
    let stage = Setting::new().room(8, 8).open().await;
    for number in 0..40 {
        assert!(
            stage.billing().token(&numbered(number)).await.is_ok(),
            "{number}"
        );
        assert!(stage.broker.provider(ACME).unwrap().tokens <= 8);
    }
    assert!(evicted(&stage) >= 32, "{}", evicted(&stage));
    stage.close().await;
}

#[tokio::test]
async fn a_key_with_a_handle_is_not_evicted() {
    let stage = Setting::new().room(8, 8).open().await;
    let principal = Principal::new(BILLING, Tenant::default(), Vec::new());
    let mut handle = stage.broker.handle(&principal, &of(ACME)).await.unwrap();
    let held = handle.token().await.unwrap();
    for number in 0..40 {
        assert!(stage.billing().token(&numbered(number)).await.is_ok());
    }
    assert_eq!(handle.get().unwrap().generation(), held.generation());
    stage.close().await;
}

#[tokio::test]
async fn one_caller_cannot_take_the_room_of_another() {
    let stage = Setting::new()
        .room(8, 4)
        .caller("other", "default", anything())
        .open()
        .await;
    let other = stage.caller("other", Tenant::default());
    let theirs = other.token(&numbered(1000)).await.unwrap();
    for number in 0..40 {
        assert!(stage.billing().token(&numbered(number)).await.is_ok());
    }
    let calls = stage.calls();
    let again = other.token(&numbered(1000)).await.unwrap();
    assert_eq!(again.token.raw(), theirs.token.raw());
    assert_eq!(stage.calls(), calls);
    stage.close().await;
}

#[tokio::test]
async fn where_every_key_is_held_a_new_one_is_refused_and_said_so() {
    let stage = Setting::new().room(2, 2).open().await;
    let principal = Principal::new(BILLING, Tenant::default(), Vec::new());
    let _one = stage.broker.handle(&principal, &numbered(1)).await.unwrap();
    let _two = stage.broker.handle(&principal, &numbered(2)).await.unwrap();
    let error = stage
        .billing()
        .token(&numbered(3))
        .await
        .err()
        .expect("there is no room");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(stage.billing().token(&numbered(1)).await.is_ok());
    stage.close().await;
}
