//! A store that goes away while grants rotate: nothing received is lost, nothing is presented twice, and all is well again
//! by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyfob::model::contract::{BoxFuture, Rotation};
use keyfob::model::credential::{CommitFault, Credential, Stored, Unreachable, Version};
use keyfob::model::event::Event;
use keyfob::model::key::{CredentialKey, TokenKey};
use keyfob::model::secret::Secret;
use keyfob::model::time::UnixTime;
use keyfob::store::memory::MemoryStore;
use keyfob::store::{
    KeptPlugin, Lease, Owner, Page, Revocation, RowChange, Since, Store, TokenRecord,
};
use keyfob::testing::issuer::RefreshRotation;
use keyfob_tests::stage::{ACME, CLIENT, Setting, client, credential, of, subject};

const ALICE: &str = "alice";
/// Far longer than the first pauses between two tries.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes a grant's mark and nothing after it, while it is told to be away.
#[derive(Debug, Default)]
struct Away {
    kept: MemoryStore,
    away: AtomicBool,
}

impl Store for Away {
    fn load<'a>(&'a self, key: &'a CredentialKey) -> BoxFuture<'a, Result<Stored, Unreachable>> {
        self.kept.load(key)
    }

    fn commit<'a>(
        &'a self,
        key: &'a CredentialKey,
        expected: Version,
        credential: Credential,
    ) -> BoxFuture<'a, Result<Version, CommitFault>> {
        if self.away.load(Ordering::SeqCst) && credential.intent.is_none() {
            return Box::pin(async { Err(CommitFault::Unreachable("no room".to_owned())) });
        }
        self.kept.commit(key, expected, credential)
    }

    fn scan<'a>(
        &'a self,
        after: Option<&'a CredentialKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Unreachable>> {
        self.kept.scan(after, limit)
    }

    fn acquire<'a>(
        &'a self,
        key: &'a CredentialKey,
        owner: Owner,
        ttl: Duration,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Lease, Unreachable>> {
        self.kept.acquire(key, owner, ttl, now)
    }

    fn release<'a>(&'a self, key: &'a CredentialKey, owner: Owner) -> BoxFuture<'a, ()> {
        self.kept.release(key, owner)
    }

    fn changes(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<RowChange>, Unreachable>> {
        self.kept.changes(after, limit)
    }

    fn revocations(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<Revocation>, Unreachable>> {
        self.kept.revocations(after, limit)
    }

    fn load_token<'a>(
        &'a self,
        key: &'a TokenKey,
    ) -> BoxFuture<'a, Result<Option<TokenRecord>, Unreachable>> {
        self.kept.load_token(key)
    }

    fn keep_token<'a>(
        &'a self,
        key: &'a TokenKey,
        record: TokenRecord,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        self.kept.keep_token(key, record)
    }

    fn forget_tokens(
        &self,
        before: UnixTime,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, Unreachable>> {
        self.kept.forget_tokens(before, limit)
    }

    fn keep_plugin<'a>(
        &'a self,
        place: &'a str,
        plugin: Option<KeptPlugin>,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        self.kept.keep_plugin(place, plugin)
    }

    fn plugins(&self) -> BoxFuture<'_, Result<Vec<(String, KeptPlugin)>, Unreachable>> {
        self.kept.plugins()
    }

    fn durable(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_rotation_that_the_store_does_not_take_is_served_kept_and_recorded_later() {
    let store = Arc::new(Away::default());
    let mut setting = Setting::new().refresh_tokens(client().rotation(RefreshRotation::SingleUse));
    setting.store = Some(store.clone());
    setting.lifetime = Duration::from_secs(2);
    let setting = setting.provider(ACME, |acme, _| acme.refresh.rotation = Rotation::SingleUse);
    let stage = setting.open().await;
    let grant = stage.issuer.issue_refresh_token(CLIENT, ALICE).unwrap();
    let key = credential(Some(ALICE));
    stage
        .broker
        .import_credential(key.clone(), Secret::new(grant), "test")
        .await
        .unwrap();
    let alice = of(ACME).subject(subject(ALICE));

    store.away.store(true, Ordering::SeqCst);
    stage
        .billing()
        .token(&alice)
        .await
        .expect("the token is good, recorded or not");
    assert!(stage.broker.ready().degraded);

    store.away.store(false, Ordering::SeqCst);
    let back = |event: &Event| {
        matches!(
            event,
            Event::Notice {
                code: "durable_again",
                ..
            }
        )
    };
    let told = tokio::time::timeout(PATIENCE, stage.recorder.wait_for(back)).await;
    told.expect("what was kept is recorded once the store is back");
    assert!(!stage.broker.ready().degraded);
    assert_eq!(
        stage.broker.credential(&key).await.unwrap().unwrap().state,
        "live"
    );

    // The token ends; the next is obtained with the grant that was kept.
    while stage.billing().token(&alice).await.is_ok() && stage.issuer.ledger().granted() < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.billing().token(&alice).await.unwrap();
    assert_eq!(stage.issuer.ledger().replayed(), 0);
    stage.close().await;
}
