//! The two words that a copy of a token is checked against, and in which order they change.
//!
//! Nothing else is in here, and nothing else is named: the model checker of memory orders compiles this file by itself.

use crate::shim::atomic::{AtomicU64, Ordering};

/// In place of a generation: there is no token.
const NO_TOKEN: u64 = 0;
/// In place of a generation: the slot is closed for good.
const CLOSED: u64 = u64::MAX;

/// What a slot says of its token to those who have a copy. Changed by one at a time.
pub(crate) struct Words {
    /// Number of the generation on show, or [`NO_TOKEN`], or [`CLOSED`]. Stored last: whoever sees a new number finds the
    /// token that belongs to it.
    generation: AtomicU64,
    /// Until when that token is handed out, in unix milliseconds. By itself it may only end a copy's life earlier, never
    /// prolong it.
    serve_until: AtomicU64,
}

// === impl Words ===

impl Words {
    /// There is no token yet.
    pub(crate) fn new() -> Self {
        Self {
            generation: AtomicU64::new(NO_TOKEN),
            serve_until: AtomicU64::new(0),
        }
    }

    /// Another token is about to be shown: no copy is current until it is. Otherwise a thread that had seen the new token by
    /// key could get the old one by handle.
    pub(crate) fn changing(&self) {
        self.generation.store(NO_TOKEN, Ordering::Release);
    }

    /// A token is on show.
    pub(crate) fn published(&self, generation: u64, serve_until: u64) {
        self.serve_until.store(serve_until, Ordering::Release);
        self.generation.store(generation, Ordering::Release);
    }

    /// None is on show any more; a closed slot stays closed.
    pub(crate) fn withdrawn(&self) {
        self.serve_until.store(0, Ordering::Release);
        if !self.is_closed() {
            self.generation.store(NO_TOKEN, Ordering::Release);
        }
    }

    /// None will ever be on show again.
    pub(crate) fn closed(&self) {
        self.serve_until.store(0, Ordering::Release);
        self.generation.store(CLOSED, Ordering::Release);
    }

    /// Whether a copy of this generation is the current one at `now`, and not over by the issuer's newest word. Between the
    /// two loads another token may come, whose end is later: whoever holds a copy compares its own end too.
    #[inline]
    pub(crate) fn is_current(&self, generation: u64, now: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
            && now < self.serve_until.load(Ordering::Relaxed)
    }

    /// Whether it was closed.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.generation.load(Ordering::Acquire) == CLOSED
    }

    /// Until when the token on show is handed out; 0 when there is none.
    #[inline]
    pub(crate) fn serve_until(&self) -> u64 {
        self.serve_until.load(Ordering::Acquire)
    }
}
