//! Ours, set up like them: the whole broker, with the sandboxed plugin that ships for OAuth 2.0, and the issuer's client
//! credentials.

use anyhow::Result;
use keyfob::broker::{BrokerSettings, Builder};
use keyfob::cache::Ticks;
use keyfob::{
    Broker, CallerSettings, PluginSource, Principal, ProviderName, ProviderSettings,
    SecretSettings, SecretSource, Tenant, TokenRequest,
};
use serde_json::json;

use crate::issuer::Issuer;

/// A broker and what it is asked with.
#[derive(Clone)]
pub struct Ours {
    /// The broker.
    pub broker: Broker,
    /// Who asks.
    pub caller: Principal,
    /// For what.
    pub request: TokenRequest,
}

// === impl Ours ===

impl Ours {
    /// A cold one: its plugin is compiled, and nothing was asked yet.
    ///
    /// # Errors
    ///
    /// Never: the settings are complete.
    pub async fn new(issuer: &Issuer) -> Result<Self> {
        Self::built(issuer, Broker::builder()).await
    }

    /// The same, whose hits read a word that a thread keeps at the time.
    ///
    /// # Errors
    ///
    /// The system has no thread to give.
    pub async fn ticked(issuer: &Issuer) -> Result<Self> {
        Self::built(issuer, Broker::builder().ticks(Ticks::start()?)).await
    }

    async fn built(issuer: &Issuer, builder: Builder) -> Result<Self> {
        let acme = ProviderName::parse("acme").expect("a name");
        let mut provider =
            ProviderSettings::new(acme.clone(), PluginSource::Builtin("oauth2".into()));
        provider.allow = vec![issuer.token_url()];
        provider.insecure_http = true;
        provider.settings = json!({
            "token_url": issuer.token_url(), "client_id": "svc", "grant": "client_credentials",
        });
        let secret = SecretSource::Value("correct-horse".into());
        provider.secrets = vec![SecretSettings::new("client_secret", secret)];
        let rules = json!({ "allow": [{ "provider": "acme", "scopes": ["*"] }] });
        let broker = builder
            .settings(BrokerSettings {
                providers: vec![provider],
                callers: vec![CallerSettings {
                    name: "billing".into(),
                    tenant: Tenant::default(),
                    rules,
                }],
                ..BrokerSettings::default()
            })
            .build()
            .await?;
        Ok(Self {
            broker,
            caller: Principal::new("billing", Tenant::default(), Vec::new()),
            request: TokenRequest::new(acme),
        })
    }
}
