//! What every backend promises about many rows at once, and about who may send.

use std::sync::Arc;
use std::time::Duration;

use super::{key, with_grant};
use crate::model::credential::{Credential, CredentialState, EndCause, Version};
use crate::model::key::{CredentialKey, Tenant};
use crate::model::time::UnixTime;
use crate::store::{Lease, Store};

/// The keys of a page.
pub(crate) async fn scan(
    store: &dyn Store,
    after: Option<&CredentialKey>,
    limit: usize,
) -> Vec<CredentialKey> {
    let page = store.scan(after, limit).await.unwrap();
    assert_eq!(page.damaged, 0);
    page.rows.into_iter().map(|(key, _)| key).collect()
}

pub(crate) async fn a_scan_in_pages_meets_every_row_once(store: Arc<dyn Store>) {
    let mut expected = Vec::new();
    for number in 0..20 {
        let mut key = key(&format!("user {number}"));
        if number % 2 == 0 {
            key.tenant = Tenant::parse("even").unwrap();
        }
        if number == 7 {
            key.subject = None;
        }
        store
            .commit(&key, Version(0), with_grant(&number.to_string()))
            .await
            .unwrap();
        expected.push(key);
    }
    expected.sort();
    for limit in [1, 3, 7, 20, 100] {
        let mut all: Vec<CredentialKey> = Vec::new();
        loop {
            let page = scan(&*store, all.last(), limit).await;
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            all.extend(page);
        }
        all.sort();
        assert_eq!(all, expected, "in pages of {limit}");
    }
    assert!(scan(&*store, None, 0).await.is_empty());
    // One that is no row is a place to go on from all the same.
    let all = scan(&*store, None, 100).await;
    let rest = scan(&*store, Some(&key("nobody")), 100).await;
    assert!(all.ends_with(&rest));
    // A row is told as it is.
    let page = store.scan(None, 100).await.unwrap();
    let (seven, row) = &page.rows[..]
        .iter()
        .find(|(key, _)| key.subject.is_none())
        .unwrap();
    assert_eq!(
        (row.version, store.load(seven).await.unwrap().credential),
        (Version(1), row.credential.clone())
    );
}

pub(crate) async fn a_census_counts_every_state(store: Arc<dyn Store>) {
    let at = UnixTime::from_secs(1);
    let dead = CredentialState::ReauthorizationRequired {
        since: at,
        cause: EndCause::Refused,
    };
    for (name, state, since) in [
        ("ada", CredentialState::Live, 30),
        ("bob", CredentialState::Live, 20),
        ("eve", CredentialState::Uncertain { since: at }, 25),
        ("mal", dead, 10),
    ] {
        let credential = Credential {
            state,
            grant_since: UnixTime::from_secs(since),
            ..with_grant(name)
        };
        store
            .commit(&key(name), Version(0), credential)
            .await
            .unwrap();
    }
    let census = store.census().await.unwrap();
    let provider = key("ada").provider;
    let count = |state| census.states.get(&(provider.clone(), state)).copied();
    assert_eq!((count("live"), count("uncertain")), (Some(2), Some(1)));
    assert_eq!(census.states.len(), 3);
    // The age of a grant that is dead says nothing.
    assert_eq!(census.oldest_grants[&provider], UnixTime::from_secs(20));
}

pub(crate) async fn a_lease_is_one_owners_until_it_ends_or_comes_back(store: Arc<dyn Store>) {
    let (now, ttl) = (UnixTime::from_secs(1_700_000_000), Duration::from_secs(10));
    let later = |seconds| now.plus(Duration::from_secs(seconds));
    let (one, two) = ([1; 16], [2; 16]);
    let until = later(10);
    let acquire = async |owner, now| store.acquire(&key("ada"), owner, ttl, now).await.unwrap();

    assert_eq!(acquire(one, now).await, Lease::Held { until });
    assert_eq!(acquire(two, later(9)).await, Lease::Busy { until });
    // It is prolonged by whoever has it.
    let until = later(14);
    assert_eq!(acquire(one, later(4)).await, Lease::Held { until });
    // Nobody gives back what is another's.
    store.release(&key("ada"), two).await;
    assert_eq!(acquire(two, later(13)).await, Lease::Busy { until });
    store.release(&key("ada"), one).await;
    let until = later(23);
    assert_eq!(acquire(two, later(13)).await, Lease::Held { until });
    // It ends by itself.
    let until = later(33);
    assert_eq!(acquire(one, later(23)).await, Lease::Held { until });
    // And is of one credential only.
    let other = store.acquire(&key("bob"), two, ttl, later(24)).await;
    assert_eq!(other, Ok(Lease::Held { until: later(34) }));
}
