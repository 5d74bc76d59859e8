//! What every backend promises while requests are lost, late, doubled or not answered: a client that decides by versions
//! alone is never wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::{grant, key, with_grant};
use crate::model::credential::{Credential, Version};
use crate::model::time::UnixTime;
use crate::store::faulty::{Fault, FaultyStore};
use crate::store::{CommitFault, Store};

/// Each with other faults at other requests; a failure names its seed.
const SEEDS: u64 = 4;

fn faulty(below: &Arc<dyn Store>, seed: u64) -> Arc<FaultyStore> {
    let store = FaultyStore::seeded(below.clone(), &Fault::ALL, seed);
    Arc::new(store)
}

/// Nothing was met that was meant to be met: then a promise was kept by chance.
fn assert_met(store: &FaultyStore, seed: u64) {
    for fault in Fault::ALL {
        assert!(store.met(fault) > 0, "seed {seed}: never met {fault:?}");
    }
}

/// One writer that hears of half its commits knows from the row alone which were made: each version is there once, none is
/// left out, and each holds what was written for it.
pub(crate) async fn versions_have_no_gap_however_commits_are_answered(below: Arc<dyn Store>) {
    const COMMITS: u64 = 40;
    for seed in 0..SEEDS {
        let store = faulty(&below, seed);
        let ada = key(&format!("ada of {seed}"));
        let mut version = Version(0);
        while version < Version(COMMITS) {
            let next = Version(version.0 + 1);
            let done = store
                .commit(&ada, version, with_grant(&next.0.to_string()))
                .await;
            let row = below.load(&ada).await.unwrap();
            assert!(
                row.version == version || row.version == next,
                "seed {seed}: {:?} after {version:?}",
                row.version
            );
            match done {
                Ok(committed) => assert_eq!((committed, row.version), (next, next), "seed {seed}"),
                // Nobody else writes: a conflict is the second of two deliveries.
                Err(CommitFault::Conflict) => assert_eq!(row.version, next, "seed {seed}"),
                Err(CommitFault::Unreachable(_)) => {}
            }
            version = row.version;
            if version > Version(0) {
                assert_eq!(grant(&*below, &ada).await, version.0.to_string());
            }
        }
        assert_met(&store, seed);
    }
}

/// Many writers at one version: exactly one is in the row afterwards, and nobody else was told that it was.
pub(crate) async fn exactly_one_wins_however_commits_are_answered(below: Arc<dyn Store>) {
    const ROUNDS: u64 = 8;
    const WRITERS: u64 = 16;
    for seed in 0..SEEDS {
        let store = faulty(&below, seed);
        let ada = key(&format!("ada of {seed}"));
        for version in (0..ROUNDS).map(Version) {
            let mut writers = JoinSet::new();
            for writer in 0..WRITERS {
                let (store, ada) = (store.clone(), ada.clone());
                writers.spawn(async move {
                    let mine = format!("{} of {writer}", version.0);
                    let done = store.commit(&ada, version, with_grant(&mine)).await;
                    (mine, done)
                });
            }
            let done = writers.join_all().await;
            let row = below.load(&ada).await.unwrap();
            let winner = grant(&*below, &ada).await;
            let told: Vec<_> = done.iter().filter(|(_, done)| done.is_ok()).collect();
            assert!(told.len() <= 1, "seed {seed}: {told:?}");
            for (mine, done) in told {
                assert_eq!((mine, done), (&winner, &Ok(row.version)), "seed {seed}");
            }
            assert_eq!(row.version, Version(version.0 + 1), "seed {seed}");
            assert!(done.iter().any(|(mine, _)| *mine == winner), "seed {seed}");
        }
        assert_met(&store, seed);
    }
}

/// A reader that is answered late, twice or not at all never goes back, and never sees half of a commit.
pub(crate) async fn a_reader_never_goes_back_however_it_is_answered(below: Arc<dyn Store>) {
    const COMMITS: u64 = 30;
    for seed in 0..SEEDS {
        let store = faulty(&below, seed);
        let ada = key(&format!("ada of {seed}"));
        let mut tasks = JoinSet::new();
        let (writes, whose) = (store.clone(), ada.clone());
        tasks.spawn(async move {
            let mut version = Version(0);
            while version < Version(COMMITS) {
                let next = version.0 + 1;
                let credential = Credential {
                    grant_since: UnixTime::from_millis(next),
                    ..with_grant(&next.to_string())
                };
                drop(writes.commit(&whose, version, credential).await);
                // A row that cannot be read is one that nobody decides on.
                if let Ok(row) = writes.load(&whose).await {
                    version = row.version;
                }
            }
        });
        for _ in 0..2 {
            let (reads, whose) = (store.clone(), ada.clone());
            tasks.spawn(async move {
                let mut last = Version(0);
                while last < Version(COMMITS) {
                    if let Ok(row) = reads.load(&whose).await {
                        assert!(row.version >= last, "seed {seed}: a reader went back");
                        last = row.version;
                        assert_eq!(row.credential.grant_since.as_millis(), last.0);
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
        tasks.join_all().await;
        assert_met(&store, seed);
    }
}

/// Writers that load, decide and commit, each until it was told so or finds its own in the row, lose no update: what a
/// row counts is what they did.
pub(crate) async fn no_update_is_lost_by_who_loads_again(below: Arc<dyn Store>) {
    const WRITERS: u64 = 6;
    const UPDATES: u64 = 5;
    for seed in 0..SEEDS {
        let store = faulty(&below, seed);
        let ada = key(&format!("ada of {seed}"));
        let done: Arc<Mutex<BTreeMap<String, Version>>> = Arc::default();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (store, ada, done) = (store.clone(), ada.clone(), done.clone());
            writers.spawn(async move {
                for update in 0..UPDATES {
                    let mine = format!("{update} of {writer}");
                    let made = loop {
                        let Ok(row) = store.load(&ada).await else {
                            continue;
                        };
                        let mut credential = row.credential;
                        // An earlier try that was not answered may have been made.
                        if credential.memo.iter().any(|(name, _)| *name == mine) {
                            break row.version;
                        }
                        credential.memo.push((mine.clone(), String::new()));
                        if let Ok(made) = store.commit(&ada, row.version, credential).await {
                            break made;
                        }
                    };
                    done.lock().unwrap().insert(mine, made);
                }
            });
        }
        writers.join_all().await;
        let row = below.load(&ada).await.unwrap();
        assert_eq!(row.version, Version(WRITERS * UPDATES), "seed {seed}");
        let mut names: Vec<_> = row.credential.memo.into_iter().map(|it| it.0).collect();
        names.sort();
        let expected: Vec<_> = done.lock().unwrap().keys().cloned().collect();
        assert_eq!(names, expected, "seed {seed}");
        assert_met(&store, seed);
    }
}
