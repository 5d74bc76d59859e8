//! The integration tests: behaviours as modules, one binary.

#![expect(
    clippy::disallowed_methods,
    reason = "callers of a test are tasks, and tasks of a test end with its runtime"
)]

mod credentials;
mod eviction;
mod faults;
mod hostile;
mod lifetimes;
mod policy;
mod rejects;
mod sandbox;
mod stampede;
mod swaps;
