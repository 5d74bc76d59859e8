//! The integration tests: behaviours as modules, one binary.

mod sandbox;
mod stampede;
