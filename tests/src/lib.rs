//! The test kit: what the integration tests are written with.

#![expect(
    clippy::disallowed_methods,
    reason = "callers of a test are tasks, and tasks of a test end with its runtime"
)]

pub mod guests;
pub mod hand;
pub mod logs;
pub mod stage;
