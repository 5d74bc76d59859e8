//! Questions laid out in the order in which they are asked, so that only the memory of who answers is missed.

use std::sync::Arc;

use keyfob::model::policy::TokenRequest;

use crate::cached;

/// Asks one question after the other, round and round.
#[derive(Clone)]
pub struct Asked {
    requests: Arc<[TokenRequest]>,
    at: usize,
}

// === impl Asked ===

impl Asked {
    /// For the tokens of these keys.
    pub fn new(keys: &[usize]) -> Self {
        Self {
            requests: keys.iter().map(|&key| cached::request(key)).collect(),
            at: 0,
        }
    }

    /// The same questions from somewhere else on, for another thread.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        self.from(self.requests.len() / 2)
    }

    /// The same questions from this one on.
    #[must_use]
    pub fn from(&self, at: usize) -> Self {
        Self {
            requests: Arc::clone(&self.requests),
            at: at % self.requests.len(),
        }
    }

    /// The next one.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not lend what it owns"
    )]
    #[inline]
    pub fn next(&mut self) -> &TokenRequest {
        self.at += 1;
        if self.at == self.requests.len() {
            self.at = 0;
        }
        &self.requests[self.at]
    }
}
