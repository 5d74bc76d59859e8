//! Plugins that were loaded, by the digest of the bytes they were loaded from: identical bytes compile once.
//!
//! Forgetting an entry harms nobody: whoever holds the plugin keeps it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use super::limits::{CACHE_MAX_CODE_BYTES, CACHE_MAX_ENTRIES};

/// SHA-256 of what was given to be loaded.
pub(super) type Digest = [u8; 32];

/// One entry; loads of identical bytes that come while it is empty wait for the first.
pub(super) type Cell<T> = Arc<OnceCell<T>>;

/// What was loaded, most recently used last.
pub(super) struct Cache<T> {
    /// Guards the list only; never held across an await.
    entries: Mutex<Vec<Entry<T>>>,
}

struct Entry<T> {
    digest: Digest,
    cell: Cell<T>,
    code_bytes: usize,
}

impl<T> Cache<T> {
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::new(Vec::new()),
        }
    }

    /// The entry of `digest`, made if there is none, now the most recently used.
    pub(super) fn entry(&self, digest: Digest) -> Cell<T> {
        let mut entries = self.lock();
        let entry = match entries.iter().position(|entry| entry.digest == digest) {
            Some(at) => entries.remove(at),
            None => Entry {
                digest,
                cell: Arc::default(),
                code_bytes: 0,
            },
        };
        let cell = Arc::clone(&entry.cell);
        entries.push(entry);
        trim(&mut entries);
        cell
    }

    /// Records how much code an entry holds, now that it is known.
    pub(super) fn filled(&self, digest: &Digest, code_bytes: usize) {
        let mut entries = self.lock();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.digest == *digest) {
            entry.code_bytes = code_bytes;
        }
        trim(&mut entries);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry<T>>> {
        // Every change leaves the list whole, so a panic elsewhere while it was held does not matter.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the least recently used until the bounds hold; the newest stays whatever its size.
fn trim<T>(entries: &mut Vec<Entry<T>>) {
    let mut code_bytes: usize = entries.iter().map(|entry| entry.code_bytes).sum();
    while entries.len() > 1
        && (entries.len() > CACHE_MAX_ENTRIES || code_bytes > CACHE_MAX_CODE_BYTES)
    {
        code_bytes -= entries.remove(0).code_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        [n; 32]
    }

    #[test]
    fn the_same_digest_meets_the_same_entry() {
        let cache = Cache::<u8>::new();
        assert!(Arc::ptr_eq(
            &cache.entry(digest(1)),
            &cache.entry(digest(1))
        ));
        assert!(!Arc::ptr_eq(
            &cache.entry(digest(1)),
            &cache.entry(digest(2))
        ));
    }

    #[test]
    fn the_least_recently_used_is_forgotten_first() {
        let cache = Cache::<u8>::new();
        let old = cache.entry(digest(0));
        let kept = cache.entry(digest(1));
        for n in 2..=CACHE_MAX_ENTRIES as u8 {
            cache.entry(digest(n));
            cache.entry(digest(1));
        }
        assert!(Arc::ptr_eq(&kept, &cache.entry(digest(1))));
        assert!(!Arc::ptr_eq(&old, &cache.entry(digest(0))));
    }

    #[test]
    fn large_code_makes_room_by_forgetting_the_rest() {
        let cache = Cache::<u8>::new();
        let small = cache.entry(digest(1));
        cache.filled(&digest(1), 1);
        let large = cache.entry(digest(2));
        cache.filled(&digest(2), CACHE_MAX_CODE_BYTES + 1);
        assert!(Arc::ptr_eq(&large, &cache.entry(digest(2))));
        assert!(!Arc::ptr_eq(&small, &cache.entry(digest(1))));
    }
}
