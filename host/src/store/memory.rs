//! The store of a process without one: maps that die with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::lease::Leases;
use super::{
    CHANGES_MAX, Census, CommitFault, KeptPlugin, Lease, Owner, Page, REVOCATIONS_MAX, Revocation,
    RowChange, Since, Store, Stored, TokenRecord, Unreachable,
};
use crate::model::contract::BoxFuture;
use crate::model::credential::{Credential, Version};
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::time::UnixTime;

/// The most credentials kept. A row with a grant is about 1 KiB, so this is about a gigabyte: past it an operator wants
/// a real store.
const CREDENTIALS_MAX: usize = 1_000_000;

/// Keeps credentials in memory.
#[derive(Default)]
pub struct MemoryStore {
    /// Guards everything that a commit changes together; never held across an await.
    rows: Mutex<Rows>,
    leases: Leases,
}

#[derive(Default)]
struct Rows {
    /// A blank credential leaves its row behind as a version alone, so that versions do not restart.
    credentials: BTreeMap<CredentialKey, Stored>,
    tokens: HashMap<TokenKey, TokenRecord>,
    /// Tokens by their end, to be forgotten in that order.
    ends: BTreeSet<(UnixTime, TokenKey)>,
    changes: Log<(CredentialKey, Version)>,
    revocations: Log<(CredentialKey, UnixTime)>,
}

/// Entries under dense numbers, of which the oldest leave.
struct Log<T> {
    entries: VecDeque<T>,
    newest: u64,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load<'a>(&'a self, key: &'a CredentialKey) -> BoxFuture<'a, Result<Stored, Unreachable>> {
        Box::pin(async move {
            let row = self.rows().credentials.get(key).cloned();
            Ok(row.unwrap_or_default())
        })
    }

    fn commit<'a>(
        &'a self,
        key: &'a CredentialKey,
        expected: Version,
        credential: Credential,
    ) -> BoxFuture<'a, Result<Version, CommitFault>> {
        Box::pin(async move { self.rows().commit(key, expected, credential) })
    }

    fn scan<'a>(
        &'a self,
        after: Option<&'a CredentialKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Unreachable>> {
        Box::pin(async move {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = self.rows();
            let rows = rows.credentials.range((from, Bound::Unbounded));
            let rows = rows.take(limit);
            Ok(Page {
                rows: rows.map(|(key, row)| (key.clone(), row.clone())).collect(),
                damaged: 0,
            })
        })
    }

    fn census(&self) -> BoxFuture<'_, Result<Census, Unreachable>> {
        Box::pin(async move {
            let mut census = Census::default();
            for (key, row) in &self.rows().credentials {
                census.count(&key.provider, &row.credential);
            }
            Ok(census)
        })
    }

    fn acquire<'a>(
        &'a self,
        key: &'a CredentialKey,
        owner: Owner,
        ttl: Duration,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Lease, Unreachable>> {
        Box::pin(async move { Ok(self.leases.acquire(key, owner, ttl, now)) })
    }

    fn release<'a>(&'a self, key: &'a CredentialKey, owner: Owner) -> BoxFuture<'a, ()> {
        Box::pin(async move { self.leases.release(key, owner) })
    }

    fn changes(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<RowChange>, Unreachable>> {
        Box::pin(async move {
            let entry = |number, (key, version): &(CredentialKey, Version)| RowChange {
                number,
                key: Some(key.clone()),
                version: *version,
            };
            Ok(self.rows().changes.since(after, limit, entry))
        })
    }

    fn revocations(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<Revocation>, Unreachable>> {
        Box::pin(async move {
            let entry = |number, of: &(CredentialKey, UnixTime)| Revocation {
                number,
                of: Some(of.clone()),
            };
            Ok(self.rows().revocations.since(after, limit, entry))
        })
    }

    fn load_token<'a>(
        &'a self,
        key: &'a TokenKey,
    ) -> BoxFuture<'a, Result<Option<TokenRecord>, Unreachable>> {
        Box::pin(async move { Ok(self.rows().tokens.get(key).cloned()) })
    }

    fn keep_token<'a>(
        &'a self,
        key: &'a TokenKey,
        record: TokenRecord,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        Box::pin(async move {
            self.rows().keep_token(key, record);
            Ok(())
        })
    }

    fn forget_tokens(
        &self,
        before: UnixTime,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, Unreachable>> {
        Box::pin(async move { Ok(self.rows().forget_tokens(before, limit)) })
    }

    fn keep_plugin<'a>(
        &'a self,
        _place: &'a str,
        _plugin: Option<KeptPlugin>,
    ) -> BoxFuture<'a, Result<(), Unreachable>> {
        // Whoever asks for it again asks after a restart, and this store is gone by then.
        Box::pin(async { Ok(()) })
    }

    fn plugins(&self) -> BoxFuture<'_, Result<Vec<(String, KeptPlugin)>, Unreachable>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn durable(&self) -> bool {
        false
    }

    fn exclusive(&self) -> bool {
        true
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "memory with {} credentials",
            self.rows().credentials.len()
        )
    }
}

// === impl Rows ===

impl Rows {
    fn commit(
        &mut self,
        key: &CredentialKey,
        expected: Version,
        credential: Credential,
    ) -> Result<Version, CommitFault> {
        let row = self.credentials.get(key);
        let current = row.map_or(Version::default(), |row| row.version);
        if current != expected {
            return Err(CommitFault::Conflict);
        }
        if current == Version::default() {
            if credential.is_blank() {
                return Ok(current);
            }
            if self.credentials.len() >= CREDENTIALS_MAX {
                return Err(CommitFault::Unreachable(format!(
                    "{CREDENTIALS_MAX} credentials are the most that memory holds"
                )));
            }
        }
        let was_revoked = row.is_some_and(|row| row.credential.revoked_at().is_some());
        if let Some(at) = credential.revoked_at().filter(|_| !was_revoked) {
            self.revocations.push((key.clone(), at), REVOCATIONS_MAX);
        }
        let version = Version(current.0 + 1);
        self.changes.push((key.clone(), version), CHANGES_MAX);
        let stored = Stored {
            version,
            credential,
        };
        self.credentials.insert(key.clone(), stored);
        Ok(version)
    }

    fn keep_token(&mut self, key: &TokenKey, record: TokenRecord) {
        let row = self.credentials.get(&key.credential).cloned();
        if !record.may_be_kept(&row.unwrap_or_default()) {
            return;
        }
        self.ends.insert((record.token.expires, key.clone()));
        let ends = record.token.expires;
        if let Some(old) = self.tokens.insert(key.clone(), record)
            && old.token.expires != ends
        {
            self.ends.remove(&(old.token.expires, key.clone()));
        }
    }

    fn forget_tokens(&mut self, before: UnixTime, limit: usize) -> usize {
        let mut forgotten = 0;
        while forgotten < limit
            && self.ends.first().is_some_and(|(ends, _)| *ends < before)
            && let Some((_, key)) = self.ends.pop_first()
        {
            self.tokens.remove(&key);
            forgotten += 1;
        }
        forgotten
    }
}

// === impl Log ===

impl<T> Log<T> {
    fn push(&mut self, entry: T, most: u64) {
        self.newest += 1;
        self.entries.push_back(entry);
        if self.entries.len() as u64 > most {
            self.entries.pop_front();
        }
    }

    fn since<E>(&self, after: u64, limit: usize, entry: impl Fn(u64, &T) -> E) -> Since<E> {
        let gone = self.newest - self.entries.len() as u64;
        // A number from the future is of another history: nothing known of it follows.
        if after < gone || after > self.newest {
            return Since::Gap {
                newest: self.newest,
            };
        }
        let passed = usize::try_from(after - gone).unwrap_or(usize::MAX);
        let new = (after + 1..).zip(self.entries.iter().skip(passed));
        let new = new.take(limit).map(|(number, it)| entry(number, it));
        Since::Entries(new.collect())
    }
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            newest: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::store::suite::store_suite!((MemoryStore::new(), ()));

    #[test]
    fn it_does_not_call_itself_durable() {
        assert!(!MemoryStore::new().durable());
    }
}
