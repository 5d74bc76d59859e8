//! The caches: any number of tokens by key, each looked at for its end.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use keyfob::cache::CoarseClock;
use keyfob::model::policy::TokenRequest;
use keyfob_benches::cached::{self, Cached, Plain};
use keyfob_benches::peers::caches::{Ends, Held};
use quick_cache::UnitWeighter;

use super::Rows;

/// The caches, each with the same tokens under the same keys.
pub struct Caches {
    ours: Cached,
    plain: Plain,
    locked: RwLock<HashMap<Box<str>, Arc<Held>, RandomState>>,
    dashmap: DashMap<Box<str>, Arc<Held>, RandomState>,
    papaya: papaya::HashMap<Box<str>, Arc<Held>, RandomState>,
    quick: quick_cache::sync::Cache<Box<str>, Arc<Held>, UnitWeighter, RandomState>,
    moka: moka::sync::Cache<Box<str>, Arc<Held>, RandomState>,
}

// === impl Caches ===

impl Caches {
    pub fn new(keys: usize) -> Self {
        let ours = Cached::new(keys);
        let hasher = RandomState::default;
        let mut caches = Self {
            plain: ours.plain(),
            locked: RwLock::new(HashMap::with_capacity_and_hasher(keys, hasher())),
            dashmap: DashMap::with_capacity_and_hasher(keys, hasher()),
            papaya: papaya::HashMap::with_capacity_and_hasher(keys, hasher()),
            // With room for twice as many: nothing is evicted while it is looked up.
            quick: quick_cache::sync::Cache::with(
                keys * 2,
                keys as u64 * 2,
                UnitWeighter,
                hasher(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            moka: moka::sync::Cache::builder()
                .max_capacity(keys as u64 * 2)
                .expire_after(Ends)
                .build_with_hasher(hasher()),
            ours,
        };
        let locked = caches.locked.get_mut().expect("nobody else has it");
        for (number, slot) in caches.ours.slots.iter().enumerate() {
            let token = slot.current().expect("each has one");
            let held = Arc::new(Held {
                header: token.header().clone(),
                expires: token.expires(),
            });
            let key: Box<str> = cached::subject(number).into();
            locked.insert(key.clone(), Arc::clone(&held));
            caches.dashmap.insert(key.clone(), Arc::clone(&held));
            caches.papaya.pin().insert(key.clone(), Arc::clone(&held));
            caches.quick.insert(key.clone(), Arc::clone(&held));
            caches.moka.insert(key, held);
        }
        caches.moka.run_pending_tasks();
        caches
    }

    /// First those that lend, then those that share.
    pub fn rows(&self, rows: &mut impl Rows) {
        let Self { ours, .. } = self;
        let latest = || CoarseClock::Kernel.latest();
        rows.row("floor: unsynchronised hashbrown, borrow", |request| {
            let (expires, token) = self.plain.get(key(request)).expect("all are there");
            assert!(latest() < *expires);
            token.as_ptr().addr()
        });
        rows.row("keyfob, Cache::with (borrow)", |request| {
            let epoch = ours.epoch.current();
            let borrowed = ours
                .cache
                .with(&ours.caller, request, epoch, latest(), |token, _| {
                    std::ptr::from_ref(token.header()).addr()
                });
            borrowed.expect("all are fresh")
        });
        rows.row("papaya, borrow", |request| {
            let pinned = self.papaya.pin();
            lend(pinned.get(key(request)))
        });
        rows.row("dashmap, borrow", |request| {
            lend(self.dashmap.get(key(request)).as_deref())
        });
        rows.row("RwLock<HashMap>, borrow", |request| {
            let locked = self.locked.read().expect("nobody panics");
            lend(locked.get(key(request)))
        });
        rows.row("floor: unsynchronised hashbrown, clone", |request| {
            let (expires, token) = self.plain.get(key(request)).expect("all are there");
            (latest() < *expires).then(|| Arc::clone(token))
        });
        rows.row("keyfob, Cache::lookup (clone)", |request| {
            let epoch = ours.epoch.current();
            ours.cache.lookup(&ours.caller, request, epoch, latest())
        });
        rows.row("papaya, clone", |request| {
            let pinned = self.papaya.pin();
            share(pinned.get(key(request)))
        });
        rows.row("dashmap, clone", |request| {
            share(self.dashmap.get(key(request)).as_deref())
        });
        rows.row("RwLock<HashMap>, clone", |request| {
            let locked = self.locked.read().expect("nobody panics");
            share(locked.get(key(request)))
        });
        rows.row("quick_cache, get (clones)", |request| {
            let held = self.quick.get(key(request));
            held.filter(|held| held.is_fresh(latest()))
        });
        rows.row("moka, get (clones; looks at the end itself)", |request| {
            self.moka.get(key(request)).expect("all are fresh")
        });
    }
}

/// What the caches are asked by.
#[inline]
fn key(request: &TokenRequest) -> &str {
    let subject = request.subject.as_ref();
    subject.map_or("", |subject| subject.as_str())
}

#[inline]
fn lend(held: Option<&Arc<Held>>) -> usize {
    let held = held.expect("all are there");
    assert!(held.is_fresh(CoarseClock::Kernel.latest()));
    std::ptr::from_ref(&held.header).addr()
}

#[inline]
fn share(held: Option<&Arc<Held>>) -> Option<Arc<Held>> {
    let held = held.expect("all are there");
    held.is_fresh(CoarseClock::Kernel.latest())
        .then(|| Arc::clone(held))
}
