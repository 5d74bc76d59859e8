//! The daemon from outside: what callers, operators and whoever starts it can rely on.

use anyhow::ensure;
use futures_util::future::join_all;
use http::Method;
use keyfob::testing::Issuer;
use keyfob::testing::issuer::{Behaviour, Client, ClientAuth, IssuerConfig};
use keyfob_tests::daemon::{KeyfobDaemon, Launch, Token, keyfob};
use keyfob_tests::oidc::random_secret;
use keyfob_tests::pki::Pki;
use serde_json::{Value, json};

mod audit;
mod batch;
mod credentials;
mod lifecycle;
mod planes;
mod secrecy;
mod store;
mod tending;
mod watch;
mod wire;

/// An issuer in this process, and what a Keyfob in front of it is started with.
struct Stage {
    issuer: Issuer,
    /// The key of the caller `app`, which may have anything of `acme`.
    key: String,
    secret: String,
}

impl Stage {
    fn set() -> anyhow::Result<Self> {
        let (key, secret) = (random_secret()?, random_secret()?);
        let client = Client::new("svc", ClientAuth::Basic(secret.clone()));
        let issuer = Issuer::start(IssuerConfig {
            clients: vec![client],
            ..IssuerConfig::default()
        })?;
        Ok(Self {
            issuer,
            key,
            secret,
        })
    }

    /// The provider `acme`, with further lines.
    fn config(&self, more: &str) -> String {
        let token_url = self.issuer.token_url();
        format!(
            r#"
            [providers.acme]
            plugin = "builtin:oauth2"
            allow = ["{token_url}"]
            insecure_http = true
            settings = {{ token_url = "{token_url}", client_id = "svc", grant = "client_credentials" }}
            secrets = {{ client_secret = {{ env = "ACME_SECRET" }} }}
            scopes = ["read"]
            {more}

            [callers.app]
            key = {{ env = "APP_KEY" }}
            allow = [{{ provider = "acme", subjects = ["*"], scopes = ["read"], audiences = ["*"] }}]
            "#
        )
    }

    fn launch(&self, more: &str) -> Launch {
        self.with(self.config(more))
    }

    fn with(&self, config: String) -> Launch {
        let launch = Launch::new(config).canary(self.issuer.canary());
        launch
            .secret("APP_KEY", &self.key)
            .secret("ACME_SECRET", &self.secret)
    }

    fn key(&self) -> Option<&str> {
        Some(&self.key)
    }
}

fn wanted() -> Value {
    json!({ "provider": "acme" })
}
