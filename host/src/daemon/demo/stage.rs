//! The stage: one issuer that can be told to misbehave, one broker with one provider, one caller's principal.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Verdict;
use crate::broker::{Broker, BrokerSettings, PolicySettings};
use crate::model::key::{ProviderName, ScopeSet, Tenant};
use crate::model::policy::{Principal, TokenRequest};
use crate::model::secret::Secret;
use crate::settings::{
    CallerSettings, PluginSource, ProviderSettings, SecretSettings, SecretSource,
};
use crate::testing::issuer::{Client, ClientAuth, Issuer, IssuerConfig};
use crate::testing::{Canary, Recorder};

/// Long enough for the scheduler to renew ahead, short enough to watch it happen.
pub(super) const LIFETIME: Duration = Duration::from_secs(12);
/// What the demo's issuer calls its only client's password; it lives as long as the demo.
const CLIENT_SECRET: &str = "demo-client-secret-0123456789abcdef";
/// The scopes that make the demo's token keys.
const SCOPES: [&str; 4] = [
    "orders.read",
    "orders.write",
    "billing.read",
    "billing.write",
];

pub(super) struct Stage {
    pub(super) issuer: Issuer,
    pub(super) broker: Broker,
    pub(super) caller: Principal,
    pub(super) provider: ProviderName,
    canary: Canary,
    recorder: Arc<Recorder>,
}

// === impl Stage ===

impl Stage {
    pub(super) async fn build() -> io::Result<Self> {
        let canary = Canary::new();
        let secret: Secret<String> = CLIENT_SECRET.into();
        let client = Client::new("demo", ClientAuth::Basic(CLIENT_SECRET.into())).scopes(&SCOPES);
        let issuer = Issuer::start(IssuerConfig {
            clients: vec![client],
            lifetime: LIFETIME,
            canary: canary.clone(),
            ..IssuerConfig::default()
        })?;
        let provider = ProviderName::parse("acme").map_err(|bad| io::Error::other(bad.fix))?;
        let recorder = Arc::new(Recorder::new());
        let broker = Broker::builder()
            .observer(recorder.clone())
            .settings(settings(&issuer, &provider, secret))
            .build()
            .await
            .map_err(|error| io::Error::other(error.to_string()))?;
        let caller = Principal::new("shop", Tenant::default(), Vec::new());
        Ok(Self {
            issuer,
            broker,
            caller,
            provider,
            canary,
            recorder,
        })
    }

    /// A request of its own key.
    pub(super) fn request(&self, scope: &str) -> TokenRequest {
        let request = TokenRequest::new(self.provider.clone());
        match ScopeSet::parse([scope]) {
            Ok(scopes) => request.scopes(scopes),
            Err(_) => request,
        }
    }

    /// Issuer calls so far.
    pub(super) fn calls(&self) -> u64 {
        self.issuer.ledger().count()
    }

    /// Looks for every secret of the run where none may be.
    pub(super) async fn leaks(&self) -> Verdict {
        let places = [
            ("metrics", self.broker.metrics().await),
            ("events", self.recorder.dump()),
        ];
        let found: Vec<_> = places
            .iter()
            .filter(|(_, text)| self.canary.find(text).is_some())
            .map(|(at, _)| *at)
            .collect();
        Verdict {
            act: "afterwards",
            promise: "no secret or token in any event or metric",
            measured: format!(
                "{} secrets looked for, {} found",
                self.canary.len(),
                found.len()
            ),
            held: found.is_empty(),
        }
    }
}

fn settings(issuer: &Issuer, provider: &ProviderName, secret: Secret<String>) -> BrokerSettings {
    let token_url = issuer.token_url().to_owned();
    let mut acme = ProviderSettings::new(provider.clone(), PluginSource::Builtin("oauth2".into()));
    acme.allow = vec![token_url.clone()];
    acme.insecure_http = true;
    acme.settings = json!({
        "token_url": token_url,
        "client_id": "demo",
        "grant": "client_credentials",
    });
    acme.secrets = vec![SecretSettings::new(
        "client_secret",
        SecretSource::Value(secret),
    )];
    let rules = json!({
        "allow": [{ "provider": "acme", "subjects": ["*"], "scopes": ["*"], "audiences": ["*"] }],
    });
    BrokerSettings {
        providers: vec![acme],
        policy: PolicySettings {
            plugin: PluginSource::Builtin("allowlist".into()),
        },
        callers: vec![CallerSettings {
            name: "shop".into(),
            tenant: Tenant::default(),
            rules,
        }],
    }
}
