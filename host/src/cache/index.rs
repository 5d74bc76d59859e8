//! The index: key → slot, and (caller, request) → slot with the decision that allows it.
//!
//! Both maps are read without a lock and written rarely: a renewed token changes its slot, never the index. A hit is
//! one hash, one probe, three words and the cell's read lock, which a writer holds for moving a pointer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::accounts::{Accounts, Full};
use super::ask::{Ask, AskRef};
use super::decision::Decision;
use super::slot::Slot;
use crate::model::event::{Event, Observer};
use crate::model::freshness::Freshness;
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::model::token::{AccessToken, SlotId};

type Map<K, V> = papaya::HashMap<K, V, foldhash::quality::RandomState>;

/// A million tokens of 1.2 kB and what surrounds them take about 1.5 GB: as much as one process should be.
pub const KEYS_MAX: usize = 1_000_000;
/// A quarter for one caller: no caller fills the cache alone, and one gateway still holds a city's worth of users.
pub const KEYS_PER_CALLER_MAX: usize = KEYS_MAX / 4;
/// Remembered decisions a key: several callers share a key, and several spellings of a request lead to one.
pub const ASKS_PER_KEY: usize = 4;

/// How much the cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheLimits {
    /// Keys in all.
    pub keys_max: usize,
    /// Keys that one caller may bring in.
    pub keys_per_caller_max: usize,
}

/// All tokens in memory.
pub struct Cache {
    /// Every open slot. Written with `accounts` locked.
    slots: Map<TokenKey, Arc<Slot>>,
    /// Remembered decisions. Written with `accounts` locked.
    asks: Map<Ask, Entry>,
    /// The book of who brought in what; serializes every change of the two maps. Taken when a key or a decision is new
    /// or leaves; never held across `.await`. Slots' cells are taken while it is held, never the other way round.
    accounts: Mutex<Accounts>,
    next_slot: AtomicU64,
    limits: CacheLimits,
    observer: Arc<dyn Observer>,
}

/// A remembered decision.
struct Entry {
    slot: Arc<Slot>,
    decision: Decision,
    /// Of the caller's account: given back when the entry leaves.
    asks: Arc<AtomicUsize>,
}

/// What a remembered decision leads to.
#[derive(Debug)]
pub enum Hit {
    /// A token that needs nothing: answer with it.
    Fresh {
        /// The token.
        token: Arc<AccessToken>,
        /// The longest life it may state to this caller.
        max_lifetime: Option<Duration>,
    },
    /// Allowed, but the token is absent, ending, or too short for this request.
    Known {
        /// The key's place.
        slot: Arc<Slot>,
        /// The decision that still holds.
        decision: Decision,
    },
}

// === impl CacheLimits ===

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            keys_max: KEYS_MAX,
            keys_per_caller_max: KEYS_PER_CALLER_MAX,
        }
    }
}

// === impl Cache ===

impl Cache {
    /// An empty one; evictions are told to `observer`.
    pub fn new(limits: CacheLimits, observer: Arc<dyn Observer>) -> Self {
        Self {
            slots: Map::default(),
            asks: Map::default(),
            accounts: Mutex::default(),
            next_slot: AtomicU64::new(1),
            limits,
            observer,
        }
    }

    /// What this caller's request led to before, while the decision holds under the policy `epoch`. `None` means:
    /// authorize, then [`Cache::remember`].
    ///
    /// Allocates nothing, and waits for nobody but a writer that moves one pointer.
    pub fn lookup(
        &self,
        principal: &Principal,
        request: &TokenRequest,
        epoch: u64,
        now: UnixTime,
    ) -> Option<Hit> {
        let guard = self.asks.guard();
        let entry = self.asks.get(&AskRef { principal, request }, &guard)?;
        if !entry.decision.holds(epoch, now) || entry.slot.is_closed() {
            return None;
        }
        entry.slot.touch(now);
        let fresh = match entry.slot.freshness(now) {
            Freshness::Fresh => entry.slot.servable(now).ok(),
            Freshness::Expiring | Freshness::Expired => None,
        };
        let enough = |token: &Arc<AccessToken>| token.expires().since(now) >= request.min_validity;
        Some(match fresh.filter(enough) {
            Some(token) => Hit::Fresh {
                token,
                max_lifetime: entry.decision.max_lifetime,
            },
            None => Hit::Known {
                slot: Arc::clone(&entry.slot),
                decision: entry.decision,
            },
        })
    }

    /// The key's open slot.
    pub fn slot(&self, key: &TokenKey) -> Option<Arc<Slot>> {
        let guard = self.slots.guard();
        let slot = self.slots.get(key, &guard)?;
        (!slot.is_closed()).then(|| Arc::clone(slot))
    }

    /// The key's slot, made if need be and charged to `caller`. Where there is no room, the most idle slots that nobody
    /// holds leave: the caller's own when its quota is met, anybody's when the cache is full.
    ///
    /// Pin it before working with it: until then it may be evicted.
    ///
    /// # Errors
    ///
    /// [`Full`] when everything is held.
    pub fn slot_or_insert(
        &self,
        key: &TokenKey,
        caller: &Principal,
        now: UnixTime,
    ) -> Result<Arc<Slot>, Full> {
        if let Some(slot) = self.slot(key) {
            return Ok(slot);
        }
        let mut accounts = self.accounts();
        // Somebody may have made it while the lock was taken.
        if let Some(slot) = self.slot(key) {
            return Ok(slot);
        }
        let limits = (self.limits.keys_max, self.limits.keys_per_caller_max);
        let left = accounts.make_room(caller, limits, now)?;
        self.take_out(&left);
        let id = SlotId(self.next_slot.fetch_add(1, Ordering::Relaxed));
        let slot = Arc::new(Slot::new(id, key.clone(), now));
        self.slots.pin().insert(key.clone(), Arc::clone(&slot));
        accounts.enter(caller, Arc::clone(&slot));
        drop(accounts);
        self.tell(&left, "full");
        Ok(slot)
    }

    /// Remembers a decision, so that the next request like this one is a hit. Says whether there was room; where there
    /// was none, the caller is authorized each time, and nothing else changes.
    pub fn remember(
        &self,
        principal: &Principal,
        request: &TokenRequest,
        slot: &Arc<Slot>,
        decision: Decision,
        now: UnixTime,
    ) -> bool {
        slot.permit(decision.epoch, decision.allowed_until);
        let ask = AskRef { principal, request };
        let mut accounts = self.accounts();
        let asks = Arc::clone(accounts.asks(principal));
        let pinned = self.asks.pin();
        if !pinned.contains_key(&ask) {
            let per_caller = self.limits.keys_per_caller_max.saturating_mul(ASKS_PER_KEY);
            let in_all = self.limits.keys_max.saturating_mul(ASKS_PER_KEY);
            let full = || asks.load(Ordering::Relaxed) >= per_caller || self.asks.len() >= in_all;
            if full() && accounts.may_sweep(now) {
                self.sweep(|entry| now < entry.decision.allowed_until);
            }
            if full() {
                return false;
            }
            asks.fetch_add(1, Ordering::Relaxed);
        }
        pinned.insert(
            ask.to_owned(),
            Entry {
                slot: Arc::clone(slot),
                decision,
                asks,
            },
        );
        true
    }

    /// Forgets the decisions of every policy before `epoch`. They hold no longer in any case; this frees their room.
    pub fn forget_before(&self, epoch: u64) {
        let mut accounts = self.accounts();
        self.sweep(|entry| entry.decision.epoch >= epoch);
        accounts.settle();
    }

    /// Ends a key: its slot is closed for every handle, and the next request makes a new one.
    pub fn remove(&self, key: &TokenKey) -> Option<Arc<Slot>> {
        // Comes off the books when they are next settled; until then it counts, which errs on the safe side.
        let _accounts = self.accounts();
        let slot = self.slots.pin().remove(key).cloned()?;
        slot.close();
        Some(slot)
    }

    /// Evicts the slots that nobody holds and nobody asked for in the last `idle_after`, and forgets decisions that
    /// lead nowhere. Says how many slots left.
    pub fn evict_idle(&self, now: UnixTime, idle_after: Duration) -> usize {
        let mut accounts = self.accounts();
        let left = accounts.close_idle(now.minus(idle_after));
        self.take_out(&left);
        self.sweep(|entry| now < entry.decision.allowed_until);
        accounts.settle();
        drop(accounts);
        self.tell(&left, "idle");
        left.len()
    }

    /// All open slots.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots
            .pin()
            .values()
            .filter(|slot| !slot.is_closed())
            .cloned()
            .collect()
    }

    /// The open slots whose tokens are obtained with this credential. Looks at all: for operators.
    pub fn slots_of(&self, credential: &CredentialKey) -> Vec<Arc<Slot>> {
        let pinned = self.slots.pin();
        let of = pinned
            .iter()
            .filter(|(key, _)| key.credential == *credential);
        of.map(|(_, slot)| slot)
            .filter(|slot| !slot.is_closed())
            .cloned()
            .collect()
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True when it holds none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many decisions it remembers.
    pub fn decisions(&self) -> usize {
        self.asks.len()
    }

    fn accounts(&self) -> std::sync::MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes closed slots out of the index, and never a successor under the same key.
    fn take_out(&self, left: &[Arc<Slot>]) {
        let pinned = self.slots.pin();
        for slot in left {
            // An error says that a successor is there; it stays.
            let _ = pinned.remove_if(slot.key(), |_, held| Arc::ptr_eq(held, slot));
        }
    }

    /// Forgets the decisions that `keep` does not want, and those that lead to closed slots; with `accounts` locked, so
    /// each is given back once.
    fn sweep(&self, keep: impl Fn(&Entry) -> bool) {
        self.asks.pin().retain(|_, entry| {
            let kept = !entry.slot.is_closed() && keep(entry);
            if !kept {
                entry.asks.fetch_sub(1, Ordering::Relaxed);
            }
            kept
        });
    }

    fn tell(&self, left: &[Arc<Slot>], why: &'static str) {
        for slot in left {
            self.observer.observe(&Event::KeyEvicted {
                key: slot.key().clone(),
                why,
            });
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
