//! One key's place: its token, the words that a reader looks at first, and what is remembered of its failures.
//!
//! Readers of the fast path (`handle`) look at a few words only. They find out that their copy is stale by its
//! generation, which changes inside the cell's lock, and then read the cell. Who may read is not decided here; changing
//! the token is in `publish`, holding on to the slot in `pin`.

mod pin;
mod publish;
mod retired;
mod shown;
mod words;

use std::sync::Arc;
use std::time::Duration;

use sdd::Guard;

pub use self::pin::Pin;
pub use self::publish::{Era, NotPublishable};
pub(in crate::cache) use self::retired::Retired;
use self::shown::{Lent, Shown};
use self::words::Words;
use super::place::Place;
use super::rejects::{Rejection, Rejects};
use crate::model::error::{Error, Retry};
use crate::model::freshness::{Freshness, Life};
use crate::model::key::{CredentialKey, ProviderName, Subject, Tenant, TokenKey};
use crate::model::time::UnixTime;
use crate::model::token::{AccessToken, Generation, SlotId};
use crate::shim::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::shim::{self, Mutex};

/// In place of a time: never.
const NEVER: u64 = u64::MAX;
/// How long after the last permit to a key ended it is still renewed if somebody asked for it within that time: a decision
/// is remembered for minutes, and callers who come back at their own pace must not find the tokens of all keys that were
/// decided together ended together. Renewing hands nothing out: whoever asks is authorized anew.
const IN_USE: Duration = Duration::from_secs(600);

/// A key's place in the cache. What a hit by key looks at comes first, together.
#[repr(C)]
pub struct Slot {
    /// With `place`, its key: what differs between most keys is kept here, what most share once for all.
    subject: Option<Subject>,
    /// The current token. Changed with the cell locked, read by whoever asks.
    shown: Shown,
    id: SlotId,
    /// When it is to be renewed, in unix milliseconds, or [`NEVER`]. Whoever plans stores it; the scheduler's entries
    /// are valid only while they name this time.
    due: AtomicU64,
    /// When somebody last asked, in unix seconds. A hit writes it once a second at most: a write per hit would pass the line
    /// between the cores.
    used: AtomicU32,
    /// Somebody asked since the current token was published.
    asked: AtomicBool,
    /// What is said of that token to those who have a copy. Changed with `shown`: before it when a token goes, after it when one comes.
    words: Words,
    place: Arc<Place>,
    /// Handles, waiters and flights that keep this slot from being evicted. Only grows from zero with the cell locked, and
    /// is judged with the cell locked.
    pins: AtomicU32,
    /// Held for moving a pointer, or for the few words beside it; never across `.await`, and nothing is taken
    /// while it is held.
    cell: Mutex<Cell>,
}

/// What few look at. Small: every key has one.
struct Cell {
    rejects: Rejects,
    permit: Permitted,
    /// Only where something failed.
    trouble: Option<Box<Trouble>>,
    era: Era,
    /// Answers in a row that brought no longer life.
    stalled: u32,
}

/// A failure that is remembered.
struct Trouble {
    error: Error,
    until: UnixTime,
    /// Failures in a row.
    attempts: u32,
}

/// The latest end of the permits to this key, under one policy; the first policy has the number 1.
#[derive(Default)]
struct Permitted {
    epoch: u32,
    until: UnixTime,
}

/// Why a slot has no token to hand out now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotReady {
    /// It has none.
    Absent,
    /// It is over, or about to be.
    Expired,
    /// The permit ended, or policy changed: authorize again.
    Denied,
    /// Evicted or revoked: look the key up again.
    Closed,
    /// It belongs to another slot. Cannot happen; if it does, it is an error and no answer.
    Foreign,
}

// === impl Slot ===

impl Slot {
    pub(super) fn new(
        id: SlotId,
        subject: Option<Subject>,
        place: Arc<Place>,
        now: UnixTime,
    ) -> Self {
        Self {
            subject,
            shown: Shown::nothing(),
            id,
            due: AtomicU64::new(NEVER),
            used: AtomicU32::new(stamp(now)),
            asked: AtomicBool::new(true),
            words: Words::new(),
            place,
            pins: AtomicU32::new(0),
            cell: Mutex::new(Cell {
                rejects: Rejects::default(),
                permit: Permitted::default(),
                trouble: None,
                era: Era(0),
                stalled: 0,
            }),
        }
    }

    /// Its name in this process.
    pub fn id(&self) -> SlotId {
        self.id
    }

    /// Whose place it is, put together from what it shares with other keys.
    pub fn key(&self) -> TokenKey {
        self.place.key(self.subject.as_ref())
    }

    /// Whose deployment its key is of.
    pub fn tenant(&self) -> &Tenant {
        &self.place.tenant
    }

    /// At which provider its credential is.
    pub fn provider(&self) -> &ProviderName {
        &self.place.provider
    }

    /// Whose grant its token is obtained with; none is the provider's own account.
    pub fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    /// Whether its token is obtained with this credential.
    pub fn is_of(&self, credential: &CredentialKey) -> bool {
        self.subject == credential.subject
            && self.place.provider == credential.provider
            && self.place.tenant == credential.tenant
    }

    /// What its key shares with others.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    // --- reading -------------------------------------------------------------------------------------------------

    /// The token it holds, over or not: what an operator sees, and what a renewal replaces. Callers get
    /// [`Slot::servable`].
    pub fn current(&self) -> Option<Arc<AccessToken>> {
        let guard = Guard::new();
        self.shown.see(&guard).map(|token| Arc::clone(&token))
    }

    /// The token to hand out at `now`.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn servable(&self, now: UnixTime) -> Result<Arc<AccessToken>, NotReady> {
        let guard = Guard::new();
        let Some(token) = self.shown.see(&guard) else {
            return Err(if self.is_closed() {
                NotReady::Closed
            } else {
                NotReady::Absent
            });
        };
        if token.slot() != self.id {
            return Err(NotReady::Foreign);
        }
        if now >= token.serve_until() {
            return Err(NotReady::Expired);
        }
        Ok(Arc::clone(&token))
    }

    /// The token, if it needs nothing at `now` and has this much life left. Takes no lock and counts nothing.
    #[inline]
    pub(super) fn fresh<'g>(
        &'g self,
        now: UnixTime,
        min_validity: Duration,
        guard: &'g Guard,
    ) -> Option<Lent<'g>> {
        let token = self.shown.see(guard)?;
        let fresh = token.slot() == self.id
            && now < token.serve_until()
            && now < self.due()
            && now.plus(min_validity) <= token.expires();
        fresh.then_some(token)
    }

    /// How its token stands; no token is [`Freshness::Expired`]. Takes no lock.
    pub fn freshness(&self, now: UnixTime) -> Freshness {
        if now.as_millis() >= self.words.serve_until() {
            Freshness::Expired
        } else if now >= self.due() {
            Freshness::Expiring
        } else {
            Freshness::Fresh
        }
    }

    /// True once it was evicted or revoked; nothing reopens it.
    pub fn is_closed(&self) -> bool {
        self.words.is_closed()
    }

    /// True while a copy of this generation is the current one and not over by the issuer's newest word.
    #[inline]
    pub(super) fn is_current(&self, generation: Generation, now: UnixTime) -> bool {
        self.words.is_current(generation.number(), now.as_millis())
    }

    // --- failing and rejecting -----------------------------------------------------------------------------------

    /// The remembered failure while its back-off lasts, with what is left of its waiting time.
    pub fn failure(&self, now: UnixTime) -> Option<Error> {
        let cell = shim::lock(&self.cell);
        let trouble = cell.trouble.as_ref()?;
        if now >= trouble.until {
            return None;
        }
        Some(match trouble.error.retry() {
            Retry::After(_) => trouble
                .error
                .with_retry(Retry::After(trouble.until.since(now))),
            Retry::Never | Retry::Human => trouble.error.clone(),
        })
    }

    /// Remembers a failure until `until` and counts it; everybody who asks before then gets it.
    pub fn remember_failure(&self, error: Error, until: UnixTime) {
        let mut cell = shim::lock(&self.cell);
        let before = cell.trouble.as_ref().map_or(0, |trouble| trouble.attempts);
        cell.trouble = Some(Box::new(Trouble {
            error,
            until,
            attempts: before.saturating_add(1),
        }));
    }

    /// Forgets the failures: an operator or new settings may have mended what failed.
    pub fn clear_failure(&self) {
        shim::lock(&self.cell).trouble = None;
    }

    /// Failures in a row.
    pub fn attempts(&self) -> u32 {
        let cell = shim::lock(&self.cell);
        cell.trouble.as_ref().map_or(0, |trouble| trouble.attempts)
    }

    /// Answers in a row that brought no longer life: what `Plan::new` asks for.
    pub fn stalled(&self) -> u32 {
        shim::lock(&self.cell).stalled
    }

    /// What a resource's refusal of `generation` leads to.
    ///
    /// After [`Rejection::Renew`] and once it leads the flight, the renewer looks again whether `generation` is still
    /// current: another flight may have landed in between.
    pub fn reject(&self, generation: Generation, now: UnixTime) -> Rejection {
        let mut cell = shim::lock(&self.cell);
        let guard = Guard::new();
        let current = self.shown.see(&guard);
        let current = current.map(|token| (token.generation(), life(&token)));
        cell.rejects.decide(generation, current, now)
    }

    // --- planning and use ----------------------------------------------------------------------------------------

    /// When it is to be renewed; [`UnixTime::MAX`] when nothing is planned.
    #[inline]
    pub fn due(&self) -> UnixTime {
        UnixTime::from_millis(self.due.load(Ordering::Relaxed))
    }

    /// Plans its renewal; [`UnixTime::MAX`] plans none. To wake it then, file it with the scheduler.
    pub fn set_due(&self, due: UnixTime) {
        self.due.store(due.as_millis(), Ordering::Relaxed);
    }

    /// Notes that somebody asked.
    #[inline]
    pub fn touch(&self, now: UnixTime) {
        if !self.asked.load(Ordering::Relaxed) {
            self.asked.store(true, Ordering::Relaxed);
        }
        let now = stamp(now);
        if now > self.used.load(Ordering::Relaxed) {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    /// The second in which somebody last asked. A handle in use notes it once per published token only.
    pub fn idle_since(&self) -> UnixTime {
        UnixTime::from_secs(self.used.load(Ordering::Relaxed).into())
    }

    /// Notes a permit to this key: the scheduler renews only what somebody may have.
    pub fn permit(&self, epoch: u32, until: UnixTime) {
        let mut cell = shim::lock(&self.cell);
        let held = &mut cell.permit;
        match held.epoch.cmp(&epoch) {
            std::cmp::Ordering::Less => *held = Permitted { epoch, until },
            std::cmp::Ordering::Equal => held.until = held.until.max(until),
            std::cmp::Ordering::Greater => {}
        }
    }

    /// Whether to renew it before its end: somebody asked since it was published, and somebody may have it, or might a moment
    /// ago under the same policy. A key that nobody asked for during the life of a token is left to lapse.
    pub fn wants_renewal(&self, epoch: u32, now: UnixTime) -> bool {
        self.asked.load(Ordering::Relaxed) && {
            let cell = shim::lock(&self.cell);
            let in_use = now.since(self.idle_since()) < IN_USE;
            let held = &cell.permit;
            let soon_enough = now < held.until || (in_use && now < held.until.plus(IN_USE));
            !self.is_closed() && held.epoch == epoch && soon_enough
        }
    }

    /// How many handles, waiters and flights hold on to it.
    pub fn pins(&self) -> u32 {
        self.pins.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("id", &self.id)
            .field("key", &self.key())
            .field("pins", &self.pins())
            .finish_non_exhaustive()
    }
}

/// A time as `used` has it: to the second, until the year 2106.
#[inline]
fn stamp(time: UnixTime) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn life(token: &AccessToken) -> Life {
    Life {
        issued: token.issued(),
        expires: token.expires(),
    }
}

#[cfg(test)]
mod tests;
