//! Everything worth telling that happens, once, where the fact becomes true. Feeds logs, metrics, audit and tests.

use std::time::Duration;

use super::contract::Cause;
use super::credential::{CredentialState, Version};
use super::error::{Correlation, ErrorKind};
use super::key::{CredentialKey, ProviderName, Tenant, TokenKey};
use super::time::UnixTime;
use super::token::Generation;
use super::transport::FaultKind;

/// One fact. No variant can hold a secret or a token.
#[derive(Clone, Debug)]
pub enum Event {
    /// A flight took off.
    RefreshStarted {
        /// For which key.
        key: TokenKey,
        /// Why.
        cause: Cause,
    },
    /// A flight landed.
    RefreshFinished {
        /// For which key.
        key: TokenKey,
        /// Why it ran.
        cause: Cause,
        /// How it ended.
        outcome: RefreshOutcome,
        /// From take-off to landing.
        took: Duration,
    },
    /// A token that the store kept is served again; the issuer was not asked.
    TokenAdopted {
        /// Of which key.
        key: TokenKey,
        /// Its name.
        generation: Generation,
        /// Its end.
        expires: UnixTime,
    },
    /// A request left the process.
    UpstreamAnswered {
        /// Of which provider.
        provider: ProviderName,
        /// HTTP status, or how it failed.
        result: Result<u16, FaultKind>,
        /// How long it took.
        took: Duration,
        /// The host's words, where it failed.
        detail: Option<String>,
    },
    /// A plugin failed to answer, or broke the contract.
    PluginFailed {
        /// Of which provider, or `policy`.
        provider: String,
        /// `trap`, `deadline`, `limit`, `broken`, `host`.
        label: &'static str,
        /// For operators.
        detail: String,
    },
    /// A resource refused a token.
    TokenRejected {
        /// Of which key.
        key: TokenKey,
        /// Which one.
        generation: Generation,
        /// `refreshed`, `already_replaced`, `kept`.
        outcome: &'static str,
        /// Who says so.
        caller: String,
    },
    /// A request was refused by policy.
    Denied {
        /// Who asked.
        caller: String,
        /// Whose tenant.
        tenant: Tenant,
        /// At which provider.
        provider: String,
        /// A closed code.
        code: String,
        /// What an operator would have to write.
        fix: String,
        /// Finds the caller's answer.
        correlation: Correlation,
    },
    /// A caller got an error that is no denial.
    RequestFailed {
        /// Of which key.
        key: TokenKey,
        /// Of which kind.
        kind: ErrorKind,
        /// For operators.
        detail: String,
        /// Finds the caller's answer.
        correlation: Correlation,
    },
    /// A credential changed its state.
    CredentialChanged {
        /// Which one.
        key: CredentialKey,
        /// From which state.
        was: CredentialState,
        /// To which state.
        state: CredentialState,
        /// At which version.
        version: Version,
        /// Who did it: a flow, or an operator's name.
        by: String,
    },
    /// A grant was replaced by the issuer.
    GrantRotated {
        /// Of which credential.
        key: CredentialKey,
        /// At which version.
        version: Version,
    },
    /// A plugin or the policy was swapped, or refused.
    PluginSwapped {
        /// Of which provider, or `policy`.
        provider: String,
        /// The revision in force afterwards.
        revision: u64,
        /// Digest of the plugin.
        digest: String,
        /// Whether the order was to go back to the one before.
        rollback: bool,
        /// What was wrong, where it was refused.
        refused: Option<String>,
        /// Which operator did it.
        by: String,
    },
    /// The configuration was read again.
    ConfigReloaded {
        /// What was wrong, where it was refused.
        refused: Option<String>,
    },
    /// Something was done to the store as a whole, or was not.
    StoreKept {
        /// `verify`, `compact`, `backup`, `rotate_key`, `shred`.
        what: &'static str,
        /// What came of it, for operators.
        detail: String,
        /// Why it was not done.
        refused: Option<String>,
        /// Which operator ordered it; `keyfob` itself.
        by: String,
    },
    /// An idle or surplus key left the cache.
    KeyEvicted {
        /// Which one.
        key: TokenKey,
        /// `idle` or `full`.
        why: &'static str,
    },
    /// Something an operator should know and nobody else asked about.
    Notice {
        /// A closed code.
        code: &'static str,
        /// The words.
        detail: String,
    },
}

/// How a flight ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// With a new token.
    Renewed {
        /// Its name.
        generation: Generation,
        /// Its end.
        expires: UnixTime,
    },
    /// With a failure.
    Failed {
        /// Of which kind.
        kind: ErrorKind,
        /// For operators.
        detail: String,
        /// When the next attempt may start.
        not_before: Option<UnixTime>,
        /// Finds the callers' answers.
        correlation: Correlation,
    },
}

/// Takes events. Called on the emitting task: must not block.
pub trait Observer: Send + Sync {
    /// One fact.
    fn observe(&self, event: &Event);
}
