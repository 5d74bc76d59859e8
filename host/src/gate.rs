//! Gates: one presentation of a credential at a time.
//!
//! A flight belongs to a key, a presentation to a credential: keys of one credential (other scopes, another audience)
//! share its grant, and a grant may be single-use. Their flights pass its gate one by one, in the order of their
//! arrival, and read everything again behind it. In one process this is the lease.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// The gates in use, by credential. Clones are the same.
///
/// Bounded by the flights in the air: a gate that nobody passes or waits for is gone.
pub struct Gates<K: Hash + Eq>(Arc<Inner<K>>);

struct Inner<K> {
    /// Held for one look; never across `.await`.
    gates: Mutex<HashMap<K, Gate, foldhash::quality::RandomState>>,
}

struct Gate {
    /// First come, first served.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Those who pass or wait.
    visitors: usize,
}

/// The right to present a credential's grant, until it is dropped.
#[must_use]
pub struct Pass<K: Hash + Eq> {
    // Order matters: the next one's turn comes before the visit ends.
    _turn: OwnedMutexGuard<()>,
    _visit: Visit<K>,
}

/// Counts one visitor, who may also leave while waiting.
struct Visit<K: Hash + Eq> {
    gates: Arc<Inner<K>>,
    key: K,
}

// === impl Gates ===

impl<K: Hash + Eq + Clone> Gates<K> {
    /// Waits for one's turn.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    pub async fn pass(&self, key: &K) -> Pass<K> {
        let (turn, visit) = self.visit(key);
        Pass {
            _turn: turn.lock_owned().await,
            _visit: visit,
        }
    }

    /// How many pass or wait at this gate.
    pub fn visitors(&self, key: &K) -> usize {
        self.0.lock().get(key).map_or(0, |gate| gate.visitors)
    }

    /// How many gates are in use.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn visit(&self, key: &K) -> (Arc<tokio::sync::Mutex<()>>, Visit<K>) {
        let mut gates = self.0.lock();
        let gate = gates.entry(key.clone()).or_insert_with(|| Gate {
            turn: Arc::default(),
            visitors: 0,
        });
        gate.visitors += 1;
        (
            Arc::clone(&gate.turn),
            Visit {
                gates: Arc::clone(&self.0),
                key: key.clone(),
            },
        )
    }
}

impl<K: Hash + Eq> Default for Gates<K> {
    fn default() -> Self {
        Self(Arc::new(Inner {
            gates: Mutex::default(),
        }))
    }
}

impl<K: Hash + Eq> Clone for Gates<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq> std::fmt::Debug for Gates<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gates").finish_non_exhaustive()
    }
}

// === impl Inner ===

impl<K: Hash + Eq> Inner<K> {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Gate, foldhash::quality::RandomState>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Visit ===

impl<K: Hash + Eq> Drop for Visit<K> {
    fn drop(&mut self) {
        let mut gates = self.gates.lock();
        if let Some(gate) = gates.get_mut(&self.key) {
            gate.visitors -= 1;
            if gate.visitors == 0 {
                gates.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn a_credential_is_presented_once_at_a_time_in_order_of_arrival() {
        let gates = Gates::default();
        let first = gates.pass(&1).await;
        let (mut second, mut third) = (Box::pin(gates.pass(&1)), Box::pin(gates.pass(&1)));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        assert_eq!(gates.visitors(&1), 3);
        drop(first);
        assert!(poll!(&mut third).is_pending(), "the second came before");
        let second = second.await;
        drop(second);
        drop(third.await);
        assert!(gates.is_empty());
    }

    #[tokio::test]
    async fn another_credential_does_not_wait() {
        let gates = Gates::default();
        let _one = gates.pass(&1).await;
        assert!(gates.pass(&2).now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_leaves_the_queue_holds_up_nobody() {
        let gates = Gates::default();
        let first = gates.pass(&1).await;
        let (mut leaves, mut stays) = (Box::pin(gates.pass(&1)), Box::pin(gates.pass(&1)));
        assert!(poll!(&mut leaves).is_pending() && poll!(&mut stays).is_pending());
        drop(leaves);
        drop(first);
        drop(stays.await);
        assert!(gates.is_empty());
    }

    #[tokio::test]
    async fn no_two_pass_together() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (gates, inside) = (Gates::default(), [AtomicUsize::new(0), AtomicUsize::new(0)]);
        let visits = (0..200usize).map(|n| {
            let (gates, inside) = (&gates, &inside[n % 2]);
            async move {
                let _pass = gates.pass(&(n % 2)).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
            }
        });
        futures_util::future::join_all(visits).await;
        assert!(gates.is_empty());
    }
}
