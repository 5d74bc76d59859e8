//! Keyfob owns the lifecycle of OAuth access tokens so that no other service has to.

pub mod model;
pub mod store;
pub mod settings;
