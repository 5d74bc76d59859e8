//! Who watches which key, and what each of them has not looked at yet.
//!
//! Whoever changes a key rings for it; a watcher that was rung for looks at the key again. What it finds is what is so
//! then, not what was when it was rung for: changes that a slow watcher missed leave one mark, however many they were, and
//! the last one is never lost. Changing comes before ringing, and putting a bell up before looking: whichever of the two
//! takes the lock second sees what the other did.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::key::{Tenant, TokenKey};
use crate::model::policy::Principal;

/// Watches of one caller at once: a few for each instance of a service. Each is a connection, or as much memory as one.
pub(crate) const WATCHES_PER_CALLER_MAX: usize = 256;

/// Keys of all watches of one caller together: a change of policy makes each be looked at again.
pub(crate) const WATCHED_PER_CALLER_MAX: usize = 16_384;

/// Every watch.
#[derive(Default)]
pub(crate) struct Watchers {
    /// Held for putting a bell up, taking it down, or ringing; a bell's marks are taken while it is held, nothing else. Not
    /// held across an await.
    put_up: Mutex<PutUp>,
}

#[derive(Default)]
struct PutUp {
    by_key: HashMap<TokenKey, Vec<(Arc<Bell>, usize)>>,
    /// Once for each watch.
    all: Vec<Arc<Bell>>,
    by_caller: HashMap<(Tenant, String), Watching>,
}

/// What one caller watches.
#[derive(Default)]
struct Watching {
    watches: usize,
    keys: usize,
}

/// What rings for one watch.
pub(crate) struct Bell {
    /// Held for setting marks or taking them; nothing is taken while it is held.
    marks: Mutex<Marks>,
    rung: Notify,
}

#[derive(Default)]
struct Marks {
    /// Numbers of keys to look at, each once, in the order in which they were first rung for.
    keys: VecDeque<usize>,
    /// By number, whether it is among `keys`.
    marked: Vec<bool>,
}

// === impl Watchers ===

impl Watchers {
    /// Puts up a bell for a watch of `keys` keys, which rings for none of them yet; `None` when the caller has too many.
    pub(crate) fn enter(&self, caller: &Principal, keys: usize) -> Option<Arc<Bell>> {
        let mut put_up = self.lock();
        let caller = (caller.tenant().clone(), caller.name().to_owned());
        let own = put_up.by_caller.entry(caller).or_default();
        if own.watches >= WATCHES_PER_CALLER_MAX || own.keys + keys > WATCHED_PER_CALLER_MAX {
            return None;
        }
        own.watches += 1;
        own.keys += keys;
        let bell = Arc::new(Bell::new(keys));
        put_up.all.push(bell.clone());
        Some(bell)
    }

    /// Takes a bell down that rings for these keys.
    pub(crate) fn leave<'k>(
        &self,
        caller: &Principal,
        bell: &Arc<Bell>,
        keys: impl Iterator<Item = &'k TokenKey>,
    ) {
        let mut put_up = self.lock();
        keys.for_each(|key| put_up.take_down(key, |held, _| Arc::ptr_eq(held, bell)));
        put_up.all.retain(|held| !Arc::ptr_eq(held, bell));
        let caller = (caller.tenant().clone(), caller.name().to_owned());
        if let Entry::Occupied(mut own) = put_up.by_caller.entry(caller) {
            own.get_mut().watches -= 1;
            own.get_mut().keys -= bell.keys();
            if own.get().watches == 0 {
                own.remove();
            }
        }
    }

    /// From now on the bell rings for this key under this number, and no more for another one.
    pub(crate) fn ring_for(
        &self,
        bell: &Arc<Bell>,
        number: usize,
        key: &TokenKey,
        instead_of: Option<&TokenKey>,
    ) {
        let mut put_up = self.lock();
        if let Some(other) = instead_of {
            put_up.take_down(other, |held, of| Arc::ptr_eq(held, bell) && of == number);
        }
        let bells = put_up.by_key.entry(key.clone()).or_default();
        bells.push((bell.clone(), number));
    }

    /// Something about this key changed.
    pub(crate) fn changed(&self, key: &TokenKey) {
        let put_up = self.lock();
        for (bell, number) in put_up.by_key.get(key).into_iter().flatten() {
            bell.ring(*number);
        }
    }

    /// Something about every key may have changed.
    pub(crate) fn everything_changed(&self) {
        self.lock().all.iter().for_each(|bell| bell.ring_for_all());
    }

    fn lock(&self) -> MutexGuard<'_, PutUp> {
        self.put_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl PutUp ===

impl PutUp {
    fn take_down(&mut self, key: &TokenKey, which: impl Fn(&Arc<Bell>, usize) -> bool) {
        if let Some(bells) = self.by_key.get_mut(key) {
            bells.retain(|(bell, number)| !which(bell, *number));
            if bells.is_empty() {
                self.by_key.remove(key);
            }
        }
    }
}

// === impl Bell ===

impl Bell {
    /// For so many keys, none of which was looked at.
    fn new(keys: usize) -> Self {
        let marks = Marks {
            keys: (0..keys).collect(),
            marked: vec![true; keys],
        };
        Self {
            marks: Mutex::new(marks),
            rung: Notify::new(),
        }
    }

    /// Marks a key to be looked at.
    pub(crate) fn ring(&self, number: usize) {
        self.marks().mark(number);
        self.rung.notify_one();
    }

    fn ring_for_all(&self) {
        let mut marks = self.marks();
        (0..marks.marked.len()).for_each(|number| marks.mark(number));
        drop(marks);
        self.rung.notify_one();
    }

    /// The next key to look at, and no mark on it any more.
    pub(crate) fn next(&self) -> Option<usize> {
        let mut marks = self.marks();
        let number = marks.keys.pop_front()?;
        marks.marked[number] = false;
        Some(number)
    }

    /// How many keys it is for.
    fn keys(&self) -> usize {
        self.marks().marked.len()
    }

    /// Returns once it rang after the last look; may return without need.
    pub(crate) async fn rung(&self) {
        self.rung.notified().await;
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Marks ===

impl Marks {
    fn mark(&mut self, number: usize) {
        if !std::mem::replace(&mut self.marked[number], true) {
            self.keys.push_back(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::key::{CredentialKey, ProviderName, ScopeSet, Subject};

    fn key(subject: &str) -> TokenKey {
        TokenKey {
            credential: CredentialKey {
                tenant: Tenant::default(),
                provider: ProviderName::parse("acme").unwrap(),
                subject: Subject::parse(subject).ok(),
            },
            audience: None,
            scopes: ScopeSet::default(),
        }
    }

    fn caller() -> Principal {
        Principal::new("a", Tenant::default(), Vec::new())
    }

    fn marks(bell: &Bell) -> Vec<usize> {
        std::iter::from_fn(|| bell.next()).collect()
    }

    #[test]
    fn however_often_a_key_changes_it_is_looked_at_once() {
        let watchers = Watchers::default();
        let bell = watchers.enter(&caller(), 3).unwrap();
        assert_eq!(marks(&bell), [0, 1, 2], "the first look is at all");
        for (number, name) in ["x", "y", "x"].into_iter().enumerate() {
            watchers.ring_for(&bell, number, &key(name), None);
        }
        for _ in 0..1_000_000 {
            watchers.changed(&key("y"));
        }
        watchers.changed(&key("nobody's"));
        watchers.changed(&key("x"));
        assert_eq!(marks(&bell), [1, 0, 2]);
        watchers.everything_changed();
        watchers.changed(&key("x"));
        assert_eq!(marks(&bell), [0, 1, 2]);
    }

    #[test]
    fn a_change_while_a_key_is_looked_at_leaves_a_new_mark() {
        let watchers = Watchers::default();
        let bell = watchers.enter(&caller(), 1).unwrap();
        watchers.ring_for(&bell, 0, &key("x"), None);
        assert_eq!(bell.next(), Some(0));
        watchers.changed(&key("x"));
        assert_eq!(bell.next(), Some(0));
        assert_eq!(bell.next(), None);
    }

    #[test]
    fn a_key_that_is_watched_no_more_rings_no_more() {
        let watchers = Watchers::default();
        let bell = watchers.enter(&caller(), 1).unwrap();
        marks(&bell);
        watchers.ring_for(&bell, 0, &key("x"), None);
        watchers.ring_for(&bell, 0, &key("y"), Some(&key("x")));
        watchers.changed(&key("x"));
        assert_eq!(marks(&bell), [0; 0]);
        watchers.changed(&key("y"));
        assert_eq!(marks(&bell), [0]);
        watchers.leave(&caller(), &bell, [key("y")].iter());
        watchers.changed(&key("y"));
        watchers.everything_changed();
        assert_eq!(marks(&bell), [0; 0]);
        let put_up = watchers.lock();
        assert!(put_up.by_key.is_empty() && put_up.all.is_empty() && put_up.by_caller.is_empty());
    }

    #[test]
    fn a_caller_has_so_many_watches_and_no_more() {
        let watchers = Watchers::default();
        let bells: Vec<_> = (0..WATCHES_PER_CALLER_MAX)
            .map(|_| watchers.enter(&caller(), 1).unwrap())
            .collect();
        assert!(watchers.enter(&caller(), 1).is_none());
        let other = Principal::new("b", Tenant::default(), Vec::new());
        assert!(watchers.enter(&other, 1).is_some());
        watchers.leave(&caller(), &bells[0], std::iter::empty());
        assert!(watchers.enter(&caller(), 1).is_some());
    }
}
