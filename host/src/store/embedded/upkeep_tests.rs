//! What a store in a file promises when it is changed as a whole, and when it was made by an older Keyfob.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use redb::{ReadableDatabase, ReadableTable};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::broker::Broker;
use crate::model::credential::{CredentialState, EndCause, Intent, Seen, fingerprint};
use crate::model::event::{Event, Observer};
use crate::model::key::Tenant;
use crate::store::suite::{grant, key, scan, token, token_key, token_of, with_grant};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "//////////////////////////////////////////8=";
/// Made by the first version of the format.
const FIRST_SCHEMA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/fixtures/store/schema-1.redb"
);

fn place() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keyfob.redb");
    (dir, path)
}

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, &KEY.into()).unwrap()
}

fn of_other_tenant(subject: &str) -> CredentialKey {
    CredentialKey {
        tenant: Tenant::parse("other").unwrap(),
        ..key(subject)
    }
}

/// Two credentials of one tenant, one of another, a token of each tenant, a revocation of each, a plugin.
async fn filled(path: &Path) -> EmbeddedStore {
    let store = open(path);
    for whose in [key("ada"), key("bob"), of_other_tenant("eve")] {
        store
            .commit(&whose, Version(0), with_grant("a grant"))
            .await
            .unwrap();
        let of = TokenKey {
            credential: whose,
            ..token_key("x")
        };
        store.keep_token(&of, token("a token", 60)).await.unwrap();
    }
    let at = UnixTime::from_secs(9);
    for whose in [key("gone"), of_other_tenant("gone")] {
        let revoked = Credential {
            state: CredentialState::Revoked { at },
            ..Credential::default()
        };
        store.commit(&whose, Version(0), revoked).await.unwrap();
    }
    let plugin = KeptPlugin {
        instead_of: "builtin:allowlist".into(),
        component: b"component".as_slice().into(),
    };
    store.keep_plugin("policy", Some(plugin)).await.unwrap();
    store
}

async fn is_filled(store: &EmbeddedStore) {
    for whose in [key("ada"), key("bob"), of_other_tenant("eve")] {
        assert_eq!(grant(store, &whose).await, "a grant");
        let of = TokenKey {
            credential: whose,
            ..token_key("x")
        };
        assert_eq!(token_of(store, &of).await.unwrap(), "a token");
    }
    assert_eq!(store.plugins().await.unwrap().len(), 1);
    assert_eq!(store.verify().await, Ok(6));
}

#[tokio::test]
async fn a_file_of_the_first_schema_is_brought_up_to_date_and_loses_nothing() {
    let (_dir, path) = place();
    std::fs::copy(FIRST_SCHEMA, &path).unwrap();
    for round in 0..2 {
        let store = open(&path);
        let at = UnixTime::from_millis(1_760_000_000_123);
        let stored = store.load(&key("ada")).await.unwrap();
        let print = store.fingerprint_key().unwrap();
        let expected = Credential {
            refresh_token: Some("grant-of-ada-2".into()),
            held: vec![("session".into(), "held-of-ada".into())],
            memo: vec![("cursor".into(), "17".into())],
            state: CredentialState::Live,
            intent: Some(Intent {
                owner: [7; 16],
                at,
                over_at: UnixTime::from_millis(1_760_000_015_123),
            }),
            seen: Seen {
                stayed: false,
                rotated: true,
            },
            // The key of fingerprints is what it was: a spent grant is known again.
            spent: vec![fingerprint(&print, &"grant-of-ada-1".into())],
            grant_since: at,
            withdrawn: Version(0),
        };
        assert_eq!((stored.version, stored.credential), (Version(2), expected));
        let other = CredentialKey {
            subject: None,
            ..of_other_tenant("x")
        };
        let state = store.load(&other).await.unwrap().credential.state;
        let cause = EndCause::LostAnswer;
        assert_eq!(
            state,
            CredentialState::ReauthorizationRequired { since: at, cause }
        );
        assert_eq!(
            &*store.plugins().await.unwrap()[0].1.component,
            b"component"
        );
        assert_eq!(store.verify().await, Ok(3 + round));
        // And it does what this schema does.
        store
            .keep_token(&token_key("ada"), token("t", 60))
            .await
            .unwrap();
        let version = store.load(&key("new")).await.unwrap().version;
        store
            .commit(&key("new"), version, with_grant("n"))
            .await
            .unwrap();
        let Since::Entries(changes) = store.changes(0, 10).await.unwrap() else {
            panic!("a gap")
        };
        assert_eq!(changes.len() as u64, round + 1);
    }
}

#[test]
fn a_file_of_the_first_schema_with_another_key_is_left_as_it_is() {
    let (_dir, path) = place();
    std::fs::copy(FIRST_SCHEMA, &path).unwrap();
    let refusal = EmbeddedStore::open(&path, &OTHER_KEY.into()).map(drop);
    assert!(matches!(refusal, Err(OpenError::WrongSealingKey { .. })));
    assert!(std::fs::read(&path).unwrap() == std::fs::read(FIRST_SCHEMA).unwrap());
}

#[tokio::test]
async fn another_sealing_key_takes_over_while_the_store_is_used_and_nothing_is_lost() {
    let (_dir, path) = place();
    let store = Arc::new(filled(&path).await);
    let print = store.fingerprint_key().unwrap();
    let writer = store.clone();
    let mut writing = JoinSet::new();
    writing.spawn(async move {
        for version in 0..50 {
            writer
                .commit(&key("busy"), Version(version), with_grant("b"))
                .await
                .unwrap();
        }
    });
    let ids = store.rotate_key(OTHER_KEY.into()).await.unwrap();
    assert_ne!(ids[0], ids[1]);
    writing.join_all().await;
    assert_eq!(store.compact().await.map(|_| ()), Ok(()));
    assert_eq!(grant(&*store, &key("busy")).await, "b");
    drop(store);

    let refusal = EmbeddedStore::open(&path, &KEY.into())
        .map(drop)
        .unwrap_err();
    assert!(
        refusal.to_string().contains(&ids[1]),
        "it names the key that fits: {refusal}"
    );
    let store = EmbeddedStore::open(&path, &OTHER_KEY.into()).unwrap();
    assert_eq!(
        store.fingerprint_key().unwrap().expose(),
        print.expose(),
        "a spent grant is known again"
    );
    assert_eq!(store.load(&key("busy")).await.unwrap().version, Version(50));
    let gone = store.load(&key("busy")).await.unwrap();
    let blank = Credential::default();
    store
        .commit(&key("busy"), gone.version, blank)
        .await
        .unwrap();
    assert_eq!(store.verify().await, Ok(7));
}

#[tokio::test]
async fn a_start_needs_not_know_whether_the_key_was_rotated_yet() {
    let (_dir, path) = place();
    drop(filled(&path).await);
    let either = || EmbeddedStore::open_with_either(&path, &KEY.into(), &OTHER_KEY.into());
    let store = either().unwrap();
    is_filled(&store).await;
    store.rotate_key(OTHER_KEY.into()).await.unwrap();
    drop(store);
    is_filled(&either().unwrap()).await;
    let neither = EmbeddedStore::open_with_either(&path, &KEY.into(), &KEY.into()).map(drop);
    assert!(matches!(neither, Err(OpenError::WrongSealingKey { .. })));
}

#[tokio::test]
async fn what_is_no_sealing_key_rotates_nothing() {
    let (_dir, path) = place();
    let store = filled(&path).await;
    let fault = store.rotate_key("hunter2".into()).await.unwrap_err();
    assert!(fault.0.contains("head -c 32"), "{fault:?}");
    assert!(!fault.0.contains("hunter2"));
    drop(store);
    is_filled(&open(&path)).await;
}

#[tokio::test]
async fn a_shredded_tenant_is_gone_and_the_others_are_not() {
    let (_dir, path) = place();
    let store = filled(&path).await;
    let other = Tenant::parse("other").unwrap();
    let newest = match store.changes(0, 100).await.unwrap() {
        Since::Entries(changes) => changes.len() as u64,
        Since::Gap { newest } => newest,
    };
    assert_eq!(store.shred(&other).await, Ok(2));
    assert_eq!(store.shred(&other).await, Ok(0));
    store.compact().await.unwrap();
    let check = async |store: &EmbeddedStore| {
        assert_eq!(
            store.load(&of_other_tenant("eve")).await.unwrap().version,
            Version(0)
        );
        let of = TokenKey {
            credential: of_other_tenant("eve"),
            ..token_key("x")
        };
        assert_eq!(token_of(store, &of).await, None);
        assert_eq!(grant(store, &key("ada")).await, "a grant");
        assert_eq!(token_of(store, &token_key("ada")).await.unwrap(), "a token");
        assert_eq!(scan(store, None, 10).await.len(), 3);
        // The log of revocations keeps its numbers, and a name less.
        let Since::Entries(revoked) = store.revocations(0, 10).await.unwrap() else {
            panic!("a gap")
        };
        let known: Vec<_> = revoked.iter().map(|entry| entry.of.is_some()).collect();
        assert_eq!(known, [true, false]);
        // Who follows the changes is told to read anew.
        assert!(matches!(
            store.changes(newest, 10).await.unwrap(),
            Since::Gap { .. }
        ));
        assert_eq!(store.verify().await, Ok(4));
    };
    check(&store).await;
    drop(store);
    let store = open(&path);
    check(&store).await;

    // The tenant may come back, with keys of its own.
    for version in 0..3 {
        store
            .commit(&of_other_tenant("eve"), Version(version), with_grant("new"))
            .await
            .unwrap();
        assert_eq!(grant(&store, &of_other_tenant("eve")).await, "new");
    }
    drop(store);
    assert_eq!(grant(&open(&path), &of_other_tenant("eve")).await, "new");
}

#[tokio::test]
async fn a_compacted_file_is_shorter_and_holds_nothing_that_was_replaced() {
    let (dir, path) = place();
    let store = filled(&path).await;
    for number in 0..300 {
        let name = format!("user {number}");
        let long = with_grant(&"g".repeat(4000));
        store.commit(&key(&name), Version(0), long).await.unwrap();
        let short = Credential::default();
        store.commit(&key(&name), Version(1), short).await.unwrap();
    }
    let [before, after] = store.compact().await.unwrap();
    assert!(after < before / 2, "{before} bytes became {after}");
    // It is the file that is used from here on.
    store
        .commit(&key("after"), Version(0), with_grant("a"))
        .await
        .unwrap();
    // Beside it is its journal, and nothing of the rewrite.
    assert!(!open::unfinished(&path).exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    let refusal = EmbeddedStore::open(&path, &KEY.into()).map(drop);
    assert!(matches!(refusal, Err(OpenError::InUse(_))), "{refusal:?}");
    drop(store);
    let store = open(&path);
    assert_eq!(grant(&store, &key("after")).await, "a");
    assert_eq!(store.verify().await, Ok(307));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_anew_stays_in_force() {
    let (dir, path) = place();
    let store = filled(&path).await;
    let unfinished = dir.path().join("keyfob.redb.new");
    std::fs::create_dir(&unfinished).unwrap();
    assert!(store.compact().await.is_err());
    is_filled(&store).await;
    store
        .commit(&key("after"), Version(0), with_grant("a"))
        .await
        .unwrap();
    std::fs::remove_dir(&unfinished).unwrap();
    store.compact().await.unwrap();
    assert_eq!(grant(&store, &key("after")).await, "a");
}

#[tokio::test]
async fn a_backup_is_the_store_of_one_moment_and_opens_with_its_key() {
    let (dir, path) = place();
    let store = filled(&path).await;
    let copy = dir.path().join("backup.redb");
    let bytes = store.backup(&copy).await.unwrap();
    assert_eq!(bytes, std::fs::metadata(&copy).unwrap().len());
    // What comes later is not in it.
    store
        .commit(&key("ada"), Version(1), with_grant("later"))
        .await
        .unwrap();
    is_filled(&open(&copy)).await;
    assert_eq!(grant(&store, &key("ada")).await, "later");
    // No backup takes the place of another file.
    let fault = store.backup(&copy).await.unwrap_err();
    assert!(fault.0.contains("is there already"), "{fault:?}");
    let fault = store.backup(&dir.path().join("no/b")).await.unwrap_err();
    assert!(fault.0.contains("make it"), "{fault:?}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// Not a promise of its own: the process that [`a_kill_while_the_file_is_rewritten_loses_nothing`] kills. It commits, rotates
/// the key and compacts until it is killed, and prints each version that was answered.
#[tokio::test]
#[ignore = "started by another test"]
#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "how the two processes talk"
)]
async fn rewrites_until_it_is_killed() {
    let Ok(path) = std::env::var("KEYFOB_TEST_STORE") else {
        return;
    };
    let store =
        EmbeddedStore::open_with_either(path.as_ref(), &KEY.into(), &OTHER_KEY.into()).unwrap();
    let mut version = store.load(&key("ada")).await.unwrap().version;
    for to in [OTHER_KEY, KEY].iter().cycle() {
        let next = with_grant(&format!("grant {}", version.0 + 1));
        version = store.commit(&key("ada"), version, next).await.unwrap();
        println!("answered {}", version.0);
        store.rotate_key((*to).into()).await.unwrap();
        store.compact().await.unwrap();
    }
}

#[tokio::test]
async fn a_kill_while_the_file_is_rewritten_loses_nothing() {
    let (dir, path) = place();
    drop(open(&path));
    for round in 0..10_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("store::embedded::upkeep_tests::rewrites_until_it_is_killed")
            .env("KEYFOB_TEST_STORE", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut answered, mut answers) = (0, 0);
        for line in lines {
            if let Some((_, version)) = line.unwrap().split_once("answered ") {
                answered = version.parse::<u64>().unwrap();
                answers += 1;
            }
            if answers == 2 + round % 3 {
                // A little later each time: somewhere within the rotation or the rewriting that follows the answer.
                (0..round * 20_000).for_each(|_| std::hint::spin_loop());
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(answers > 0);
        let store = EmbeddedStore::open_with_either(&path, &KEY.into(), &OTHER_KEY.into()).unwrap();
        let stored = store.load(&key("ada")).await.unwrap();
        assert!(stored.version.0 >= answered, "{answered} was answered");
        assert_eq!(
            grant(&store, &key("ada")).await,
            format!("grant {}", stored.version.0)
        );
        assert_eq!(store.verify().await, Ok(1));
        // And what was half written is gone.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let (dir, path) = place();
    let store = filled(&path).await;
    let copy = dir.path().join("copy.redb");
    let strangers = dir.path().join("copy.redb.new");
    std::fs::write(&strangers, "a stranger's").unwrap();
    let words = store.backup(&copy).await.unwrap_err().0;
    assert!(words.contains("copy.redb.new is there"), "{words}");
    assert_eq!(std::fs::read(&strangers).unwrap(), b"a stranger's");
    std::fs::remove_file(&strangers).unwrap();
    assert!(store.backup(&copy).await.is_ok() && store.backup(&copy).await.is_err());
    let words = store
        .backup(&dir.path().join("no/copy"))
        .await
        .unwrap_err()
        .0;
    assert!(
        words.contains("does not exist") && !words.contains("[store]"),
        "{words}"
    );
}

#[tokio::test]
async fn a_store_knows_the_key_that_opens_it() {
    let (_dir, path) = place();
    let store = open(&path);
    let fits = async |key: &str| store.is_sealed_with(key.into()).await;
    assert!(fits(KEY).await && !fits(OTHER_KEY).await && !fits("no key").await);
    store.rotate_key(OTHER_KEY.into()).await.unwrap();
    assert!(!fits(KEY).await && fits(OTHER_KEY).await);
    assert!(is_sealing_key(&KEY.into()) && !is_sealing_key(&"no key".into()));
}

/// Passes on the codes of notices.
struct Codes(tokio::sync::mpsc::UnboundedSender<&'static str>);

impl Observer for Codes {
    fn observe(&self, event: &Event) {
        if let Event::Notice { code, .. } = event {
            // Nobody listens any more once the test has seen enough.
            let _ = self.0.send(code);
        }
    }
}

/// A broker over a file that was not read when it was opened, and what it found.
async fn found(path: &Path) -> (Broker, &'static str) {
    let store = EmbeddedStore::open_with(path, &KEY.into(), 0, Box::new(open::database)).unwrap();
    assert!(!store.verified_at_open());
    let (codes, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let builder = Broker::builder().store(Arc::new(store));
    let broker = builder
        .observer(Arc::new(Codes(codes)))
        .build()
        .await
        .unwrap();
    broker.verify_in_background();
    let code = heard.recv().await.unwrap();
    (broker, code)
}

#[tokio::test]
async fn a_long_file_is_verified_behind_the_start_and_damage_degrades() {
    let (dir, path) = place();
    let store = open(&path);
    assert!(store.verified_at_open());
    store
        .commit(&key("ada"), Version(0), with_grant("old"))
        .await
        .unwrap();
    drop(store);
    let older = dir.path().join("older.redb");
    std::fs::copy(&path, &older).unwrap();
    let store = open(&path);
    store
        .commit(&key("ada"), Version(1), with_grant("new"))
        .await
        .unwrap();
    drop(store);
    let (broker, code) = found(&path).await;
    assert_eq!((code, broker.ready().degraded), ("store_verified", false));
    broker.shutdown(Duration::ZERO).await;
    drop(broker);

    // Somebody puts the older row back.
    let row = {
        let older = redb::Database::open(&older).unwrap().begin_read().unwrap();
        let rows = older.open_table(tables::CREDENTIALS).unwrap();
        let (id, row) = rows.first().unwrap().unwrap();
        (id.value(), row.value().to_vec())
    };
    let database = loop {
        // The store is closed when the last task of its broker is gone.
        match redb::Database::open(&path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => tokio::task::yield_now().await,
            database => break database.unwrap(),
        }
    };
    let write = database.begin_write().unwrap();
    let mut rows = write.open_table(tables::CREDENTIALS).unwrap();
    rows.insert(row.0, row.1.as_slice()).unwrap();
    drop(rows);
    write.commit().unwrap();
    drop(database);
    let (broker, code) = found(&path).await;
    assert_eq!((code, broker.ready().degraded), ("store_damaged", true));
    assert!(broker.ready().ready, "its tokens are good");
    assert!(broker.verify_store("ops").await.is_err());
}
