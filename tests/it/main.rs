//! The integration tests: behaviours as modules, one binary.

mod issuer;
mod observe;
mod sandbox;
mod upstream;
