//! What a store in a file promises beyond the suite: over restarts, kills, damage and hands in the file.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{ReadableTable, TableDefinition};
use tempfile::TempDir;

use super::*;
use crate::store::suite::{grant, key, scan, store_suite, token, token_key, with_grant};

mod crashes;
mod power;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "//////////////////////////////////////////8=";
const ROWS: TableDefinition<'static, [u8; 32], &'static [u8]> = TableDefinition::new("credentials");

/// A folder with a store's file in it.
pub(super) struct Place(TempDir);

impl Place {
    pub(super) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("keyfob.redb")
    }

    pub(super) fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(&self.path(), &KEY.into()).unwrap()
    }

    /// Opened as a long file is: without reading it whole.
    fn open_unread(&self) -> Result<EmbeddedStore, OpenError> {
        EmbeddedStore::open_with(&self.path(), &KEY.into(), 0, Box::new(open::database))
    }

    fn refusal(&self, sealing_key: &str) -> OpenError {
        EmbeddedStore::open(&self.path(), &sealing_key.into())
            .map(drop)
            .unwrap_err()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    /// Another place with a copy of the file as it is now: what a power cut would leave.
    pub(super) fn copy(&self) -> Self {
        let copy = Self::new();
        std::fs::copy(self.path(), copy.path()).unwrap();
        copy
    }

    /// Edits the rows of the closed file, as somebody with the engine but without the key could.
    fn edit(&self, edit: impl FnOnce(&mut redb::Table<'_, [u8; 32], &'static [u8]>)) {
        let database = redb::Database::open(self.path()).unwrap();
        let write = database.begin_write().unwrap();
        edit(&mut write.open_table(ROWS).unwrap());
        write.commit().unwrap();
    }

    fn rows(&self) -> Vec<([u8; 32], Vec<u8>)> {
        let mut rows = Vec::new();
        self.edit(|table| {
            for row in table.iter().unwrap() {
                let (id, row) = row.unwrap();
                rows.push((id.value(), row.value().to_vec()));
            }
        });
        rows
    }
}

fn fresh() -> (EmbeddedStore, Place) {
    let place = Place::new();
    (place.open(), place)
}

store_suite!(fresh());

fn plugin(instead_of: &str, bytes: &[u8]) -> KeptPlugin {
    KeptPlugin {
        instead_of: instead_of.into(),
        component: bytes.into(),
    }
}

#[tokio::test]
async fn everything_answered_is_there_after_a_restart() {
    let place = Place::new();
    let store = place.open();
    assert!(store.durable());
    let one = store
        .commit(&key("ada"), Version(0), with_grant("a"))
        .await
        .unwrap();
    store
        .commit(&key("ada"), one, with_grant("b"))
        .await
        .unwrap();
    store
        .keep_plugin(
            "provider:acme",
            Some(plugin("builtin:oauth2", &[1; 300_000])),
        )
        .await
        .unwrap();
    store
        .keep_plugin("policy", Some(plugin("builtin:allowlist", b"p")))
        .await
        .unwrap();
    store
        .keep_plugin("provider:gone", Some(plugin("x", b"g")))
        .await
        .unwrap();
    store.keep_plugin("provider:gone", None).await.unwrap();
    drop(store);

    let store = place.open();
    assert_eq!(grant(&store, &key("ada")).await, "b");
    assert_eq!(store.load(&key("ada")).await.unwrap().version, Version(2));
    assert_eq!(scan(&store, None, 10).await, [key("ada")]);
    let mut plugins = store.plugins().await.unwrap();
    plugins.sort_by(|one, two| one.0.cmp(&two.0));
    assert_eq!(plugins.len(), 2);
    assert_eq!(
        (plugins[0].0.as_str(), &*plugins[0].1.component),
        ("policy", b"p".as_slice())
    );
    assert_eq!(plugins[1].1.instead_of, "builtin:oauth2");
    assert_eq!(&*plugins[1].1.component, &[1; 300_000]);
    assert_eq!(store.verify().await, Ok(3));
}

#[tokio::test]
async fn what_was_answered_is_in_the_file_before_the_answer() {
    let place = Place::new();
    let store = place.open();
    for version in 0..20 {
        let grant_now = format!("grant {version}");
        store
            .commit(&key("ada"), Version(version), with_grant(&grant_now))
            .await
            .unwrap();
        // Nothing was closed: the copy is what a crash at this moment leaves behind.
        let crashed = place.copy();
        let after = crashed.open();
        assert_eq!(grant(&after, &key("ada")).await, grant_now);
        assert_eq!(after.verify().await, Ok(1));
    }
}

/// Not a promise of its own: the process that [`a_killed_process_keeps_every_commit_it_answered`] kills. It commits until it
/// is killed, and prints each version that was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test"]
#[expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "how the two processes talk"
)]
async fn commits_until_it_is_killed() {
    let Ok(path) = std::env::var("KEYFOB_TEST_STORE") else {
        return;
    };
    let store = EmbeddedStore::open(path.as_ref(), &KEY.into()).unwrap();
    let mut version = store.load(&key("ada")).await.unwrap().version;
    let ada = key("ada");
    loop {
        let others = (0..20).map(|number| {
            let key = key(&format!("user {number} after {}", version.0));
            let store = &store;
            async move { store.commit(&key, Version(0), with_grant("x")).await }
        });
        let mine = store.commit(
            &ada,
            version,
            with_grant(&format!("grant {}", version.0 + 1)),
        );
        let (mine, _) =
            futures_util::future::join(mine, futures_util::future::join_all(others)).await;
        version = mine.unwrap();
        println!("answered {}", version.0);
    }
}

#[tokio::test]
async fn a_killed_process_keeps_every_commit_it_answered() {
    let place = Place::new();
    drop(place.open());
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("store::embedded::tests::commits_until_it_is_killed")
            .env("KEYFOB_TEST_STORE", place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answered = 0;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answers = 0;
        for line in lines {
            let line = line.unwrap();
            if let Some((_, version)) = line.split_once("answered ") {
                answered = version.parse::<u64>().unwrap();
                answers += 1;
            }
            if answers == 5 + 7 * round {
                // SIGKILL; what it answers meanwhile is still read, to the last line.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(answers > 0);

        let store = place.open();
        let stored = store.load(&key("ada")).await.unwrap();
        assert!(
            stored.version.0 >= answered,
            "{answered} was answered, {:?} is there",
            stored.version
        );
        assert_eq!(
            grant(&store, &key("ada")).await,
            format!("grant {}", stored.version.0)
        );
        store.verify().await.unwrap();
    }
}

#[tokio::test]
async fn a_commit_whose_caller_left_is_done_or_not_but_never_half() {
    let place = Place::new();
    let store = place.open();
    let ada = key("ada");
    for version in 0..20 {
        let commit = store.commit(&ada, Version(version), with_grant(&version.to_string()));
        tokio::select! {
            biased;
            done = commit => { done.unwrap(); }
            () = tokio::task::yield_now() => {}
        }
        // A later commit queues behind it, and finds it done.
        store
            .commit(&key("bob"), Version(version), with_grant("b"))
            .await
            .unwrap();
        assert_eq!(grant(&store, &ada).await, version.to_string());
    }
}

#[test]
fn a_file_has_one_owner() {
    let place = Place::new();
    let store = place.open();
    let refusal = place.refusal(KEY);
    assert!(matches!(refusal, OpenError::InUse(_)), "{refusal:?}");
    assert!(refusal.to_string().contains("in use by another process"));
    drop(store);
    drop(place.open());
}

#[tokio::test]
async fn a_wrong_sealing_key_is_refused_before_anything_is_written() {
    let place = Place::new();
    let store = place.open();
    store
        .commit(&key("ada"), Version(0), with_grant("a"))
        .await
        .unwrap();
    // After a crash too, when opening would repair.
    let crashed = place.copy();
    drop(store);
    for place in [place, crashed] {
        let before = place.bytes();
        let refusal = place.refusal(OTHER_KEY);
        assert!(
            matches!(refusal, OpenError::WrongSealingKey { .. }),
            "{refusal:?}"
        );
        assert!(refusal.to_string().contains("is sealed with the key"));
        assert!(place.bytes() == before);
        assert_eq!(grant(&place.open(), &key("ada")).await, "a");
    }
}

#[test]
fn a_text_that_is_no_sealing_key_says_how_to_make_one_and_makes_no_file() {
    let place = Place::new();
    let refusal = place.refusal("hunter2");
    assert!(
        refusal
            .to_string()
            .contains("head -c 32 /dev/urandom | base64")
    );
    assert!(!refusal.to_string().contains("hunter2"));
    assert!(!place.path().exists());
}

#[test]
fn every_refusal_of_a_path_says_what_to_do() {
    let place = Place::new();
    let missing = EmbeddedStore::open(&place.0.path().join("no/keyfob.redb"), &KEY.into());
    assert!(
        missing
            .map(drop)
            .unwrap_err()
            .to_string()
            .contains("make it, or change `path`")
    );
    let folder = EmbeddedStore::open(place.0.path(), &KEY.into())
        .map(drop)
        .unwrap_err();
    assert!(matches!(folder, OpenError::NotAFile(_)), "{folder:?}");

    std::fs::write(place.path(), b"").unwrap();
    assert!(matches!(place.refusal(KEY), OpenError::Empty(_)));
    std::fs::write(place.path(), b"[server]\n".repeat(2000)).unwrap();
    let foreign = place.refusal(KEY);
    assert!(matches!(foreign, OpenError::NotAStore(_)), "{foreign:?}");
    assert!(place.bytes() == b"[server]\n".repeat(2000));

    std::fs::remove_file(place.path()).unwrap();
    drop(redb::Database::create(place.path()).unwrap());
    let before = place.bytes();
    assert!(matches!(place.refusal(KEY), OpenError::NotAStore(_)));
    assert!(place.bytes() == before);
}

#[test]
fn a_newer_schema_is_refused() {
    let place = Place::new();
    drop(place.open());
    let database = redb::Database::open(place.path()).unwrap();
    let write = database.begin_write().unwrap();
    let about = TableDefinition::<&str, &[u8]>::new("about");
    write
        .open_table(about)
        .unwrap()
        .insert("schema", 3_u32.to_le_bytes().as_slice())
        .unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(
        place.refusal(KEY),
        OpenError::Newer { schema: 3, .. }
    ));
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    drop(place.open());
    let mode = std::fs::metadata(place.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_store_whose_making_was_interrupted_is_made_anew() {
    let place = Place::new();
    let mut unfinished = place.path().into_os_string();
    unfinished.push(".new");
    std::fs::write(&unfinished, b"half of it").unwrap();
    drop(place.open());
    drop(place.open());
    assert!(!PathBuf::from(unfinished).exists());
}

#[tokio::test]
async fn no_grant_and_no_name_is_in_the_file() {
    let place = Place::new();
    let store = place.open();
    let credential = Credential {
        held: vec![("session-name".into(), "held-value-in-clear".into())],
        memo: vec![("memo-name".into(), "memo-value-in-clear".into())],
        ..with_grant("grant-in-clear")
    };
    let whose = CredentialKey {
        tenant: crate::model::key::Tenant::parse("tenant-in-clear").unwrap(),
        ..key("subject-in-clear")
    };
    store.commit(&whose, Version(0), credential).await.unwrap();
    store
        .commit(&whose, Version(1), with_grant("grant-in-clear"))
        .await
        .unwrap();
    store
        .keep_plugin(
            "provider:acme",
            Some(plugin("builtin:in-clear", b"component-in-clear")),
        )
        .await
        .unwrap();
    let token_key = TokenKey {
        credential: whose,
        ..token_key("nobody")
    };
    store
        .keep_token(&token_key, token("token-in-clear", 60))
        .await
        .unwrap();
    drop(store);
    let file = place.bytes();
    let finds = |text: &[u8]| file.windows(text.len()).any(|window| window == text);
    // The search works: the engine keeps the names of its tables.
    assert!(finds(b"credentials"));
    for text in [
        "in-clear",
        "session-name",
        "memo-name",
        "acme",
        "AAECAwQFBgcICQoL",
    ] {
        assert!(!finds(text.as_bytes()), "{text}");
    }
    let operators_key: Vec<u8> = (0..32).collect();
    assert!(!finds(&operators_key));
}

#[tokio::test]
async fn a_row_that_was_moved_put_back_or_removed_by_hand_is_refused() {
    let place = Place::new();
    let store = place.open();
    store
        .commit(&key("ada"), Version(0), with_grant("old"))
        .await
        .unwrap();
    drop(store);
    let [(ada, old)] = &place.rows()[..] else {
        panic!("one row")
    };
    let store = place.open();
    store
        .commit(&key("ada"), Version(1), with_grant("new"))
        .await
        .unwrap();
    store
        .commit(&key("bob"), Version(0), with_grant("b"))
        .await
        .unwrap();
    drop(store);
    let rows = place.rows();
    let (bob, bobs) = rows.iter().find(|(id, _)| id != ada).unwrap();

    let moved = place.copy();
    moved.edit(|rows| drop(rows.insert(ada, bobs.as_slice()).unwrap()));
    let put_back = place.copy();
    put_back.edit(|rows| drop(rows.insert(ada, old.as_slice()).unwrap()));
    let removed = place.copy();
    removed.edit(|rows| drop(rows.remove(bob).unwrap()));
    let doubled = place.copy();
    doubled.edit(|rows| drop(rows.insert(&[9; 32], old.as_slice()).unwrap()));
    for changed in [&moved, &put_back, &removed, &doubled] {
        let before = changed.bytes();
        let refusal = changed.refusal(KEY);
        assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal:?}");
        assert!(changed.bytes() == before);
    }

    // A file too long to be read when opened: rows that went missing show at once, a row that was moved when it is loaded, one
    // that was put back when the file is verified.
    assert!(removed.open_unread().is_err() && doubled.open_unread().is_err());
    let store = moved.open_unread().unwrap();
    let fault = store.load(&key("ada")).await.map(drop).unwrap_err();
    assert!(fault.0.contains("it was changed or moved"), "{fault:?}");
    assert_eq!(grant(&store, &key("bob")).await, "b");
    let page = store.scan(None, 10).await.unwrap();
    assert_eq!((page.rows[0].0.clone(), page.rows.len()), (key("bob"), 1));
    assert_eq!(page.damaged, 1);
    let over = store
        .commit(&key("ada"), Version(2), with_grant("over"))
        .await;
    assert!(matches!(over, Err(CommitFault::Unreachable(_))), "{over:?}");
    drop(store);
    assert!(
        moved
            .rows()
            .iter()
            .any(|(id, row)| id == ada && row == bobs),
        "it was left alone"
    );
    assert!(put_back.open_unread().unwrap().verify().await.is_err());
    assert_eq!(place.open().verify().await, Ok(2));
}

/// Flips bits all over the file, one at a time. Whatever the file then is, it is refused and left as it is, or it still has
/// what was committed: most of a file is pages that were left behind.
#[tokio::test]
async fn a_flipped_bit_is_refused_or_harmless_and_nothing_is_overwritten() {
    const TRIES: usize = 200;
    let place = Place::new();
    let store = place.open();
    let names: Vec<String> = (0..40).map(|number| format!("user {number}")).collect();
    for name in &names {
        store
            .commit(&key(name), Version(0), with_grant(name))
            .await
            .unwrap();
    }
    drop(store);
    let original = place.bytes();
    let written: Vec<usize> = (0..original.len())
        .filter(|at| original[*at] != 0)
        .collect();
    let mut refused = 0;
    for (turn, at) in written.iter().step_by(written.len() / TRIES).enumerate() {
        let mut bytes = original.clone();
        bytes[*at] ^= 1 << (turn % 8);
        std::fs::write(place.path(), &bytes).unwrap();
        match EmbeddedStore::open(&place.path(), &KEY.into()) {
            Err(_) => {
                refused += 1;
                assert!(
                    place.bytes() == bytes,
                    "byte {at} was refused and written to"
                );
            }
            Ok(store) => {
                for name in &names {
                    assert_eq!(grant(&store, &key(name)).await, *name, "byte {at}");
                }
            }
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_flipped_bit_in_a_row_is_always_found() {
    let place = Place::new();
    let store = place.open();
    store
        .commit(&key("ada"), Version(0), with_grant("a"))
        .await
        .unwrap();
    store
        .commit(&key("bob"), Version(0), with_grant("b"))
        .await
        .unwrap();
    drop(store);
    let [(_, row), _] = &place.rows()[..] else {
        panic!("two rows")
    };
    let original = place.bytes();
    let copies: Vec<usize> = (0..original.len() - row.len())
        .filter(|at| original[*at..].starts_with(row))
        .collect();
    for within in 0..row.len() {
        let mut bytes = original.clone();
        copies
            .iter()
            .for_each(|at| bytes[at + within] ^= 1 << (within % 8));
        std::fs::write(place.path(), &bytes).unwrap();
        let refusal = place.refusal(KEY);
        assert!(
            matches!(refusal, OpenError::Damaged { .. }),
            "byte {within}: {refusal:?}"
        );
        assert!(
            place.bytes() == bytes,
            "byte {within} was refused and written to"
        );
    }
}

/// An engine that falls back to an older state of the file would bring back a grant that is spent.
#[tokio::test]
async fn damage_after_a_crash_does_not_bring_back_the_commit_before() {
    let place = Place::new();
    let store = place.open();
    store
        .commit(&key("ada"), Version(0), with_grant("old"))
        .await
        .unwrap();
    store
        .commit(&key("ada"), Version(1), with_grant("new"))
        .await
        .unwrap();
    let crashed = place.copy();
    drop(store);
    let [(_, newest)] = &place.rows()[..] else {
        panic!("one row")
    };
    let original = crashed.bytes();
    let mut bytes = original.clone();
    for at in 0..original.len() - newest.len() {
        if original[at..].starts_with(newest) {
            bytes[at + newest.len() / 2] ^= 1;
        }
    }
    assert!(bytes != original);
    std::fs::write(crashed.path(), &bytes).unwrap();
    let refusal = crashed.refusal(KEY);
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal:?}");
    assert!(crashed.bytes() == bytes);
    // A file too long to be read when opened: found when the row is loaded.
    let store = crashed.open_unread().unwrap();
    assert!(store.load(&key("ada")).await.is_err());
}

#[tokio::test]
async fn a_truncated_file_is_refused_and_nothing_is_overwritten() {
    let place = Place::new();
    let store = place.open();
    for number in 0..200 {
        store
            .commit(
                &key(&number.to_string()),
                Version(0),
                with_grant(&"g".repeat(2000)),
            )
            .await
            .unwrap();
    }
    drop(store);
    let original = place.bytes();
    for eighths in 0..8 {
        for short in [0, 1, 4096] {
            let length = (original.len() * eighths / 8).saturating_sub(short);
            std::fs::write(place.path(), &original[..length]).unwrap();
            let refusal = place.refusal(KEY);
            assert!(
                !matches!(refusal, OpenError::InUse(_)),
                "{length} bytes: {refusal:?}"
            );
            assert!(place.bytes() == original[..length], "{length} bytes");
        }
    }
}

/// A file on a disk that can be full.
#[derive(Debug)]
struct Disk {
    file: redb::backends::FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> std::io::Result<()> {
        let full = self.full.load(Ordering::SeqCst);
        if full {
            Err(std::io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room()?;
        self.file.write(offset, data)
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_space_made_on_it_a_remedy() {
    let place = Place::new();
    drop(place.open());
    let full = Arc::new(AtomicBool::new(false));
    let disk = full.clone();
    let engine: Engine = Box::new(move |path| {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let file = redb::backends::FileBackend::new(file).unwrap();
        redb::Builder::new()
            .create_with_backend(Disk {
                file,
                full: disk.clone(),
            })
            .map_err(|error| OpenError::System(path.into(), error.to_string()))
    });
    let store = EmbeddedStore::open_with(&place.path(), &KEY.into(), 0, engine).unwrap();
    let one = store
        .commit(&key("ada"), Version(0), with_grant("a"))
        .await
        .unwrap();

    full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let fault = store
            .commit(&key("ada"), one, with_grant("b"))
            .await
            .unwrap_err();
        assert!(matches!(fault, CommitFault::Unreachable(_)), "{fault:?}");
    }
    full.store(false, Ordering::SeqCst);
    assert_eq!(grant(&store, &key("ada")).await, "a");
    let two = store
        .commit(&key("ada"), one, with_grant("b"))
        .await
        .unwrap();
    assert_eq!(
        (two, grant(&store, &key("ada")).await.as_str()),
        (Version(2), "b")
    );
    drop(store);
    assert_eq!(place.open().verify().await, Ok(1));
}
