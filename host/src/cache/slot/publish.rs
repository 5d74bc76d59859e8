//! Changing a slot's token: publishing a new one, taking one away, closing for good.
//!
//! What readers see changes here only, with the cell locked.

use std::sync::Arc;

use sdd::Guard;

use super::retired::Retired;
use super::{Cell, NEVER, Slot, life};
use crate::model::time::UnixTime;
use crate::model::token::{AccessToken, Generation, ObtainedToken};
use crate::shim;
use crate::shim::atomic::Ordering;

/// A stretch of a slot's life between two withdrawals. Whoever obtains a token takes it before it starts: a token
/// asked for before a withdrawal is not published after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Era(pub(super) u32);

/// Why a token was not published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotPublishable {
    /// It cannot be a header value (RFC 9110, section 5.5).
    NotAHeader,
    /// It is already over.
    Expired,
    /// An older one than the slot had.
    Older,
    /// The key's tokens were withdrawn after it was asked for.
    Withdrawn,
    /// The slot was evicted or revoked.
    Closed,
}

impl Slot {
    /// The stretch it is in: to be taken before a token is asked for.
    pub fn era(&self) -> Era {
        shim::lock(&self.cell).era
    }

    /// Makes a token the current one, under the next generation. The same token again keeps its generation (one name,
    /// one token) and takes the new end. Forgets the failures.
    ///
    /// # Errors
    ///
    /// Why it was not published; nothing changed then.
    pub fn publish(
        &self,
        era: Era,
        from: &ObtainedToken,
        now: UnixTime,
    ) -> Result<Arc<AccessToken>, NotPublishable> {
        self.take(era, from, now, |cell, current| {
            let same = current.filter(|held| held.raw() == from.value.expose());
            Ok(match (same, cell.rejects.latest()) {
                (Some(held), _) => held.generation(),
                (None, Some(last)) => last.next(now),
                (None, None) => Generation::first(now),
            })
        })
    }

    /// Makes a token the current one that already has a name: from the store, or from another node.
    ///
    /// # Errors
    ///
    /// As [`Slot::publish`], and [`NotPublishable::Older`]: readers never go back.
    pub fn adopt(
        &self,
        era: Era,
        from: &ObtainedToken,
        generation: Generation,
        now: UnixTime,
    ) -> Result<Arc<AccessToken>, NotPublishable> {
        self.take(era, from, now, |cell, _| match cell.rejects.latest() {
            Some(last) if generation < last => Err(NotPublishable::Older),
            _ => Ok(generation),
        })
    }

    fn take(
        &self,
        era: Era,
        from: &ObtainedToken,
        now: UnixTime,
        name: impl FnOnce(&Cell, Option<&AccessToken>) -> Result<Generation, NotPublishable>,
    ) -> Result<Arc<AccessToken>, NotPublishable> {
        let mut cell = shim::lock(&self.cell);
        if self.is_closed() {
            return Err(NotPublishable::Closed);
        }
        if cell.era != era {
            return Err(NotPublishable::Withdrawn);
        }
        let guard = Guard::new();
        let old = self.shown.see(&guard);
        let old = old.as_deref().map(|token| &**token);
        let generation = name(&cell, old)?;
        let token = AccessToken::new(self.id, generation, from, &self.place.scopes)
            .ok_or(NotPublishable::NotAHeader)?;
        let token = Arc::new(token);
        let new = life(&token);
        if now >= new.serve_until() {
            return Err(NotPublishable::Expired);
        }
        let gained = old.is_none_or(|old| !new.is_no_gain_over(life(old)));
        cell.stalled = if gained {
            0
        } else {
            cell.stalled.saturating_add(1)
        };
        cell.trouble = None;
        cell.rejects.published(generation, now);
        self.asked.store(false, Ordering::Relaxed);
        // Until somebody plans, the new token is not to be renewed; the old one's time means nothing for it.
        self.due.store(NEVER, Ordering::Relaxed);
        self.words.changing();
        let old = self.shown.show(Some(Arc::clone(&token)));
        self.words
            .published(generation.number(), new.serve_until().as_millis());
        drop(cell);
        drop(guard);
        drop(old);
        Ok(token)
    }

    /// Takes the token away: its credential was revoked or replaced. The slot stays usable, and a renewal under way
    /// is not published.
    pub fn withdraw(&self) {
        let mut cell = shim::lock(&self.cell);
        cell.era = Era(cell.era.0.wrapping_add(1));
        self.words.withdrawn();
        let old = self.shown.show(None);
        drop(cell);
        drop(old);
    }

    /// Closes it for good: evicted, or its key ended. Every handle sees it on its next look.
    pub fn close(&self) {
        drop(self.take_down());
    }

    /// As [`Slot::close`], with the token it had for the caller to let go of.
    pub(in crate::cache) fn take_down(&self) -> Option<Retired> {
        self.close_if(|_| true)
    }

    /// Closes it unless somebody holds on to it; the token it had, for the caller to let go of, if it did.
    pub(in crate::cache) fn close_unless_pinned(&self) -> Option<Retired> {
        self.close_if(|pins| pins == 0)
    }

    fn close_if(&self, judge: impl FnOnce(u32) -> bool) -> Option<Retired> {
        let _cell = shim::lock(&self.cell);
        // No pin can be taken now: taking the first one needs the cell.
        if !judge(self.pins.load(Ordering::Acquire)) {
            return None;
        }
        self.words.closed();
        Some(self.shown.show(None))
    }
}
