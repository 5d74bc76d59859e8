//! The test kit: what the integration tests share. Not published.

pub mod pki;
pub mod raw;
