//! What is on a stage before it stands: the issuer's clients, the broker's providers and callers, and how they differ from
//! the usual ones.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keyfob::broker::{Broker, BrokerSettings, PolicySettings};
use keyfob::cache::CacheLimits;
use keyfob::model::key::Tenant;
use keyfob::model::time::{Clock, SystemClock};
use keyfob::settings::{
    CallerSettings, PluginSource, ProviderSettings, RefreshSettings, SecretSource, Wasi,
};
use keyfob::store::Store;
use keyfob::testing::issuer::{Client, ClientAuth, Issuer, IssuerConfig};
use keyfob::testing::{Canary, Recorder};
use keyfob::wasm::{Catalog, Runtime};
use serde_json::json;

use super::Stage;
use super::words::{ACME, BILLING, CLIENT, CLIENT_SECRET, SCOPES, provider_name, scopes, secret};
use crate::logs;

/// A stage to be.
pub struct Setting {
    /// How the issuer's tokens live.
    pub lifetime: Duration,
    /// The issuer's clients.
    pub clients: Vec<Client>,
    /// Room in the cache.
    pub limits: Option<CacheLimits>,
    /// Where credentials are kept, if not in the broker's own memory.
    pub store: Option<Arc<dyn Store>>,
    /// Tells issuer and broker the time, if the system does not.
    pub clock: Option<Arc<dyn Clock>>,
    providers: Vec<Change>,
    callers: Vec<CallerSettings>,
}

/// A provider's name, and what distinguishes it from the usual one.
type Change = (
    String,
    Box<dyn FnOnce(&mut ProviderSettings, &Issuer) + Send>,
);

// === impl Setting ===

impl Default for Setting {
    /// One provider, [`ACME`], with client credentials; one caller, [`BILLING`], who may have everything.
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            clients: vec![client()],
            limits: None,
            store: None,
            clock: None,
            providers: Vec::new(),
            callers: vec![caller(BILLING, Tenant::default(), anything())],
        }
    }
}

impl Setting {
    /// As usual.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens live this long.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// With this clock, in the issuer too.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// With room for this many keys, and this many a caller.
    #[must_use]
    pub fn room(mut self, keys_max: usize, keys_per_caller_max: usize) -> Self {
        self.limits = Some(CacheLimits {
            keys_max,
            keys_per_caller_max,
        });
        self
    }

    /// [`ACME`], but different.
    #[must_use]
    pub fn acme(self, change: impl FnOnce(&mut ProviderSettings) + Send + 'static) -> Self {
        self.provider(ACME, |settings, _| change(settings))
    }

    /// A provider of this name that is different: [`ACME`] itself, or a further one.
    #[must_use]
    pub fn provider(
        mut self,
        name: &str,
        change: impl FnOnce(&mut ProviderSettings, &Issuer) + Send + 'static,
    ) -> Self {
        self.providers.push((name.to_owned(), Box::new(change)));
        self
    }

    /// A further caller, with these rules.
    #[must_use]
    pub fn caller(mut self, name: &str, tenant: &str, rules: serde_json::Value) -> Self {
        let tenant = Tenant::parse(tenant).expect("tests name tenants well");
        self.callers.push(caller(name, tenant, rules));
        self
    }

    /// With [`ACME`] on the refresh-token grant, and this client in the issuer.
    #[must_use]
    pub fn refresh_tokens(mut self, client: Client) -> Self {
        self.clients = vec![client];
        self.acme(|acme| acme.settings["grant"] = "refresh_token".into())
    }

    /// Starts everything.
    pub async fn open(self) -> Stage {
        let log = logs::open();
        let common_from = logs::common_mark();
        let canary = Canary::new();
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock));
        let issuer = Issuer::start(IssuerConfig {
            clients: self.clients,
            lifetime: self.lifetime,
            clock: clock.clone(),
            canary: canary.clone(),
            ..IssuerConfig::default()
        })
        .expect("loopback has a free port");
        let mut providers = vec![usual(ACME, &issuer)];
        for (name, change) in self.providers {
            let at = providers.iter().position(|p| p.name.as_str() == name);
            let at = at.unwrap_or_else(|| {
                providers.push(usual(&name, &issuer));
                providers.len() - 1
            });
            change(&mut providers[at], &issuer);
        }
        for secret in providers.iter().flat_map(|p| &p.secrets) {
            if let SecretSource::Value(value) = &secret.source {
                canary.add(value.expose());
            }
        }
        let settings = BrokerSettings {
            providers,
            policy: PolicySettings::default(),
            callers: self.callers,
        };
        let recorder = Arc::new(Recorder::new());
        let mut builder = Broker::builder()
            .catalog(catalog())
            .clock(clock)
            .observer(recorder.clone())
            .settings(settings.clone());
        if let Some(limits) = self.limits {
            builder = builder.limits(limits);
        }
        if let Some(store) = self.store {
            builder = builder.store(store);
        }
        let broker = match builder.build().await {
            Ok(broker) => broker,
            Err(error) => panic!("the stage does not stand: {error}"),
        };
        Stage {
            issuer,
            broker,
            recorder,
            canary,
            settings,
            said: Arc::default(),
            log,
            common_from,
            closed: false,
        }
    }
}

/// One for the process, as in production: what ships is compiled once for all tests.
fn catalog() -> Arc<Catalog> {
    static CATALOG: OnceLock<Arc<Catalog>> = OnceLock::new();
    let made = CATALOG.get_or_init(|| {
        let runtime = Runtime::new().expect("this machine runs WebAssembly");
        Arc::new(Catalog::new(runtime))
    });
    Arc::clone(made)
}

/// The usual client of the issuer: [`CLIENT`] with [`CLIENT_SECRET`] and all [`SCOPES`].
pub fn client() -> Client {
    Client::new(CLIENT, ClientAuth::Basic(CLIENT_SECRET.to_owned())).scopes(&SCOPES)
}

/// Rules that allow everything at every provider a test has.
pub fn anything() -> serde_json::Value {
    let rules = [ACME, "beta", "gamma"].map(
        |name| json!({ "provider": name, "subjects": ["*"], "scopes": ["*"], "audiences": ["*"] }),
    );
    json!({ "allow": rules })
}

fn caller(name: &str, tenant: Tenant, rules: serde_json::Value) -> CallerSettings {
    CallerSettings {
        name: name.to_owned(),
        tenant,
        rules,
    }
}

fn usual(name: &str, issuer: &Issuer) -> ProviderSettings {
    let token_url = issuer.token_url().to_owned();
    ProviderSettings {
        name: provider_name(name),
        plugin: PluginSource::Builtin("oauth2".to_owned()),
        allow: vec![token_url.clone(), issuer.revoke_url()],
        insecure_http: true,
        allow_addresses: Vec::new(),
        required: false,
        settings: json!({ "token_url": token_url, "client_id": CLIENT }),
        secrets: vec![secret("client_secret", CLIENT_SECRET)],
        refresh: RefreshSettings::default(),
        readable: Vec::new(),
        expose: Vec::new(),
        scopes: scopes(&["read"]),
        tls: None,
        proxy: None,
        wasi: Wasi::None,
    }
}
