//! The index: key → slot, and (caller, request) → slot with the decision that allows it.
//!
//! Both maps are read without a lock and written rarely: a renewed token changes its slot, never the index. A hit is one
//! guard, one hash, one probe and a few words: no lock, and no count that another thread counts too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use scc::Guard;

use super::accounts::{Accounts, Full, Left};
use super::ask::{Ask, AskRef, Keyed, Remembered};
use super::decision::Decision;
use super::slot::Slot;
use crate::model::event::{Event, Observer};
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::model::token::{AccessToken, SlotId};

type Map<K, V> = scc::HashIndex<K, V, foldhash::quality::RandomState>;

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
    slots: Map<Keyed, ()>,
    /// Remembered decisions. Written with `accounts` locked.
    asks: Map<Ask, Remembered>,
    /// How many `slots` there are: the map would count them all. Written with `accounts` locked, like the next.
    keys: AtomicUsize,
    /// How many `asks` there are.
    decisions: AtomicUsize,
    /// The book of who brought in what; serializes every change of the two maps. Taken when a key or a decision is new
    /// or leaves; never held across `.await`. Slots' cells are taken while it is held, never the other way round.
    accounts: Mutex<Accounts>,
    next_slot: AtomicU64,
    limits: CacheLimits,
    observer: Arc<dyn Observer>,
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
            keys: AtomicUsize::new(0),
            decisions: AtomicUsize::new(0),
            accounts: Mutex::default(),
            next_slot: AtomicU64::new(1),
            limits,
            observer,
        }
    }

    /// Shows `read` the token of a caller's request, if a decision is remembered that holds under the policy `epoch` and the
    /// token needs nothing: the fastest way to a token by key. `None` means: ask [`Cache::lookup`].
    ///
    /// Takes no lock, counts no reference, allocates nothing. What `read` is shown ends when it returns; it runs under a guard
    /// that keeps memory from being freed, so it must not wait.
    #[inline]
    pub fn with<R>(
        &self,
        principal: &Principal,
        request: &TokenRequest,
        epoch: u32,
        now: UnixTime,
        read: impl FnOnce(&Arc<AccessToken>, Decision) -> R,
    ) -> Option<R> {
        let guard = Guard::new();
        let ask = AskRef { principal, request };
        self.asks.peek_with(&ask, |Ask { slot, .. }, known| {
            let decision = known.decision();
            if !decision.holds(epoch, now) {
                return None;
            }
            slot.touch(now);
            let token = slot.fresh(now, request.min_validity, &guard)?;
            Some(read(&token, decision))
        })?
    }

    /// What this caller's request led to before, while the decision holds under the policy `epoch`. `None` means:
    /// authorize, then [`Cache::remember`].
    ///
    /// Takes no lock and allocates nothing.
    #[inline]
    pub fn lookup(
        &self,
        principal: &Principal,
        request: &TokenRequest,
        epoch: u32,
        now: UnixTime,
    ) -> Option<Hit> {
        let guard = Guard::new();
        let ask = AskRef { principal, request };
        self.asks.peek_with(&ask, |Ask { slot, .. }, known| {
            let decision = known.decision();
            if !decision.holds(epoch, now) || slot.is_closed() {
                return None;
            }
            slot.touch(now);
            Some(match slot.fresh(now, request.min_validity, &guard) {
                Some(token) => Hit::Fresh {
                    token: Arc::clone(&token),
                    max_lifetime: decision.max_lifetime,
                },
                None => Hit::Known {
                    slot: Arc::clone(slot),
                    decision,
                },
            })
        })?
    }

    /// The key's open slot.
    pub fn slot(&self, key: &TokenKey) -> Option<Arc<Slot>> {
        self.slots.peek_with(key, |Keyed(slot), ()| {
            (!slot.is_closed()).then(|| Arc::clone(slot))
        })?
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
        let (subject, place) = (key.credential.subject.clone(), accounts.place(key));
        let slot = Arc::new(Slot::new(id, subject, place, now));
        self.bring_in(&slot);
        accounts.enter(caller, Arc::clone(&slot));
        drop(accounts);
        self.tell(&left, "full");
        Ok(slot)
    }

    /// Remembers a decision, so that the next request like this one is a hit. Says whether it did: where there is no room, or
    /// `slot` is not of this request's key, the caller is authorized each time, and nothing else changes.
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
        if !ask.may_lead_to(slot) {
            return false;
        }
        let mut accounts = self.accounts();
        let known = self.asks.peek_with(&ask, |old, held| (old.clone(), *held));
        let owned = match known {
            // Callers who missed together were authorized together: the first of them is enough.
            Some((old, held)) if held.outlasts(Arc::ptr_eq(&old.slot, slot), decision) => {
                return true;
            }
            Some((old, _)) => {
                // Whoever looks before the next line authorizes again, as this caller did.
                self.asks.remove_sync(&ask);
                old.leading_to(slot)
            }
            None => {
                if !self.has_room_for(principal, &mut accounts, now) {
                    return false;
                }
                self.decisions.fetch_add(1, Ordering::Relaxed);
                ask.to_owned(accounts.routes(principal), slot)
            }
        };
        // There is none of this key now, and `accounts` is locked.
        let _ = self.asks.insert_sync(owned, Remembered::new(decision));
        true
    }

    /// Whether one more decision of this caller's may be remembered; those that are over make room.
    fn has_room_for(&self, caller: &Principal, accounts: &mut Accounts, now: UnixTime) -> bool {
        let per_caller = self.limits.keys_per_caller_max.saturating_mul(ASKS_PER_KEY);
        let in_all = self.limits.keys_max.saturating_mul(ASKS_PER_KEY);
        let full = |accounts: &mut Accounts| {
            accounts.routes(caller).decisions() >= per_caller || self.decisions() >= in_all
        };
        if full(accounts) && accounts.may_sweep(now) {
            self.sweep(accounts, |decision| now < decision.allowed_until);
        }
        !full(accounts)
    }

    /// Forgets the decisions of every policy before `epoch`. They hold no longer in any case; this frees their room.
    pub fn forget_before(&self, epoch: u32) {
        let mut accounts = self.accounts();
        self.sweep(&mut accounts, |decision| decision.epoch >= epoch);
        accounts.settle();
    }

    /// Ends a key: its slot is closed for every handle, and the next request makes a new one.
    pub fn remove(&self, key: &TokenKey) -> Option<Arc<Slot>> {
        // Comes off the books when they are next settled; until then it counts, which errs on the safe side.
        let accounts = self.accounts();
        let slot = self
            .slots
            .peek_with(key, |Keyed(slot), ()| Arc::clone(slot))?;
        if self.slots.remove_sync(key) {
            self.keys.fetch_sub(1, Ordering::Relaxed);
        }
        let token = slot.take_down();
        drop(accounts);
        drop(token);
        Some(slot)
    }

    /// Evicts the slots that nobody holds and nobody asked for in the last `idle_after`, and forgets decisions that
    /// lead nowhere. Says how many slots left. Looks at all, so with many it takes a while: not for an async worker.
    pub fn evict_idle(&self, now: UnixTime, idle_after: Duration) -> usize {
        let mut accounts = self.accounts();
        let left = accounts.close_idle(now.minus(idle_after));
        self.take_out(&left);
        self.sweep(&mut accounts, |decision| now < decision.allowed_until);
        accounts.settle();
        drop(accounts);
        self.tell(&left, "idle");
        left.len()
    }

    /// All open slots.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.open(|_| true)
    }

    /// The open slots whose tokens are obtained with this credential. Looks at all: for operators.
    pub fn slots_of(&self, credential: &CredentialKey) -> Vec<Arc<Slot>> {
        self.open(|slot| slot.is_of(credential))
    }

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// True when it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many decisions it remembers.
    pub fn decisions(&self) -> usize {
        self.decisions.load(Ordering::Relaxed)
    }

    fn accounts(&self) -> std::sync::MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open slots that `wanted` wants.
    fn open(&self, wanted: impl Fn(&Slot) -> bool) -> Vec<Arc<Slot>> {
        let mut found = Vec::new();
        self.slots.iter_sync(|Keyed(slot), ()| {
            if !slot.is_closed() && wanted(slot) {
                found.push(Arc::clone(slot));
            }
            true
        });
        found
    }

    /// Brings a slot in under its key, in place of a closed one; with `accounts` locked.
    fn bring_in(&self, slot: &Arc<Slot>) {
        if !self.slots.remove_sync(&slot.key()) {
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
        let _ = self.slots.insert_sync(Keyed(Arc::clone(slot)), ());
    }

    /// Takes closed slots out of the index, and never a successor under the same key; with `accounts` locked.
    fn take_out(&self, left: &[Left]) {
        for (slot, _) in left {
            let key = slot.key();
            let held = self
                .slots
                .peek_with(&key, |Keyed(held), ()| Arc::ptr_eq(held, slot));
            if held == Some(true) && self.slots.remove_sync(&key) {
                self.keys.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Forgets the decisions that `keep` does not want, and those that lead to closed slots; each is given back to the
    /// account of whoever asked.
    fn sweep(&self, accounts: &mut Accounts, keep: impl Fn(Decision) -> bool) {
        self.asks.retain_sync(|ask, known| {
            let kept = !ask.slot.is_closed() && keep(known.decision());
            if !kept {
                accounts.routes(ask.principal()).leave(ask);
                self.decisions.fetch_sub(1, Ordering::Relaxed);
            }
            kept
        });
    }

    fn tell(&self, left: &[Left], why: &'static str) {
        for (slot, _) in left {
            self.observer.observe(&Event::KeyEvicted {
                key: slot.key(),
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
