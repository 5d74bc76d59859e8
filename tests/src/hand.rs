//! Time moved by hand while the sockets are real: minutes of token life in a second, and nothing that a busy machine
//! could make late.
//!
//! With tokio's clock paused, the runtime would jump to the next timer whenever every task waits, for a socket too. A
//! task that is never done keeps it from that; time moves in [`Hand::pass`] only, and stands while bytes are on their
//! way: from the start of a refresh until its request arrived, and from the issuer's answer until the refresh ended.

use std::sync::Arc;
use std::time::Duration;

use keyfob::model::event::Event;
use keyfob::model::time::Clock;
use keyfob::testing::TestClock;
use tokio::task::JoinHandle;

use crate::stage::Stage;

/// Rounds in which whoever a timer woke gets to run.
const SETTLE_ROUNDS: usize = 64;
/// Rounds after which something is stuck: each takes a microsecond at least, so this is minutes.
const STUCK_ROUNDS: usize = 50_000_000;

/// Holds the clock of one test.
pub struct Hand {
    /// What issuer and broker look at.
    pub clock: Arc<TestClock>,
    restless: JoinHandle<()>,
    /// How long the issuer takes to answer.
    latency: Duration,
}

// === impl Hand ===

impl Hand {
    /// Takes the clock into the hand; `latency` is what the issuer's behaviour will be.
    ///
    /// # Panics
    ///
    /// On a runtime of several threads: its time cannot be paused.
    pub fn take(latency: Duration) -> Self {
        tokio::time::pause();
        let restless = tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        Self {
            clock: Arc::new(TestClock::new()),
            restless,
            latency,
        }
    }

    /// Lets this much time pass, then everything happen that is to happen by then.
    pub async fn pass(&self, span: Duration, stage: &Stage) {
        tokio::time::advance(span).await;
        self.settle(stage).await;
    }

    /// Lets everything happen that is to happen by now.
    pub async fn settle(&self, stage: &Stage) {
        for round in 0.. {
            tokio::task::yield_now().await;
            if round >= SETTLE_ROUNDS && self.is_quiet(stage) {
                return;
            }
            assert!(
                round < STUCK_ROUNDS,
                "a refresh is neither sent nor answered"
            );
        }
    }

    /// Nothing is on its way between broker and issuer.
    fn is_quiet(&self, stage: &Stage) -> bool {
        let count = |like: fn(&Event) -> bool| stage.recorder.count(like) as u64;
        let started = count(|event| matches!(event, Event::RefreshStarted { .. }));
        let finished = count(|event| matches!(event, Event::RefreshFinished { .. }));
        let now = self.clock.now();
        let ledger = stage.issuer.ledger();
        let entries = ledger.entries();
        let answered = entries
            .iter()
            .filter(|entry| entry.at.plus(self.latency) <= now)
            .count() as u64;
        ledger.count() >= started && finished >= answered
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.restless.abort();
    }
}
