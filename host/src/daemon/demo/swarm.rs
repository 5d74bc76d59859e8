//! Simulated callers: many at once, or many in a loop, with what they waited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::stage::Stage;
use crate::broker::{Broker, Issued};
use crate::model::error::Error;
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::{Clock, SystemClock};

/// Between two calls of one looping caller: 50 of them make some ten thousand calls a second.
const PACE: Duration = Duration::from_millis(5);

/// What one caller got, and after how long.
pub(super) struct Got {
    pub(super) result: Result<Issued, Error>,
    pub(super) waited: Duration,
}

/// Callers in a loop, until told to stop.
pub(super) struct Load {
    tally: Arc<Tally>,
    callers: JoinSet<()>,
}

/// What a load did so far.
#[derive(Default)]
pub(super) struct Tally {
    stop: AtomicBool,
    pub(super) calls: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Tokens that were over when they were handed out.
    pub(super) expired: AtomicU64,
    pub(super) slowest_nanos: AtomicU64,
    total_nanos: AtomicU64,
}

/// This many callers at the same moment.
pub(super) async fn rush(stage: &Stage, request: &TokenRequest, callers: usize) -> Vec<Got> {
    let mut set = JoinSet::new();
    for _ in 0..callers {
        let (broker, caller, request) =
            (stage.broker.clone(), stage.caller.clone(), request.clone());
        set.spawn(async move { once(&broker, &caller, &request).await });
    }
    set.join_all().await
}

async fn once(broker: &Broker, caller: &Principal, request: &TokenRequest) -> Got {
    let arrived = now();
    let result = broker.token(caller, request).await;
    Got {
        result,
        waited: arrived.elapsed(),
    }
}

fn now() -> Instant {
    Instant::now()
}

// === impl Load ===

impl Load {
    /// Starts them.
    pub(super) fn start(stage: &Stage, request: &TokenRequest, callers: usize) -> Self {
        let tally = Arc::new(Tally::default());
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let (broker, caller, request) =
                (stage.broker.clone(), stage.caller.clone(), request.clone());
            let tally = tally.clone();
            set.spawn(async move {
                while !tally.stop.load(Ordering::Relaxed) {
                    let got = once(&broker, &caller, &request).await;
                    tally.count(&got);
                    tokio::time::sleep(PACE).await;
                }
            });
        }
        Self {
            tally,
            callers: set,
        }
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Lets them finish.
    pub(super) async fn stop(mut self) -> Arc<Tally> {
        self.tally.stop.store(true, Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
        self.tally
    }
}

// === impl Tally ===

impl Tally {
    fn count(&self, got: &Got) {
        let nanos = u64::try_from(got.waited.as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.total_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.slowest_nanos.fetch_max(nanos, Ordering::Relaxed);
        match &got.result {
            Ok(issued) if issued.token.expires() <= SystemClock.now() => {
                self.expired.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// On one line.
    pub(super) fn line(&self) -> String {
        let calls = self.calls.load(Ordering::Relaxed);
        let mean = self.total_nanos.load(Ordering::Relaxed) / calls.max(1);
        format!(
            "{calls} calls, mean {}, slowest {}, failed {}",
            span(mean),
            span(self.slowest_nanos.load(Ordering::Relaxed)),
            self.failed.load(Ordering::Relaxed),
        )
    }
}

/// Nanoseconds in the unit that a person would take.
pub(super) fn span(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{} µs", nanos / 1_000),
        _ => format!("{}.{} ms", nanos / 1_000_000, nanos / 100_000 % 10),
    }
}
