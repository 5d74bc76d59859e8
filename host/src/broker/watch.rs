//! Watching: a client that keeps tokens itself hears which of its copies are stale, and never a token.
//!
//! A watch tells what is so, not what happened: it looks at a key when something about it may have changed (a token was
//! published or withdrawn, policy changed, the decision it goes by ended), and tells when it is other than it last told.
//! While it lives, its keys are in use: they stay in memory and are renewed.

use std::sync::Arc;
use std::time::Duration;

use super::{Broker, CROWDED_PAUSE, Entry, ends};
use crate::model::error::{Error, ErrorKind, Retry};
use crate::model::key::TokenKey;
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::model::token::Generation;
use crate::watchers::{Bell, WATCHED_PER_CALLER_MAX, WATCHES_PER_CALLER_MAX};

/// The longest that a watch sleeps: by a clock that stands still while the machine does, so that what ended meanwhile is
/// found out soon after.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How soon a decision that holds for less is asked for again.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(1);
/// When a denial is asked for again: a policy may go by the time of day, or have failed just now.
const DENIED_PAUSE: Duration = Duration::from_secs(300);

/// Keys that somebody watches. Dropping it ends the watching.
pub struct Watch {
    broker: Broker,
    principal: Principal,
    bell: Arc<Bell>,
    keys: Vec<Watched>,
    /// The key that is being looked at: a look that was given up is made again.
    looking_at: Option<usize>,
}

/// What became of a watched key, by its number among the requests. It holds no token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchEvent {
    /// This is the current token: a copy of another generation is stale.
    Generation {
        /// Which key.
        key: usize,
        /// The token's name.
        generation: Generation,
        /// When it ends, for this caller. A copy is over then, and no event says so.
        expires: UnixTime,
    },
    /// There is no token now: drop the copy, and ask.
    Revoked {
        /// Which key.
        key: usize,
    },
    /// This caller may not have it, or not any more: drop the copy.
    Denied {
        /// Which key.
        key: usize,
    },
}

struct Watched {
    request: TokenRequest,
    entry: Option<Entry>,
    /// What the bell rings for.
    rings_for: Option<TokenKey>,
    told: Option<Standing>,
    /// When to look again whatever happens.
    look_at: UnixTime,
}

/// How a key stands, as far as a watcher is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Its name, its end, and the longest life that this caller is told: what an event says is made of these.
    Token(Generation, UnixTime, Option<Duration>),
    Nothing,
    Denied,
}

// === impl Broker ===

impl Broker {
    /// Watches the keys of these requests. The first events say how each of them stands.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] when the caller has too many watches already, or watches too many keys. What it may not have is no error but an
    /// event.
    pub fn watch(&self, principal: &Principal, requests: &[TokenRequest]) -> Result<Watch, Error> {
        let core = &self.0;
        let Some(bell) = core.watchers.enter(principal, requests.len()) else {
            return Err(Error::new(
                ErrorKind::Unavailable,
                Retry::After(CROWDED_PAUSE),
                "this caller watches too much already",
                format!(
                    "{principal:?} may have {WATCHES_PER_CALLER_MAX} watches, of {WATCHED_PER_CALLER_MAX} keys together"
                ),
                core.correlation(),
            ));
        };
        let watched = |request: &TokenRequest| Watched {
            request: request.clone(),
            entry: None,
            rings_for: None,
            told: None,
            look_at: UnixTime::MAX,
        };
        Ok(Watch {
            broker: self.clone(),
            principal: principal.clone(),
            bell,
            keys: requests.iter().map(watched).collect(),
            looking_at: None,
        })
    }
}

// === impl Watch ===

impl Watch {
    /// The next event; `None` once the broker ends. However long nobody asks, no more is kept than which keys to look at:
    /// what changed twice meanwhile is told once, as it is then.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if self.looking_at.is_none() {
                self.looking_at = self.bell.next();
            }
            if let Some(number) = self.looking_at {
                let standing = self.look(number).await;
                self.looking_at = None;
                let watched = &mut self.keys[number];
                if watched.told.replace(standing) != Some(standing) {
                    return Some(self.event(number, standing));
                }
                continue;
            }
            let core = &self.broker.0;
            let now = core.now();
            let soonest = self.keys.iter().map(|watched| watched.look_at).min();
            let pause = soonest.map_or(LOOK_EVERY, |at| at.since(now).min(LOOK_EVERY));
            tokio::select! {
                () = core.stop.cancelled() => return None,
                () = self.bell.rung() => {}
                () = tokio::time::sleep(pause) => {
                    let now = core.now();
                    let due = |watched: &Watched| watched.look_at <= now;
                    let due = self.keys.iter().enumerate().filter(|(_, watched)| due(watched));
                    due.for_each(|(number, _)| self.bell.ring(number));
                }
            }
        }
    }

    /// How many keys it watches.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// True when it watches none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    async fn look(&mut self, number: usize) -> Standing {
        let core = self.broker.0.clone();
        let now = core.now();
        let watched = &mut self.keys[number];
        let held = watched.entry.as_ref().is_some_and(|entry| {
            entry.decision.holds(core.epoch.current(), now) && !entry.pin.is_closed()
        });
        if !held {
            let known = self.broker.look_up(&self.principal, &watched.request, now);
            let entry = self
                .broker
                .entry(known, &self.principal, &watched.request, now);
            match entry.await {
                Ok(entry) => {
                    let key = &entry.pin.key();
                    if watched.rings_for.as_ref() != Some(key) {
                        let other = watched.rings_for.as_ref();
                        core.watchers.ring_for(&self.bell, number, key, other);
                        watched.rings_for = Some(key.clone());
                    }
                    watched.entry = Some(entry);
                }
                Err(error) => {
                    watched.entry = None;
                    return match error.kind() {
                        ErrorKind::Denied => {
                            watched.look_at = now.plus(DENIED_PAUSE);
                            Standing::Denied
                        }
                        _ => {
                            watched.look_at = now.plus(CROWDED_PAUSE);
                            Standing::Nothing
                        }
                    };
                }
            }
        }
        let Some(entry) = &watched.entry else {
            return Standing::Nothing;
        };
        watched.look_at = entry.decision.allowed_until.max(now.plus(LOOK_AGAIN_MIN));
        match entry.pin.servable(now) {
            Ok(token) => {
                // Whoever hears of it uses it: it is worth renewing.
                entry.pin.touch(now);
                let max = entry.decision.max_lifetime;
                Standing::Token(token.generation(), token.expires(), max)
            }
            Err(_) => Standing::Nothing,
        }
    }

    fn event(&self, key: usize, standing: Standing) -> WatchEvent {
        match standing {
            Standing::Token(generation, expires, max) => WatchEvent::Generation {
                key,
                generation,
                expires: ends(expires, max, self.broker.0.now()),
            },
            Standing::Nothing => WatchEvent::Revoked { key },
            Standing::Denied => WatchEvent::Denied { key },
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let keys = self
            .keys
            .iter()
            .filter_map(|watched| watched.rings_for.as_ref());
        let watchers = &self.broker.0.watchers;
        watchers.leave(&self.principal, &self.bell, keys);
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}
