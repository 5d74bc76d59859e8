//! Tokens in memory: one [`Slot`] a key, an index by key and by remembered decision, and handles that need neither.
//!
//! Here belongs what a hit touches, and who may stay when room is short. Not here: deciding who may have a token
//! (`authorize`), obtaining one (`refresh`), who obtains it (`flight`), and when (`schedule`).
//!
//! Shared mutable state: the two maps of [`Cache`] (read-mostly, lock-free for readers), its book of accounts (a mutex,
//! taken when a key or a decision is new), and per key what a [`Slot`] shows, its words and its cell. A slot's cell is the
//! leaf of the lock order: it is taken while the book is held, and nothing is taken while it is held. A hit takes none.
//!
//! Memory that readers may be looking at is freed by `sdd`, the collector that the maps use too: a reader holds a guard, which
//! costs one exchange on a line of its own thread, and what was retired is freed once no older guard is left. The guard that
//! finds the entry is the one under which the token is read.

mod accounts;
mod ask;
mod coarse;
#[cfg(test)]
mod crowd_tests;
mod decision;
mod handle;
mod index;
mod place;
mod rejects;
mod slot;

pub use accounts::Full;
pub use coarse::{CoarseClock, Ticks};
pub use decision::{Decision, PolicyEpoch};
pub use handle::{Nudge, SharedTokenHandle, TokenHandle};
pub use index::{ASKS_PER_KEY, Cache, CacheLimits, Hit, KEYS_MAX, KEYS_PER_CALLER_MAX};
pub use rejects::Rejection;
pub use slot::{Era, NotPublishable, NotReady, Pin, Slot};
