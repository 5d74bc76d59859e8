//! What every backend promises, as tests. A backend's own test module names itself with `store_suite!`; what only a
//! durable one can promise is tested beside it.

pub(crate) mod faults;
mod logs;
mod scans;
mod tokens;

use std::sync::Arc;

pub(crate) use logs::*;
pub(crate) use scans::*;
pub(crate) use tokens::*;
use tokio::task::JoinSet;

use super::{CommitFault, Store};
use crate::model::credential::{Credential, CredentialState, EndCause, Intent, Seen, Version};
use crate::model::key::{CredentialKey, ProviderName, Subject, Tenant};
use crate::model::time::UnixTime;

/// Runs the suite over what `$fresh` makes: an empty store, and whatever must live as long as it.
macro_rules! store_suite {
    ($fresh:expr) => {
        $crate::store::suite::store_suite!(@ $fresh;
            a_key_never_seen_is_blank_at_version_0,
            every_member_of_a_credential_comes_back,
            a_late_writer_does_not_undo_a_newer_commit,
            a_refused_commit_changes_nothing,
            versions_go_on_after_a_revoke_and_after_a_blank,
            nothing_worth_keeping_takes_no_room,
            neighbours_do_not_share_a_record,
            of_many_commits_on_one_version_exactly_one_wins,
            commits_on_many_keys_at_once_all_stay,
            a_reader_sees_all_of_a_commit_or_none,
            a_scan_in_pages_meets_every_row_once,
            a_census_counts_every_state,
            a_lease_is_one_owners_until_it_ends_or_comes_back,
            every_change_has_a_number_and_none_is_left_out,
            a_number_from_another_history_is_a_gap,
            a_revocation_is_in_the_log_once_and_with_its_time,
            a_token_comes_back_until_it_is_replaced_or_forgotten,
            a_token_that_was_withdrawn_meanwhile_is_not_kept,
            tokens_that_are_over_are_forgotten_in_the_order_of_their_ends
        );
        $crate::store::suite::store_suite!(faults @ $fresh;
            versions_have_no_gap_however_commits_are_answered,
            exactly_one_wins_however_commits_are_answered,
            a_reader_never_goes_back_however_it_is_answered,
            no_update_is_lost_by_who_loads_again
        );
    };
    (faults @ $fresh:expr; $($promise:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let (store, _kept) = $fresh;
                $crate::store::suite::faults::$promise(std::sync::Arc::new(store)).await;
            }
        )+
    };
    (@ $fresh:expr; $($promise:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let (store, _kept) = $fresh;
                $crate::store::suite::$promise(std::sync::Arc::new(store)).await;
            }
        )+
    };
}
pub(crate) use store_suite;

/// A key of the default tenant.
pub(crate) fn key(subject: &str) -> CredentialKey {
    CredentialKey {
        tenant: Tenant::default(),
        provider: ProviderName::parse("acme").unwrap(),
        subject: Some(Subject::parse(subject).unwrap()),
    }
}

/// A credential that has a grant and nothing else.
pub(crate) fn with_grant(grant: &str) -> Credential {
    Credential {
        refresh_token: Some(grant.into()),
        ..Credential::default()
    }
}

/// The grant that a store has for a key.
pub(crate) async fn grant(store: &dyn Store, key: &CredentialKey) -> String {
    let stored = store.load(key).await.unwrap();
    stored
        .credential
        .refresh_token
        .map(|grant| grant.expose().clone())
        .unwrap_or_default()
}

pub(crate) async fn a_key_never_seen_is_blank_at_version_0(store: Arc<dyn Store>) {
    let stored = store.load(&key("nobody")).await.unwrap();
    assert_eq!(stored.version, Version(0));
    assert!(stored.credential.is_blank());
}

pub(crate) async fn every_member_of_a_credential_comes_back(store: Arc<dyn Store>) {
    let time = UnixTime::from_millis;
    let written = Credential {
        refresh_token: Some("grant".into()),
        held: vec![("session".into(), "held".into())],
        memo: vec![("cursor".into(), "17".into())],
        state: CredentialState::ReauthorizationRequired {
            since: time(5),
            cause: EndCause::LostAnswer,
        },
        intent: Some(Intent {
            owner: [7; 16],
            at: time(6),
            over_at: time(7),
        }),
        seen: Seen {
            stayed: true,
            rotated: true,
        },
        spent: vec![[1; 32], [2; 32]],
        grant_since: time(8),
        withdrawn: Version(3),
    };
    store
        .commit(&key("ada"), Version(0), written.clone())
        .await
        .unwrap();
    let Credential {
        refresh_token,
        held,
        memo,
        state,
        intent,
        seen,
        spent,
        grant_since,
        withdrawn,
    } = store.load(&key("ada")).await.unwrap().credential;
    assert_eq!(refresh_token.unwrap().expose(), "grant");
    assert_eq!(
        (held[0].0.as_str(), held[0].1.expose().as_str()),
        ("session", "held")
    );
    assert_eq!(
        (memo, state, intent),
        (written.memo, written.state, written.intent)
    );
    assert_eq!(
        (seen, spent, grant_since, withdrawn),
        (
            written.seen,
            written.spent,
            written.grant_since,
            written.withdrawn
        )
    );
}

pub(crate) async fn a_late_writer_does_not_undo_a_newer_commit(store: Arc<dyn Store>) {
    let one = store
        .commit(&key("ada"), Version(0), with_grant("a"))
        .await
        .unwrap();
    store
        .commit(&key("ada"), one, with_grant("b"))
        .await
        .unwrap();
    let late = store.commit(&key("ada"), one, with_grant("c")).await;
    assert_eq!(late, Err(CommitFault::Conflict));
    assert_eq!(grant(&*store, &key("ada")).await, "b");
}

pub(crate) async fn a_refused_commit_changes_nothing(store: Arc<dyn Store>) {
    let early = store
        .commit(&key("ada"), Version(3), with_grant("early"))
        .await;
    assert_eq!(early, Err(CommitFault::Conflict));
    assert_eq!(store.load(&key("ada")).await.unwrap().version, Version(0));
    assert!(scan(&*store, None, 10).await.is_empty());
    let one = store
        .commit(&key("ada"), Version(0), with_grant("a"))
        .await
        .unwrap();
    assert_eq!(one, Version(1));
    let blank = store
        .commit(&key("ada"), Version(0), Credential::default())
        .await;
    assert_eq!(blank, Err(CommitFault::Conflict));
    assert_eq!(grant(&*store, &key("ada")).await, "a");
}

pub(crate) async fn versions_go_on_after_a_revoke_and_after_a_blank(store: Arc<dyn Store>) {
    let one = store
        .commit(&key("ada"), Version(0), with_grant("a"))
        .await
        .unwrap();
    let state = CredentialState::Revoked {
        at: UnixTime::from_secs(1),
    };
    let revoked = Credential {
        state,
        ..Credential::default()
    };
    let two = store.commit(&key("ada"), one, revoked).await.unwrap();
    let three = store
        .commit(&key("ada"), two, Credential::default())
        .await
        .unwrap();
    assert_eq!([one, two, three], [Version(1), Version(2), Version(3)]);
    let stored = store.load(&key("ada")).await.unwrap();
    assert_eq!(stored.version, three);
    assert!(stored.credential.is_blank());
    assert_eq!(
        store.commit(&key("ada"), Version(0), with_grant("b")).await,
        Err(CommitFault::Conflict)
    );
}

pub(crate) async fn nothing_worth_keeping_takes_no_room(store: Arc<dyn Store>) {
    let version = store
        .commit(&key("ada"), Version(0), Credential::default())
        .await;
    assert_eq!(version, Ok(Version(0)));
    assert!(scan(&*store, None, 10).await.is_empty());
}

pub(crate) async fn neighbours_do_not_share_a_record(store: Arc<dyn Store>) {
    let ada = key("ada");
    let own_account = CredentialKey {
        subject: None,
        ..ada.clone()
    };
    let other_tenant = CredentialKey {
        tenant: Tenant::parse("other").unwrap(),
        ..ada.clone()
    };
    let other_provider = CredentialKey {
        provider: ProviderName::parse("acme2").unwrap(),
        ..ada.clone()
    };
    // What runs together when names are joined without their lengths.
    let joined = |tenant: &str, provider: &str, subject: &str| CredentialKey {
        tenant: Tenant::parse(tenant).unwrap(),
        provider: ProviderName::parse(provider).unwrap(),
        subject: Some(Subject::parse(subject).unwrap()),
    };
    let all = [
        ada,
        own_account,
        other_tenant,
        other_provider,
        joined("a", "b/c", "d"),
        joined("a/b", "c", "d"),
    ];
    for (number, key) in all.iter().enumerate() {
        store
            .commit(key, Version(0), with_grant(&number.to_string()))
            .await
            .unwrap();
    }
    for (number, key) in all.iter().enumerate() {
        assert_eq!(grant(&*store, key).await, number.to_string());
    }
}

pub(crate) async fn of_many_commits_on_one_version_exactly_one_wins(store: Arc<dyn Store>) {
    const ROUNDS: u64 = 10;
    const WRITERS: u64 = 32;
    for version in 0..ROUNDS {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writers.spawn(async move {
                let mine = with_grant(&format!("{version} of {writer}"));
                (
                    writer,
                    store.commit(&key("ada"), Version(version), mine).await,
                )
            });
        }
        let mut winners = Vec::new();
        for (writer, done) in writers.join_all().await {
            match done {
                Ok(committed) => {
                    assert_eq!(committed, Version(version + 1));
                    winners.push(writer);
                }
                Err(fault) => assert_eq!(fault, CommitFault::Conflict),
            }
        }
        let [winner] = winners[..] else {
            panic!("{winners:?} won version {version}")
        };
        assert_eq!(
            grant(&*store, &key("ada")).await,
            format!("{version} of {winner}")
        );
    }
}

pub(crate) async fn commits_on_many_keys_at_once_all_stay(store: Arc<dyn Store>) {
    const KEYS: usize = 400;
    let mut writers = JoinSet::new();
    for number in 0..KEYS {
        let store = store.clone();
        writers.spawn(async move {
            let name = format!("user {number}");
            store
                .commit(&key(&name), Version(0), with_grant(&name))
                .await
                .unwrap();
        });
    }
    writers.join_all().await;
    for number in 0..KEYS {
        let name = format!("user {number}");
        assert_eq!(grant(&*store, &key(&name)).await, name);
    }
}

pub(crate) async fn a_reader_sees_all_of_a_commit_or_none(store: Arc<dyn Store>) {
    const COMMITS: u64 = 50;
    let mut tasks = JoinSet::new();
    let writer = store.clone();
    tasks.spawn(async move {
        for version in 0..COMMITS {
            let next = version + 1;
            let credential = Credential {
                grant_since: UnixTime::from_millis(next),
                spent: vec![[next as u8; 32]; 20],
                ..with_grant(&next.to_string())
            };
            writer
                .commit(&key("ada"), Version(version), credential)
                .await
                .unwrap();
        }
    });
    tasks.spawn(async move {
        let mut last = Version(0);
        while last < Version(COMMITS) {
            let stored = store.load(&key("ada")).await.unwrap();
            assert!(stored.version >= last, "a reader went back");
            last = stored.version;
            if last > Version(0) {
                let credential = stored.credential;
                assert_eq!(credential.grant_since.as_millis(), last.0);
                assert_eq!(
                    credential.refresh_token.unwrap().expose(),
                    &last.0.to_string()
                );
                assert_eq!(credential.spent, vec![[last.0 as u8; 32]; 20]);
            }
            tokio::task::yield_now().await;
        }
    });
    tasks.join_all().await;
}
