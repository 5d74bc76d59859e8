//! Who brought which keys in, and who has to leave when there is no room for another.
//!
//! Written when a key or a decision is new, never on a hit; the index holds it behind one mutex.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::ask::Routes;
use super::place::{Place, Places};
use super::slot::{Retired, Slot};
use crate::model::key::{Tenant, TokenKey};
use crate::model::policy::Principal;
use crate::model::time::UnixTime;

/// One in this many leaves when room is needed: looking for the most idle looks at all, and is paid once for as many
/// new keys as leave.
const LEAVE_ONE_IN: usize = 64;
/// After a look that found nobody who can leave, this long nobody looks again: a caller without room must not make the
/// cache search itself for every request.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// Whose quota was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The caller's own: nothing of its making is idle enough to leave.
    Caller,
    /// The cache's.
    Cache,
}

/// A caller, whatever attributes it came with.
#[derive(PartialEq, Eq, Hash)]
struct Caller(Tenant, Box<str>);

/// A slot that was closed to make room, and the token it had: the latter is dropped once the books are no longer held, for it
/// may take a while to be out of everybody's sight.
pub(super) type Left = (Arc<Slot>, Retired);

/// What one caller takes up.
#[derive(Default)]
pub(super) struct Account {
    slots: Vec<Arc<Slot>>,
    /// What its remembered decisions have in common, and how many there are.
    routes: Routes,
    /// Nobody can leave before this.
    searched_until: UnixTime,
}

/// All accounts.
#[derive(Default)]
pub(super) struct Accounts {
    by_caller: HashMap<Caller, Account, foldhash::quality::RandomState>,
    places: Places,
    keys: usize,
    searched_until: UnixTime,
    swept_until: UnixTime,
}

// === impl Accounts ===

impl Accounts {
    /// The caller's account, opened if need be.
    fn of(&mut self, caller: &Principal) -> &mut Account {
        let caller = Caller(caller.tenant().clone(), caller.name().into());
        self.by_caller.entry(caller).or_default()
    }

    /// Makes room for one more key of this caller; the closed slots are to be taken out of the index.
    pub(super) fn make_room(
        &mut self,
        caller: &Principal,
        (keys_max, keys_per_caller_max): (usize, usize),
        now: UnixTime,
    ) -> Result<Vec<Left>, Full> {
        let caller = Caller(caller.tenant().clone(), caller.name().into());
        let account = self.by_caller.entry(caller).or_default();
        if account.slots.len() >= keys_per_caller_max {
            if now < account.searched_until {
                return Err(Full::Caller);
            }
            let left = close_most_idle(account.slots.iter(), account.slots.len());
            self.keys -= account.settle();
            if account.slots.len() >= keys_per_caller_max {
                account.searched_until = now.plus(SEARCH_PAUSE);
                return Err(Full::Caller);
            }
            return Ok(left);
        }
        if self.keys >= keys_max {
            if now < self.searched_until {
                return Err(Full::Cache);
            }
            let all = self.by_caller.values().flat_map(|account| &account.slots);
            let left = close_most_idle(all, self.keys);
            self.settle();
            if self.keys >= keys_max {
                self.searched_until = now.plus(SEARCH_PAUSE);
                return Err(Full::Cache);
            }
            return Ok(left);
        }
        Ok(Vec::new())
    }

    /// Enters a new key under the caller who brought it in.
    pub(super) fn enter(&mut self, caller: &Principal, slot: Arc<Slot>) {
        self.of(caller).slots.push(slot);
        self.keys += 1;
    }

    /// The place of this key, which all slots of it share.
    pub(super) fn place(&mut self, key: &TokenKey) -> Arc<Place> {
        self.places.of(key)
    }

    /// The routes that the caller asked by.
    pub(super) fn routes(&mut self, caller: &Principal) -> &mut Routes {
        &mut self.of(caller).routes
    }

    /// Whether a sweep for room may be made now: like a search, one a pause.
    pub(super) fn may_sweep(&mut self, now: UnixTime) -> bool {
        let may = now >= self.swept_until;
        if may {
            self.swept_until = now.plus(SEARCH_PAUSE);
        }
        may
    }

    /// Closes every slot that nobody holds and nobody asked for since `before`; [`Accounts::settle`] takes them off.
    pub(super) fn close_idle(&mut self, before: UnixTime) -> Vec<Left> {
        let all = self.by_caller.values().flat_map(|account| &account.slots);
        all.filter(|slot| !slot.is_closed() && slot.idle_since() < before)
            .filter_map(close)
            .collect()
    }

    /// Takes closed slots off the books, and accounts and places that hold nothing.
    pub(super) fn settle(&mut self) {
        self.by_caller.retain(|_, account| {
            self.keys -= account.settle();
            !account.slots.is_empty() || account.routes.decisions() > 0
        });
        self.places.settle();
    }
}

// === impl Account ===

impl Account {
    /// Takes closed slots off the account; says how many.
    fn settle(&mut self) -> usize {
        let before = self.slots.len();
        self.slots.retain(|slot| !slot.is_closed());
        before - self.slots.len()
    }
}

/// Closes a slot unless somebody holds on to it.
fn close(slot: &Arc<Slot>) -> Option<Left> {
    let token = slot.close_unless_pinned()?;
    Some((Arc::clone(slot), token))
}

/// Closes the most idle of those that nobody holds on to: one in [`LEAVE_ONE_IN`] of all, at least one if any can.
fn close_most_idle<'a>(slots: impl Iterator<Item = &'a Arc<Slot>>, all: usize) -> Vec<Left> {
    let idle = slots.filter(|slot| slot.pins() == 0 && !slot.is_closed());
    // The times are read once: sorting by what others change would be no order.
    let mut idle: Vec<_> = idle
        .map(|slot| (slot.idle_since(), slot.id(), slot))
        .collect();
    let wanted = (all / LEAVE_ONE_IN).max(1);
    if idle.len() > wanted {
        idle.select_nth_unstable_by_key(wanted, |(since, id, _)| (*since, *id));
        idle.truncate(wanted);
    }
    let left = idle.into_iter().filter_map(|(.., slot)| close(slot));
    left.collect()
}
