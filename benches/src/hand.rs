//! A clock that is put forward by hand, so that a token ends whenever the next refresh is to be measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keyfob::model::time::{Clock, SystemClock, UnixTime};

/// Stands until it is put forward.
#[derive(Debug)]
pub struct Hand(AtomicU64);

// === impl Hand ===

impl Hand {
    /// Stands at the present.
    pub fn at_present() -> Self {
        Self(AtomicU64::new(SystemClock.now().as_millis()))
    }

    /// Puts it forward.
    ///
    /// # Panics
    ///
    /// When the span is longer than there is time.
    pub fn forward(&self, span: Duration) {
        let millis = u64::try_from(span.as_millis()).expect("small");
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}
