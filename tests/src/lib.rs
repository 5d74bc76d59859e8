//! The test kit: what the integration tests are written with.

pub mod guests;
pub mod hand;
pub mod logs;
pub mod stage;
