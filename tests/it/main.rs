//! The one integration binary: behaviours as modules.

mod daemon;
mod docs;
mod faults;
mod issuer;
mod lifetimes;
mod observe;
mod oidc_provider;
mod rejects;
mod sandbox;
mod stampede;
mod tidy;
mod upstream;
