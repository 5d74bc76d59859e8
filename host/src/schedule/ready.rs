//! What is due and waits for room, by provider and tenant; in each, the token that ends first comes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use super::is_meant;
use crate::cache::Slot;
use crate::model::key::{ProviderName, Tenant};
use crate::model::time::UnixTime;
use crate::model::token::SlotId;

/// The due slots of all providers. Bounded by the scheduler, which counts them with its entries.
#[derive(Default)]
pub(super) struct Ready {
    /// By end of token and slot.
    by_line: HashMap<Line, BTreeMap<(UnixTime, SlotId), Due>>,
}

/// Whose tokens, of which provider: nobody waits for another tenant's.
pub(super) type Line = (ProviderName, Tenant);

/// A slot, and the time that it must still name.
type Due = (UnixTime, Weak<Slot>);

// === impl Ready ===

impl Ready {
    pub(super) fn put(&mut self, slot: &Arc<Slot>, due: UnixTime) {
        let ends = slot.current().map_or(due, |token| token.expires());
        let line = (slot.provider().clone(), slot.tenant().clone());
        let queue = self.by_line.entry(line).or_default();
        queue.insert((ends, slot.id()), (due, Arc::downgrade(slot)));
    }

    /// Those that have something due, by the token that ends first.
    pub(super) fn lines(&self) -> Vec<Line> {
        let first = |(line, queue): (&Line, &BTreeMap<_, _>)| {
            let (ends, _) = queue.first_key_value()?;
            Some((*ends, line.clone()))
        };
        let mut lines: Vec<_> = self.by_line.iter().filter_map(first).collect();
        lines.sort_unstable();
        lines.into_iter().map(|(_, line)| line).collect()
    }

    /// Takes out the first `room` of a line that are still meant.
    pub(super) fn take(&mut self, line: &Line, room: usize) -> Vec<Arc<Slot>> {
        let mut taken = Vec::new();
        let Some(queue) = self.by_line.get_mut(line) else {
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
            self.by_line.remove(line);
        }
        taken
    }

    pub(super) fn len(&self) -> usize {
        self.by_line.values().map(BTreeMap::len).sum()
    }
}
