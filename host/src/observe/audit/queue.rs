//! Between those who tell of events and the one thread that writes: nobody waits, and what finds no room is counted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::entry::{LOST, Record, SUPPRESSED};
use crate::model::time::UnixTime;

/// Records that may wait: seconds of a busy daemon while a disk hangs. One has some hundred bytes, and with the longest
/// words there are 20 KiB, which makes 20 MiB at the very worst.
pub(super) const WAITING_MAX: usize = 1024;
/// What callers alone may bring about in one second. Whoever is denied in a loop must not push older entries out: at this
/// rate and 450 bytes each, the default of nine files of 64 MiB lasts for 18 hours.
pub(super) const LIMITED_PER_SECOND: u64 = 20;
/// After how long the number of those beyond is written, when nothing else happens: their second is over by then.
const TELL_SUPPRESSED_AFTER: Duration = Duration::from_secs(1);

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Held for a push or to take everything, never while anything is written.
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Record>,
    /// Since records are lost, and how many.
    lost: Option<(UnixTime, u64)>,
    /// The second that limited records are counted in, how many it had, and how many of them are not written.
    second: u64,
    in_second: u64,
    suppressed: u64,
    /// The last record; after it nothing is taken.
    last: Option<Record>,
    ended: bool,
}

// === impl Queue ===

impl Queue {
    /// Puts a record in, or counts it as lost.
    pub(super) fn push(&self, record: Record, now: UnixTime) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        state.push(record, now);
        drop(state);
        self.woken.notify_one();
    }

    /// Puts a record in that a second may have some of only.
    pub(super) fn push_limited(&self, record: Record, now: UnixTime) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        if state.second != now.as_secs() {
            state.settle_suppressed(now);
            (state.second, state.in_second) = (now.as_secs(), 0);
        }
        state.in_second += 1;
        if state.in_second > LIMITED_PER_SECOND {
            state.suppressed += 1;
        } else {
            state.push(record, now);
        }
        drop(state);
        self.woken.notify_one();
    }

    /// Puts the last record in, for which there always is room.
    pub(super) fn end(&self, last: Record) {
        let mut state = self.lock();
        if !state.ended {
            state.ended = true;
            state.last = Some(last);
        }
        drop(state);
        self.woken.notify_one();
    }

    /// Waits for records and takes all of them, with what was lost after them; nothing once the last was taken.
    pub(super) fn take(&self, now: impl Fn() -> UnixTime) -> Vec<Record> {
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.ended {
            if state.suppressed == 0 {
                state = self
                    .woken
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let waited = self.woken.wait_timeout(state, TELL_SUPPRESSED_AFTER);
            let (next, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() {
                state.settle_suppressed(now());
            }
        }
        state.take(now())
    }

    /// Takes what is there, without waiting.
    pub(super) fn take_now(&self, now: UnixTime) -> Vec<Record> {
        self.lock().take(now)
    }

    /// Waits this long, or until the end: true then.
    pub(super) fn pause(&self, span: Duration) -> bool {
        let state = self.lock();
        let waited = self
            .woken
            .wait_timeout_while(state, span, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn push(&mut self, record: Record, now: UnixTime) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(record);
        } else {
            self.lost.get_or_insert((now, 0)).1 += 1;
        }
    }

    /// Turns the number of what was held back into a record.
    fn settle_suppressed(&mut self, now: UnixTime) {
        if self.suppressed > 0 && self.waiting.len() < WAITING_MAX {
            let record = Record::new(now, SUPPRESSED).number("count", self.suppressed);
            self.waiting.push(record);
            self.suppressed = 0;
        }
    }

    fn take(&mut self, now: UnixTime) -> Vec<Record> {
        let mut taken = std::mem::take(&mut self.waiting);
        // Whatever was lost came after all of these: they are what left no room for it.
        if let Some((since, count)) = self.lost.take() {
            let lost = Record::new(now, LOST).number("count", count);
            taken.push(lost.number("since", since.as_millis()));
        }
        if self.ended {
            self.settle_suppressed(now);
            taken.append(&mut self.waiting);
            taken.extend(self.last.take());
        }
        taken
    }
}
