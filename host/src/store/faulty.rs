//! A store that misbehaves as stores do: what is asked does not arrive, arrives and is not answered, arrives late, or
//! arrives twice. It goes over any other and keeps nothing itself, so that whatever is lost was lost by whom it tests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    CommitFault, KeptPlugin, Lease, Owner, Page, Revocation, RowChange, Since, Store, Stored,
    TokenRecord, Unreachable,
};
use crate::model::contract::BoxFuture;
use crate::model::credential::{Credential, Version};
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;

/// How many turns of the scheduler a delayed request waits: others overtake it, and no clock is asked.
const DELAY_TURNS: usize = 8;

/// What becomes of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Nothing: it is done and answered.
    None,
    /// It does not arrive, and is not answered.
    FailBefore,
    /// It is done, and not answered.
    FailAfter,
    /// It waits while others overtake it.
    Delay,
    /// It arrives twice; the second answer is the one that is heard.
    Duplicate,
}

/// Another store, with faults.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn Store>,
    /// Guards what comes next; never held across an await.
    plan: Mutex<Plan>,
    /// How many requests met each fault, in the order of [`Fault::ALL`].
    met: [AtomicUsize; Fault::ALL.len()],
}

#[derive(Debug)]
enum Plan {
    /// These in their order, then none.
    Script(VecDeque<Fault>),
    /// One of these by chance, for ever.
    Random { among: Vec<Fault>, state: u64 },
}

// === impl Fault ===

impl Fault {
    /// Each there is.
    pub(crate) const ALL: [Self; 5] = [
        Self::None,
        Self::FailBefore,
        Self::FailAfter,
        Self::Delay,
        Self::Duplicate,
    ];
}

// === impl FaultyStore ===

impl FaultyStore {
    /// Meets these faults, one a request, and then none.
    pub(crate) fn scripted(inner: Arc<dyn Store>, script: impl IntoIterator<Item = Fault>) -> Self {
        Self::new(inner, Plan::Script(script.into_iter().collect()))
    }

    /// Meets one of these by chance at each request; print the seed.
    pub(crate) fn seeded(inner: Arc<dyn Store>, among: &[Fault], seed: u64) -> Self {
        let among = among.to_vec();
        Self::new(inner, Plan::Random { among, state: seed })
    }

    fn new(inner: Arc<dyn Store>, plan: Plan) -> Self {
        Self {
            inner,
            plan: Mutex::new(plan),
            met: Default::default(),
        }
    }

    /// How many requests met this fault.
    pub(crate) fn met(&self, fault: Fault) -> usize {
        let at = Fault::ALL.iter().position(|it| *it == fault);
        at.map_or(0, |at| self.met[at].load(Ordering::SeqCst))
    }

    fn next(&self) -> Fault {
        let fault = match &mut *self.plan() {
            Plan::Script(script) => script.pop_front().unwrap_or(Fault::None),
            Plan::Random { among, state } => {
                // SplitMix64: short, and its seed can be printed.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                among[(mixed ^ (mixed >> 31)) as usize % among.len()]
            }
        };
        if let Some(at) = Fault::ALL.iter().position(|it| *it == fault) {
            self.met[at].fetch_add(1, Ordering::SeqCst);
        }
        fault
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the store below, with the fault that is next.
    async fn ask<T, E: From<Unreachable>, F>(&self, ask: impl Fn() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let fault = self.next();
        match fault {
            Fault::None => {}
            Fault::FailBefore => return Err(E::from(Unreachable("did not arrive".to_owned()))),
            Fault::FailAfter => {
                drop(ask().await);
                return Err(E::from(Unreachable("was not answered".to_owned())));
            }
            Fault::Delay => {
                for _ in 0..DELAY_TURNS {
                    tokio::task::yield_now().await;
                }
            }
            Fault::Duplicate => drop(ask().await),
        }
        ask().await
    }
}

impl Store for FaultyStore {
    fn load<'a>(&'a self, key: &'a CredentialKey) -> BoxFuture<'a, Result<Stored, Unreachable>> {
        Box::pin(self.ask(|| self.inner.load(key)))
    }

    fn commit<'a>(
        &'a self,
        key: &'a CredentialKey,
        expected: Version,
        credential: Credential,
    ) -> BoxFuture<'a, Result<Version, CommitFault>> {
        Box::pin(async move {
            self.ask(|| self.inner.commit(key, expected, credential.clone()))
                .await
        })
    }

    fn scan<'a>(
        &'a self,
        after: Option<&'a CredentialKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Unreachable>> {
        Box::pin(self.ask(move || self.inner.scan(after, limit)))
    }

    fn acquire<'a>(
        &'a self,
        key: &'a CredentialKey,
        owner: Owner,
        ttl: Duration,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Lease, Unreachable>> {
        Box::pin(self.ask(move || self.inner.acquire(key, owner, ttl, now)))
    }

    fn release<'a>(&'a self, key: &'a CredentialKey, owner: Owner) -> BoxFuture<'a, ()> {
        // Nobody waits for its answer; a lease that is not given back ends by itself.
        self.inner.release(key, owner)
    }

    fn changes(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<RowChange>, Unreachable>> {
        Box::pin(self.ask(move || self.inner.changes(after, limit)))
    }

    fn revocations(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<Revocation>, Unreachable>> {
        Box::pin(self.ask(move || self.inner.revocations(after, limit)))
    }

    fn load_token<'a>(
        &'a self,
        key: &'a TokenKey,
    ) -> BoxFuture<'a, Result<Option<TokenRecord>, Unreachable>> {
        Box::pin(self.ask(move || self.inner.load_token(key)))
    }

    fn keep_token<'a>(
        &'a self,
        key: &'a TokenKey,
        record: TokenRecord,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        Box::pin(async move {
            self.ask(|| self.inner.keep_token(key, record.clone()))
                .await
        })
    }

    fn forget_tokens(
        &self,
        before: UnixTime,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, Unreachable>> {
        Box::pin(self.ask(move || self.inner.forget_tokens(before, limit)))
    }

    fn keep_plugin<'a>(
        &'a self,
        place: &'a str,
        plugin: Option<KeptPlugin>,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        Box::pin(async move {
            self.ask(|| self.inner.keep_plugin(place, plugin.clone()))
                .await
        })
    }

    fn plugins(&self) -> BoxFuture<'_, Result<Vec<(String, KeptPlugin)>, Unreachable>> {
        Box::pin(self.ask(|| self.inner.plugins()))
    }

    fn fingerprint_key(&self) -> Option<Secret<[u8; 32]>> {
        self.inner.fingerprint_key()
    }

    fn durable(&self) -> bool {
        self.inner.durable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use crate::store::suite::{grant, key, with_grant};

    #[tokio::test]
    async fn each_fault_is_what_it_says() {
        let below: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let script = [
            Fault::FailBefore,
            Fault::FailAfter,
            Fault::Duplicate,
            Fault::Delay,
        ];
        let store = FaultyStore::scripted(below.clone(), script);
        let ada = key("ada");
        let before = store.commit(&ada, Version(0), with_grant("a")).await;
        assert!(matches!(before, Err(CommitFault::Unreachable(_))));
        assert_eq!(below.load(&ada).await.unwrap().version, Version(0));
        let after = store.commit(&ada, Version(0), with_grant("a")).await;
        assert!(matches!(after, Err(CommitFault::Unreachable(_))));
        assert_eq!(grant(&*below, &ada).await, "a");
        let twice = store.commit(&ada, Version(1), with_grant("b")).await;
        assert_eq!(twice, Err(CommitFault::Conflict), "it met itself");
        assert_eq!(grant(&*below, &ada).await, "b");
        let late = store.commit(&ada, Version(2), with_grant("c")).await;
        assert_eq!(late, Ok(Version(3)));
        assert_eq!(Fault::ALL.map(|fault| store.met(fault)), [0, 1, 1, 1, 1]);
    }
}
