//! A clock that moves with tokio's: with time paused, `tokio::time::advance` moves tokens and timers together.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::time::{Clock, UnixTime};

/// Wall-clock time as `base + what tokio says has passed`, and jumps, which tokio's timers do not see: that is how a
/// machine's clock is set while it runs.
///
/// With `tokio::time::pause`, tokio advances by itself whenever every task waits, sockets included: a test that talks to
/// a real socket leaves time running.
#[derive(Debug)]
pub struct TestClock {
    base: UnixTime,
    start: Instant,
    jumped_millis: AtomicI64,
}

/// 2025-01-01T00:00:00Z: a day tokens could have been issued on.
const BASE: UnixTime = UnixTime::from_secs(1_735_689_600);

// === impl TestClock ===

impl TestClock {
    /// Starts on a fixed day.
    pub fn new() -> Self {
        Self::starting_at(BASE)
    }

    /// Starts then.
    pub fn starting_at(base: UnixTime) -> Self {
        Self {
            base,
            start: Instant::now(),
            jumped_millis: AtomicI64::new(0),
        }
    }

    /// Sets the wall clock forward; timers do not notice.
    pub fn jump(&self, span: Duration) {
        self.jumped_millis
            .fetch_add(millis(span), Ordering::Relaxed);
    }

    /// Sets the wall clock back; timers do not notice.
    pub fn jump_back(&self, span: Duration) {
        self.jumped_millis
            .fetch_sub(millis(span), Ordering::Relaxed);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        let now = self.base.plus(self.start.elapsed());
        let jumped = self.jumped_millis.load(Ordering::Relaxed);
        let span = Duration::from_millis(jumped.unsigned_abs());
        if jumped < 0 {
            now.minus(span)
        } else {
            now.plus(span)
        }
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn advancing_tokio_advances_tokens() {
        let clock = TestClock::new();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().since(before), Duration::from_secs(90));
        clock.jump(Duration::from_secs(10));
        clock.jump_back(Duration::from_secs(40));
        assert_eq!(clock.now().since(before), Duration::from_secs(60));
    }
}
