//! What a kill does not take along.

use super::journal::beside;
use super::tests::Place;
use super::*;
use crate::model::credential::Intent;
use crate::model::key::Tenant;
use crate::store::suite::{grant, key, with_grant};

/// Another place with store and journal as they are now: what a kill would leave.
fn killed(place: &Place) -> Place {
    let copy = place.copy();
    if beside(&place.path()).exists() {
        std::fs::copy(beside(&place.path()), beside(&copy.path())).unwrap();
    }
    copy
}

/// A store with ada's first grant, and a commit of her second that was noted and not made.
async fn noted() -> (Place, EmbeddedStore, Option<Noted>) {
    let place = Place::new();
    let store = place.open();
    for whose in [key("first"), key("ada")] {
        store
            .commit(&whose, Version(0), with_grant("first"))
            .await
            .unwrap();
    }
    store.load(&key("ada")).await.unwrap();
    let second = with_grant("second");
    let noted = store
        .journal
        .note(&store.vault, &key("ada"), Version(1), &second);
    assert!(noted.is_some());
    (place, store, noted)
}

#[tokio::test]
async fn a_commit_that_was_noted_and_not_made_is_made_at_the_next_start() {
    let (place, _store, _noted) = noted().await;
    let copy = killed(&place);
    for _ in 0..2 {
        let after = copy.open();
        let stored = after.load(&key("ada")).await.unwrap();
        assert_eq!(stored.version, Version(2));
        assert_eq!(grant(&after, &key("ada")).await, "second");
        assert_eq!(after.verify().await, Ok(2));
        assert!(!beside(&copy.path()).exists());
    }
}

#[tokio::test]
async fn an_entry_whose_row_moved_on_changes_nothing() {
    let (place, store, _noted) = noted().await;
    let other = with_grant("another");
    store.commit(&key("ada"), Version(1), other).await.unwrap();
    let after = killed(&place).open();
    assert_eq!(after.load(&key("ada")).await.unwrap().version, Version(2));
    assert_eq!(grant(&after, &key("ada")).await, "another");
}

#[tokio::test]
async fn what_was_cut_off_changed_or_is_of_another_store_is_passed_over() {
    let (place, _store, _noted) = noted().await;
    let whole = std::fs::read(beside(&place.path())).unwrap();
    for length in 0..whole.len() {
        let copy = killed(&place);
        std::fs::write(beside(&copy.path()), &whole[..length]).unwrap();
        let after = copy.open();
        let version = after.load(&key("ada")).await.unwrap().version;
        assert_eq!(version, Version(1), "{length} bytes");
    }
    for at in (0..whole.len()).step_by(7) {
        let copy = killed(&place);
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(beside(&copy.path()), &changed).unwrap();
        assert_ne!(grant(&copy.open(), &key("ada")).await, "");
    }
    let stranger = Place::new();
    let store = stranger.open();
    store
        .commit(&key("ada"), Version(0), with_grant("mine"))
        .await
        .unwrap();
    drop(store);
    std::fs::write(beside(&stranger.path()), &whole).unwrap();
    assert_eq!(grant(&stranger.open(), &key("ada")).await, "mine");
}

#[tokio::test]
async fn what_a_shredded_tenant_noted_is_noise() {
    let (place, store, noted) = noted().await;
    store.shred(&Tenant::default()).await.unwrap();
    drop(noted);
    let after = killed(&place).open();
    assert_eq!(after.load(&key("ada")).await.unwrap().version, Version(0));
}

#[tokio::test]
async fn a_mark_is_not_noted_and_an_orderly_end_leaves_no_journal() {
    let (place, store, noted) = noted().await;
    let before = std::fs::metadata(beside(&place.path())).unwrap().len();
    let mark = Credential {
        intent: Some(Intent {
            owner: [1; 16],
            at: UnixTime::from_secs(1),
            over_at: UnixTime::from_secs(2),
        }),
        ..with_grant("first")
    };
    store.commit(&key("ada"), Version(1), mark).await.unwrap();
    let after = std::fs::metadata(beside(&place.path())).unwrap().len();
    assert_eq!(after, before);
    noted.unwrap().settled();
    drop(store);
    assert!(!beside(&place.path()).exists());
}

#[tokio::test]
async fn what_failed_stays_noted_until_a_commit_of_its_row_is_made() {
    let (place, store, noted) = noted().await;
    // As the writer drops it when the engine fails.
    drop(noted);
    store.journal.empty();
    assert!(std::fs::metadata(beside(&place.path())).unwrap().len() > 0);
    assert_eq!(grant(&killed(&place).open(), &key("ada")).await, "second");
    store
        .commit(&key("ada"), Version(1), with_grant("third"))
        .await
        .unwrap();
    store.journal.empty();
    assert_eq!(std::fs::metadata(beside(&place.path())).unwrap().len(), 0);
}

#[tokio::test]
async fn no_grant_is_in_the_journal_in_the_clear() {
    let (place, _store, _noted) = noted().await;
    let noted = std::fs::read(beside(&place.path())).unwrap();
    assert!(!noted.windows(6).any(|window| window == b"second"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let file = std::fs::metadata(beside(&place.path())).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
}
