//! Handles: a caller's own copy of one key's token, checked against a few words of its slot.
//!
//! The copy is good while its generation is the slot's, neither its end nor the permit's has come, policy is the same,
//! and nothing is due. Anything else takes the slow path, which reads the slot again. Waiting for a token is not done
//! here: `broker` does, when the answer is [`NotReady`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::coarse::CoarseClock;
use super::decision::{Decision, PolicyEpoch};
use super::slot::{NotReady, Pin, Slot};
use crate::model::freshness::Life;
use crate::model::time::UnixTime;
use crate::model::token::{AccessToken, Generation};
use crate::shim::{self, Mutex};

/// How often one handle asks for the renewal that is due: the first time starts it, the others only make sure.
const NUDGE_EVERY: Duration = Duration::from_millis(100);
/// The most copies of one shared handle; more threads than these share.
const COPIES_MAX: usize = 16;

/// Gets a renewal started.
pub trait Nudge: Send + Sync + 'static {
    /// The token of this slot is due: renew it unless that is under way or in back-off. Returns at once.
    fn nudge(&self, slot: &Arc<Slot>);
}

/// One key's token for one worker: clone it for each.
pub struct TokenHandle {
    pin: Pin,
    decision: Decision,
    epoch: PolicyEpoch,
    clock: CoarseClock,
    nudge: Arc<dyn Nudge>,
    held: Option<Held>,
}

/// One key's token for all threads: a copy for each of a few.
pub struct SharedTokenHandle {
    copies: Box<[OnItsOwnLine]>,
}

/// The worker's copy.
struct Held {
    generation: Generation,
    /// The earliest end of token and permit.
    until: UnixTime,
    /// Not to nudge again before this.
    quiet_until: UnixTime,
    token: Arc<AccessToken>,
}

/// Keeps the lock of one thread's copy off the line of another's. Held for one look at the copy.
#[repr(align(128))]
struct OnItsOwnLine(Mutex<TokenHandle>);

// === impl TokenHandle ===

impl TokenHandle {
    /// A handle to the slot that `pin` holds, for as long as `decision` holds.
    pub fn new(
        pin: Pin,
        decision: Decision,
        epoch: PolicyEpoch,
        clock: CoarseClock,
        nudge: Arc<dyn Nudge>,
    ) -> Self {
        pin.permit(decision.epoch, decision.allowed_until);
        Self {
            pin,
            decision,
            epoch,
            clock,
            nudge,
            held: None,
        }
    }

    /// The token, if it can be handed out now: a few words compared, no lock and no shared count touched.
    ///
    /// # Errors
    ///
    /// Why not; the handle stays usable.
    #[inline]
    pub fn get(&mut self) -> Result<&Arc<AccessToken>, NotReady> {
        let now = self.clock.latest();
        if !self.holds(now) {
            self.read_again(now)?;
        }
        self.held
            .as_ref()
            .map(|held| &held.token)
            .ok_or(NotReady::Absent)
    }

    /// Goes on under a new decision: after [`NotReady::Denied`], once authorized again.
    pub fn renew(&mut self, decision: Decision) {
        self.pin.permit(decision.epoch, decision.allowed_until);
        self.decision = decision;
        self.held = None;
    }

    /// The slot it reads.
    pub fn slot(&self) -> &Arc<Slot> {
        self.pin.slot()
    }

    /// The decision it goes by.
    pub fn decision(&self) -> Decision {
        self.decision
    }

    #[inline]
    fn holds(&self, now: UnixTime) -> bool {
        let Some(held) = &self.held else { return false };
        self.pin.is_current(held.generation, now)
            && now < held.until
            && (now < self.pin.due() || now < held.quiet_until)
            && self.epoch.current() == self.decision.epoch
    }

    /// Reads the slot: after each publish, and while a renewal is due.
    #[cold]
    fn read_again(&mut self, now: UnixTime) -> Result<(), NotReady> {
        // Whatever comes, the old copy is not kept: its memory is zeroed with the last of them.
        self.held = None;
        self.pin.touch(now);
        if !self.decision.holds(self.epoch.current(), now) {
            return Err(NotReady::Denied);
        }
        let token = self.pin.servable(now)?;
        let due = now >= self.pin.due();
        if due {
            self.nudge.nudge(self.pin.slot());
        }
        let life = Life {
            issued: token.issued(),
            expires: token.expires(),
        };
        self.held = Some(Held {
            generation: token.generation(),
            until: life.serve_until().min(self.decision.allowed_until),
            quiet_until: if due {
                now.plus(NUDGE_EVERY)
            } else {
                UnixTime::default()
            },
            token,
        });
        Ok(())
    }
}

impl Clone for TokenHandle {
    fn clone(&self) -> Self {
        Self {
            pin: self.pin.clone(),
            decision: self.decision,
            epoch: self.epoch.clone(),
            clock: self.clock.clone(),
            nudge: Arc::clone(&self.nudge),
            held: None,
        }
    }
}

impl std::fmt::Debug for TokenHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenHandle")
            .field("slot", self.slot())
            .finish_non_exhaustive()
    }
}

// === impl SharedTokenHandle ===

impl SharedTokenHandle {
    /// Shares a handle between all threads.
    pub fn new(handle: &TokenHandle) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let copies = (0..threads.min(COPIES_MAX)).map(|_| OnItsOwnLine(Mutex::new(handle.clone())));
        Self {
            copies: copies.collect(),
        }
    }

    /// The token, if it can be handed out now.
    ///
    /// # Errors
    ///
    /// Why not; the handle stays usable.
    pub fn get(&self) -> Result<Arc<AccessToken>, NotReady> {
        let copy = &self.copies[thread_number() % self.copies.len()];
        shim::lock(&copy.0).get().cloned()
    }

    /// Goes on under a new decision.
    pub fn renew(&self, decision: Decision) {
        for copy in &self.copies {
            shim::lock(&copy.0).renew(decision);
        }
    }

    /// A handle of one's own.
    pub fn to_handle(&self) -> TokenHandle {
        shim::lock(&self.copies[thread_number() % self.copies.len()].0).clone()
    }
}

impl std::fmt::Debug for SharedTokenHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedTokenHandle")
            .field("copies", &self.copies.len())
            .finish()
    }
}

/// Numbers threads in the order in which they come here first.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
