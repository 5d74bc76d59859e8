//! Keyfob owns the lifecycle of OAuth access tokens so that no other service has to.

pub mod broker;
pub mod cache;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod flight;
pub mod gate;
pub mod keys;
pub mod model;
pub mod observe;
pub mod schedule;
pub mod secrets;
pub mod settings;
pub mod snapshot;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod upstream;
pub mod wasm;

mod authorize;
mod core;
mod refresh;
mod revoke;
mod shim;
