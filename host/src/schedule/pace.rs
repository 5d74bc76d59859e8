//! How many flows of one provider start in a second: a rate, and a burst of one second's worth after a quiet time. Pure:
//! `now` comes in. Who waits for the next start, and in which order, is the budget's.

use std::time::Duration;

use tokio::time::Instant;

/// How much of the rate can be saved up: what an operator calls "50 a second" is at most twice that in any second, and
/// the rate itself over a minute.
const BURST: Duration = Duration::from_secs(1);

/// The pace of one provider.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two starts.
    interval: Duration,
    /// How much is saved up at most: [`BURST`], and never less than one start.
    most: Duration,
    /// When everything is saved up again; none before the first start.
    full_at: Option<Instant>,
}

// === impl Pace ===

impl Pace {
    /// So many starts a second.
    pub(super) fn new(rate: f64) -> Self {
        let interval = interval(rate);
        Self {
            interval,
            most: BURST.max(interval),
            full_at: None,
        }
    }

    /// Another rate from here on; what was saved up stays.
    pub(super) fn set_rate(&mut self, rate: f64) {
        *self = Self {
            full_at: self.full_at,
            ..Self::new(rate)
        };
    }

    /// How many may start now.
    pub(super) fn free(&self, now: Instant) -> usize {
        let saved = self.most.saturating_sub(self.owed(now));
        usize::try_from(saved.as_nanos() / self.interval.as_nanos()).unwrap_or(usize::MAX)
    }

    /// Starts one, if one may.
    pub(super) fn start(&mut self, now: Instant) -> bool {
        let starts = self.free(now) > 0;
        if starts {
            self.full_at = Some(now + self.owed(now) + self.interval);
        }
        starts
    }

    /// How long until one more than `before` others can have started.
    pub(super) fn wait(&self, before: usize, now: Instant) -> Duration {
        let starts = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
        let needed = self.interval.saturating_mul(starts);
        (self.owed(now) + needed).saturating_sub(self.most)
    }

    /// How long until everything is saved up.
    fn owed(&self, now: Instant) -> Duration {
        // Never more than can have been spent, whatever the rate was when it was.
        self.full_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
            .min(self.most)
    }
}

/// Rounded down to a nanosecond, so that a second holds all the starts of the rate.
fn interval(rate: f64) -> Duration {
    Duration::from_nanos(((1e9 / rate) as u64).max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_is_saved_up_and_then_one_starts_at_each_interval() {
        let now = Instant::now();
        for (rate, burst) in [(50.0, 50), (3.0, 3), (7.0, 7), (2.5, 2), (1.0, 1), (0.1, 1)] {
            let mut pace = Pace::new(rate);
            assert_eq!(pace.free(now), burst, "{rate}");
            let started = std::iter::repeat_with(|| pace.start(now)).take(100);
            assert_eq!(started.filter(|it| *it).count(), burst, "{rate}");
            let next = pace.wait(0, now);
            assert!(next <= interval(rate), "{rate}: {next:?}");
            assert!(!pace.start(now + next - Duration::from_nanos(1)), "{rate}");
            assert!(pace.start(now + next), "{rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_queues_is_told_when_the_turn_comes() {
        let now = Instant::now();
        let mut pace = Pace::new(10.0);
        assert_eq!(pace.wait(9, now), Duration::ZERO);
        assert_eq!(pace.wait(10, now), millis(100));
        while pace.start(now) {}
        assert_eq!(pace.wait(0, now), millis(100));
        assert_eq!(pace.wait(999, now), Duration::from_secs(100));
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_takes_effect_at_once_and_owes_no_more_than_it_can() {
        let now = Instant::now();
        let mut pace = Pace::new(0.1);
        assert!(pace.start(now));
        assert_eq!(pace.wait(0, now), Duration::from_secs(10));
        pace.set_rate(100.0);
        assert_eq!(pace.wait(0, now), millis(10));
    }

    proptest! {
        #[test]
        fn no_second_sees_more_than_the_rate_and_its_burst(
            rate in 0.1f64..2_000.0, looks in proptest::collection::vec(0u64..400, 1..60),
        ) {
            let begin = Instant::now();
            let (mut pace, mut now, mut started) = (Pace::new(rate), begin, Vec::new());
            for pause in looks {
                now += millis(pause);
                while pace.start(now) {
                    started.push(now);
                }
            }
            let mut first = 0;
            for (last, at) in started.iter().enumerate() {
                while *at - started[first] >= BURST {
                    first += 1;
                }
                let within = last + 1 - first;
                prop_assert!(within as f64 <= (2.0 * rate).max(1.0) + 1.0, "{within} at {rate}");
            }
            let span = (now - begin).as_secs_f64();
            prop_assert!(started.len() as f64 <= rate * span + rate.max(1.0) + 1.0);
        }
    }
}
