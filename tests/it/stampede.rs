//! Many callers, one key: one request, one result, for everybody (I1), and failures that are remembered (I2).

use std::collections::HashSet;
use std::time::Duration;

use keyfob::model::error::{ErrorKind, Retry};
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::stage::{ACME, SCOPES, Setting, generation, of, with_scope};
use tokio::time::Instant;

/// What an issuer takes where a test wants callers to pile up.
const SLOW: Duration = Duration::from_millis(50);
const CROWD: usize = 1000;

fn failing() -> Behaviour {
    Behaviour::After(SLOW, Box::new(Behaviour::Status(500)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_on_a_cold_key_cost_one_request_and_get_one_token() {
    let stage = Setting::new().open().await;
    stage.issuer.behave(Behaviour::Latency(SLOW));
    let answers = stage.billing().crowd(CROWD, &of(ACME)).await;
    let tokens: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    let generations: HashSet<_> = tokens.iter().map(generation).collect();
    let raw: HashSet<_> = tokens.iter().map(|issued| issued.token.raw()).collect();
    assert_eq!((generations.len(), raw.len()), (1, 1));
    assert!(stage.issuer.is_active(tokens[0].token.raw()));
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_callers_on_a_failing_issuer_share_one_attempt() {
    let stage = Setting::new().open().await;
    stage.issuer.behave(failing());
    let answers = stage.billing().crowd(CROWD, &of(ACME)).await;
    for answer in answers {
        let error = answer.err().expect("there is no token to be had");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(matches!(error.retry(), Retry::After(_)), "{error:?}");
    }
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn nobody_queues_behind_a_second_attempt() {
    let stage = Setting::new().open().await;
    stage.issuer.behave(failing());
    let first = stage.token().await.err().expect("the issuer fails");
    // Later arrivals meet what is remembered: no waiting, no request, the same failure.
    let remembered = stage.billing().crowd(CROWD, &of(ACME)).await;
    for answer in remembered {
        let error = answer.err().expect("the failure is remembered");
        assert_eq!(error.correlation(), first.correlation());
        let Retry::After(left) = error.retry() else {
            panic!("{error:?}")
        };
        assert!(left <= Duration::from_secs(1), "{left:?}");
    }
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn different_keys_fly_side_by_side() {
    let stage = Setting::new().open().await;
    // No answer to anybody before all have asked: one after the other would never finish.
    stage.issuer.behave(Behaviour::Hang);
    let caller = stage.billing();
    let flights: Vec<_> = SCOPES
        .iter()
        .map(|scope| {
            let (caller, request) = (caller.clone(), with_scope(scope));
            tokio::spawn(async move { caller.token(&request).await })
        })
        .collect();
    stage.issuer.ledger().wait_for(SCOPES.len() as u64).await;
    for flight in flights {
        flight.abort();
    }
    stage.issuer.refuse_connections(true).await;
    stage.close().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_does_not_end_the_refresh() {
    let stage = Setting::new().open().await;
    stage
        .issuer
        .behave(Behaviour::Latency(Duration::from_millis(300)));
    let caller = stage.billing();
    let impatient = tokio::spawn({
        let caller = caller.clone();
        async move {
            caller
                .token(&of(ACME))
                .await
                .map(|issued| generation(&issued))
        }
    });
    stage.issuer.ledger().wait_for(1).await;
    impatient.abort();
    assert!(impatient.await.unwrap_err().is_cancelled());
    // The next caller gets the token of the request that was under way.
    let issued = caller.token(&of(ACME)).await.unwrap();
    assert!(stage.issuer.is_active(issued.token.raw()));
    assert_eq!((stage.calls(), stage.renewals()), (1, 1));
    stage.close().await;
}

#[tokio::test]
async fn a_refresh_that_everybody_left_still_lands() {
    let stage = Setting::new().open().await;
    stage
        .issuer
        .behave(Behaviour::Latency(Duration::from_millis(200)));
    let caller = stage.billing();
    let lonely = tokio::spawn(async move { caller.token(&of(ACME)).await.is_ok() });
    stage.issuer.ledger().wait_for(1).await;
    lonely.abort();
    stage
        .recorder
        .wait_for(|event| matches!(event, keyfob::model::event::Event::RefreshFinished { .. }))
        .await;
    stage.issuer.refuse_connections(true).await;
    assert!(stage.token().await.is_ok());
    assert_eq!(stage.calls(), 1);
    stage.close().await;
}

#[tokio::test]
async fn nobody_waits_longer_than_the_time_for_one_flow_from_arrival() {
    let timeout = Duration::from_millis(600);
    let stage = Setting::new()
        .acme(move |acme| acme.refresh.timeout = timeout)
        .open()
        .await;
    stage.issuer.behave(Behaviour::Hang);
    let caller = stage.billing();
    let first = tokio::spawn({
        let caller = caller.clone();
        async move { caller.token(&of(ACME)).await.map(|_| ()) }
    });
    stage.issuer.ledger().wait_for(1).await;
    // Halfway through the flight somebody else arrives: it shares the result and does not start a time of its own.
    tokio::time::sleep(timeout / 2).await;
    let arrived = Instant::now();
    let late = caller.token(&of(ACME)).await.err().expect("nothing comes");
    let waited = arrived.elapsed();
    assert_eq!(late.kind(), ErrorKind::Unavailable);
    let early = first.await.unwrap().expect_err("nothing comes");
    assert_eq!(early.kind(), ErrorKind::Unavailable);
    assert_eq!(stage.calls(), 1, "waited {waited:?}");
    stage.close().await;
}
