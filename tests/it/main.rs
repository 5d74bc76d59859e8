//! The one integration binary: behaviours as modules.

#![expect(
    clippy::disallowed_methods,
    reason = "callers of a test are tasks, and tasks of a test end with its runtime"
)]

mod aftermath;
mod batch;
mod bursts;
mod crash;
mod credentials;
mod daemon;
mod disk;
mod docs;
mod eviction;
mod faults;
mod handles;
mod hostile;
mod issuer;
mod leases;
mod lifetimes;
mod observe;
mod oidc_provider;
mod outage;
mod policy;
mod rejects;
mod sandbox;
mod stampede;
mod swaps;
mod tidy;
mod upstream;
mod warm;
mod watch;
