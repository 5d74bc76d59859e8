//! The integration tests: behaviours as modules, one binary.

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
