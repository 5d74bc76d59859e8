//! Plugins swapped under load, and plugins that are not taken (I3, I11).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keyfob::broker::{SwapError, builtin};
use keyfob_tests::guests;
use keyfob_tests::stage::{ACME, Setting, Stage, of, with_scope};

fn oauth2() -> Arc<[u8]> {
    builtin("oauth2").expect("it ships").into()
}

async fn refused(stage: &Stage, component: Arc<[u8]>) -> SwapError {
    let before = stage.broker.provider(ACME).unwrap();
    let error = stage
        .swap(ACME, component)
        .await
        .expect_err("it must not be taken");
    assert!(!error.to_string().is_empty());
    let after = stage.broker.provider(ACME).unwrap();
    assert_eq!(
        (before.digest, before.revision),
        (after.digest, after.revision)
    );
    // The old one serves: what is held, and what has to be obtained.
    assert!(stage.token().await.is_ok());
    assert!(stage.billing().token(&with_scope("write")).await.is_ok());
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_swaps_under_load_fail_nobody() {
    let stage = Setting::new().lifetime(Duration::from_secs(1)).open().await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (caller, stop, served) = (stage.billing(), stop.clone(), served.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    caller.token(&of(ACME)).await.unwrap();
                    served.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    let mut revision = stage.broker.provider(ACME).unwrap().revision;
    for _ in 0..20 {
        let from = served.load(Ordering::Relaxed);
        // Identical bytes: another revision all the same.
        let swapped = stage.swap(ACME, oauth2()).await.unwrap();
        assert!(swapped.revision > revision);
        revision = swapped.revision;
        while served.load(Ordering::Relaxed) < from + 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call failed");
    }
    assert_eq!(stage.broker.provider(ACME).unwrap().revision, revision);
    stage.close().await;
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_with_the_reason() {
    let stage = Setting::new().open().await;
    for (component, code, said) in [
        (Arc::from(&b"garbage"[..]), None, ""),
        (Arc::from(&b""[..]), None, ""),
        (
            guests::importing("wasi:filesystem/types@0.2.0"),
            None,
            "wasi:filesystem",
        ),
        (guests::exporting(&["other:thing/api"]), None, ""),
        (
            builtin("allowlist").unwrap().into(),
            Some("no_world"),
            "keyfob:provider/provider",
        ),
    ] {
        let error = refused(&stage, component).await;
        if let Some(code) = code {
            assert_eq!(error.code, code);
        }
        assert!(error.to_string().contains(said), "{error}");
    }
    let nowhere = stage
        .swap("nowhere", oauth2())
        .await
        .expect_err("no such provider");
    assert_eq!(nowhere.code, "unknown_provider");
    stage.close().await;
}

#[tokio::test]
async fn a_plugin_that_hangs_or_hogs_before_it_serves_is_refused() {
    let stage = Setting::new().open().await;
    for word in [
        "endless-start",
        "loop",
        "allocate",
        "trap",
        "panic",
        "configure-loop",
        "configure-hog",
        "lie-name",
    ] {
        let error = refused(&stage, guests::hostile_at_birth(word)).await;
        assert!(!error.message.is_empty(), "{word}");
    }
    stage.close().await;
}

#[tokio::test]
async fn a_plugin_that_does_not_take_the_settings_is_refused_with_its_words() {
    let stage = Setting::new().open().await;
    let error = refused(&stage, guests::hostile_at_birth("mistaken")).await;
    assert_eq!(error.code, "configure");
    assert!(error.to_string().contains("token_url"), "{error}");
    stage.close().await;
}

#[tokio::test]
async fn a_plugin_that_asks_for_more_than_is_granted_is_refused_with_the_line_to_write() {
    let stage = Setting::new().open().await;
    for (word, line) in [
        ("widen-to", "allow = [\"https://evil.example/token\"]"),
        ("widen-secrets", "another_secret"),
        ("widen-readable", "readable = [\"email\"]"),
        ("widen-exposes", "expose = [\"instance_url\"]"),
    ] {
        let error = refused(&stage, guests::hostile_at_birth(word)).await;
        assert_eq!(error.code, "grants_widened", "{error}");
        assert!(
            error
                .mistakes
                .iter()
                .any(|m| m.widens && m.fix.contains(line)),
            "{error}"
        );
    }
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_a_bad_swap_is_judged_everybody_is_served() {
    let stage = Setting::new().provider("beta", |_, _| {}).open().await;
    let caller = stage.billing();
    let broker = stage.broker.clone();
    let swapping = tokio::spawn(async move {
        let component = guests::hostile_at_birth("configure-loop");
        broker
            .swap_provider(ACME, component, "deployer")
            .await
            .err()
            .map(|error| error.code)
    });
    let mut asked = 0;
    while !swapping.is_finished() {
        // A key of its own each time: flights, not only hits.
        let audience = keyfob_tests::stage::audience(&format!("https://api-{asked}.example"));
        assert!(
            caller
                .token(&of("beta").audience(audience.clone()))
                .await
                .is_ok()
        );
        assert!(caller.token(&of(ACME).audience(audience)).await.is_ok());
        asked += 1;
    }
    assert!(asked > 0);
    assert_eq!(swapping.await.unwrap(), Some("configure"));
    stage.close().await;
}

#[tokio::test]
async fn a_rollback_brings_the_plugin_before_back() {
    let stage = Setting::new().open().await;
    let none = stage
        .broker
        .rollback_provider(ACME, "deployer")
        .await
        .expect_err("no previous");
    assert_eq!(none.code, "no_previous");
    let before = stage.broker.provider(ACME).unwrap();
    let swapped = stage.swap(ACME, guests::hostile()).await.unwrap();
    assert_ne!(swapped.digest, before.digest);
    let back = stage
        .broker
        .rollback_provider(ACME, "deployer")
        .await
        .unwrap();
    assert_eq!(back.digest, before.digest);
    assert!(back.revision > swapped.revision && swapped.revision > before.revision);
    assert!(stage.token().await.is_ok());
    stage.close().await;
}

#[tokio::test]
async fn a_flight_in_progress_ends_with_the_plugin_it_began_with() {
    // The newcomer would trap on any answer. Built first: that takes the thread for a while.
    let newcomer = guests::hostile_at_birth("refresh-traps");
    let stage = Setting::new().open().await;
    let slow = keyfob::testing::issuer::Behaviour::Latency(Duration::from_millis(300));
    stage.issuer.behave_next(1, slow);
    let caller = stage.billing();
    let asking = tokio::spawn(async move { caller.token(&of(ACME)).await.is_ok() });
    stage.issuer.ledger().wait_for(1).await;
    stage.swap(ACME, newcomer).await.unwrap();
    assert!(asking.await.unwrap());
    assert!(stage.token().await.is_ok());
    stage.close().await;
}
