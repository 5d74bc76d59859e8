//! What is due and waits for room, by provider; in each, the token that ends first comes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use super::is_meant;
use crate::cache::Slot;
use crate::model::key::ProviderName;
use crate::model::time::UnixTime;
use crate::model::token::SlotId;

/// The due slots of all providers. Bounded by the scheduler, which counts them with its entries.
#[derive(Default)]
pub(super) struct Ready {
    /// By end of token and slot.
    by_provider: HashMap<ProviderName, BTreeMap<(UnixTime, SlotId), Due>>,
}

/// A slot, and the time that it must still name.
type Due = (UnixTime, Weak<Slot>);

// === impl Ready ===

impl Ready {
    pub(super) fn put(&mut self, slot: &Arc<Slot>, due: UnixTime) {
        let ends = slot.current().map_or(due, |token| token.expires());
        let queue = self
            .by_provider
            .entry(slot.key().credential.provider.clone())
            .or_default();
        queue.insert((ends, slot.id()), (due, Arc::downgrade(slot)));
    }

    /// The providers that have something due.
    pub(super) fn providers(&self) -> Vec<ProviderName> {
        self.by_provider.keys().cloned().collect()
    }

    /// Takes out the first `room` of a provider that are still meant.
    pub(super) fn take(&mut self, provider: &ProviderName, room: usize) -> Vec<Arc<Slot>> {
        let mut taken = Vec::new();
        let Some(queue) = self.by_provider.get_mut(provider) else {
            return taken;
        };
        while taken.len() < room {
            let Some((_, (due, slot))) = queue.pop_first() else {
                break;
            };
            if is_meant(due, &slot) {
                taken.extend(slot.upgrade());
            }
        }
        if queue.is_empty() {
            self.by_provider.remove(provider);
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.by_provider.values().map(BTreeMap::len).sum()
    }
}
