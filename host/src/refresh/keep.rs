//! Keeping tokens in the store, so that a restart need not ask for them anew. Behind the callers' backs: nobody waits for
//! it, and what fails is forgotten.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cache::Slot;
use crate::core::Core;
use crate::model::event::Event;
use crate::model::key::TokenKey;
use crate::model::token::TokenRecord;

/// The most keys whose tokens are on their way: at a few KiB each this is little, and a store that falls behind by more
/// would not have them in time for a restart either.
const KEEPING_MAX: usize = 16_384;

/// Tokens on their way into the store.
#[derive(Default)]
pub(crate) struct Keeping {
    /// Keys of which a token is being written, with the one to be written next. One write of a key at a time, and what is
    /// not the current token any more is not begun: an older one cannot come last. Not held across an await.
    next: Mutex<HashMap<TokenKey, Option<TokenRecord>>>,
    /// The last write failed: operators were told.
    failing: AtomicBool,
}

// === impl Keeping ===

impl Keeping {
    /// Takes a token in; answers with it when the caller is to write it, because nobody writes this key's tokens now.
    fn put(&self, key: &TokenKey, record: TokenRecord) -> Option<TokenRecord> {
        let mut next = self.lock();
        let full = next.len() >= KEEPING_MAX;
        match next.entry(key.clone()) {
            Entry::Occupied(mut waiting) => {
                let newer = |held: &TokenRecord| held.generation > record.generation;
                if !waiting.get().as_ref().is_some_and(newer) {
                    waiting.insert(Some(record));
                }
                None
            }
            Entry::Vacant(_) if full => None,
            Entry::Vacant(free) => {
                free.insert(None);
                Some(record)
            }
        }
    }

    /// The next token of a key to write; none ends the writing.
    fn take(&self, key: &TokenKey) -> Option<TokenRecord> {
        let mut next = self.lock();
        let record = next.get_mut(key)?.take();
        if record.is_none() {
            next.remove(key);
        }
        record
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenKey, Option<TokenRecord>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the writing of a key, whatever becomes of its task.
struct Writing<'a> {
    keeping: &'a Keeping,
    key: &'a TokenKey,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.keeping.lock().remove(self.key);
    }
}

/// Has a published token kept, where the store keeps anything.
pub(super) fn keep(core: &Arc<Core>, slot: &Arc<Slot>, record: TokenRecord) {
    if !core.store.durable() {
        return;
    }
    if let Some(record) = core.keeping.put(&slot.key(), record) {
        core.spawn(write(core.clone(), slot.clone(), record));
    }
}

async fn write(core: Arc<Core>, slot: Arc<Slot>, first: TokenRecord) {
    let key = &slot.key();
    // A panic of the store must not end the keeping of this key for good.
    let writing = Writing {
        keeping: &core.keeping,
        key,
    };
    let mut record = first;
    loop {
        // Whoever publishes a newer one from here on finds this write under way, and comes after it.
        let current = slot.current().map(|token| token.generation());
        if current == Some(record.generation) {
            write_one(&core, key, record).await;
        }
        match core.keeping.take(key) {
            Some(next) => record = next,
            None => {
                // What was put since then has a writer of its own.
                std::mem::forget(writing);
                return;
            }
        }
    }
}

async fn write_one(core: &Core, key: &TokenKey, record: TokenRecord) {
    let kept = core.store.keep_token(key, record).await;
    let failing = kept.is_err();
    let was_failing = core.keeping.failing.swap(failing, Ordering::Relaxed);
    if let Err(fault) = kept
        && !was_failing
    {
        let detail = format!(
            "the store does not take tokens, so a restart asks for them anew: {}",
            fault.0
        );
        core.emit(&Event::Notice {
            code: "token_not_kept",
            detail,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::credential::{Fingerprint, Version};
    use crate::model::key::{CredentialKey, ProviderName, ScopeSet, Subject, Tenant};
    use crate::model::time::UnixTime;
    use crate::model::token::{Generation, ObtainedToken};

    fn key(subject: usize) -> TokenKey {
        TokenKey {
            credential: CredentialKey {
                tenant: Tenant::default(),
                provider: ProviderName::parse("acme").unwrap(),
                subject: Subject::parse(&subject.to_string()).ok(),
            },
            audience: None,
            scopes: ScopeSet::default(),
        }
    }

    fn record(generation: u64) -> TokenRecord {
        let issued = UnixTime::from_secs(1);
        TokenRecord {
            token: ObtainedToken {
                value: "t".into(),
                token_type: "Bearer".into(),
                expires: issued.plus(Duration::from_secs(60)),
                issued,
                scopes: ScopeSet::default(),
                extra: Vec::new(),
            },
            generation: Generation::from_number(generation).unwrap(),
            fingerprint: Fingerprint([0; 32]),
            obtained_at: Version(1),
        }
    }

    fn number(record: Option<TokenRecord>) -> Option<u64> {
        record.map(|record| record.generation.number())
    }

    #[test]
    fn tokens_of_a_key_are_written_one_by_one_and_the_newest_comes_last() {
        let keeping = Keeping::default();
        assert_eq!(number(keeping.put(&key(1), record(1))), Some(1));
        // Two more while the first is written: the one between is not worth a write.
        assert_eq!(number(keeping.put(&key(1), record(2))), None);
        assert_eq!(number(keeping.put(&key(1), record(3))), None);
        assert_eq!(number(keeping.put(&key(2), record(9))), Some(9));
        assert_eq!(number(keeping.put(&key(1), record(2))), None);
        assert_eq!(number(keeping.take(&key(1))), Some(3));
        assert_eq!(number(keeping.put(&key(1), record(4))), None);
        assert_eq!(number(keeping.take(&key(1))), Some(4));
        assert_eq!(number(keeping.take(&key(1))), None);
        assert_eq!(number(keeping.put(&key(1), record(5))), Some(5));
    }

    #[test]
    fn a_store_that_falls_behind_costs_no_memory() {
        let keeping = Keeping::default();
        for subject in 0..KEEPING_MAX {
            assert!(keeping.put(&key(subject), record(1)).is_some());
        }
        assert!(keeping.put(&key(KEEPING_MAX), record(1)).is_none());
        assert_eq!(keeping.lock().len(), KEEPING_MAX);
        // Who is under way goes on.
        assert!(keeping.put(&key(0), record(2)).is_none());
        assert_eq!(number(keeping.take(&key(0))), Some(2));
    }
}
