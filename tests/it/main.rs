//! The one integration binary: behaviours as modules.

mod daemon;
mod issuer;
mod observe;
mod oidc_provider;
mod sandbox;
mod tidy;
mod upstream;
