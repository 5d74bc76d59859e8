//! Events become log lines, metrics and the timeline of a key. One fact is emitted once; who wants it listens here.
//!
//! Nothing here decides anything, and nothing here knows a secret: [`Event`] cannot hold one. Formats, filters and
//! exporters of log lines are the daemon's.

pub mod audit;

mod labels;
mod lines;
mod metrics;
mod timeline;

use std::fmt;
use std::sync::Arc;

pub use lines::Lines;
pub use metrics::{CONTENT_TYPE, Metrics, ProviderReading};
pub use timeline::{FACTS_PER_KEY_MAX, Fact, TIMELINE_KEYS_MAX, Timeline};

use crate::model::event::{Event, Observer};

/// Passes every event to each of several observers, in order.
#[derive(Clone, Default)]
pub struct Fanout(Vec<Arc<dyn Observer>>);

// === impl Fanout ===

impl Fanout {
    /// To these.
    pub fn new(observers: impl IntoIterator<Item = Arc<dyn Observer>>) -> Self {
        Self(observers.into_iter().collect())
    }
}

impl Observer for Fanout {
    fn observe(&self, event: &Event) {
        for observer in &self.0 {
            observer.observe(event);
        }
    }
}

impl fmt::Debug for Fanout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fanout to {} observers", self.0.len())
    }
}
