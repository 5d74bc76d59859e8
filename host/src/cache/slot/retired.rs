//! A token that was taken from view: its memory is zeroed once nobody can be looking at it.
//!
//! That is at once, on the thread that took it from view, unless another is in the middle of a look. Then a thread of the
//! process's own waits for that look's end, so that neither the caller does nor the bytes of a revoked token stay until
//! somebody happens to look again.

use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use sdd::{Epoch, Guard};

use crate::model::token::AccessToken;

/// How often the epoch is pushed at most by whoever took a token from view: four pushes are enough (each says which epoch it
/// found, and three must have passed), but one comes to nothing while another thread is in the middle of a look.
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
    let found = guard.epoch();
    // What readers did before they let the epoch pass comes before what is done because it passed.
    fence(Ordering::Acquire);
    found
}

/// Hands one to the waiting thread, which is begun when it is first needed.
fn wait_elsewhere(lingering: Lingering) {
    /// How to reach it. Held while one is handed over.
    static WAITING: Mutex<Option<Sender<Lingering>>> = Mutex::new(None);
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    if waiting.is_none() {
        *waiting = begin();
    }
    let left = match &*waiting {
        Some(sender) => sender.send(lingering).err().map(|refused| refused.0),
        None => Some(lingering),
    };
    if let Some(left) = left {
        // The process may have no more threads: then this one's later looks free it, and the next begins it anew.
        *waiting = None;
        Guard::new().defer_execute(move || drop(left.token));
    }
}

/// Begins the waiting thread, if the system has one to give.
fn begin() -> Option<Sender<Lingering>> {
    let (sender, arriving) = channel();
    let thread = thread::Builder::new().name("keyfob-retired".to_owned());
    thread.spawn(move || wait(&arriving)).ok().map(|_| sender)
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
