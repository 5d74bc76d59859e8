//! What issuers answer on bad days: a valid token is served while it lives (I3), the error is typed, callers meet the
//! back-off and not the issuer (I2), and nobody has to do anything once the issuer has healed.

use std::time::Duration;

use keyfob::model::error::{Error, ErrorKind, Retry};
use keyfob::model::event::{Event, RefreshOutcome};
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::stage::{ACME, Setting, Stage, generation, of, refused};
use tokio::net::TcpListener;

/// Every way to answer that is no token, with what an operator reads about it.
fn faults(elsewhere: &str) -> Vec<Behaviour> {
    let custom = |status, body: &str| Behaviour::Custom {
        status,
        content_type: "application/json".to_owned(),
        body: body.to_owned(),
    };
    vec![
        Behaviour::EmptyOk,
        Behaviour::Html,
        Behaviour::TruncatedBody,
        Behaviour::WrongTypes,
        Behaviour::Status(429),
        Behaviour::Status(500),
        Behaviour::Status(502),
        Behaviour::Status(503),
        Behaviour::Status(204),
        Behaviour::Status(418),
        Behaviour::ResetAfterRequest,
        Behaviour::Redirect(elsewhere.to_owned()),
        Behaviour::Oversize(1 << 20),
        custom(200, "[]"),
        custom(200, "null"),
        custom(200, r#"{"access_token":""}"#),
        custom(200, r#"{"access_token":null,"expires_in":300}"#),
        custom(200, r#"{"error":"server_error"}"#),
        custom(200, r#"{"access_token":"abc"#),
        custom(400, "{}"),
    ]
}

async fn fails(stage: &Stage) -> Error {
    stage
        .token()
        .await
        .err()
        .expect("there is no token to be had")
}

/// Waits until the back-off that this error names is over.
async fn sit_out(error: &Error) {
    let Retry::After(pause) = error.retry() else {
        panic!("nobody has to wait for {error:?}")
    };
    tokio::time::sleep(pause + Duration::from_millis(5)).await;
}

/// A listener that must not be called.
async fn elsewhere() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    (listener, url)
}

async fn assert_untouched(listener: &TcpListener) {
    let nothing = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(
        nothing.is_err(),
        "something was sent to the redirect's target"
    );
}

#[tokio::test]
async fn no_fault_of_the_issuer_takes_a_valid_token_away() {
    let (listener, url) = elsewhere().await;
    for fault in faults(&url) {
        let stage = Setting::new().open().await;
        let current = stage.token().await.unwrap();
        stage.issuer.behave(fault.clone());
        // Whoever rejects it gets no other, and everybody else is served it all the same.
        let rejection = refused(generation(&current));
        let answer = stage.billing().reject(&of(ACME), &rejection).await;
        assert!(answer.is_err(), "{fault:?}");
        // Whoever wants more life than it has gets the best there is.
        let wishful = of(ACME).min_validity(Duration::from_secs(3600));
        for request in [of(ACME), wishful] {
            let served = stage.billing().token(&request).await.unwrap();
            assert_eq!(served.token.raw(), current.token.raw(), "{fault:?}");
        }
        stage.close().await;
    }
    assert_untouched(&listener).await;
}

#[tokio::test]
async fn every_fault_is_a_typed_error_that_is_remembered_and_mends_itself() {
    let (listener, url) = elsewhere().await;
    let faults = faults(&url);
    // Side by side, each with an issuer of its own: every one of them sits out a back-off of about a second.
    let all = faults.into_iter().map(|fault| async move {
        let stage = Setting::new().open().await;
        stage.issuer.behave(fault.clone());
        let error = fails(&stage).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?}: {error:?}");
        let Retry::After(pause) = error.retry() else {
            panic!("{fault:?}: {error:?}")
        };
        assert!(pause <= Duration::from_secs(1), "{fault:?}: {pause:?}");
        // Within the back-off nobody reaches the issuer.
        let calls = stage.calls();
        for _ in 0..10 {
            assert_eq!(fails(&stage).await.correlation(), error.correlation());
        }
        assert_eq!(stage.calls(), calls, "{fault:?}");
        // It heals, and the next caller after the back-off has a token.
        stage.issuer.behave(Behaviour::Normal);
        sit_out(&error).await;
        let token = stage.token().await.unwrap();
        assert!(stage.issuer.is_active(token.token.raw()), "{fault:?}");
        stage.close().await;
    });
    futures_util::future::join_all(all).await;
    assert_untouched(&listener).await;
}

#[tokio::test]
async fn an_issuer_that_drips_or_hangs_is_left_when_the_time_for_one_flow_is_up() {
    for fault in [Behaviour::Drip(Duration::from_secs(1)), Behaviour::Hang] {
        let stage = Setting::new()
            .acme(|acme| acme.refresh.timeout = Duration::from_millis(400))
            .open()
            .await;
        stage.issuer.behave(fault.clone());
        let error = fails(&stage).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{fault:?}");
        stage.issuer.behave(Behaviour::Normal);
        let refresh = fails(&stage).await;
        sit_out(&refresh).await;
        assert!(stage.token().await.is_ok(), "{fault:?}");
        stage.close().await;
    }
}

#[tokio::test]
async fn an_issuer_out_of_reach_is_a_typed_error_too() {
    let stage = Setting::new().open().await;
    stage.issuer.refuse_connections(true).await;
    let error = fails(&stage).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    stage.issuer.refuse_connections(false).await;
    sit_out(&error).await;
    assert!(stage.token().await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn a_429_is_obeyed_in_seconds_and_as_a_date() {
    for (said, at_least, at_most) in [
        ("90", 80, 90),
        ("0", 0, 1),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 1),
        // A date in a wrong year stops nobody for good.
        ("Thu, 01 Jan 2099 00:00:00 GMT", 3500, 3600),
    ] {
        let stage = Setting::new().open().await;
        stage.issuer.behave(Behaviour::RateLimited {
            retry_after: said.to_owned(),
        });
        let error = fails(&stage).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let Retry::After(pause) = error.retry() else {
            panic!("{error:?}")
        };
        let seconds = pause.as_secs();
        assert!((at_least..=at_most).contains(&seconds), "{said}: {seconds}");
        stage.issuer.behave(Behaviour::Normal);
        let _ = fails(&stage).await;
        assert_eq!(stage.calls(), 1, "{said}");
        stage.close().await;
    }
}

#[tokio::test]
async fn the_operator_reads_what_went_wrong() {
    let stage = Setting::new().open().await;
    stage.issuer.behave(Behaviour::Html);
    let error = fails(&stage).await;
    let event = stage
        .recorder
        .wait_for(|event| {
            matches!(
                event,
                Event::RefreshFinished {
                    outcome: RefreshOutcome::Failed { .. },
                    ..
                }
            )
        })
        .await;
    let Event::RefreshFinished {
        outcome:
            RefreshOutcome::Failed {
                detail,
                correlation,
                ..
            },
        ..
    } = event
    else {
        unreachable!("it was waited for")
    };
    assert_eq!(correlation, error.correlation());
    assert!(!detail.is_empty());
    assert!(
        !error.to_string().contains(&detail),
        "callers get the host's words only"
    );
    stage.close().await;
}
