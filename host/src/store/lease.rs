//! Leases of a store that one process owns: a map, because nothing durable may hang on them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::key::CredentialKey;
use crate::model::time::UnixTime;

/// Names whoever holds a lease or made an intent: random, so that no counter can hand the same one out twice.
pub type Owner = [u8; 16];

/// The most leases that are looked after. Past it the ones that are over leave; if none is, a lease is granted and not
/// remembered, which is allowed: it is an efficiency.
const LEASES_MAX: usize = 65_536;

/// What became of asking for a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lease {
    /// It is the one's who asked, until then.
    Held {
        /// When it ends.
        until: UnixTime,
    },
    /// Somebody else's, until then.
    Busy {
        /// When it ends.
        until: UnixTime,
    },
}

/// Leases in memory.
#[derive(Default)]
pub(super) struct Leases {
    /// Who may send, until when. Held for one look, never across an await.
    held: Mutex<HashMap<CredentialKey, (Owner, UnixTime)>>,
}

// === impl Leases ===

impl Leases {
    pub(super) fn acquire(
        &self,
        key: &CredentialKey,
        owner: Owner,
        ttl: Duration,
        now: UnixTime,
    ) -> Lease {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((other, until)) = held.get(key).copied()
            && other != owner
            && now < until
        {
            return Lease::Busy { until };
        }
        let until = now.plus(ttl);
        if held.len() >= LEASES_MAX {
            held.retain(|_, (_, until)| now < *until);
        }
        if held.len() < LEASES_MAX {
            held.insert(key.clone(), (owner, until));
        }
        Lease::Held { until }
    }

    pub(super) fn release(&self, key: &CredentialKey, owner: Owner) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.get(key).is_some_and(|(holder, _)| *holder == owner) {
            held.remove(key);
        }
    }
}
