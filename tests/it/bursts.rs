//! Many tokens that end together, and many callers who come together: the issuer sees neither.

use std::collections::BTreeMap;
use std::time::Duration;

use keyfob::model::error::{ErrorKind, Retry};
use keyfob::model::secret::Secret;
use keyfob_tests::hand::Hand;
use keyfob_tests::stage::{
    ACME, CLIENT, SCOPES, Setting, client, credential, of, subject, with_scope,
};

/// Enough for a histogram, few enough for a debug build.
const USERS: usize = 500;
const LIFE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn tokens_of_many_users_that_end_together_are_renewed_evenly() {
    let hand = Hand::take(Duration::ZERO);
    let setting = Setting::new()
        .lifetime(LIFE)
        .clock(hand.clock.clone())
        .refresh_tokens(client());
    let stage = setting.open().await;
    let mut requests = Vec::new();
    for n in 0..USERS {
        let name = format!("user-{n}");
        let grant = stage.issuer.issue_refresh_token(CLIENT, &name).unwrap();
        let imported =
            stage
                .broker
                .import_credential(credential(Some(&name)), Secret::new(grant), "test");
        imported.await.unwrap();
        requests.push(of(ACME).subject(subject(&name)));
    }
    let ask = |at: usize| {
        let (caller, request) = (stage.billing(), requests[at].clone());
        tokio::spawn(async move { caller.token(&request).await.is_ok() })
    };
    // All at the same moment, and once more: they are in use.
    for _ in 0..2 {
        let asked: Vec<_> = (0..USERS).map(ask).collect();
        hand.settle(&stage).await;
        for one in asked {
            assert!(one.await.unwrap());
        }
    }
    assert_eq!(stage.calls(), USERS as u64);
    let step = Duration::from_millis(250);
    for _ in 0..LIFE.as_millis() / step.as_millis() {
        hand.pass(step, &stage).await;
    }
    let mut seconds = BTreeMap::<u64, usize>::new();
    for entry in &stage.issuer.ledger().entries()[USERS..] {
        *seconds.entry(entry.at.as_secs()).or_default() += 1;
    }
    let renewals: usize = seconds.values().sum();
    assert_eq!(renewals, USERS);
    // From a fifth of the life before the end of handing out, to where nobody has to wait yet.
    let mean = renewals as f64 / 11.9;
    let peak = *seconds.values().max().unwrap() as f64;
    println!("{USERS} users: peak {peak} and mean {mean:.1} a second: {seconds:?}");
    assert!(peak <= 2.0 * mean, "{seconds:?}");
    drop(hand);
    stage.close().await;
}

#[tokio::test]
async fn whose_turn_does_not_come_in_time_is_told_when_it_would_have() {
    let setting = Setting::new().acme(|acme| {
        acme.refresh.rate = Some(0.125);
        acme.refresh.timeout = Duration::from_secs(4);
    });
    let stage = setting.open().await;
    let requests = SCOPES.map(with_scope);
    let caller = stage.billing();
    let answers =
        futures_util::future::join_all(requests.iter().map(|request| caller.token(request))).await;
    let mut pauses = Vec::new();
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.detail().contains("refresh.rate"),
            "{}",
            error.detail()
        );
        let Retry::After(pause) = error.retry() else {
            panic!("{error:?}");
        };
        pauses.push(pause);
    }
    assert_eq!(
        stage.calls(),
        1,
        "one in eight seconds, and they are not over"
    );
    assert_eq!(pauses.len(), 3);
    pauses.sort_unstable();
    let least = [4, 12, 20].map(Duration::from_secs);
    for (pause, least) in pauses.iter().zip(least) {
        let most = least + Duration::from_millis(2_100);
        assert!((least..=most).contains(pause), "{pauses:?}");
    }
    stage.close().await;
}
