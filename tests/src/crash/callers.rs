//! Who asks while the process lives: for each credential one who also hands a new grant over when the old one ended, and
//! one who only asks. Both refuse every token they get, so that grants rotate as fast as they may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use super::Daemon;
use super::ground::{Common, Ground};
use crate::daemon::{Answer, Token};

/// Between two questions of one caller.
const PAUSE: Duration = Duration::from_millis(10);
/// After a failure: it is remembered for longer, and asking is cheap.
const PAUSE_FAILED: Duration = Duration::from_millis(40);

struct Caller {
    common: Arc<Common>,
    daemon: Daemon,
    stop: Arc<AtomicBool>,
    credential: usize,
    tends: bool,
}

/// All of them, until the daemon is gone or `stop` is set.
pub(super) fn spawn(ground: &Ground, daemon: &Daemon, stop: &Arc<AtomicBool>) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for credential in 0..ground.common().credentials.len() {
        for tends in [true, false] {
            let caller = Caller {
                common: ground.common().clone(),
                daemon: daemon.clone(),
                stop: stop.clone(),
                credential,
                tends,
            };
            callers.spawn(caller.ask_on());
        }
    }
    callers
}

// === impl Caller ===

impl Caller {
    async fn ask_on(self) {
        let whose = &self.common.credentials[self.credential];
        let wanted = json!({ "provider": whose.provider(), "subject": whose.subject });
        while !self.stop.load(Ordering::Relaxed) {
            // Without an answer the daemon is dead, or will be before the next one.
            let Ok(answer) = self.daemon.token(Some(&self.common.key), &wanted).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Some(token) = self.hears(&answer).await else {
                tokio::time::sleep(PAUSE_FAILED).await;
                continue;
            };
            let refused = self
                .daemon
                .reject(&self.common.key, &wanted, token.generation);
            if let Ok(answer) = refused.await {
                self.hears(&answer).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Takes an answer down; the token in it.
    async fn hears(&self, answer: &Answer) -> Option<Token> {
        if let Ok(token) = answer.token() {
            self.common.oracle().served(self.credential, &token);
            return Some(token);
        }
        match answer.status.as_u16() {
            409 if self.tends && !self.stop.load(Ordering::Relaxed) => {
                // Killed in the middle, the next life goes on with it.
                let _ = self.common.tend(&self.daemon, self.credential).await;
            }
            409 | 503 => {}
            _ => self.common.oracle().violated(format!(
                "a caller was answered {}: {}",
                answer.status,
                answer.text()
            )),
        }
        None
    }
}
