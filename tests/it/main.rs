//! The one integration binary: behaviours as modules.

mod daemon;
mod oidc_provider;
mod sandbox;
mod tidy;
