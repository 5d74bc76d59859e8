//! What the broker takes and gives at its door, as plain values.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::model::contract::{Description, Mistake, Needs, Rotation};
use crate::model::error::Error;
use crate::model::key::{CredentialKey, ProviderName, Tenant};
use crate::model::time::UnixTime;
use crate::model::token::AccessToken;
use crate::settings::{CallerSettings, PluginSource, ProviderSettings};
pub use crate::snapshot::SetupMistake;

/// Everything a broker is configured with.
#[derive(Clone, Debug, Default)]
pub struct BrokerSettings {
    /// Providers.
    pub providers: Vec<ProviderSettings>,
    /// The policy.
    pub policy: PolicySettings,
    /// Callers, with their rules.
    pub callers: Vec<CallerSettings>,
}

/// Which policy decides.
#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// Where its plugin comes from; the shipped allowlist unless given.
    pub plugin: PluginSource,
}

// === impl PolicySettings ===

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            plugin: PluginSource::Builtin("allowlist".to_owned()),
        }
    }
}

/// A token handed out.
pub struct Issued {
    /// The token.
    pub token: Arc<AccessToken>,
    /// Its end or the permit's, whichever is first.
    pub expires: UnixTime,
}

/// What a rejection led to.
pub enum RejectOutcome {
    /// A new token was obtained.
    Refreshed,
    /// Somebody else had it replaced already.
    AlreadyReplaced,
    /// It stays; ask again later.
    Kept {
        /// When another rejection may be heard.
        retry_after: Duration,
    },
}

/// How a resource refused a token.
pub struct RejectReport {
    /// Which token.
    pub generation: u64,
    /// HTTP status of the resource.
    pub status: Option<u16>,
    /// Its `WWW-Authenticate`.
    pub www_authenticate: Option<String>,
}

/// Why a broker could not be set up, or reconfigured.
#[derive(Clone, Debug)]
pub struct StartError {
    /// Everything that is wrong.
    pub mistakes: Vec<SetupMistake>,
}

/// A plugin in force.
#[derive(Clone, Debug)]
pub struct Swapped {
    /// The revision in force.
    pub revision: u64,
    /// Digest of the plugin.
    pub digest: String,
}

/// Why a plugin was not taken.
#[derive(Clone, Debug)]
pub struct SwapError {
    /// A closed code.
    pub code: &'static str,
    /// For the operator.
    pub message: String,
    /// What its `configure` or the grants say.
    pub mistakes: Vec<SetupMistake>,
}

/// A provider as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct ProviderStatus {
    /// Its name.
    pub name: String,
    /// Its plugin.
    pub plugin: String,
    /// Version of the plugin.
    pub version: String,
    /// Digest of the plugin.
    pub digest: String,
    /// Revision in force.
    pub revision: u64,
    /// Keys with a token.
    pub tokens: usize,
    /// Refreshes under way.
    pub flights: usize,
    /// Whether readiness waits for it.
    pub required: bool,
    /// Whether it has what readiness waits for.
    pub ready: bool,
    /// The last failure.
    pub last_error: Option<String>,
}

/// A credential as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct CredentialStatus {
    /// Its state.
    pub state: &'static str,
    /// Why.
    pub cause: Option<String>,
    /// Since when, unix seconds.
    pub since: u64,
    /// Its version.
    pub version: u64,
    /// Since when its grant is what it is: when it was handed over or last rotated, unix seconds. None without a grant.
    pub grant_since: Option<u64>,
    /// Whether its grant is replaced by each use, as far as it was declared or seen.
    pub rotates: Rotation,
    /// What became of it last is not on record yet: the store did not take it, and is asked again.
    pub undurable: bool,
    /// The note of an attempt that may be under way, or was cut off.
    pub intent: Option<IntentStatus>,
}

/// An attempt to spend a grant, as operators see it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct IntentStatus {
    /// Since when, unix seconds.
    pub since: u64,
    /// From when on it is over, answered or not, unix seconds.
    pub until: u64,
}

/// Which credentials are asked for.
#[derive(Clone, Debug, Default)]
pub struct CredentialFilter {
    /// Of this tenant only.
    pub tenant: Option<Tenant>,
    /// Of this provider only.
    pub provider: Option<ProviderName>,
    /// In the state of this label only.
    pub state: Option<&'static str>,
}

/// Some of the credentials, in the store's own order.
#[derive(Clone, Debug, Default)]
pub struct CredentialPage {
    /// Those that were asked for.
    pub credentials: Vec<(CredentialKey, CredentialStatus)>,
    /// Where to go on; none when there are no more.
    pub next: Option<CredentialKey>,
    /// Records on the way that do not open.
    pub damaged: u64,
}

/// Why something was not done.
#[derive(Debug)]
pub enum OrderError {
    /// It cannot be done as things stand; the words say what would change that.
    Inapplicable(String),
    /// Another order is under way; later.
    Busy,
    /// It was tried and failed.
    Failed(String),
}

/// A sealing key that was replaced.
#[derive(Clone, Debug, Serialize)]
pub struct KeyRotated {
    /// Names the old one.
    pub from: String,
    /// Names the new one.
    pub to: String,
    /// Whether the file was rewritten since; until it is, the keys as the old one sealed them are still in its free pages.
    pub compacted: bool,
}

/// A tenant that was forgotten.
#[derive(Clone, Debug, Serialize)]
pub struct Shredded {
    /// How many credentials it had.
    pub credentials: u64,
    /// As in [`KeyRotated`].
    pub compacted: bool,
}

/// An import that was taken.
#[derive(Clone, Copy, Debug)]
pub struct ImportOutcome {
    /// Whether it survives a restart.
    pub durable: bool,
    /// It was the grant in force already: nothing changed.
    pub unchanged: bool,
}

/// An import that was not taken.
#[derive(Debug)]
pub enum ImportError {
    /// The grant was spent here before.
    AlreadySpent,
    /// No such provider.
    UnknownProvider,
    /// It could not be kept.
    Failed(Error),
}

/// A revocation that took effect.
#[derive(Clone, Debug, Serialize)]
pub struct RevokeOutcome {
    /// Whether the issuer was told too.
    pub upstream: bool,
}

/// The timeline of one key: how it got where it is.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What a token would be obtained as.
    pub provider: String,
    /// Whose deployment.
    pub tenant: String,
    /// Whose token; none is the provider's own account.
    pub subject: Option<String>,
    /// For which resource.
    pub audience: Option<String>,
    /// With which scopes.
    pub scope: String,
    /// The token held.
    pub generation: Option<u64>,
    /// Its end, unix seconds.
    pub expires_at: Option<u64>,
    /// When it is renewed ahead of that, unix seconds.
    pub refresh_at: Option<u64>,
    /// Whether a refresh is under way.
    pub refreshing: bool,
    /// Failures in a row since the last token.
    pub failures: u32,
    /// The last failure, while it is remembered.
    pub last_error: Option<String>,
    /// The credential's state; none while the store cannot be reached.
    pub credential: Option<CredentialStatus>,
    /// The latest facts, oldest first.
    pub timeline: Vec<crate::observe::Fact>,
}

/// Whether traffic is welcome.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Every required token was obtained.
    pub ready: bool,
    /// Something is out of reach that valid tokens do not need.
    pub degraded: bool,
    /// Providers without their first token.
    pub waiting_for: Vec<String>,
}

/// What a plugin is, for the author of one.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Who it says it is.
    pub description: Description,
    /// Its digest.
    pub digest: String,
    /// What it needs under the given settings; none for a policy, or when no settings were given.
    pub needs: Option<Needs>,
    /// What is wrong with the settings.
    pub mistakes: Vec<Mistake>,
}
