//! A broker with one credential and `builtin:oauth2`, as the suites about refreshes need it: its token has ended, and a
//! caller waits for the next one.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use keyfob::broker::BrokerSettings;
use keyfob::model::contract::Rotation;
use keyfob::model::key::CredentialKey;
use keyfob::store::Store;
use keyfob::testing::issuer::{Client, ClientAuth, Issuer, IssuerConfig, RefreshRotation};
use keyfob::{
    Broker, CallerSettings, PluginSource, Principal, ProviderName, ProviderSettings, ScopeSet,
    Secret, SecretSettings, SecretSource, Subject, Tenant, TokenRequest,
};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::hand::Hand;
use crate::prompt::Prompt;

/// How long the issuer's tokens live: so little that a caller's decision, which is remembered for five minutes, is asked for
/// anew in one of fifteen refreshes only.
pub const LIFETIME: Duration = Duration::from_secs(20);
/// The client's password, at either issuer.
pub const CLIENT_SECRET: &str = "correct-horse";
/// `svc` and that password, as a client sends them (RFC 7617).
pub const AUTHORIZATION: &str = "Basic c3ZjOmNvcnJlY3QtaG9yc2U=";

/// The token endpoint of an issuer that is not behind a socket.
pub const WITHIN: &str = "https://issuer.example/token";

/// Where the issuer is.
#[derive(Clone, Debug)]
pub enum Place {
    /// On this machine, behind a socket, on the runtime of the broker.
    Loopback,
    /// The same on a runtime of its own.
    Elsewhere(Handle),
    /// In the process: nothing is sent.
    Within,
}

/// A broker, an issuer, and one credential.
pub struct Stage {
    clock: Arc<Hand>,
    /// Ends with the stage.
    _issuer: Option<Issuer>,
    broker: Broker,
    caller: Principal,
    request: TokenRequest,
}

// === impl Stage ===

impl Stage {
    /// With a grant that an operator handed over; the first token is there.
    ///
    /// # Panics
    ///
    /// When any of it cannot be set up.
    pub async fn new(place: Place, rotation: Rotation, store: Arc<dyn Store>) -> Self {
        let clock = Arc::new(Hand::at_present());
        let mut builder = Broker::builder().clock(clock.clone()).store(store);
        let (issuer, token_url, grant) = match place {
            Place::Loopback | Place::Elsewhere(_) => {
                let _there = match &place {
                    Place::Elsewhere(runtime) => Some(runtime.enter()),
                    Place::Loopback | Place::Within => None,
                };
                let issuer = issuer(&clock, rotation);
                let grant = issuer.issue_refresh_token("svc", "ada").expect("a client");
                let token_url = issuer.token_url().to_owned();
                (Some(issuer), token_url, grant)
            }
            Place::Within => {
                let rotates = rotation != Rotation::Never;
                let prompt = Prompt::new(clock.clone(), LIFETIME, rotates);
                builder = builder.upstream(Arc::new(prompt));
                (None, WITHIN.to_owned(), "first".to_owned())
            }
        };
        let acme = acme();
        let settings = settings(&token_url, "refresh_token");
        let mut provider = provider(&acme, &token_url, settings);
        provider.refresh.rotation = rotation;
        let broker = builder.settings(broker_settings(vec![provider])).build();
        let broker = broker.await.expect("a broker");
        let subject = Subject::parse("ada").expect("a name");
        let key = CredentialKey {
            tenant: Tenant::default(),
            provider: acme.clone(),
            subject: Some(subject.clone()),
        };
        let imported = broker.import_credential(key, Secret::new(grant), "bench");
        imported.await.expect("a new grant");
        let stage = Self {
            clock,
            _issuer: issuer,
            broker,
            caller: caller(),
            request: TokenRequest::new(acme).subject(subject),
        };
        // The first refresh learns how the grant behaves, which is a commit of its own.
        stage.refresh().await;
        stage
    }

    /// The token has ended: a caller waits for the next one.
    ///
    /// # Panics
    ///
    /// When it does not get one.
    pub async fn refresh(&self) {
        self.clock.forward(LIFETIME);
        let token = self.broker.token(&self.caller, &self.request).await;
        assert!(black_box(token).is_ok());
    }

    /// Ends the broker.
    pub async fn end(self) {
        self.broker.shutdown(Duration::from_secs(1)).await;
    }
}

/// The provider of every suite.
///
/// # Panics
///
/// Never: it is a name.
pub fn acme() -> ProviderName {
    ProviderName::parse("acme").expect("a name")
}

/// Who asks in every suite.
pub fn caller() -> Principal {
    Principal::new("billing", Tenant::default(), Vec::new())
}

/// The settings of `builtin:oauth2` for this grant.
pub fn settings(token_url: &str, grant: &str) -> Value {
    json!({ "token_url": token_url, "client_id": "svc", "grant": grant })
}

/// The plugin of every suite.
///
/// # Panics
///
/// When the library was built without it.
pub fn oauth2() -> &'static [u8] {
    keyfob::broker::builtin("oauth2").expect("it ships")
}

/// The policy of every suite.
///
/// # Panics
///
/// When the library was built without it.
pub fn allowlist() -> &'static [u8] {
    keyfob::broker::builtin("allowlist").expect("it ships")
}

/// The settings of `oauth2` as text, for suites that call it by themselves.
pub fn oauth2_settings() -> String {
    settings(WITHIN, "client_credentials").to_string()
}

/// A provider with `builtin:oauth2`.
///
/// # Panics
///
/// Never: `read` is a scope.
pub fn provider(name: &ProviderName, token_url: &str, settings: Value) -> ProviderSettings {
    let plugin = PluginSource::Builtin("oauth2".into());
    let mut provider = ProviderSettings::new(name.clone(), plugin);
    provider.allow = vec![token_url.into()];
    provider.insecure_http = true;
    provider.settings = settings;
    let secret = SecretSource::Value(CLIENT_SECRET.into());
    provider.secrets = vec![SecretSettings::new("client_secret", secret)];
    provider.scopes = ScopeSet::parse(["read"]).expect("a scope");
    provider
}

/// The rules of a caller who may have everything of these providers.
pub fn rules<'a>(providers: impl IntoIterator<Item = &'a str>) -> Value {
    let all = |name| json!({ "provider": name, "subjects": ["*"], "scopes": ["*"] });
    json!({ "allow": providers.into_iter().map(all).collect::<Vec<_>>() })
}

/// These providers, and a caller who may have everything of them.
pub fn broker_settings(providers: Vec<ProviderSettings>) -> BrokerSettings {
    let rules = rules(providers.iter().map(|provider| provider.name.as_str()));
    BrokerSettings {
        providers,
        callers: vec![CallerSettings {
            name: caller().name().to_owned(),
            tenant: Tenant::default(),
            rules,
        }],
        ..BrokerSettings::default()
    }
}

/// An issuer on loopback that knows the client.
///
/// # Panics
///
/// Without a free port.
pub fn issuer(clock: &Arc<Hand>, rotation: Rotation) -> Issuer {
    let rotates = match rotation {
        Rotation::Never => RefreshRotation::Never,
        _ => RefreshRotation::SingleUse,
    };
    let client = Client::new("svc", ClientAuth::Basic(CLIENT_SECRET.into()))
        .scopes(&["read"])
        .rotation(rotates);
    Issuer::start(IssuerConfig {
        clients: vec![client],
        lifetime: LIFETIME,
        clock: clock.clone(),
        ..IssuerConfig::default()
    })
    .expect("loopback has a free port")
}
