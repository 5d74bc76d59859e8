//! One binary for every integration test: behaviours are modules.

mod issuer;
mod observe;
mod upstream;
