//! What the suites beside it share: how a figure is kept, so that `report` can write it down next to its peers; real servers
//! to compare with, and what asks them.
//!
//! A suite answers one question and is one file. What criterion times is read back from where criterion keeps it; what a
//! scenario counts is recorded by hand. Nothing here measures by itself.

pub mod asked;
pub mod bare;
pub mod broker;
pub mod cached;
pub mod cores;
pub mod draw;
pub mod entries;
pub mod guests;
pub mod hand;
pub mod instructions;
pub mod issuer;
pub mod live;
pub mod load;
pub mod pair;
pub mod peers;
pub mod prompt;
pub mod record;
pub mod servers;
pub mod simulated;
pub mod spent;
pub mod stage;
