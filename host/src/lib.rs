//! Keyfob owns the lifecycle of OAuth access tokens so that no other service has to.

pub mod model;
pub mod observe;
pub mod settings;
#[cfg(feature = "testing")]
pub mod testing;
pub mod upstream;
