//! The one integration binary: behaviours as modules.

mod daemon;
mod docs;
mod issuer;
mod observe;
mod oidc_provider;
mod sandbox;
mod tidy;
mod upstream;
