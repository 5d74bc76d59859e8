//! How long a provider takes, from its latest answers.

use std::time::Duration;

/// How many answers are remembered: enough for a 95th percentile, few enough to forget a bad minute.
const WINDOW: usize = 64;
/// Before the first answer.
const GUESS: Duration = Duration::from_secs(1);

/// The latest flights of one provider.
#[derive(Default)]
pub(super) struct Latencies {
    /// In order of arrival until full, then the oldest is overwritten.
    samples: Vec<Duration>,
    next: usize,
}

// === impl Latencies ===

impl Latencies {
    pub(super) fn note(&mut self, took: Duration) {
        if self.samples.len() < WINDOW {
            self.samples.push(took);
        } else {
            self.samples[self.next] = took;
        }
        self.next = (self.next + 1) % WINDOW;
    }

    /// What nineteen in twenty did not exceed.
    pub(super) fn p95(&self) -> Duration {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * 19).div_ceil(20);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(GUESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_is_known_and_old_ones_are_forgotten() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.p95(), GUESS);
        latencies.note(Duration::from_secs(2));
        assert_eq!(latencies.p95(), Duration::from_secs(2));
        for millis in 1..=100 {
            latencies.note(Duration::from_millis(millis));
        }
        // The last 64 are 37 to 100 ms; the 61st of them is 97.
        assert_eq!(latencies.p95(), Duration::from_millis(97));
    }
}
