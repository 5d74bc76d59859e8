//! The leak check that every black-box test ends with: all that left the process on one side, every secret it held on the
//! other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use keyfob::testing::Canary;

/// What a process let out, and what it must not. The search itself is [`Canary`]'s.
#[derive(Debug, Default)]
pub struct LeakCheck {
    canary: Canary,
    /// What was seen and where. Held for a push or the search, never across `.await`.
    seen: Mutex<Vec<(String, Vec<u8>)>>,
}

// === impl LeakCheck ===

impl LeakCheck {
    /// Searches for the secrets of `canary`, those added later included.
    pub fn new(canary: Canary) -> Self {
        Self {
            canary,
            seen: Mutex::default(),
        }
    }

    /// The secrets.
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// Keeps a text that anybody might read: a log, an error, a metric.
    pub fn saw(&self, place: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.seen().push((place.into(), text.into()));
    }

    /// Fails when a secret is in any text seen. Last, because a secret may become known after the text was seen.
    ///
    /// # Panics
    ///
    /// When one is found, with the place and not the secret; or when no secret or no text is known, for then nothing
    /// was proven.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(
            !self.canary.is_empty(),
            "no secret is known: nothing would be found"
        );
        let seen = self.seen();
        assert!(!seen.is_empty(), "nothing was seen: nothing was searched");
        for (place, text) in &*seen {
            self.canary.assert_absent(place, text);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Vec<(String, Vec<u8>)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "correct horse battery staple";

    #[test]
    #[should_panic(expected = "log leaks secret number 0")]
    fn a_secret_that_becomes_known_late_is_still_found() {
        let check = LeakCheck::default();
        check.saw("log", format!("issued {SECRET}"));
        check.canary().add(SECRET);
        check.assert_clean();
    }

    #[test]
    #[should_panic(expected = "no secret is known")]
    fn a_search_for_nothing_is_no_proof() {
        let check = LeakCheck::default();
        check.saw("log", "nothing here");
        check.assert_clean();
    }
}
