//! How far a request got: not sent, answered, lost.

use http::StatusCode;
use keyfob::model::transport::ANSWER_MAX_BYTES;
use keyfob::testing::issuer::Behaviour;
use keyfob_tests::raw::{RawServer, Say};

use super::*;

#[tokio::test]
async fn a_complete_answer_counts_from_just_before_it_was_asked_for() {
    let issuer = issuer();
    let then = UnixTime::from_secs(1_800_000_000);
    let settings = TransportSettings {
        insecure_http: true,
        ..TransportSettings::default()
    };
    let upstream = HttpUpstream::new(&settings, Arc::new(Stands(then))).expect("settings in order");
    let answer = answered(send(&upstream, ask(issuer.token_url()), PATIENCE).await);
    assert_eq!((answer.status, answer.sent_at), (StatusCode::OK, then));
    assert_eq!(answer.headers["cache-control"], "no-store");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert!(issuer.is_active(body["access_token"].as_str().expect("a token")));
}

#[tokio::test]
async fn an_error_of_the_issuer_is_an_answer() {
    let issuer = issuer();
    issuer.behave(Behaviour::Status(503));
    let answer = answered(send(&local(), with_grant(ask(issuer.token_url())), PATIENCE).await);
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn nobody_listening_means_not_sent() {
    let issuer = issuer();
    issuer.refuse_connections(true).await;
    for request in [ask(issuer.token_url()), with_grant(ask(issuer.token_url()))] {
        assert_eq!(
            not_sent(send(&local(), request, PATIENCE).await),
            FaultKind::Connect
        );
    }
    issuer.refuse_connections(false).await;
    answered(send(&local(), ask(issuer.token_url()), PATIENCE).await);
}

#[tokio::test]
async fn a_handshake_that_hangs_means_not_sent() {
    let server = RawServer::start(Say::Nothing).await.expect("a server");
    let url = format!("https://{}/token?q=hidden", server.address);
    for (request, seen) in [(ask(&url), 1), (with_grant(ask(&url)), 2)] {
        let delivery = run_out(&local(), request, server.wait_for(seen)).await;
        assert_eq!(not_sent(delivery), FaultKind::Timeout);
    }
}

#[tokio::test]
async fn silence_after_the_request_means_lost() {
    let issuer = issuer();
    issuer.behave(Behaviour::Hang);
    let url = issuer.token_url();
    // Without a body there is no telling when the request had left: it counts as sent from the start.
    let bare = OutgoingRequest {
        method: Method::GET,
        body: Vec::new().into(),
        ..ask(url)
    };
    for (request, seen) in [(ask(url), 1), (with_grant(ask(url)), 2), (bare, 3)] {
        let delivery = run_out(&local(), request, issuer.ledger().wait_for(seen)).await;
        assert_eq!(lost(delivery), FaultKind::Timeout);
    }
}

#[tokio::test]
async fn a_reset_after_the_request_means_lost_and_nothing_is_tried_twice() {
    let issuer = issuer();
    issuer.behave(Behaviour::ResetAfterRequest);
    let upstream = local();
    for request in [ask(issuer.token_url()), with_grant(ask(issuer.token_url()))] {
        assert_eq!(
            lost(send(&upstream, request, PATIENCE).await),
            FaultKind::Broken
        );
    }
    assert_eq!(issuer.ledger().granted(), 2);
}

#[tokio::test]
async fn a_truncated_answer_means_lost() {
    let issuer = issuer();
    issuer.behave(Behaviour::TruncatedBody);
    assert_eq!(
        lost(send(&local(), ask(issuer.token_url()), PATIENCE).await),
        FaultKind::Broken
    );
    for cut in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{\"a\":1}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\n{\"a\":1}\r\n",
        "HTTP/1.1 200 OK\r\nx-a: b\r\n",
        "no HTTP at all\r\n\r\n",
    ] {
        let server = RawServer::start(Say::Once(cut.into()))
            .await
            .expect("a server");
        let request = with_grant(ask(&format!("http://{}/token", server.address)));
        assert_eq!(
            lost(send(&local(), request, PATIENCE).await),
            FaultKind::Broken,
            "{cut}"
        );
    }
}

#[tokio::test]
async fn an_answer_larger_than_the_cap_is_not_read_on() {
    let issuer = issuer();
    issuer.behave_next(1, Behaviour::Oversize(ANSWER_MAX_BYTES));
    let answer = answered(send(&local(), ask(issuer.token_url()), PATIENCE).await);
    assert_eq!(answer.body.len(), ANSWER_MAX_BYTES);
    issuer.behave_next(1, Behaviour::Oversize(ANSWER_MAX_BYTES + 1));
    assert_eq!(
        lost(send(&local(), ask(issuer.token_url()), PATIENCE).await),
        FaultKind::TooLarge
    );
    // One that never says how long it is, and never ends.
    let endless = "HTTP/1.1 200 OK\r\n\r\n                                                        ";
    let server = RawServer::start(Say::Forever(endless.into()))
        .await
        .expect("a server");
    let request = ask(&format!("http://{}/token", server.address));
    assert_eq!(
        lost(send(&local(), request, PATIENCE).await),
        FaultKind::TooLarge
    );
}

#[tokio::test]
async fn a_drip_meets_the_total_timeout() {
    let issuer = issuer();
    issuer.behave(Behaviour::Drip(Duration::from_secs(1)));
    let (upstream, request) = (local(), ask(issuer.token_url()));
    let delivery = run_out(&upstream, request, issuer.ledger().wait_for(1)).await;
    assert_eq!(lost(delivery), FaultKind::Timeout);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_its_target_gets_nothing() {
    let elsewhere = RawServer::start(Say::Nothing).await.expect("a server");
    let issuer = issuer();
    issuer.behave(Behaviour::Redirect(format!(
        "http://{}/token",
        elsewhere.address
    )));
    let answer = answered(send(&local(), ask(issuer.token_url()), PATIENCE).await);
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    // These turn a request into a GET: a client that follows needs no body to do so.
    for status in ["301 Moved Permanently", "302 Found", "303 See Other"] {
        let moved = format!(
            "HTTP/1.1 {status}\r\nlocation: http://{}/token\r\ncontent-length: 0\r\n\r\n",
            elsewhere.address
        );
        let here = RawServer::start(Say::Once(moved)).await.expect("a server");
        let request = ask(&format!("http://{}/token", here.address));
        assert!(
            answered(send(&local(), request, PATIENCE).await)
                .status
                .is_redirection()
        );
    }
    assert_eq!(elsewhere.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn a_grant_travels_on_a_connection_of_its_own() {
    let (issuer, upstream) = (issuer(), local());
    for _ in 0..2 {
        answered(send(&upstream, ask(issuer.token_url()), PATIENCE).await);
    }
    for _ in 0..2 {
        answered(send(&upstream, with_grant(ask(issuer.token_url())), PATIENCE).await);
    }
    let used: Vec<u64> = issuer
        .ledger()
        .entries()
        .iter()
        .map(|entry| entry.connection)
        .collect();
    assert_eq!(used, [1, 1, 2, 3]);
}

#[tokio::test]
async fn a_kept_connection_that_ends_with_a_request_on_it_is_lost_not_tried_again() {
    let kept = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    let server = RawServer::start(Say::Once(kept.into()))
        .await
        .expect("a server");
    let (upstream, url) = (local(), format!("http://{}/token", server.address));
    answered(send(&upstream, ask(&url), PATIENCE).await);
    assert_eq!(
        lost(send(&upstream, ask(&url), PATIENCE).await),
        FaultKind::Broken
    );
    assert_eq!(server.lines().len(), 2);
}
