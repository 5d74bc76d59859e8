//! Events as log lines, and several observers at once.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyfob::model::contract::Cause;
use keyfob::model::error::{Correlation, ErrorKind};
use keyfob::model::event::{Event, Observer, RefreshOutcome};
use keyfob::model::key::{CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey};
use keyfob::model::transport::FaultKind;
use keyfob::observe::{Fanout, Lines, Metrics};
use keyfob::testing::Recorder;
use serde_json::Value;

/// Where the lines of one test go.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl io::Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `Lines` writes of these events.
fn written(events: &[Event], json: bool) -> String {
    let page = Page::default();
    let writer = page.clone();
    let builder = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let write = || events.iter().for_each(|event| Lines.observe(event));
    if json {
        tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), write);
    } else {
        tracing::subscriber::with_default(builder.finish(), write);
    }
    let bytes = page.0.lock().expect("no writer panics").clone();
    String::from_utf8(bytes).expect("text")
}

fn key() -> TokenKey {
    TokenKey {
        credential: CredentialKey {
            tenant: Tenant::default(),
            provider: ProviderName::parse("acme").expect("a name"),
            subject: Subject::parse("alice").ok(),
        },
        audience: None,
        scopes: ScopeSet::parse(["b", "a"]).expect("scopes"),
    }
}

fn failed(detail: &str) -> Event {
    let outcome = RefreshOutcome::Failed {
        kind: ErrorKind::Unavailable,
        detail: detail.to_owned(),
        not_before: None,
        correlation: Correlation(0xabc),
    };
    Event::RefreshFinished {
        key: key(),
        cause: Cause::Expiring,
        outcome,
        took: Duration::from_millis(7),
    }
}

#[test]
fn a_failed_refresh_is_one_line_that_a_caller_s_answer_leads_to() {
    let text = written(&[failed("the issuer answered 503")], true);
    let line: Value = serde_json::from_str(text.trim()).expect("one line of JSON");
    for (field, expected) in [
        ("level", "WARN"),
        ("target", "keyfob::refresh"),
        ("message", "refresh failed"),
        ("provider", "acme"),
        ("subject", "alice"),
        ("scopes", "a b"),
        ("kind", "unavailable"),
        ("cause", "expiring"),
        ("correlation", "0000000000000abc"),
        ("detail", "the issuer answered 503"),
    ] {
        assert_eq!(line[field], expected, "{field} in {line}");
    }
}

#[test]
fn no_event_can_forge_a_line() {
    let forged = "x\n2030-01-01 INFO keyfob::daemon: all is well";
    let upstream = Event::UpstreamAnswered {
        provider: key().credential.provider,
        result: Err(FaultKind::Broken),
        took: Duration::ZERO,
        detail: Some(forged.to_owned()),
    };
    let swapped = Event::PluginSwapped {
        provider: forged.to_owned(),
        revision: 1,
        digest: forged.to_owned(),
        rollback: false,
        refused: Some(forged.to_owned()),
        by: forged.to_owned(),
    };
    let events = [failed(forged), upstream, swapped];
    for json in [true, false] {
        let text = written(&events, json);
        assert_eq!(text.lines().count(), events.len(), "{text}");
    }
}

#[tokio::test]
async fn every_observer_gets_every_event() {
    let (recorder, metrics) = (Arc::new(Recorder::new()), Arc::new(Metrics::new()));
    let everyone = Fanout::new([recorder.clone() as Arc<dyn Observer>, metrics.clone()]);
    everyone.observe(&Event::ConfigReloaded { refused: None });
    everyone.observe(&failed("x"));
    let found = recorder
        .wait_for(|event| matches!(event, Event::RefreshFinished { .. }))
        .await;
    assert!(format!("{found:?}").contains("Expiring"));
    assert_eq!(
        (recorder.events().len(), recorder.dump().lines().count()),
        (2, 2)
    );
    assert!(
        metrics
            .render()
            .contains("keyfob_config_reloads_total{outcome=\"accepted\"} 1")
    );
}
