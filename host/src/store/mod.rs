//! Durable and shared state: credentials, gated by version. What belongs here is the contract and its backends; what
//! does not is any decision about a credential, which is `model/flow`'s.
//!
//! Backends other than memory see sealed rows only: `vault` makes and opens them, `sealing` has the keys, `record` the bytes.
//! Every backend keeps the promises of one test suite.
//!
//! **The contract.** A row is a [`Credential`] under a [`CredentialKey`] with a [`Version`]. A commit names the version it
//! was decided on and is refused when the row has moved on: that alone keeps a late writer from undoing a newer one.
//! A commit is atomic: whoever loads sees all of it or none. Versions of a key never restart, not even after a revoke.
//! A commit that was answered stays, whatever happens to the process, where [`Store::durable`] says so. One that failed
//! otherwise than by conflict, or whose caller left, may have happened: load again and see.

pub mod embedded;
#[cfg(test)]
mod faulty;
pub mod memory;
mod record;
mod sealing;
#[cfg(test)]
mod suite;
mod vault;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::model::contract::BoxFuture;
pub use crate::model::credential::{CommitFault, Stored, Unreachable};
use crate::model::credential::{Credential, Version};
use crate::model::key::{CredentialKey, ProviderName};
use crate::model::secret::Secret;

/// Credentials counted by provider and by the label of their state.
pub type Census = HashMap<(ProviderName, &'static str), u64>;

/// The most credentials that a scrape counts: each is read and opened, and a scrape must not take seconds.
pub const CENSUS_MAX: usize = 10_000;

/// A plugin that was swapped in.
#[derive(Clone)]
pub struct KeptPlugin {
    /// What the configuration named when it was swapped in: another name since then means that the operator decided anew.
    pub instead_of: String,
    /// The component.
    pub component: Arc<[u8]>,
}

/// Keeps credentials, and the plugins that were swapped in.
pub trait Store: Send + Sync + fmt::Debug {
    /// The record of a key.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    fn load<'a>(&'a self, key: &'a CredentialKey) -> BoxFuture<'a, Result<Stored, Unreachable>>;

    /// Replaces the record if its version is still `expected`; answers with the new version. A blank one in place of none
    /// takes no room, and answers with version 0.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not happen.
    fn commit<'a>(
        &'a self,
        key: &'a CredentialKey,
        expected: Version,
        credential: Credential,
    ) -> BoxFuture<'a, Result<Version, CommitFault>>;

    /// Every key with a record, for metrics and listings; at most `limit`. One that is damaged is left out: loading it
    /// says so.
    fn keys(&self, limit: usize) -> BoxFuture<'_, Result<Vec<CredentialKey>, Unreachable>>;

    /// How many credentials each provider has in each state, for metrics; of at most [`CENSUS_MAX`].
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    fn census(&self) -> BoxFuture<'_, Result<Census, Unreachable>> {
        Box::pin(async move {
            let mut census = Census::new();
            for key in self.keys(CENSUS_MAX).await? {
                let state = self.load(&key).await?.credential.state.label();
                *census.entry((key.provider, state)).or_default() += 1;
            }
            Ok(census)
        })
    }

    /// Keeps a plugin that was swapped in, so that a restart does not silently go back; `None` forgets it.
    fn keep_plugin<'a>(
        &'a self,
        place: &'a str,
        plugin: Option<KeptPlugin>,
    ) -> BoxFuture<'a, Result<(), Unreachable>>;

    /// Every plugin kept, by place: a provider's name as `provider:NAME`, or `policy`.
    fn plugins(&self) -> BoxFuture<'_, Result<Vec<(String, KeptPlugin)>, Unreachable>>;

    /// What keys the fingerprints in its records, where they outlive the process.
    fn fingerprint_key(&self) -> Option<Secret<[u8; 32]>> {
        None
    }

    /// Whether what it answered to survives the process.
    fn durable(&self) -> bool;
}

impl From<Unreachable> for CommitFault {
    fn from(Unreachable(detail): Unreachable) -> Self {
        Self::Unreachable(detail)
    }
}

impl fmt::Debug for KeptPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes instead of {}",
            self.component.len(),
            self.instead_of
        )
    }
}
