//! Watching: a client that keeps tokens itself hears which of its copies are stale; it never misses the last word, and what
//! it does not read costs nothing.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use keyfob::broker::{Watch, WatchEvent};
use keyfob::model::error::ErrorKind;
use keyfob::model::key::Tenant;
use keyfob::model::policy::{Principal, TokenRequest};
use keyfob::model::secret::Secret;
use keyfob_tests::guests;
use keyfob_tests::hand::Hand;
use keyfob_tests::stage::{
    ACME, BILLING, CLIENT, Setting, Stage, client, credential, generation, of, refused, subject,
    with_scope,
};
use serde_json::json;

const ALICE: &str = "alice";
/// Changes that nobody reads.
const MANY: usize = 30;

fn principal(name: &str) -> Principal {
    Principal::new(name, Tenant::default(), Vec::new())
}

fn watch(stage: &Stage, requests: &[TokenRequest]) -> Watch {
    let watch = stage.broker.watch(&principal(BILLING), requests);
    watch.expect("it is the first")
}

/// The next event, which must come.
async fn next(stage: &Stage, watch: &mut Watch) -> WatchEvent {
    let event = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    let event = event.expect("an event comes").expect("the broker lives");
    stage.record(&event);
    event
}

/// The generation that the next event tells of key 0.
async fn next_generation(stage: &Stage, watch: &mut Watch) -> u64 {
    match next(stage, watch).await {
        WatchEvent::Generation {
            key: 0, generation, ..
        } => generation.number(),
        other => panic!("{other:?}"),
    }
}

fn is_quiet(watch: &mut Watch) -> bool {
    watch.next().now_or_never().is_none()
}

fn alice() -> TokenRequest {
    of(ACME).subject(subject(ALICE))
}

async fn hand_over(stage: &Stage) {
    let grant = stage.issuer.issue_refresh_token(CLIENT, ALICE);
    let grant = Secret::new(grant.expect("the client is registered"));
    let key = credential(Some(ALICE));
    let imported = stage.broker.import_credential(key, grant, "admin").await;
    imported.expect("a fresh grant is taken");
}

#[tokio::test]
async fn the_first_events_say_how_every_key_stands() {
    let stage = Setting::new().open().await;
    let held = stage.token().await.unwrap();
    let mut watch = watch(&stage, &[of(ACME), with_scope("write"), of("nowhere")]);
    match next(&stage, &mut watch).await {
        WatchEvent::Generation {
            key: 0,
            generation: told,
            expires,
        } => {
            assert_eq!(told.number(), generation(&held));
            assert_eq!(expires, held.expires);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        next(&stage, &mut watch).await,
        WatchEvent::Revoked { key: 1 }
    );
    assert_eq!(
        next(&stage, &mut watch).await,
        WatchEvent::Denied { key: 2 }
    );
    assert!(is_quiet(&mut watch));
    assert_eq!(stage.calls(), 1, "watching asks no issuer");
    drop(watch);
    stage.close().await;
}

#[tokio::test]
async fn a_new_token_is_told_to_everybody_who_watches_its_key() {
    let stage = Setting::new().open().await;
    let mut watches = [watch(&stage, &[of(ACME)]), watch(&stage, &[of(ACME)])];
    for watch in &mut watches {
        assert_eq!(next(&stage, watch).await, WatchEvent::Revoked { key: 0 });
    }
    let first = stage.token().await.unwrap();
    for watch in &mut watches {
        assert_eq!(next_generation(&stage, watch).await, generation(&first));
        assert!(is_quiet(watch));
    }
    let report = refused(generation(&first));
    let (second, _) = stage.billing().reject(&of(ACME), &report).await.unwrap();
    for watch in &mut watches {
        assert_eq!(next_generation(&stage, watch).await, generation(&second));
    }
    // Another key is another matter.
    stage.billing().token(&with_scope("write")).await.unwrap();
    assert!(watches.iter_mut().all(is_quiet));
    drop(watches);
    stage.close().await;
}

#[tokio::test]
async fn what_changed_often_while_nobody_read_is_told_once_as_it_is_now() {
    let stage = Setting::new().refresh_tokens(client()).open().await;
    let mut watch = watch(&stage, &[alice()]);
    assert_eq!(
        next(&stage, &mut watch).await,
        WatchEvent::Revoked { key: 0 }
    );
    for _ in 0..MANY {
        hand_over(&stage).await;
        stage.billing().token(&alice()).await.unwrap();
        let key = credential(Some(ALICE));
        stage.broker.revoke_credential(&key, "admin").await.unwrap();
    }
    hand_over(&stage).await;
    let last = stage.billing().token(&alice()).await.unwrap();
    assert_eq!(next_generation(&stage, &mut watch).await, generation(&last));
    assert!(is_quiet(&mut watch));
    drop(watch);
    stage.close().await;
}

#[tokio::test]
async fn a_revoked_credential_is_told_and_so_is_its_successor() {
    let stage = Setting::new().refresh_tokens(client()).open().await;
    hand_over(&stage).await;
    let first = stage.billing().token(&alice()).await.unwrap();
    let mut watch = watch(&stage, &[alice()]);
    assert_eq!(
        next_generation(&stage, &mut watch).await,
        generation(&first)
    );
    let key = credential(Some(ALICE));
    stage.broker.revoke_credential(&key, "admin").await.unwrap();
    assert_eq!(
        next(&stage, &mut watch).await,
        WatchEvent::Revoked { key: 0 }
    );
    hand_over(&stage).await;
    let second = stage.billing().token(&alice()).await.unwrap();
    assert_eq!(
        next_generation(&stage, &mut watch).await,
        generation(&second)
    );
    drop(watch);
    stage.close().await;
}

#[tokio::test]
async fn another_policy_denies_what_was_watched_and_its_end_allows_it_again() {
    let stage = Setting::new().open().await;
    let held = stage.token().await.unwrap();
    let mut watch = watch(&stage, &[of(ACME)]);
    assert_eq!(next_generation(&stage, &mut watch).await, generation(&held));
    let closed = guests::hostile_at_birth("deny");
    stage.broker.swap_policy(closed, "admin").await.unwrap();
    assert_eq!(
        next(&stage, &mut watch).await,
        WatchEvent::Denied { key: 0 }
    );
    // What happens to the token is none of this caller's business now.
    let provider = &stage.settings.providers[0].name;
    assert_eq!(provider.as_str(), ACME);
    assert!(is_quiet(&mut watch));
    stage.broker.rollback_policy("admin").await.unwrap();
    assert_eq!(next_generation(&stage, &mut watch).await, generation(&held));
    drop(watch);
    stage.close().await;
}

#[tokio::test]
async fn a_caller_who_is_removed_is_denied_and_hears_nothing_more() {
    let rules = json!({ "allow": [{ "provider": ACME, "scopes": ["*"] }] });
    let stage = Setting::new().caller("late", "default", rules).open().await;
    let held = stage.token().await.unwrap();
    let mut watch = stage.broker.watch(&principal("late"), &[of(ACME)]).unwrap();
    assert_eq!(next_generation(&stage, &mut watch).await, generation(&held));
    let mut settings = stage.settings.clone();
    settings.callers.retain(|caller| caller.name != "late");
    stage.broker.apply(settings).await.unwrap();
    assert_eq!(
        next(&stage, &mut watch).await,
        WatchEvent::Denied { key: 0 }
    );
    let report = refused(generation(&held));
    stage.billing().reject(&of(ACME), &report).await.unwrap();
    assert!(is_quiet(&mut watch), "not even that there is another");
    drop(watch);
    stage.close().await;
}

#[tokio::test]
async fn a_provider_that_goes_takes_its_tokens_along() {
    let stage = Setting::new().open().await;
    let held = stage.token().await.unwrap();
    let mut watch = watch(&stage, &[of(ACME)]);
    assert_eq!(next_generation(&stage, &mut watch).await, generation(&held));
    let mut settings = stage.settings.clone();
    settings.providers.clear();
    stage.broker.apply(settings).await.unwrap();
    assert_eq!(
        next(&stage, &mut watch).await,
        WatchEvent::Denied { key: 0 }
    );
    stage.broker.apply(stage.settings.clone()).await.unwrap();
    assert_eq!(
        next(&stage, &mut watch).await,
        WatchEvent::Revoked { key: 0 }
    );
    let again = stage.token().await.unwrap();
    assert_eq!(
        next_generation(&stage, &mut watch).await,
        generation(&again)
    );
    drop(watch);
    stage.close().await;
}

#[tokio::test]
async fn a_watched_key_is_renewed_and_kept_though_nobody_asks_for_it() {
    let life = Duration::from_secs(60);
    let hand = Hand::take(Duration::ZERO);
    let setting = Setting::new().lifetime(life).clock(hand.clock.clone());
    let stage = setting.open().await;
    let caller = stage.billing();
    let first = tokio::spawn(async move { caller.token(&of(ACME)).await.is_ok() });
    hand.settle(&stage).await;
    hand.pass(Duration::from_millis(5), &stage).await;
    assert!(first.await.unwrap());
    let mut watch = watch(&stage, &[of(ACME)]);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let noted = heard.clone();
    let listening = tokio::spawn(async move {
        while let Some(event) = watch.next().await {
            noted.lock().unwrap().push(event);
        }
    });
    // Longer than a decision is remembered, and than an unused key is renewed after that.
    let lives = 20;
    for _ in 0..lives * 120 {
        hand.pass(life / 120, &stage).await;
    }
    let heard = heard.lock().unwrap().clone();
    let generations: HashSet<_> = heard
        .iter()
        .map(|event| match event {
            WatchEvent::Generation { generation, .. } => generation.number(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(generations.len(), heard.len(), "each is told once");
    assert!(generations.len() >= lives, "{}", generations.len());
    listening.abort();
    drop(hand);
    stage.close().await;
}

#[tokio::test]
async fn watches_have_a_bound_and_give_their_place_back() {
    let stage = Setting::new().open().await;
    stage.token().await.unwrap();
    let mut watches = Vec::new();
    let error = loop {
        match stage.broker.watch(&principal(BILLING), &[of(ACME)]) {
            Ok(watch) => watches.push(watch),
            Err(error) => break error,
        }
        assert!(watches.len() < 10_000, "there is a bound");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    watches.pop();
    let mut last = watch(&stage, &[of(ACME)]);
    next_generation(&stage, &mut last).await;
    drop((watches, last));
    stage.close().await;
}

#[tokio::test]
async fn the_end_of_the_broker_ends_a_watch() {
    let stage = Setting::new().open().await;
    let held = stage.token().await.unwrap();
    let mut watch = watch(&stage, &[of(ACME)]);
    assert_eq!(next_generation(&stage, &mut watch).await, generation(&held));
    stage.broker.shutdown(Duration::from_secs(1)).await;
    assert_eq!(watch.next().await, None);
    drop(watch);
    stage.close().await;
}
