//! Placeholder for the broker: the signatures the daemon is written against, and answers that refuse.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::model::contract::{Description, Mistake, Needs};
use crate::model::error::{Correlation, Error, ErrorKind, Retry};
use crate::model::event::Observer;
use crate::model::key::{CredentialKey, ScopeSet, TokenKey};
use crate::model::policy::{Principal, TokenRequest};
use crate::model::secret::Secret;
use crate::model::time::{Clock, UnixTime};
use crate::model::token::AccessToken;
use crate::settings::{CallerSettings, PluginSource, ProviderSettings};

/// Reads one environment variable; the daemon hands it in so that nothing else touches the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Obtains, keeps and renews tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Broker;

/// Sets a broker up.
#[derive(Default)]
pub struct Builder {
    settings: Option<BrokerSettings>,
}

/// Everything a broker is configured with.
#[derive(Clone, Debug)]
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
    /// Where its plugin comes from.
    pub plugin: PluginSource,
}

/// A token handed out.
pub struct Issued {
    /// The token.
    pub token: Arc<AccessToken>,
    /// Its end or the permit's, whichever is first.
    pub expires: UnixTime,
    /// What it may do.
    pub scopes: ScopeSet,
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

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct SetupMistake {
    /// With which provider; none is the policy or the whole.
    pub provider: Option<String>,
    /// What.
    pub message: String,
    /// What to write instead.
    pub fix: String,
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
}

/// An import that was taken.
#[derive(Clone, Copy, Debug)]
pub struct ImportOutcome {
    /// Whether it survives a restart.
    pub durable: bool,
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

/// The timeline of one key.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {}

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

/// The bytes of a shipped plugin.
pub fn builtin(_name: &str) -> Option<&'static [u8]> {
    None
}

/// Loads a plugin as the host would and asks it about itself.
///
/// # Errors
///
/// [`SwapError`] when the host would not load it.
pub async fn inspect(
    _component: Arc<[u8]>,
    _settings: Option<&str>,
) -> Result<Inspection, SwapError> {
    Err(unavailable_swap())
}

fn unavailable() -> Error {
    Error::new(
        ErrorKind::Denied,
        Retry::Never,
        "not allowed",
        "this build has no broker",
        Correlation(1),
    )
}

fn unavailable_swap() -> SwapError {
    SwapError {
        code: "host",
        message: "this build has no broker".to_owned(),
        mistakes: vec![],
    }
}

// === impl Builder ===

impl Builder {
    /// Tells the time.
    #[must_use]
    pub fn clock(self, _clock: Arc<dyn Clock>) -> Self {
        self
    }

    /// Hears every event.
    #[must_use]
    pub fn observer(self, _observer: Arc<dyn Observer>) -> Self {
        self
    }

    /// Reads variables.
    #[must_use]
    pub fn environment(self, _environment: Environment) -> Self {
        self
    }

    /// What to run.
    #[must_use]
    pub fn settings(mut self, settings: BrokerSettings) -> Self {
        self.settings = Some(settings);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// Every mistake at once.
    pub async fn build(self) -> Result<Broker, StartError> {
        Ok(Broker)
    }
}

// === impl Broker ===

impl Broker {
    /// Sets one up.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A valid token.
    pub async fn token(
        &self,
        _principal: &Principal,
        _request: &TokenRequest,
    ) -> Result<Issued, Error> {
        Err(unavailable())
    }

    /// A token that replaces a refused one.
    pub async fn reject(
        &self,
        _principal: &Principal,
        _request: &TokenRequest,
        _report: &RejectReport,
    ) -> Result<(Issued, RejectOutcome), Error> {
        Err(unavailable())
    }

    /// Takes new settings, all or nothing.
    pub async fn apply(&self, _settings: BrokerSettings) -> Result<u64, StartError> {
        Ok(1)
    }

    /// Every provider.
    pub fn providers(&self) -> Vec<ProviderStatus> {
        Vec::new()
    }

    /// One provider.
    pub fn provider(&self, _name: &str) -> Option<ProviderStatus> {
        None
    }

    /// Swaps a plugin.
    pub async fn swap_provider(
        &self,
        _name: &str,
        _component: Arc<[u8]>,
        _by: &str,
    ) -> Result<Swapped, SwapError> {
        Err(unavailable_swap())
    }

    /// Goes back to the plugin before.
    pub async fn rollback_provider(&self, _name: &str, _by: &str) -> Result<Swapped, SwapError> {
        Err(unavailable_swap())
    }

    /// Swaps the policy.
    pub async fn swap_policy(
        &self,
        _component: Arc<[u8]>,
        _by: &str,
    ) -> Result<Swapped, SwapError> {
        Err(unavailable_swap())
    }

    /// Goes back to the policy before.
    pub async fn rollback_policy(&self, _by: &str) -> Result<Swapped, SwapError> {
        Err(unavailable_swap())
    }

    /// Takes a grant over.
    pub async fn import_credential(
        &self,
        _key: CredentialKey,
        _refresh_token: Secret<String>,
        _by: &str,
    ) -> Result<ImportOutcome, ImportError> {
        Err(ImportError::UnknownProvider)
    }

    /// The state of a credential.
    pub async fn credential(&self, _key: &CredentialKey) -> Option<CredentialStatus> {
        None
    }

    /// Ends a credential.
    pub async fn revoke_credential(
        &self,
        _key: &CredentialKey,
        _by: &str,
    ) -> Result<RevokeOutcome, Error> {
        Err(unavailable())
    }

    /// What happened to a key.
    pub fn explain(&self, _key: &TokenKey) -> Option<Explanation> {
        None
    }

    /// Whether traffic is welcome.
    pub fn ready(&self) -> Readiness {
        Readiness {
            ready: true,
            degraded: false,
            waiting_for: Vec::new(),
        }
    }

    /// Prometheus text.
    pub fn metrics(&self) -> String {
        String::new()
    }

    /// Waits for flights, at most this long.
    pub async fn shutdown(&self, _drain: Duration) {}
}

/// Writes events as log lines.
pub struct Lines;

impl Observer for Lines {
    fn observe(&self, event: &crate::model::event::Event) {
        tracing::info!(?event);
    }
}
