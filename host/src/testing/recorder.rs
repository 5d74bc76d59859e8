//! An observer that remembers: tests assert on events instead of on logs.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::event::{Event, Observer};

/// Events kept; a load test that emits more loses the oldest.
const EVENTS_MAX: usize = 100_000;

/// Collects every event.
#[derive(Debug)]
pub struct Recorder {
    /// The events in order. Held for a push or a copy, never across `.await`.
    events: Mutex<VecDeque<Event>>,
    /// How many were observed in all.
    seen: watch::Sender<u64>,
}

// === impl Recorder ===

impl Recorder {
    /// Empty.
    pub fn new() -> Self {
        Self {
            events: Mutex::default(),
            seen: watch::Sender::new(0),
        }
    }

    /// The events so far, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.lock().iter().cloned().collect()
    }

    /// How many of them are like this.
    pub fn count(&self, like: impl Fn(&Event) -> bool) -> usize {
        self.lock().iter().filter(|event| like(event)).count()
    }

    /// Forgets the events so far.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Waits until an event like this was observed, and returns the first.
    ///
    /// # Cancel safety
    ///
    /// Loses nothing when dropped.
    pub async fn wait_for(&self, like: impl Fn(&Event) -> bool) -> Event {
        let mut seen = self.seen.subscribe();
        loop {
            seen.borrow_and_update();
            if let Some(event) = self.lock().iter().find(|event| like(event)) {
                return event.clone();
            }
            // The sender is `self.seen`, which outlives this borrow: `changed` cannot fail.
            let _ = seen.changed().await;
        }
    }

    /// Every event as `Debug` prints it: food for the canary.
    pub fn dump(&self) -> String {
        self.lock().iter().fold(String::new(), |mut text, event| {
            let _ = writeln!(text, "{event:?}");
            text
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for Recorder {
    fn observe(&self, event: &Event) {
        {
            let mut events = self.lock();
            if events.len() == EVENTS_MAX {
                events.pop_front();
            }
            events.push_back(event.clone());
        }
        self.seen.send_modify(|seen| *seen += 1);
    }
}
