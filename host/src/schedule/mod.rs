//! Wakes keys before their tokens end, and no more of them at once than a provider can take.
//!
//! Here belongs when: the wheel of due times, the queue of due keys, and each provider's budget. Not here: the time at
//! which a token is due (`model::freshness`), and renewing it (`refresh`, through [`Refresher`]).
//!
//! An entry names a slot and a time. It is valid while the slot still names that time: planning anew is storing
//! another time, and nothing has to be found and removed.

mod budget;
mod budgets;
mod latency;
mod pace;
mod queue;
mod ready;
mod wheel;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

pub use self::budget::{Budget, Limits, Load, NoTicket, QUEUE_MAX, Ticket};
pub use self::budgets::Budgets;
pub use self::queue::{Bid, Lane};
use self::ready::Ready;
use self::wheel::Wheel;
use crate::cache::{Nudge, PolicyEpoch, Slot};
use crate::model::key::{ProviderName, Tenant};
use crate::model::time::{Clock, UnixTime};

/// The most entries, valid or not: two for every key there can be. A key that finds no room is renewed on demand.
const ENTRIES_MAX: usize = 2 * crate::cache::KEYS_MAX;
/// How long the loop sleeps at most. Sleeping is by a clock that stands still while the machine is suspended; looking
/// at the wall clock this often finds out.
const TICK: Duration = Duration::from_secs(1);
/// What is found due for longer than this was missed: the loop wakes when something is due, and every [`TICK`] anyway, so
/// the machine slept or the process was stopped. Longer, and as many seconds' worth of renewals would start at once.
const MISSED_AFTER: Duration = TICK;

/// Renews what is due.
pub trait Refresher: Nudge {
    /// How many more renewals of this tenant's tokens of a provider may be started now.
    fn room(&self, provider: &ProviderName, tenant: &Tenant) -> usize;

    /// Until when none may be, because the provider asked for a pause.
    fn paused(&self, provider: &ProviderName) -> Option<UnixTime>;

    /// When to renew a slot's token for which nothing can be done before `from`: what missed its moment comes spread over
    /// what is left, and not all at `from`. `None` when it ends before: then the next caller has it renewed.
    fn renewal_from(&self, slot: &Slot, from: UnixTime) -> Option<UnixTime>;
}

/// Knows what is due when.
pub struct Scheduler {
    /// Held for filing an entry or taking out what is due; never across `.await`, and nobody is woken while it is held.
    filed: Mutex<Filed>,
    /// Told when something was filed that is due before the loop would look.
    sooner: Notify,
    /// Told when a provider's ticket came back.
    freed: Arc<Notify>,
}

struct Filed {
    wheel: Wheel<Weak<Slot>>,
    /// What is due within this second, to the millisecond.
    soon: BinaryHeap<Reverse<Soon>>,
    /// What is due and waits for room.
    ready: Ready,
    next: u64,
}

/// An entry with an order: by time, then by arrival.
struct Soon {
    due: UnixTime,
    number: u64,
    slot: Weak<Slot>,
}

// === impl Scheduler ===

impl Scheduler {
    /// An empty one that starts at `now`.
    pub fn new(now: UnixTime) -> Self {
        let filed = Filed {
            wheel: Wheel::new(now),
            soon: BinaryHeap::new(),
            ready: Ready::default(),
            next: 0,
        };
        Self {
            filed: Mutex::new(filed),
            sooner: Notify::new(),
            freed: Arc::default(),
        }
    }

    /// To be told when a provider's ticket came back: what [`Budgets::new`] asks for.
    pub fn freed(&self) -> Arc<Notify> {
        Arc::clone(&self.freed)
    }

    /// Plans the renewal of a slot's token at `due`, in place of what was planned, and wakes it then. Says whether it
    /// will: without room, it is renewed when somebody asks.
    pub fn file(&self, slot: &Arc<Slot>, due: UnixTime) -> bool {
        slot.set_due(due);
        let mut filed = self.lock();
        if filed.len() >= ENTRIES_MAX {
            filed.wheel.compact(is_meant);
            if filed.len() >= ENTRIES_MAX {
                return false;
            }
        }
        let soon = filed.wheel.is_past(due);
        filed.put(due, Arc::downgrade(slot));
        drop(filed);
        if soon {
            self.sooner.notify_one();
        }
        true
    }

    /// How many entries it holds, valid or not.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True when it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wakes what is due, for as long as it is polled.
    ///
    /// # Cancel safety
    ///
    /// What was due and not yet handed over stays filed.
    pub async fn run(
        &self,
        refresher: Arc<dyn Refresher>,
        clock: Arc<dyn Clock>,
        epoch: PolicyEpoch,
    ) {
        loop {
            let now = clock.now();
            self.turn(&*refresher, epoch.current(), now);
            tokio::select! {
                () = tokio::time::sleep(self.pause(clock.now())) => {}
                () = self.sooner.notified() => {}
                () = self.freed.notified() => {}
            }
        }
    }

    /// Hands over what is due at `now` and has room.
    fn turn(&self, refresher: &dyn Refresher, epoch: u32, now: UnixTime) {
        let mut filed = self.lock();
        let missed = filed.collect(epoch, now);
        let lines = filed.ready.lines();
        drop(filed);
        self.file_anew(missed, refresher, now);
        // A renewal that was started a moment ago has no ticket yet, and another tenant must not be given it, too.
        let mut given = HashMap::<ProviderName, usize>::new();
        for line in lines {
            let (provider, tenant) = &line;
            if let Some(until) = refresher.paused(provider) {
                let due = self.lock().ready.take(&line, usize::MAX);
                self.file_anew(due, refresher, until);
                continue;
            }
            let given = given.entry(provider.clone()).or_default();
            let room = refresher.room(provider, tenant).saturating_sub(*given);
            let due = self.lock().ready.take(&line, room);
            *given += due.len();
            for slot in due {
                refresher.nudge(&slot);
            }
        }
    }

    /// Plans anew what cannot be renewed before `from`.
    fn file_anew(&self, slots: Vec<Arc<Slot>>, refresher: &dyn Refresher, from: UnixTime) {
        for slot in slots {
            if let Some(due) = refresher.renewal_from(&slot, from) {
                self.file(&slot, due);
            }
        }
    }

    /// Until the next entry of this second or the next second, whichever is sooner.
    fn pause(&self, now: UnixTime) -> Duration {
        let second = TICK - Duration::from_millis(now.as_millis() % 1000);
        match self.lock().soon.peek() {
            Some(Reverse(soon)) => soon.due.since(now).min(second),
            None => second,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Filed> {
        self.filed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("entries", &self.len())
            .finish_non_exhaustive()
    }
}

/// Whether a slot still names the time of an entry.
fn is_meant(due: UnixTime, slot: &Weak<Slot>) -> bool {
    slot.upgrade()
        .is_some_and(|slot| slot.due() == due && !slot.is_closed())
}

// === impl Filed ===

impl Filed {
    fn len(&self) -> usize {
        self.wheel.len() + self.soon.len() + self.ready.len()
    }

    fn put(&mut self, due: UnixTime, slot: Weak<Slot>) {
        if self.wheel.is_past(due) {
            self.next += 1;
            self.soon.push(Reverse(Soon {
                due,
                number: self.next,
                slot,
            }));
        } else {
            self.wheel.put(due, slot);
        }
    }

    /// Moves what is due to `ready`; answers with what missed its moment, to be planned anew. A key that nobody asked for,
    /// or that nobody may have now, is left to lapse: the next caller finds it due and renews it.
    fn collect(&mut self, epoch: u32, now: UnixTime) -> Vec<Arc<Slot>> {
        let mut missed = Vec::new();
        let Self {
            wheel,
            soon,
            next,
            ready,
        } = self;
        wheel.turn(now, is_meant, |due, slot| {
            *next += 1;
            soon.push(Reverse(Soon {
                due,
                number: *next,
                slot,
            }));
        });
        while soon.peek().is_some_and(|Reverse(soon)| soon.due <= now) {
            let Some(Reverse(entry)) = soon.pop() else {
                break;
            };
            let slot = entry.slot.upgrade().filter(|slot| slot.due() == entry.due);
            if let Some(slot) = slot.filter(|slot| slot.wants_renewal(epoch, now)) {
                if now.since(entry.due) > MISSED_AFTER {
                    missed.push(slot);
                } else {
                    ready.put(&slot, entry.due);
                }
            }
        }
        missed
    }
}

// === impl Soon ===

impl PartialEq for Soon {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl Eq for Soon {}

impl PartialOrd for Soon {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Soon {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

#[cfg(test)]
mod tests;
