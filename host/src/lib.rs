//! Keyfob owns the lifecycle of OAuth access tokens so that no other service has to.

pub mod broker;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod model;
pub mod settings;
