//! What policy decided, as the hot path remembers it, and the number that ends all such memory at once.

use std::sync::Arc;
use std::time::Duration;

use crate::model::time::UnixTime;
use crate::shim::atomic::{AtomicU32, Ordering};

/// A permit in the form that a lookup compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The policy that made it.
    pub epoch: u32,
    /// Until when it may be remembered.
    pub allowed_until: UnixTime,
    /// The longest life a token may state to this caller.
    pub max_lifetime: Option<Duration>,
}

/// Number of the policy in force; at one change a second it lasts for 136 years. Written when policy changes, read by every handle: one word for the whole process.
#[derive(Clone)]
pub struct PolicyEpoch(Arc<AtomicU32>);

// === impl Decision ===

impl Decision {
    /// Whether it holds at `now` under the policy `epoch`.
    #[inline]
    #[must_use]
    pub fn holds(&self, epoch: u32, now: UnixTime) -> bool {
        self.epoch == epoch && now < self.allowed_until
    }
}

// === impl PolicyEpoch ===

impl PolicyEpoch {
    /// The number in force.
    #[inline]
    pub fn current(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Ends every remembered decision; returns the new number.
    pub fn advance(&self) -> u32 {
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }
}

impl Default for PolicyEpoch {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(1)))
    }
}
