//! Holding on to a slot, so that it is not evicted.

use std::sync::Arc;

use super::Slot;
use crate::shim;
use crate::shim::atomic::Ordering;

/// Keeps a slot from being evicted while it lives.
pub struct Pin(Arc<Slot>);

impl Slot {
    /// Holds on to it. `None` when it was closed: look the key up again.
    pub fn pin(self: &Arc<Self>) -> Option<Pin> {
        let cell = shim::lock(&self.cell);
        if self.is_closed() {
            return None;
        }
        self.pins.fetch_add(1, Ordering::AcqRel);
        drop(cell);
        Some(Pin(Arc::clone(self)))
    }
}

// === impl Pin ===

impl Pin {
    /// The slot, to keep without holding on to it.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.0
    }
}

impl std::ops::Deref for Pin {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.0
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        // `self` holds on to it, so this is not the first one and needs no lock.
        self.0.pins.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::AcqRel);
    }
}
