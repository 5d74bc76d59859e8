//! Renewal ahead of the end (I4, I10): nobody waits, nobody gets an expired token, and short lives are no loop.

use std::time::Duration;

use futures_util::FutureExt as _;
use keyfob::broker::Issued;
use keyfob::model::error::ErrorKind;
use keyfob::model::time::Clock as _;
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::hand::Hand;
use keyfob_tests::stage::{ACME, Setting, Stage, of};

/// A stage under the hand's clock, with its first token.
async fn begin(hand: &Hand, setting: Setting, latency: Duration) -> Stage {
    let stage = setting.clock(hand.clock.clone()).open().await;
    if !latency.is_zero() {
        stage.issuer.behave(Behaviour::Latency(latency));
    }
    let caller = stage.billing();
    let first = tokio::spawn(async move { caller.token(&of(ACME)).await.is_ok() });
    hand.settle(&stage).await;
    hand.pass(latency, &stage).await;
    assert!(first.await.unwrap(), "the issuer answers");
    stage
}

/// The token, if it needs no waiting.
fn at_once(stage: &Stage) -> Option<Issued> {
    stage.token().now_or_never().map(|answer| answer.unwrap())
}

/// The most requests within any stretch this long.
fn most_within(stage: &Stage, span: Duration) -> usize {
    let at: Vec<_> = stage
        .issuer
        .ledger()
        .entries()
        .iter()
        .map(|entry| entry.at)
        .collect();
    let within = |from: usize| {
        at[from..]
            .iter()
            .take_while(|t| t.since(at[from]) < span)
            .count()
    };
    (0..at.len()).map(within).max().unwrap_or(0)
}

#[tokio::test]
async fn over_a_minute_of_constant_calls_nobody_waits_and_nobody_gets_an_expired_token() {
    let (life, latency) = (Duration::from_secs(10), Duration::from_secs(2));
    let hand = Hand::take(latency);
    let stage = begin(&hand, Setting::new().lifetime(life), latency).await;
    let step = Duration::from_millis(50);
    for at in 0..60 * 20 {
        let issued = at_once(&stage).unwrap_or_else(|| panic!("a caller waits after {at} steps"));
        assert!(issued.expires > hand.clock.now());
        assert!(stage.issuer.is_active(issued.token.raw()));
        hand.pass(step, &stage).await;
    }
    let lifetimes = 6.0;
    let after_the_first = (stage.calls() - 1) as f64;
    assert!(
        after_the_first <= 1.5 * lifetimes,
        "{after_the_first} requests"
    );
    assert!(after_the_first >= lifetimes, "{after_the_first} requests");
    stage.close().await;
}

#[tokio::test]
async fn no_lifetime_sees_more_than_two_requests_however_short_it_is_or_wide_the_window() {
    let millis = Duration::from_millis;
    for (life, latency, ahead) in [
        (1_000, 0, 0.2),
        (1_000, 0, 1.0),
        (1_000, 300, 0.2),
        (1_000, 600, 1.0),
        (2_000, 100, 1.0),
        (9_000, 100, 1.0),
        (12_000, 2_000, 1.0),
    ] {
        let hand = Hand::take(millis(latency));
        let setting = Setting::new().lifetime(millis(life)).acme(move |acme| {
            acme.refresh.ahead = ahead;
            acme.refresh.max_ahead = Duration::from_secs(3600);
        });
        let stage = begin(&hand, setting, millis(latency)).await;
        for _ in 0..20 * life / 50 {
            let caller = stage.billing();
            // Whoever has to wait waits: it is the requests that are counted.
            tokio::spawn(async move {
                let issued = caller.token(&of(ACME)).await.unwrap();
                assert!(!issued.token.raw().is_empty());
            });
            hand.pass(millis(50), &stage).await;
        }
        let most = most_within(&stage, millis(life));
        assert!(
            most <= 2,
            "{most} requests in a life of {life} ms, window {ahead}"
        );
        assert!(stage.calls() >= 20, "{} requests", stage.calls());
        stage.close().await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn an_issuer_slower_than_its_tokens_live_is_an_error_and_no_loop() {
    let (life, latency) = (Duration::from_secs(1), Duration::from_millis(1_500));
    let hand = Hand::take(latency);
    let setting = Setting::new().lifetime(life).clock(hand.clock.clone());
    let stage = setting.open().await;
    stage.issuer.behave(Behaviour::Latency(latency));
    let mut errors = 0;
    for _ in 0..400 {
        if let Some(answer) = stage.token().now_or_never() {
            let error = answer.err().expect("every token is dead when it arrives");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            errors += 1;
        }
        hand.pass(Duration::from_millis(50), &stage).await;
    }
    // Twenty seconds: each attempt takes 1.5, and the pauses grow.
    assert!(
        errors > 0 && stage.calls() <= 6,
        "{} requests",
        stage.calls()
    );
    stage.close().await;
}

#[tokio::test]
async fn a_wish_for_more_life_than_the_issuer_grants_is_no_loop() {
    let (life, step) = (Duration::from_secs(10), Duration::from_millis(100));
    let hand = Hand::take(Duration::ZERO);
    let stage = begin(&hand, Setting::new().lifetime(life), Duration::ZERO).await;
    let wishful = of(ACME).min_validity(Duration::from_secs(60));
    for _ in 0..600 {
        let caller = stage.billing();
        let wishful = wishful.clone();
        let asked = tokio::spawn(async move { caller.token(&wishful).await.unwrap().expires });
        hand.pass(step, &stage).await;
        // The best there is, with its true end.
        assert!(asked.await.unwrap() > hand.clock.now());
    }
    let most = most_within(&stage, life);
    assert!(most <= 3, "{most} requests in one life");
    assert!(
        stage.calls() <= 1 + 12,
        "{} requests in six lives",
        stage.calls()
    );
    stage.close().await;
}

#[tokio::test]
async fn an_odd_expires_in_costs_nobody_the_token() {
    for stated in [
        "0",
        "-1",
        "-0.5",
        "0.4",
        "null",
        "\"soon\"",
        "\"\"",
        "[]",
        "{}",
        "true",
        "1e300",
        "1e-300",
        "9223372036854775808",
        "\"3600\"",
        "3600.7",
        "99999999999",
    ] {
        let stage = Setting::new().open().await;
        stage.canary.add("odd-token-0123456789");
        stage.issuer.behave(Behaviour::Custom {
            status: 200,
            content_type: "application/json".to_owned(),
            body: format!(r#"{{"access_token":"odd-token-0123456789","token_type":"Bearer","expires_in":{stated}}}"#),
        });
        let issued = stage.token().await.unwrap();
        assert_eq!(issued.token.raw(), "odd-token-0123456789");
        let left = issued.expires.since(keyfob::model::time::SystemClock.now());
        assert!(left > Duration::from_secs(200), "{stated}: {left:?}");
        assert!(
            left < Duration::from_secs(11 * 365 * 86_400),
            "{stated}: {left:?}"
        );
        for _ in 0..20 {
            stage.token().await.unwrap();
        }
        assert_eq!(stage.calls(), 1, "{stated}");
        stage.close().await;
    }
}

#[tokio::test]
async fn a_missing_expires_in_means_the_default_or_what_the_token_says_itself() {
    for (token, least, most) in [
        ("opaque-token-0123456789", 299, 300),
        // {"alg":"none"}.{"exp":4102444800}: the year 2100.
        (
            "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln",
            365 * 86_400,
            u64::MAX,
        ),
    ] {
        let stage = Setting::new().open().await;
        stage.canary.add(token);
        stage.issuer.behave(Behaviour::Custom {
            status: 200,
            content_type: "application/json".to_owned(),
            body: format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#),
        });
        let issued = stage.token().await.unwrap();
        let left = issued.expires.since(issued.token.issued()).as_secs();
        assert!((least..=most).contains(&left), "{left}");
        stage.close().await;
    }
}
