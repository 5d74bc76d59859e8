//! The integration tests: behaviours as modules, one binary.

mod credentials;
mod faults;
mod lifetimes;
mod rejects;
mod sandbox;
mod stampede;
