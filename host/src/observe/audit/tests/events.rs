//! From an event to an entry: what is written, what is counted, and that nobody waits.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::super::queue::{LIMITED_PER_SECOND, WAITING_MAX};
use super::*;
use crate::model::contract::Cause;
use crate::model::credential::{CredentialState, EndCause, Version};
use crate::model::error::{Correlation, ErrorKind};
use crate::model::event::RefreshOutcome;
use crate::model::key::{CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey};
use crate::model::time::UnixTime;
use crate::model::token::Generation;

/// A file that waits to be told before each write, and tells that it waits.
struct Held {
    file: fs::File,
    waits: Sender<()>,
    go: Arc<Mutex<Receiver<bool>>>,
}

impl Sink for Held {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waits.send(()).unwrap();
        match self.go.lock().unwrap().recv() {
            Ok(false) => Err(io::ErrorKind::StorageFull.into()),
            // Whoever told has left: there is nothing to wait for any more.
            Ok(true) | Err(_) => self.file.append(bytes),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

struct Stage {
    dir: TempDir,
    audit: Audit,
    told: Arc<Told>,
    waits: Receiver<()>,
    go: Sender<bool>,
}

fn stage() -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let told = Arc::new(Told::default());
    let (waiting, waits) = channel();
    let (go, going) = channel();
    let going = Arc::new(Mutex::new(going));
    let sink = move |file| -> Box<dyn Sink> {
        let (waits, go) = (waiting.clone(), going.clone());
        Box::new(Held { file, waits, go })
    };
    // The entry of the start.
    go.send(true).unwrap();
    let run = Run {
        version: "1",
        config: "k.toml".into(),
    };
    let settings = settings(dir.path(), 1 << 20);
    let audit = Audit::open_through(
        settings,
        &run,
        Arc::new(SystemClock),
        told.clone(),
        through(sink),
    );
    waits.recv().unwrap();
    Stage {
        audit: audit.unwrap(),
        dir,
        told,
        waits,
        go,
    }
}

fn credential() -> CredentialKey {
    CredentialKey {
        tenant: Tenant::default(),
        provider: ProviderName::parse("acme").unwrap(),
        subject: Subject::parse("alice").ok(),
    }
}

fn rotated(version: u64) -> Event {
    Event::GrantRotated {
        key: credential(),
        version: Version(version),
    }
}

#[test]
fn what_finds_no_room_is_counted_and_nobody_waits() {
    let stage = stage();
    stage.audit.observe(&rotated(0));
    // The thread has that one in its hands, and the disk does not move.
    stage.waits.recv().unwrap();
    for version in 1..=WAITING_MAX as u64 + 7 {
        stage.audit.observe(&rotated(version));
    }
    drop(stage.go);
    stage.audit.close("test");
    let verified = assert_sound(&stage.dir);
    assert_eq!((verified.lost, verified.end), (7, End::Stopped));
    let text = everything(&stage.dir);
    assert_eq!(text.matches("grant_rotated").count(), 1 + WAITING_MAX);
    // It stands where it happened: after what was before it, and before the end.
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[lines.len() - 2].contains("\"event\":\"lost\",\"count\":7,\"since\":"));
    assert_eq!(stage.told.count("audit_lost"), 1);
}

#[test]
fn an_outage_of_the_disk_is_told_once_and_ends_by_itself() {
    let stage = stage();
    stage.audit.observe(&rotated(1));
    stage.go.send(false).unwrap();
    stage.told.wait_for("audit_failed");
    // The tries of a second outage would be told again; those of this one are not.
    stage.go.send(false).unwrap();
    stage.audit.observe(&rotated(2));
    drop(stage.go);
    stage.told.wait_for("audit_resumed");
    stage.audit.close("test");
    assert_eq!(stage.told.count("audit_failed"), 1);
    let verified = assert_sound(&stage.dir);
    assert_eq!((verified.lost, verified.end), (0, End::Stopped));
    assert_eq!(everything(&stage.dir).matches("grant_rotated").count(), 2);
}

#[test]
fn a_disk_that_takes_nothing_does_not_keep_the_process() {
    let stage = stage();
    stage.audit.observe(&rotated(1));
    for _ in 0..3 {
        stage.go.send(false).unwrap();
    }
    stage.told.wait_for("audit_failed");
    stage.audit.close("test");
    assert_eq!(stage.told.count("audit_incomplete"), 1);
    let verified = assert_sound(&stage.dir);
    assert_eq!(
        (verified.entries, verified.end),
        (2, End::Open),
        "what is there holds"
    );
}

#[test]
fn a_caller_that_is_denied_in_a_loop_does_not_push_older_entries_out() {
    let queue = Queue::default();
    let at = UnixTime::from_secs(1_000);
    let later = UnixTime::from_secs(1_001);
    for _ in 0..LIMITED_PER_SECOND + 5 {
        queue.push_limited(record(0), at);
    }
    queue.push(record(1), at);
    assert_eq!(queue.take_now(at).len() as u64, LIMITED_PER_SECOND + 1);
    queue.push_limited(record(2), later);
    let events: Vec<_> = queue.take_now(later).iter().map(Record::event).collect();
    assert_eq!(
        events,
        ["suppressed", "notice"],
        "the number comes first: it was before"
    );
    // What is held back at the end is told at the end.
    for _ in 0..LIMITED_PER_SECOND + 1 {
        queue.push_limited(record(3), later);
    }
    queue.end(Record::new(later, STOPPED));
    queue.push(record(4), later);
    let events: Vec<_> = queue.take_now(later).iter().map(Record::event).collect();
    assert_eq!(events[events.len() - 2..], ["suppressed", "stopped"]);
    assert!(
        queue.take(|| later).is_empty(),
        "after the end there is nothing"
    );
}

#[test]
fn what_matters_is_written_with_who_did_it_and_the_rest_is_not() {
    let key = || TokenKey {
        credential: credential(),
        audience: None,
        scopes: ScopeSet::parse(["b", "a"]).unwrap(),
    };
    let took = std::time::Duration::ZERO;
    let finished = |outcome| Event::RefreshFinished {
        key: key(),
        cause: Cause::Expiring,
        outcome,
        took,
    };
    let swapped = |refused: Option<&str>, rollback| Event::PluginSwapped {
        provider: "acme".into(),
        revision: 3,
        digest: "d".into(),
        rollback,
        refused: refused.map(str::to_owned),
        by: "ops".into(),
    };
    let notice = |code| Event::Notice {
        code,
        detail: "words".into(),
    };
    let state = CredentialState::ReauthorizationRequired {
        since: UnixTime::default(),
        cause: EndCause::LostAnswer,
    };
    let about = "\"tenant\":\"default\",\"provider\":\"acme\",\"subject\":\"alice\"";
    let written = [
        (
            Event::CredentialChanged { key: credential(), was: CredentialState::Live, state, version: Version(4), by: "ops".into() },
            format!("\"credential_changed\",{about},\"was\":\"live\",\"state\":\"reauthorization_required\",\"cause\":\"lost_answer\",\"version\":4,\"by\":\"ops\""),
        ),
        (rotated(5), format!("\"grant_rotated\",{about},\"version\":5")),
        (
            swapped(None, true),
            "\"plugin_swapped\",\"provider\":\"acme\",\"rollback\":true,\"revision\":3,\"digest\":\"d\",\"by\":\"ops\"".into(),
        ),
        (
            swapped(Some("no_world: x"), false),
            "\"plugin_refused\",\"provider\":\"acme\",\"rollback\":false,\"revision\":3,\"digest\":\"d\",\"why\":\"no_world: x\",\"by\":\"ops\"".into(),
        ),
        (
            Event::StoreKept { what: "shred", detail: "2 credentials".into(), refused: None, by: "ops".into() },
            "\"store_kept\",\"what\":\"shred\",\"detail\":\"2 credentials\",\"by\":\"ops\"".into(),
        ),
        (Event::ConfigReloaded { refused: None }, "\"config_reloaded\"".into()),
        (Event::ConfigReloaded { refused: Some("x".into()) }, "\"config_refused\",\"why\":\"x\"".into()),
        (
            finished(RefreshOutcome::Failed {
                kind: ErrorKind::Unavailable,
                detail: "503".into(),
                not_before: None,
                correlation: Correlation(0xabc),
            }),
            format!("\"refresh_failed\",{about},\"scopes\":\"a b\",\"cause\":\"expiring\",\"kind\":\"unavailable\",\"detail\":\"503\",\"correlation\":\"0000000000000abc\""),
        ),
        (
            Event::TokenRejected { key: key(), generation: Generation::first(UnixTime::default()), outcome: "kept", caller: "app".into() },
            format!("\"token_rejected\",{about},\"scopes\":\"a b\",\"generation\":"),
        ),
        (
            Event::Denied {
                caller: "app".into(),
                tenant: Tenant::default(),
                provider: "forged\"\n{\"seq\":1".into(),
                code: "scope".into(),
                fix: "f".into(),
                correlation: Correlation(1),
            },
            "\"denied\",\"caller\":\"app\",\"tenant\":\"default\",\"provider\":\"forged\\\"\\n{\\\"seq\\\":1\",\"code\":\"scope\"".into(),
        ),
        (
            Event::PluginFailed { provider: "acme".into(), label: "trap", detail: "x".into() },
            "\"plugin_failed\",\"provider\":\"acme\",\"kind\":\"trap\"".into(),
        ),
        (notice("undurable"), "\"notice\",\"code\":\"undurable\",\"detail\":\"words\"".into()),
    ];
    let ordinary = [
        Event::RefreshStarted {
            key: key(),
            cause: Cause::First,
        },
        finished(RefreshOutcome::Renewed {
            generation: Generation::first(UnixTime::default()),
            expires: UnixTime::MAX,
        }),
        Event::KeyEvicted {
            key: key(),
            why: "idle",
        },
        notice("listening"),
        notice("stopped"),
        notice("audit_failed"),
    ];
    let stage = stage();
    drop(stage.go);
    for event in written.iter().map(|(event, _)| event).chain(&ordinary) {
        stage.audit.observe(event);
    }
    stage.audit.close("told to end");
    assert_eq!(assert_sound(&stage.dir).end, End::Stopped);
    let text = everything(&stage.dir);
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[1]
            .contains("\"event\":\"started\",\"version\":\"1\",\"config\":\"k.toml\",\"process\":")
    );
    for (line, (_, expected)) in lines[2..].iter().zip(&written) {
        assert!(
            line.contains(&format!(",\"event\":{expected}")),
            "{expected} is not {line}"
        );
    }
    assert_eq!(lines.len(), 2 + written.len() + 1);
    assert!(lines[lines.len() - 1].contains("\"event\":\"stopped\",\"reason\":\"told to end\""));
}
