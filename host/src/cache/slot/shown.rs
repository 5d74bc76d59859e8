//! The token of a slot as readers see it who take no lock and count no reference.
//!
//! A reader looks under a guard of its thread, which costs one exchange on a line of its own; what was shown is freed when no
//! guard that may have seen it is left. Who may change what is shown, and when, is decided in `publish`.

use std::sync::Arc;

use sdd::{AtomicOwned, Guard, Owned, Tag};

use crate::model::time::UnixTime;
use crate::model::token::{AccessToken, SlotId};
use crate::shim::atomic::Ordering;

/// How often the collector is turned at most after a token was taken from view: it frees what was retired after three turns,
/// but a turn comes to nothing while another thread is in the middle of a look.
const TURNS_MAX: usize = 16;

/// What is on show, if anything.
pub(super) struct Shown(AtomicOwned<Held>);

/// A token with what is looked at before it, together on one line.
pub(in crate::cache) struct Held {
    /// The slot it was published to.
    pub(in crate::cache) slot: SlotId,
    /// Until when it is handed out.
    pub(in crate::cache) serve_until: UnixTime,
    /// When it ends.
    pub(in crate::cache) expires: UnixTime,
    /// The token.
    pub(in crate::cache) token: Arc<AccessToken>,
}

/// What was on show. Dropped once no lock is held: its memory is zeroed as soon as no reader can be looking at it.
#[must_use]
pub(super) struct Retired(Option<Owned<Held>>);

// === impl Shown ===

impl Shown {
    /// Nothing is on show.
    pub(super) fn nothing() -> Self {
        Self(AtomicOwned::null())
    }

    /// What is on show now.
    #[inline]
    pub(super) fn see<'g>(&self, guard: &'g Guard) -> Option<&'g Held> {
        self.0.load(Ordering::Acquire, guard).as_ref()
    }

    /// Shows something else from now on.
    pub(super) fn show(&self, held: Option<Held>) -> Retired {
        let (old, _) = self
            .0
            .swap((held.map(Owned::new), Tag::None), Ordering::AcqRel);
        Retired(old)
    }
}

// === impl Retired ===

impl Drop for Retired {
    fn drop(&mut self) {
        let Some(old) = self.0.take() else { return };
        drop(old);
        // Left alone, the collector would keep a revoked token's bytes until this thread has looked things up hundreds of
        // times more. What another thread's look keeps from being freed now is freed then, or when this thread takes the next
        // token from view: the collector keeps what each thread retired apart.
        for _ in 0..TURNS_MAX {
            let guard = Guard::new();
            if !guard.has_garbage() {
                return;
            }
            guard.accelerate();
        }
    }
}
