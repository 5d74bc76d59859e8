//! Durable and shared state: credentials, gated by version. What belongs here is the contract and its backends; what
//! does not is any decision about a credential, which is `model/flow`'s.
//!
//! Backends other than memory see sealed rows only: `vault` makes and opens them, `sealing` has the keys, `record` the bytes.
//! Every backend keeps the promises of one test suite.
//!
//! # The contract
//!
//! **Rows.** A row is a [`Credential`] under a [`CredentialKey`] with a [`Version`]. A commit names the version it was
//! decided on and is refused when the row has moved on: that alone keeps a late writer from undoing a newer one. A commit is
//! atomic: whoever loads sees all of it or none. Versions of a key never restart, not even after a revoke; only
//! [shredding](Upkeep::shred) its tenant ends a key's history. A commit that was answered stays, whatever happens to the
//! process, where [`Store::durable`] says so. One that failed otherwise than by conflict, or whose caller left, may have
//! happened: load again and see. Readers never go back: after a load at one version no later load answers an older one.
//!
//! **Intent** is a member of the row, so it is durable and gated like the rest of it: whoever would send commits one first,
//! whoever finds one that is not over does not send. A backend neither knows nor clears it.
//!
//! **Leases** say who may send next. They are an efficiency: a backend may lose one at any time, and two owners may believe
//! to hold one. Nothing durable hangs on them, and none is a fence: owners are random, not counted.
//!
//! **Tokens** are kept so that a restart need not ask for them anew. A backend may forget any of them, and a kept one need
//! not be on disk when that is answered. Whether one is still good is its reader's to judge.
//!
//! **The change feed** numbers every commit that changed a row, densely, in the order in which they took effect. It is a hint
//! where to look, with a bound: a reader that fell behind is told of the gap and reads the rows again.
//!
//! **The revocation log** numbers every change of a row to *revoked*, densely, in the same transaction as that change. It is
//! append-only, with a bound like the feed's.
//!
//! A backend may assume that keys and records are within the bounds of `model::key` and of one flow. It may not assume that a
//! caller waits for its answer, that calls come in any order, or that the clock of one caller is that of another.

pub mod embedded;
#[cfg(test)]
mod faulty;
mod lease;
pub mod memory;
mod record;
mod sealing;
#[cfg(test)]
mod suite;
mod vault;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::lease::{Lease, Owner};
use crate::model::contract::BoxFuture;
pub use crate::model::credential::{CommitFault, Stored, Unreachable};
use crate::model::credential::{Credential, Version};
use crate::model::key::{CredentialKey, ProviderName, Tenant, TokenKey};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
pub use crate::model::token::TokenRecord;

/// What a scrape counts of the credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// How many, by provider and by the label of their state.
    pub states: HashMap<(ProviderName, &'static str), u64>,
    /// Since when the oldest grant of each provider is what it is, of those that can be used.
    pub oldest_grants: HashMap<ProviderName, UnixTime>,
}

/// The most credentials that a scrape counts: each is read and opened, and a scrape must not take seconds.
pub const CENSUS_MAX: usize = 10_000;
/// The most changes that a feed goes back: an hour at 18 commits a second. Whoever was away for longer reads all rows.
pub const CHANGES_MAX: u64 = 65_536;
/// The most revocations that the log goes back: at 200 bytes each, 50 MiB. More within the life of one access token is an
/// incident after which everything is read anew.
pub const REVOCATIONS_MAX: u64 = 262_144;

/// A plugin that was swapped in.
#[derive(Clone)]
pub struct KeptPlugin {
    /// What the configuration named when it was swapped in: another name since then means that the operator decided anew.
    pub instead_of: String,
    /// The component.
    pub component: Arc<[u8]>,
}

/// Some of the rows, in the store's own order.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The rows. Fewer than were asked for: there are no more.
    pub rows: Vec<(CredentialKey, Stored)>,
    /// How many were passed over because they do not open; loading one says what is wrong with it.
    pub damaged: u64,
}

/// What came after a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since<T> {
    /// This, in order and without a gap. Empty: nothing yet.
    Entries(Vec<T>),
    /// Something that is no longer kept: read everything anew and go on after `newest`.
    Gap {
        /// The number of the newest entry.
        newest: u64,
    },
}

/// A commit that changed a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// Its number: one more than the change before.
    pub number: u64,
    /// Which row; none when it cannot be read any more.
    pub key: Option<CredentialKey>,
    /// The version it got.
    pub version: Version,
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Its number: one more than the revocation before.
    pub number: u64,
    /// Whose credential, and when; none when its tenant was shredded since.
    pub of: Option<(CredentialKey, UnixTime)>,
}

/// Keeps credentials, the tokens obtained with them, and the plugins that were swapped in.
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

    /// At most `limit` rows that follow the one of `after` in the store's own order; from the first without it. Rows that
    /// change meanwhile are in it once, as they are or were.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    fn scan<'a>(
        &'a self,
        after: Option<&'a CredentialKey>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, Unreachable>>;

    /// How many credentials each provider has in each state, and how old its grants are, for metrics; of at most
    /// [`CENSUS_MAX`].
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    fn census(&self) -> BoxFuture<'_, Result<Census, Unreachable>> {
        Box::pin(async move {
            let mut census = Census::default();
            for (key, row) in self.scan(None, CENSUS_MAX).await?.rows {
                census.count(&key.provider, &row.credential);
            }
            Ok(census)
        })
    }

    /// Asks for the right to send, until `now` + `ttl`; again by the same owner, prolongs it. A backend that several processes
    /// share goes by its own clock instead of `now`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not be held; then it ends by itself.
    fn acquire<'a>(
        &'a self,
        key: &'a CredentialKey,
        owner: Owner,
        ttl: Duration,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Lease, Unreachable>>;

    /// Gives a lease back, if it is still this owner's. Not heard, it ends by itself.
    fn release<'a>(&'a self, key: &'a CredentialKey, owner: Owner) -> BoxFuture<'a, ()>;

    /// At most `limit` commits after the one of this number.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    fn changes(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<RowChange>, Unreachable>>;

    /// At most `limit` revocations after the one of this number.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    fn revocations(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Since<Revocation>, Unreachable>>;

    /// The token kept for a key, over or not.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    fn load_token<'a>(
        &'a self,
        key: &'a TokenKey,
    ) -> BoxFuture<'a, Result<Option<TokenRecord>, Unreachable>>;

    /// Keeps a token in place of the one before.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not happen.
    fn keep_token<'a>(
        &'a self,
        key: &'a TokenKey,
        record: TokenRecord,
    ) -> BoxFuture<'a, Result<(), Unreachable>>;

    /// Forgets at most `limit` tokens that were over before this time; answers how many.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it may or may not happen.
    fn forget_tokens(
        &self,
        before: UnixTime,
        limit: usize,
    ) -> BoxFuture<'_, Result<usize, Unreachable>>;

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

    /// Whether this process is the only one that has it: then what it finds in it and did not write itself is of a process
    /// that is gone.
    fn exclusive(&self) -> bool {
        false
    }

    /// What can be done to it as a whole; none where it is but memory.
    fn upkeep(&self) -> Option<&dyn Upkeep> {
        None
    }
}

/// What operators do to a store as a whole. Everything here goes on without its caller, and loses no row.
pub trait Upkeep: Send + Sync {
    /// Whether all of it was read and compared with what was written last when it was opened.
    fn verified_at_open(&self) -> bool;

    /// Whether this is the operator's key that opens it.
    fn is_sealed_with(&self, sealing_key: Secret<String>) -> BoxFuture<'_, bool>;

    /// Reads every row and compares them with what was written last; answers how many there are.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] says what is wrong.
    fn verify(&self) -> BoxFuture<'_, Result<u64, Unreachable>>;

    /// Seals the store's keys with another sealing key (32 bytes of base64), in one step; the old one opens it no more.
    /// Answers with the ids of the old and the new one.
    ///
    /// # Errors
    ///
    /// [`Unreachable`], when it may or may not have happened: the next start finds out which key fits.
    fn rotate_key(
        &self,
        sealing_key: Secret<String>,
    ) -> BoxFuture<'_, Result<[String; 2], Unreachable>>;

    /// Forgets everything of a tenant: its rows and tokens, and the keys that would open what is left of them anywhere else.
    /// Answers how many credentials that were.
    ///
    /// # Errors
    ///
    /// [`Unreachable`], when it may or may not have happened.
    fn shred<'a>(&'a self, tenant: &'a Tenant) -> BoxFuture<'a, Result<u64, Unreachable>>;

    /// Writes what is in force into a new file in place of the old, so that nothing else is left in it; answers the bytes
    /// before and after. Takes as much room again while it runs; commits and loads wait for it.
    ///
    /// # Errors
    ///
    /// [`Unreachable`]: the old file is in force.
    fn compact(&self) -> BoxFuture<'_, Result<[u64; 2], Unreachable>>;

    /// Writes a copy as of now to a path where there is nothing; answers its bytes. Commits go on.
    ///
    /// # Errors
    ///
    /// [`Unreachable`]: there is no copy.
    fn backup<'a>(&'a self, to: &'a Path) -> BoxFuture<'a, Result<u64, Unreachable>>;
}

// === impl Census ===

impl Census {
    fn count(&mut self, provider: &ProviderName, credential: &Credential) {
        let state = (provider.clone(), credential.state.label());
        *self.states.entry(state).or_default() += 1;
        if credential.refresh_token.is_some() && credential.state.is_usable() {
            let since = credential.grant_since;
            let oldest = self.oldest_grants.entry(provider.clone()).or_insert(since);
            *oldest = since.min(*oldest);
        }
    }
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
