//! A broker as a service embeds it: one provider, grants of users, and one caller who may have all their tokens.

use anyhow::{Result, anyhow};
use keyfob::broker::BrokerSettings;
use keyfob::model::contract::Rotation;
use keyfob::model::policy::{Principal, TokenRequest};
use keyfob::{
    Broker, CallerSettings, PluginSource, ProviderName, ProviderSettings, ScopeSet, Secret,
    SecretSettings, SecretSource, Tenant,
};
use serde_json::json;

use crate::cached;

/// Who asks.
const CALLER: &str = "billing";
/// Refreshes at once: an issuer on loopback takes more than the sixteen that a real one is asked to take.
const CONCURRENCY: usize = 64;

/// One provider, `acme`, at this issuer, for this client and its secret.
pub fn settings(token_url: &str, client: (&str, &str), rotation: Rotation) -> BrokerSettings {
    let acme = ProviderName::parse("acme").expect("a name");
    let mut provider = ProviderSettings::new(acme, PluginSource::Builtin("oauth2".into()));
    provider.allow = vec![token_url.into()];
    provider.insecure_http = true;
    provider.settings =
        json!({ "token_url": token_url, "client_id": client.0, "grant": "refresh_token" });
    let secret = SecretSource::Value(client.1.into());
    provider.secrets = vec![SecretSettings::new("client_secret", secret)];
    provider.scopes = ScopeSet::parse(["read"]).expect("a scope");
    provider.refresh.rotation = rotation;
    provider.refresh.concurrency = CONCURRENCY;
    let rules = json!({ "allow": [{ "provider": "acme", "subjects": ["*"], "scopes": ["*"] }] });
    BrokerSettings {
        providers: vec![provider],
        callers: vec![CallerSettings {
            name: CALLER.into(),
            tenant: Tenant::default(),
            rules,
        }],
        ..BrokerSettings::default()
    }
}

/// Hands over the grants of users, in their order.
///
/// # Errors
///
/// When one is refused.
pub async fn import(broker: &Broker, grants: Vec<String>) -> Result<()> {
    for (user, grant) in grants.into_iter().enumerate() {
        let key = cached::key(user).credential;
        let imported = broker.import_credential(key, Secret::new(grant), "benches");
        if imported.await.is_err() {
            return Err(anyhow!("the grant of user {user} was refused"));
        }
    }
    Ok(())
}

/// Who asks.
pub fn caller() -> Principal {
    Principal::new(CALLER, Tenant::default(), Vec::new())
}

/// For a user's token.
pub fn request(user: usize) -> TokenRequest {
    cached::request(user)
}
