//! What the suites beside it share: how a figure is kept, so that `report` can write it down next to its peers.
//!
//! A suite answers one question and is one file. What criterion times is read back from where criterion keeps it; what a
//! scenario counts is recorded by hand. Nothing here measures.

pub mod bare;
pub mod cached;
pub mod draw;
pub mod entries;
pub mod guests;
pub mod hand;
pub mod instructions;
pub mod live;
pub mod pair;
pub mod prompt;
pub mod record;
pub mod simulated;
pub mod spent;
pub mod stage;
