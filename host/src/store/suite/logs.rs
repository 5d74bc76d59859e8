//! What every backend promises about its two logs.

use std::sync::Arc;

use super::{key, with_grant};
use crate::model::credential::{Credential, CredentialState, Version};
use crate::model::time::UnixTime;
use crate::store::{Revocation, RowChange, Since, Store};

fn entries<T: std::fmt::Debug>(since: Since<T>) -> Vec<T> {
    match since {
        Since::Entries(entries) => entries,
        Since::Gap { newest } => panic!("a gap up to {newest}"),
    }
}

pub(crate) async fn every_change_has_a_number_and_none_is_left_out(store: Arc<dyn Store>) {
    assert!(entries(store.changes(0, 10).await.unwrap()).is_empty());
    let mut expected = Vec::new();
    for version in 0..3 {
        for name in ["ada", "bob"] {
            store
                .commit(&key(name), Version(version), with_grant(name))
                .await
                .unwrap();
            expected.push(RowChange {
                number: expected.len() as u64 + 1,
                key: Some(key(name)),
                version: Version(version + 1),
            });
        }
        // What was refused, or changed nothing, has no number.
        let late = store
            .commit(&key("ada"), Version(0), with_grant("late"))
            .await;
        assert!(late.is_err());
        let blank = store
            .commit(&key("nobody"), Version(0), Credential::default())
            .await;
        assert_eq!(blank, Ok(Version(0)));
    }
    assert_eq!(entries(store.changes(0, 100).await.unwrap()), expected);
    // In pieces, as a reader takes them.
    let mut read = Vec::new();
    loop {
        let piece = entries(store.changes(read.len() as u64, 4).await.unwrap());
        assert!(piece.len() <= 4);
        if piece.is_empty() {
            break;
        }
        read.extend(piece);
    }
    assert_eq!(read, expected);
}

pub(crate) async fn a_number_from_another_history_is_a_gap(store: Arc<dyn Store>) {
    store
        .commit(&key("ada"), Version(0), with_grant("a"))
        .await
        .unwrap();
    assert_eq!(
        store.changes(2, 10).await.unwrap(),
        Since::Gap { newest: 1 }
    );
    assert_eq!(
        store.revocations(1, 10).await.unwrap(),
        Since::Gap { newest: 0 }
    );
    assert!(entries(store.changes(1, 10).await.unwrap()).is_empty());
}

pub(crate) async fn a_revocation_is_in_the_log_once_and_with_its_time(store: Arc<dyn Store>) {
    let at = UnixTime::from_millis(1_700_000_000_123);
    let revoked = |at| Credential {
        state: CredentialState::Revoked { at },
        ..Credential::default()
    };
    let ada = key("ada");
    let one = store
        .commit(&ada, Version(0), with_grant("a"))
        .await
        .unwrap();
    let two = store.commit(&ada, one, revoked(at)).await.unwrap();
    // Revoked it was; another commit of the same revokes nothing.
    let three = store.commit(&ada, two, revoked(at)).await.unwrap();
    let four = store.commit(&ada, three, with_grant("b")).await.unwrap();
    let again = UnixTime::from_millis(1_700_000_000_456);
    store.commit(&ada, four, revoked(again)).await.unwrap();
    // One that was never seen before can be revoked too.
    store
        .commit(&key("bob"), Version(0), revoked(at))
        .await
        .unwrap();
    let entry = |number, name, at| Revocation {
        number,
        of: Some((key(name), at)),
    };
    let expected = [
        entry(1, "ada", at),
        entry(2, "ada", again),
        entry(3, "bob", at),
    ];
    assert_eq!(entries(store.revocations(0, 10).await.unwrap()), expected);
    assert_eq!(
        entries(store.revocations(1, 1).await.unwrap()),
        expected[1..2]
    );
}
