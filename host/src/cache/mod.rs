//! Tokens in memory: one [`Slot`] a key, an index by key and by remembered decision, and handles that need neither.
//!
//! Here belongs what a hit touches, and who may stay when room is short. Not here: deciding who may have a token
//! (`authorize`), obtaining one (`refresh`), who obtains it (`flight`), and when (`schedule`).
//!
//! Shared mutable state: the two maps of [`Cache`] (read-mostly, lock-free for readers), its book of accounts (a mutex,
//! taken when a key or a decision is new), and per key the words and the cell of a [`Slot`]. A slot's cell is the leaf
//! of the lock order: it is taken while the book is held, and nothing is taken while it is held.

mod accounts;
mod ask;
mod coarse;
#[cfg(test)]
mod crowd_tests;
mod decision;
mod handle;
mod index;
mod rejects;
mod slot;

pub use accounts::Full;
pub use coarse::CoarseClock;
pub use decision::{Decision, PolicyEpoch};
pub use handle::{Nudge, SharedTokenHandle, TokenHandle};
pub use index::{ASKS_PER_KEY, Cache, CacheLimits, Hit, KEYS_MAX, KEYS_PER_CALLER_MAX};
pub use rejects::Rejection;
pub use slot::{Era, NotPublishable, NotReady, Pin, Slot};
