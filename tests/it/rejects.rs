//! Rejected tokens (I5): only the current one is renewed, once, and a resource that refuses everything drives nothing.

use std::time::Duration;

use keyfob::broker::RejectOutcome;
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::stage::{ACME, Setting, Stage, generation, of, refused, report};

/// Rejects the generation and says how it went.
async fn reject(stage: &Stage, number: u64) -> (u64, RejectOutcome) {
    let answer = stage.billing().reject(&of(ACME), &refused(number)).await;
    let (issued, outcome) = answer.unwrap();
    (generation(&issued), outcome)
}

#[tokio::test]
async fn rejects_of_an_old_generation_cost_nothing() {
    let stage = Setting::new().open().await;
    let old = generation(&stage.token().await.unwrap());
    let (new, outcome) = reject(&stage, old).await;
    assert!(matches!(outcome, RejectOutcome::Refreshed));
    assert!(new > old);
    let calls = stage.calls();
    for _ in 0..50 {
        let (held, outcome) = reject(&stage, old).await;
        assert!(matches!(outcome, RejectOutcome::AlreadyReplaced));
        assert_eq!(held, new);
    }
    assert_eq!(stage.calls(), calls);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_rejects_of_the_current_generation_cost_one_request() {
    let stage = Setting::new().open().await;
    let old = generation(&stage.token().await.unwrap());
    stage
        .issuer
        .behave(Behaviour::Latency(Duration::from_millis(100)));
    let rejections: Vec<_> = (0..100)
        .map(|_| {
            let caller = stage.billing();
            tokio::spawn(async move {
                let (issued, _) = caller.reject(&of(ACME), &refused(old)).await.unwrap();
                (generation(&issued), issued.token.raw().to_owned())
            })
        })
        .collect();
    let mut answers = std::collections::HashSet::new();
    for rejection in rejections {
        answers.insert(rejection.await.unwrap());
    }
    assert_eq!(answers.len(), 1, "everybody gets the same replacement");
    assert!(
        answers
            .iter()
            .all(|(new, raw)| *new > old && stage.issuer.is_active(raw))
    );
    assert_eq!(stage.calls(), 2);
    stage.close().await;
}

#[tokio::test]
async fn the_current_token_is_served_to_others_until_its_replacement_is_there() {
    let stage = Setting::new().open().await;
    let old = generation(&stage.token().await.unwrap());
    stage
        .issuer
        .behave(Behaviour::Latency(Duration::from_millis(300)));
    let caller = stage.billing();
    let rejecting = tokio::spawn({
        let caller = caller.clone();
        async move {
            let (issued, _) = caller.reject(&of(ACME), &refused(old)).await.unwrap();
            generation(&issued)
        }
    });
    stage.issuer.ledger().wait_for(2).await;
    assert_eq!(generation(&caller.token(&of(ACME)).await.unwrap()), old);
    let new = rejecting.await.unwrap();
    assert_eq!(generation(&caller.token(&of(ACME)).await.unwrap()), new);
    stage.close().await;
}

#[tokio::test]
async fn a_replacement_that_is_rejected_at_once_is_kept() {
    let stage = Setting::new().open().await;
    let first = generation(&stage.token().await.unwrap());
    let (second, _) = reject(&stage, first).await;
    let calls = stage.calls();
    for _ in 0..20 {
        let (held, outcome) = reject(&stage, second).await;
        let RejectOutcome::Kept { retry_after } = outcome else {
            panic!("{}", outcome.label())
        };
        assert_eq!(held, second);
        // A tenth of the life of a token of five minutes is half a minute.
        assert!(!retry_after.is_zero() && retry_after <= Duration::from_secs(30));
    }
    assert_eq!(stage.calls(), calls);
    stage.close().await;
}

#[tokio::test]
async fn a_generation_that_never_came_from_here_is_kept() {
    let stage = Setting::new().open().await;
    let current = generation(&stage.token().await.unwrap());
    for foreign in [
        1,
        current - 1,
        current + 1,
        (1 << 53) - 1,
        1 << 53,
        u64::MAX,
        0,
    ] {
        let (held, outcome) = reject(&stage, foreign).await;
        assert!(matches!(outcome, RejectOutcome::Kept { .. }), "{foreign}");
        assert_eq!(held, current);
    }
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn a_refusal_that_another_token_would_not_help_costs_nothing() {
    let stage = Setting::new().open().await;
    let current = generation(&stage.token().await.unwrap());
    for (status, challenge) in [
        (
            403,
            Some("Bearer error=\"insufficient_scope\", scope=\"admin\""),
        ),
        (403, None),
        (500, None),
    ] {
        let report = report(current, status, challenge);
        let answer = stage.billing().reject(&of(ACME), &report).await;
        let (issued, outcome) = answer.unwrap();
        assert!(
            matches!(outcome, RejectOutcome::Kept { .. }),
            "{status} {challenge:?}"
        );
        assert_eq!(generation(&issued), current);
    }
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn a_rejection_while_the_issuer_fails_leaves_the_token_to_everybody_else() {
    let stage = Setting::new().open().await;
    let current = generation(&stage.token().await.unwrap());
    stage.issuer.behave(Behaviour::Status(500));
    let answer = stage.billing().reject(&of(ACME), &refused(current)).await;
    assert!(answer.is_err(), "there is no other token to be had");
    assert_eq!(generation(&stage.token().await.unwrap()), current);
    // Nor does insisting reach the issuer: the failure is remembered.
    let calls = stage.calls();
    for _ in 0..20 {
        assert!(
            stage
                .billing()
                .reject(&of(ACME), &refused(current))
                .await
                .is_err()
        );
    }
    assert_eq!(stage.calls(), calls);
    stage.close().await;
}
