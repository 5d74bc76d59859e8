//! Many tokens in one call: in the order asked, each for itself, and one request to the issuer for each key.

use std::sync::Arc;
use std::time::Duration;

use keyfob::broker::Issued;
use keyfob::model::error::{Error, ErrorKind};
use keyfob::model::policy::TokenRequest;
use keyfob::model::time::{Clock, SystemClock};
use keyfob::testing::TestClock;
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::stage::{ACME, Setting, Stage, generation, of, subject, with_scope};
use tokio::time::Instant;

/// What an issuer takes where a test wants callers to wait side by side.
const SLOW: Duration = Duration::from_millis(200);
/// More keys than are obtained one after the other in any patience.
const MANY: usize = 40;
/// How long tokens live where a test sets the clock.
const LIFE: Duration = Duration::from_secs(20);

fn users(count: usize) -> Vec<TokenRequest> {
    let user = |number| of(ACME).subject(subject(&format!("user-{number}")));
    (0..count).map(user).collect()
}

#[tokio::test]
async fn answers_come_in_the_order_asked() {
    let stage = Setting::new().open().await;
    let requests = [
        with_scope("write"),
        of(ACME),
        with_scope("read"),
        with_scope("write"),
    ];
    for warm in [false, true] {
        let answers = stage.billing().tokens(&requests).await;
        let scopes: Vec<_> = answers
            .iter()
            .map(|answer| answer.as_ref().unwrap().token.scopes().to_string())
            .collect();
        assert_eq!(scopes, ["write", "read", "read", "write"], "warm: {warm}");
    }
    // The default scopes are "read": two spellings of one key.
    assert_eq!(stage.calls(), 2);
    assert!(stage.billing().tokens(&[]).await.is_empty());
    stage.close().await;
}

#[tokio::test]
async fn the_same_key_twice_is_one_request_and_one_token() {
    let stage = Setting::new().open().await;
    stage.issuer.behave(Behaviour::Latency(SLOW));
    let answers = stage.billing().tokens(&vec![of(ACME); MANY]).await;
    let first = generation(answers[0].as_ref().unwrap());
    for answer in &answers {
        assert_eq!(generation(answer.as_ref().unwrap()), first);
    }
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn one_that_fails_does_not_concern_the_others() {
    let stage = Setting::new().open().await;
    stage.token().await.unwrap();
    stage.issuer.behave(Behaviour::Status(500));
    let requests = [of("nowhere"), of(ACME), with_scope("write"), of(ACME)];
    let answers = stage.billing().tokens(&requests).await;
    let kinds: Vec<_> = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(|error| error.kind()))
        .collect();
    let (denied, unavailable) = (Some(ErrorKind::Denied), Some(ErrorKind::Unavailable));
    assert_eq!(kinds, [denied, None, unavailable, None]);
    stage.close().await;
}

#[tokio::test]
async fn absent_tokens_are_obtained_side_by_side() {
    let stage = Setting::new()
        .provider(ACME, |acme, _| acme.refresh.concurrency = MANY)
        .open()
        .await;
    stage.issuer.behave(Behaviour::Latency(SLOW));
    let began = Instant::now();
    let answers = stage.billing().tokens(&users(MANY)).await;
    assert!(answers.iter().all(Result::is_ok), "{}", answers.len());
    // One after the other would take MANY times as long, and the provider's timeout twice over. Not a measurement.
    assert!(began.elapsed() < SLOW * MANY as u32 / 2);
    assert_eq!(stage.calls(), MANY as u64);
    stage.close().await;
}

#[tokio::test]
async fn each_waits_as_long_as_its_provider_allows_counted_from_arrival() {
    let stage = Setting::new()
        .provider(ACME, |acme, _| {
            acme.refresh.timeout = Duration::from_secs(1)
        })
        .open()
        .await;
    let served = stage.token().await.unwrap();
    stage.issuer.behave(Behaviour::Hang);
    let mut requests = users(3);
    requests.push(of(ACME));
    let answers = stage.billing().tokens(&requests).await;
    for answer in &answers[..3] {
        let error = answer.as_ref().err().expect("nothing came in time");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let kept = answers[3].as_ref().expect("it was in memory");
    assert_eq!(generation(kept), generation(&served));
    stage.close().await;
}

#[tokio::test]
async fn a_token_that_ends_while_the_others_are_waited_for_is_not_handed_out() {
    let stage = Setting::new().lifetime(Duration::from_secs(2)).open().await;
    let short = stage.token().await.unwrap();
    // The rest lives long, and comes after the end of the first.
    let slow = Behaviour::Latency(Duration::from_millis(2500));
    stage.issuer.behave_next(1, slow);
    let requests = [of(ACME), with_scope("write")];
    let answers = stage.billing().tokens(&requests).await;
    let now = SystemClock.now();
    let issued = answers[0].as_ref().unwrap();
    assert_ne!(generation(issued), generation(&short));
    assert!(issued.expires > now, "{:?} at {now:?}", issued.expires);
    stage.close().await;
}

/// Two tokens, the first half a life older than the second, and a call for both and a third, while which the clock leaps by
/// half a life as often as the issuer was asked this many times.
struct Leaps {
    stage: Stage,
    clock: Arc<TestClock>,
    old: [Issued; 2],
    answers: Vec<Result<Issued, Error>>,
}

impl Leaps {
    async fn take(at_calls: &[u64]) -> Self {
        let clock = Arc::new(TestClock::starting_at(SystemClock.now()));
        let stage = Setting::new()
            .clock(clock.clone())
            .lifetime(LIFE)
            .acme(|acme| acme.refresh.timeout = 3 * LIFE)
            .open()
            .await;
        let first = stage.token().await.unwrap();
        clock.jump(LIFE / 2);
        let second = stage.billing().token(&with_scope("write")).await.unwrap();
        // Long enough to leap meanwhile, whatever else this machine does.
        stage.issuer.behave(Behaviour::Latency(5 * SLOW));
        let (caller, requests) = (
            stage.billing(),
            [of(ACME), with_scope("write"), with_scope("orders.read")],
        );
        let asking = tokio::spawn(async move { caller.tokens(&requests).await });
        for calls in at_calls {
            while stage.calls() < *calls && !asking.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            clock.jump(LIFE / 2);
        }
        let answers = asking.await.unwrap();
        let old = [first, second];
        Self {
            stage,
            clock,
            old,
            answers,
        }
    }

    fn assert_alive(&self, issued: &Issued) {
        assert!(issued.expires > self.clock.now());
        assert!(
            !self
                .old
                .iter()
                .map(generation)
                .any(|old| old == generation(issued))
        );
    }
}

#[tokio::test]
async fn a_token_that_ends_while_another_is_obtained_once_more_is_not_handed_out() {
    // The third is obtained; then the first, which ended meanwhile; then the other two, which ended while the first was.
    let leaps = Leaps::take(&[3, 4]).await;
    for answer in &leaps.answers {
        leaps.assert_alive(answer.as_ref().unwrap());
    }
    assert_eq!(leaps.stage.calls(), 6);
    leaps.stage.close().await;
}

#[tokio::test]
async fn a_token_that_ends_again_and_again_is_an_error_and_never_handed_out_dead() {
    // The first ends once more while the other two are obtained once more.
    let leaps = Leaps::take(&[3, 4, 6]).await;
    let error = leaps.answers[0].as_ref().err().expect("it has ended");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for answer in &leaps.answers[1..] {
        leaps.assert_alive(answer.as_ref().unwrap());
    }
    leaps.stage.close().await;
}

#[tokio::test]
async fn a_caller_who_leaves_loses_no_refresh() {
    let stage = Setting::new().open().await;
    stage.issuer.behave(Behaviour::Latency(SLOW));
    let requests = users(3);
    let caller = stage.billing();
    let gone = tokio::time::timeout(SLOW / 4, caller.tokens(&requests)).await;
    assert!(gone.is_err(), "it was to leave first");
    let answers = stage.billing().tokens(&requests).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(stage.calls(), 3, "what was under way went on");
    stage.close().await;
}
