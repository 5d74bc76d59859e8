//! The budgets of all providers, and who keeps the time for those that have a rate. What one budget allows is in `budget`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::{Bells, Budget, Limits};
use crate::model::key::ProviderName;

/// The budgets of all providers: they outlive the settings that were in force when they were opened.
///
/// Bounded by the providers that were ever configured.
pub struct Budgets {
    by_provider: Mutex<HashMap<ProviderName, Arc<Budget>>>,
    bells: Bells,
}

// === impl Budgets ===

impl Budgets {
    /// None yet; `freed` is told when any ticket comes back.
    pub fn new(freed: Arc<Notify>) -> Self {
        Self {
            by_provider: Mutex::default(),
            bells: Bells {
                freed,
                ..Bells::default()
            },
        }
    }

    /// Lets those through whom a rate held back, each when it is time, for as long as it is polled.
    ///
    /// # Cancel safety
    ///
    /// Whoever queues stays in the queue.
    pub async fn run(&self) {
        loop {
            let next = self.all().iter().filter_map(Budget::grant_now).min();
            tokio::select! {
                () = self.bells.paced.notified() => {}
                () = until(next) => {}
            }
        }
    }

    fn all(&self) -> Vec<Arc<Budget>> {
        let budgets = self
            .by_provider
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        budgets.values().cloned().collect()
    }

    /// The provider's budget, opened if need be, within these limits.
    pub fn of(&self, provider: &ProviderName, limits: Limits) -> Arc<Budget> {
        let mut budgets = self
            .by_provider
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let open = || Budget::new(limits, self.bells.clone());
        let budget = Arc::clone(budgets.entry(provider.clone()).or_insert_with(open));
        drop(budgets);
        budget.set_limits(limits);
        budget
    }
}

/// Sleeps until then; for ever without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
