//! The store of a process without one: a map that dies with it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Census, CommitFault, KeptPlugin, Store, Stored, Unreachable};
use crate::model::contract::BoxFuture;
use crate::model::credential::{Credential, Version};
use crate::model::key::CredentialKey;

/// The most credentials kept. A row with a grant is about 1 KiB, so this is about a gigabyte: past it an operator wants
/// a real store.
const CREDENTIALS_MAX: usize = 1_000_000;

/// Keeps credentials in memory.
#[derive(Default)]
pub struct MemoryStore {
    /// Guards the rows; never held across an await. A blank credential leaves its row behind as a version alone, so that
    /// versions do not restart.
    rows: Mutex<HashMap<CredentialKey, Stored>>,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, HashMap<CredentialKey, Stored>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load<'a>(&'a self, key: &'a CredentialKey) -> BoxFuture<'a, Result<Stored, Unreachable>> {
        Box::pin(async move { Ok(self.rows().get(key).cloned().unwrap_or_default()) })
    }

    fn commit<'a>(
        &'a self,
        key: &'a CredentialKey,
        expected: Version,
        credential: Credential,
    ) -> BoxFuture<'a, Result<Version, CommitFault>> {
        Box::pin(async move {
            let mut rows = self.rows();
            let current = rows.get(key).map_or(Version::default(), |row| row.version);
            if current != expected {
                return Err(CommitFault::Conflict);
            }
            if current == Version::default() {
                if credential.is_blank() {
                    return Ok(current);
                }
                if rows.len() >= CREDENTIALS_MAX {
                    return Err(CommitFault::Unreachable(format!(
                        "{CREDENTIALS_MAX} credentials are the most that memory holds"
                    )));
                }
            }
            let version = Version(current.0 + 1);
            rows.insert(
                key.clone(),
                Stored {
                    version,
                    credential,
                },
            );
            Ok(version)
        })
    }

    fn keys(&self, limit: usize) -> BoxFuture<'_, Result<Vec<CredentialKey>, Unreachable>> {
        Box::pin(async move { Ok(self.rows().keys().take(limit).cloned().collect()) })
    }

    fn census(&self) -> BoxFuture<'_, Result<Census, Unreachable>> {
        Box::pin(async move {
            let mut census = Census::new();
            for (key, row) in self.rows().iter() {
                let state = row.credential.state.label();
                *census.entry((key.provider.clone(), state)).or_default() += 1;
            }
            Ok(census)
        })
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
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "memory with {} credentials", self.rows().len())
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
