//! Keyfob owns the lifecycle of OAuth access tokens so that no other service has to.

pub mod cache;
pub mod flight;
pub mod gate;
pub mod model;
pub mod schedule;
pub mod settings;
mod shim;
