//! A token that was taken from view: its memory is zeroed once nobody can be looking at it.
//!
//! That is at once, on the thread that took it from view, unless another is in the middle of a look. Then a thread of the
//! process's own waits for that look's end, so that neither the caller does nor the bytes of a revoked token stay until
//! somebody happens to look again.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use sdd::{Epoch, Guard};

use crate::model::token::AccessToken;

/// How often the epoch is pushed at most by whoever took a token from view: three pushes are enough, but one comes to nothing
/// while another thread is in the middle of a look.
const PUSHES_MAX: usize = 16;
/// How long the waiting thread sleeps between two pushes: far longer than a look takes, far shorter than a token lives.
const PAUSE: Duration = Duration::from_millis(1);

/// What was on show. Dropped, it is let go as soon as no reader can be looking at it.
#[must_use]
pub(in crate::cache) struct Retired(Option<Arc<AccessToken>>);

/// One that somebody may still be looking at.
struct Lingering {
    token: Arc<AccessToken>,
    since: Epoch,
}

// === impl Retired ===

impl Retired {
    /// Takes over what nobody finds any more.
    pub(super) fn new(token: Option<Arc<AccessToken>>) -> Self {
        Self(token)
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        let Some(token) = self.0.take() else { return };
        let since = Guard::new().epoch();
        let lingering = Lingering { token, since };
        for _ in 0..PUSHES_MAX {
            if lingering.is_out_of_sight(push()) {
                return;
            }
        }
        wait_elsewhere(lingering);
    }
}

// === impl Lingering ===

impl Lingering {
    /// Whether no guard is left that is older than the moment it was taken from view.
    fn is_out_of_sight(&self, now: Epoch) -> bool {
        !self.since.in_same_generation(now)
    }
}

/// Moves the epoch on if no guard holds it back; says which it was before.
fn push() -> Epoch {
    let guard = Guard::new();
    guard.accelerate();
    guard.epoch()
}

/// Hands one to the waiting thread.
fn wait_elsewhere(lingering: Lingering) {
    static WAITING: LazyLock<Option<Sender<Lingering>>> = LazyLock::new(|| {
        let (sender, receiver) = channel();
        let thread = thread::Builder::new().name("keyfob-retired".to_owned());
        thread.spawn(move || wait(&receiver)).ok().map(|_| sender)
    });
    let lingering = match &*WAITING {
        Some(waiting) => match waiting.send(lingering) {
            Ok(()) => return,
            Err(refused) => refused.0,
        },
        None => lingering,
    };
    // The process may have no more threads: then this one's later looks free it.
    Guard::new().defer_execute(move || drop(lingering.token));
}

/// Lets go of what is out of sight, for as long as the process lives.
fn wait(arriving: &Receiver<Lingering>) {
    let mut lingering = Vec::new();
    loop {
        let next = if lingering.is_empty() {
            arriving.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            arriving.recv_timeout(PAUSE)
        };
        match next {
            Ok(next) => {
                lingering.push(next);
                lingering.extend(arriving.try_iter());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = push();
        lingering.retain(|it| !it.is_out_of_sight(now));
    }
}
