//! What the suites beside it share: how a figure is kept, so that `report` can write it down next to its peers.
//!
//! A suite answers one question and is one file. What criterion times is read back from where criterion keeps it; what a
//! scenario counts is recorded by hand. Nothing here measures.

pub mod asked;
pub mod cached;
pub mod draw;
pub mod issuer;
pub mod pair;
pub mod peers;
pub mod record;
