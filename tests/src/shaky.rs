//! A store around another one that fails where a test says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyfob::model::contract::BoxFuture;
use keyfob::model::credential::{CommitFault, Credential, Stored, Unreachable, Version};
use keyfob::model::key::{CredentialKey, TokenKey};
use keyfob::model::secret::Secret;
use keyfob::model::time::UnixTime;
use keyfob::store::{
    KeptPlugin, Lease, Owner, Page, Revocation, RowChange, Since, Store, TokenRecord,
};

/// Fails where it was told to; calls itself durable.
#[derive(Debug)]
pub struct Shaky {
    /// What really keeps.
    pub kept: Arc<dyn Store>,
    /// Answers nobody who asks for a lease.
    pub no_leases: AtomicBool,
    /// Takes a grant's mark and nothing after it.
    pub marks_only: AtomicBool,
    tokens: Mutex<Tokens>,
}

/// How it does with access tokens.
#[derive(Clone, Copy, Debug)]
pub enum Tokens {
    /// As it should.
    Fine,
    /// Cannot read nor write one.
    Damaged,
    /// Never answers.
    Silent,
}

// === impl Shaky ===

impl Shaky {
    /// As good as what is around, for now.
    pub fn around(kept: Arc<dyn Store>) -> Self {
        Self {
            kept,
            no_leases: AtomicBool::new(false),
            marks_only: AtomicBool::new(false),
            tokens: Mutex::new(Tokens::Fine),
        }
    }

    /// From now on.
    pub fn set_tokens(&self, tokens: Tokens) {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    fn tokens(&self) -> Tokens {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Shaky {
    fn load<'a>(&'a self, key: &'a CredentialKey) -> BoxFuture<'a, Result<Stored, Unreachable>> {
        self.kept.load(key)
    }

    fn commit<'a>(
        &'a self,
        key: &'a CredentialKey,
        expected: Version,
        credential: Credential,
    ) -> BoxFuture<'a, Result<Version, CommitFault>> {
        if self.marks_only.load(Ordering::SeqCst) && credential.intent.is_none() {
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
        if self.no_leases.load(Ordering::SeqCst) {
            return Box::pin(async { Err(Unreachable("no leases today".to_owned())) });
        }
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
        match self.tokens() {
            Tokens::Fine => self.kept.load_token(key),
            Tokens::Damaged => {
                Box::pin(async { Err(Unreachable("a token is damaged".to_owned())) })
            }
            Tokens::Silent => Box::pin(std::future::pending()),
        }
    }

    fn keep_token<'a>(
        &'a self,
        key: &'a TokenKey,
        record: TokenRecord,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        match self.tokens() {
            Tokens::Fine => self.kept.keep_token(key, record),
            Tokens::Damaged => Box::pin(async { Err(Unreachable("no room".to_owned())) }),
            Tokens::Silent => Box::pin(std::future::pending()),
        }
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

    fn fingerprint_key(&self) -> Option<Secret<[u8; 32]>> {
        self.kept.fingerprint_key()
    }

    fn durable(&self) -> bool {
        true
    }
}
