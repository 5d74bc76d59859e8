//! What an operator or an embedding gateway configures, as typed values. The daemon reads them from TOML; a library
//! user writes them. Nothing here is checked against a plugin yet: that is `snapshot`'s.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::contract::Rotation;
pub use crate::model::credential::AfterLostAnswer;
use crate::model::key::{ProviderName, ScopeSet, Tenant};
use crate::model::secret::Secret;

/// One `[providers.NAME]` table.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// Its name.
    pub name: ProviderName,
    /// Where its plugin comes from.
    pub plugin: PluginSource,
    /// Origins with paths that may be reached; whole segments.
    pub allow: Vec<String>,
    /// Plain http, to loopback only.
    pub insecure_http: bool,
    /// Private or link-local addresses that are meant; single addresses or CIDR blocks.
    pub allow_addresses: Vec<String>,
    /// Whether readiness waits for a first token of its own account.
    pub required: bool,
    /// The plugin's settings: a JSON object.
    pub settings: serde_json::Value,
    /// Secrets by name.
    pub secrets: Vec<SecretSettings>,
    /// When and how tokens are renewed.
    pub refresh: RefreshSettings,
    /// Members of answers that the plugin may read.
    pub readable: Vec<String>,
    /// Extra members that callers get.
    pub expose: Vec<String>,
    /// Scopes for callers that name none.
    pub scopes: ScopeSet,
    /// Trust and client certificate.
    pub tls: Option<ClientTls>,
    /// A proxy; none means none, whatever the environment says.
    pub proxy: Option<ProxySettings>,
    /// Whether scripted guests get an empty WASI.
    pub wasi: Wasi,
}

/// Where a plugin comes from.
#[derive(Clone)]
pub enum PluginSource {
    /// One that ships with the host: `oauth2`, `github-app`.
    Builtin(String),
    /// A file: a component, or a core module that carries its WIT.
    File(PathBuf),
    /// Bytes in hand.
    Bytes(Arc<[u8]>),
}

/// A secret and where it may go.
#[derive(Clone, Debug)]
pub struct SecretSettings {
    /// Its name: 1 to 64 bytes of `a-z`, `0-9`, `_`.
    pub name: String,
    /// Where its value comes from.
    pub source: SecretSource,
    /// Destinations; none means the provider's `allow`.
    pub to: Option<Vec<String>>,
    /// Places, such as `auth`, `form`, `form:client_secret`, `json`, `text`, `header:x-api-key`; none means auth and body.
    pub places: Option<Vec<String>>,
    /// For signing keys: `RS256`, `ES256`, `EdDSA` or `HS256`.
    pub alg: Option<String>,
    /// For signing keys: the `kid` header.
    pub key_id: Option<String>,
    /// For signing keys: audiences that a JWT may name; none means the provider's `allow`, their origins,
    /// and the paths between.
    pub audiences: Option<Vec<String>>,
}

/// Where a secret's value comes from. Files and variables are read again for each flow.
#[derive(Clone, PartialEq)]
pub enum SecretSource {
    /// An environment variable, read by the daemon through this function so that only it touches the environment.
    Env(String),
    /// A file; one trailing newline is not part of the value.
    File(PathBuf),
    /// The value itself: development and embedding.
    Value(Secret<String>),
}

/// When and how tokens are renewed.
#[derive(Clone, Debug)]
pub struct RefreshSettings {
    /// How long before the end: a share of the lifetime, 0 to 1.
    pub ahead: f64,
    /// The longest that may be.
    pub max_ahead: Duration,
    /// For one flow, everything included.
    pub timeout: Duration,
    /// How many flows of this provider run at once.
    pub concurrency: usize,
    /// How many flows of this provider start in a second at most, with a burst of one second's worth; none limits them by
    /// `concurrency` alone.
    pub rate: Option<f64>,
    /// What is known of refresh tokens; overrides the plugin's word.
    pub rotation: Rotation,
    /// With [`Rotation::Grace`].
    pub grace: Duration,
    /// Lifetime of a token whose answer states none.
    pub default_lifetime: Duration,
    /// What to do when an answer was lost and the grant may be spent; none decides by rotation.
    pub after_lost_answer: Option<AfterLostAnswer>,
}

/// Trust and client certificate of a connection.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    /// PEM file of certificate authorities to trust, instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate chain (RFC 8705).
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<SecretSource>,
}

/// Which proxy to use.
#[derive(Clone)]
pub enum ProxySettings {
    /// `HTTPS_PROXY` and its kin.
    Environment,
    /// This one: `http://host:port`, credentials allowed.
    Url(Secret<String>),
}

/// What WASI a plugin gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wasi {
    /// None: imports are refused.
    #[default]
    None,
    /// No files, network or environment; frozen clock.
    Empty,
}

/// Who may call, and what the policy is told of them.
#[derive(Clone, Debug)]
pub struct CallerSettings {
    /// The caller's name.
    pub name: String,
    /// The caller's tenant.
    pub tenant: Tenant,
    /// This caller's rules, for the policy: a JSON object.
    pub rules: serde_json::Value,
}

/// An address or block of addresses: `10.0.0.0/8`, `fd00::/8`, `127.0.0.1`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressBlock {
    /// First address.
    pub base: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

// === impl ProviderSettings ===

impl ProviderSettings {
    /// A provider that may reach nothing and knows no secret yet: set what it needs.
    pub fn new(name: ProviderName, plugin: PluginSource) -> Self {
        Self {
            name,
            plugin,
            allow: Vec::new(),
            insecure_http: false,
            allow_addresses: Vec::new(),
            required: false,
            settings: serde_json::Value::Object(serde_json::Map::new()),
            secrets: Vec::new(),
            refresh: RefreshSettings::default(),
            readable: Vec::new(),
            expose: Vec::new(),
            scopes: ScopeSet::default(),
            tls: None,
            proxy: None,
            wasi: Wasi::None,
        }
    }
}

// === impl SecretSettings ===

impl SecretSettings {
    /// A secret that may go where the provider may, in authentication and body.
    pub fn new(name: &str, source: SecretSource) -> Self {
        Self {
            name: name.to_owned(),
            source,
            to: None,
            places: None,
            alg: None,
            key_id: None,
            audiences: None,
        }
    }
}

// === impl RefreshSettings ===

impl Default for RefreshSettings {
    fn default() -> Self {
        Self {
            ahead: 0.2,
            max_ahead: Duration::from_secs(300),
            timeout: Duration::from_secs(10),
            concurrency: 16,
            rate: None,
            rotation: Rotation::Unknown,
            grace: Duration::ZERO,
            default_lifetime: Duration::from_secs(300),
            after_lost_answer: None,
        }
    }
}

// === impl PluginSource ===

impl fmt::Debug for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "builtin:{name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

// === impl SecretSource ===

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Value(_) => f.write_str("value [redacted]"),
        }
    }
}

// === impl ProxySettings ===

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("environment"),
            Self::Url(_) => f.write_str("url [redacted]"),
        }
    }
}
