//! Against a certified authorization server that nobody here wrote: every client authentication, rotation, revocation.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use futures_util::future::try_join_all;
use http::Method;
use keyfob_tests::daemon::{KeyfobDaemon, Launch, Token};
use keyfob_tests::oidc::{OidcProvider, random_secret};
use serde_json::{Value, json};

/// Long enough for `expires_in` to be a whole number of seconds with a margin taken off it, short enough to wait for.
const SHORT_LIFE_SECS: u32 = 2;
/// Callers that ask at the same time. Eight parallel refreshes with one grant kill it at this server.
const CALLERS: usize = 8;
/// Access tokens that a rotating grant must yield: each refresh presents what the one before brought.
const TOKENS: usize = 4;

/// One authorization server, one Keyfob in front of it, and one caller.
struct Stage {
    server: OidcProvider,
    keyfob: KeyfobDaemon,
    key: String,
}

/// How Keyfob is a client of it, as configuration.
struct As<'a> {
    /// Members of `settings`.
    settings: &'a str,
    /// The `secrets` table's members.
    secrets: &'a str,
    /// Members of `tls` beside the authority.
    tls: String,
    /// Further lines of the provider.
    more: &'a str,
}

impl Stage {
    async fn set(server: OidcProvider, client: &As<'_>, secret: &str) -> anyhow::Result<Self> {
        let (issuer, ca) = (server.issuer(), server.pki().ca.display());
        let As {
            settings,
            secrets,
            tls,
            more,
        } = client;
        let config = format!(
            r#"
            [providers.real]
            plugin = "builtin:oauth2"
            allow = ["{issuer}/token"]
            allow_addresses = ["127.0.0.1", "::1"]
            settings = {{ token_url = "{issuer}/token", {settings} }}
            secrets = {{ {secrets} }}
            tls = {{ ca = "{ca}" {tls} }}
            scopes = ["api:read"]
            {more}

            [callers.app]
            key = {{ env = "APP_KEY" }}
            allow = [{{ provider = "real", subjects = ["*"], scopes = ["api:read"], audiences = ["*"] }}]
            "#
        );
        let key = random_secret()?;
        let launch = Launch::new(config)
            .canary(server.canary())
            .secret("APP_KEY", &key);
        let keyfob = launch.secret("CLIENT_SECRET", secret).start().await?;
        Ok(Self {
            server,
            keyfob,
            key,
        })
    }

    async fn token(&self, wanted: &Value) -> anyhow::Result<Token> {
        self.keyfob.token(Some(&self.key), wanted).await?.token()
    }

    /// Gets a token of the client's own account and has the server judge it.
    async fn proves_itself(self) -> anyhow::Result<()> {
        let wanted = json!({ "provider": "real" });
        let token = self.token(&wanted).await?;
        assert_eq!(
            (token.token_type.as_str(), token.scope.as_str()),
            ("Bearer", "api:read")
        );
        assert!(
            self.server.is_active(&token.access_token).await?,
            "the server knows the token"
        );
        let again = self.token(&wanted).await?;
        assert_eq!(again.generation, token.generation);
        assert_eq!(
            self.server.requests().await?.len(),
            1,
            "the second came from memory"
        );
        self.end().await
    }

    async fn end(self) -> anyhow::Result<()> {
        self.server.note_issued().await?;
        self.keyfob.stop().await
    }
}

#[tokio::test]
#[ignore = "needs node and npm: tests/run installs them"]
async fn a_client_proves_itself_with_client_secret_basic() -> anyhow::Result<()> {
    let server = OidcProvider::start(SHORT_LIFE_SECS).await?;
    let (secret, client) = (
        server.basic_secret.clone(),
        As {
            settings: r#"client_id = "basic", client_auth = "client_secret_basic", grant = "client_credentials""#,
            secrets: r#"client_secret = { env = "CLIENT_SECRET" }"#,
            tls: String::new(),
            more: "",
        },
    );
    Stage::set(server, &client, &secret)
        .await?
        .proves_itself()
        .await
}

#[tokio::test]
#[ignore = "needs node and npm: tests/run installs them"]
async fn a_client_proves_itself_with_client_secret_post() -> anyhow::Result<()> {
    let server = OidcProvider::start(SHORT_LIFE_SECS).await?;
    let (secret, client) = (
        server.post_secret.clone(),
        As {
            settings: r#"client_id = "post", client_auth = "client_secret_post", grant = "client_credentials""#,
            secrets: r#"client_secret = { env = "CLIENT_SECRET" }"#,
            tls: String::new(),
            more: "",
        },
    );
    Stage::set(server, &client, &secret)
        .await?
        .proves_itself()
        .await
}

#[tokio::test]
#[ignore = "needs node and npm: tests/run installs them"]
async fn a_client_proves_itself_with_private_key_jwt() -> anyhow::Result<()> {
    let server = OidcProvider::start(SHORT_LIFE_SECS).await?;
    let issuer = server.issuer();
    let settings = format!(
        r#"client_id = "assertion", client_auth = "private_key_jwt", assertion_audience = "{issuer}", grant = "client_credentials""#
    );
    let key = server.assertion_key().display();
    let secrets = format!(r#"signing_key = {{ file = "{key}", alg = "ES256" }}"#);
    let client = As {
        settings: &settings,
        secrets: &secrets,
        tls: String::new(),
        more: "",
    };
    Stage::set(server, &client, &random_secret()?)
        .await?
        .proves_itself()
        .await
}

#[tokio::test]
#[ignore = "needs node and npm: tests/run installs them"]
async fn a_client_proves_itself_with_its_certificate() -> anyhow::Result<()> {
    let server = OidcProvider::start(SHORT_LIFE_SECS).await?;
    let (cert, key) = (
        server.pki().client_cert.display(),
        server.pki().client_key.display(),
    );
    let client = As {
        settings: r#"client_id = "mtls", client_auth = "none", grant = "client_credentials""#,
        secrets: "",
        tls: format!(r#", cert = "{cert}", key = {{ file = "{key}" }}"#),
        more: "",
    };
    Stage::set(server, &client, &random_secret()?)
        .await?
        .proves_itself()
        .await
}

#[tokio::test]
#[ignore = "needs node and npm: tests/run installs them"]
async fn a_rotating_grant_is_presented_once_each_however_many_callers_ask() -> anyhow::Result<()> {
    let server = OidcProvider::start(SHORT_LIFE_SECS).await?;
    let (secret, client) = (
        server.web_secret.clone(),
        As {
            settings: r#"client_id = "web", grant = "refresh_token""#,
            secrets: r#"client_secret = { env = "CLIENT_SECRET" }"#,
            tls: String::new(),
            more: r#"refresh = { rotation = "single_use" }"#,
        },
    );
    let stage = Stage::set(server, &client, &secret).await?;
    let grant = stage.server.mint("alice").await?;
    stage.keyfob.hand_over("real/alice", &grant).await?;

    let wanted = json!({ "provider": "real", "subject": "alice" });
    let mut tokens = BTreeMap::new();
    while tokens.len() < TOKENS {
        let round = try_join_all((0..CALLERS).map(|_| stage.token(&wanted))).await?;
        for token in round {
            let known = tokens
                .entry(token.generation)
                .or_insert(token.access_token.clone());
            assert_eq!(*known, token.access_token, "a generation names one token");
        }
    }

    let requests = stage.server.requests().await?;
    let failed: Vec<_> = requests
        .iter()
        .filter(|request| request.status != 200)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(requests.len() >= TOKENS);
    let presented: BTreeSet<_> = requests.iter().map(|request| &request.presented).collect();
    assert_eq!(
        presented.len(),
        requests.len(),
        "each refresh token was presented once"
    );

    let path = "/admin/v1/credentials/real/alice";
    let state = stage.keyfob.admin(Method::GET, path, "").await?.json()?;
    assert_eq!(state["state"], "live", "{state}");
    stage.end().await
}

#[tokio::test]
#[ignore = "needs node and npm: tests/run installs them"]
async fn a_revoked_token_is_replaced_once_it_is_rejected() -> anyhow::Result<()> {
    let server = OidcProvider::start(SHORT_LIFE_SECS).await?;
    let (secret, client) = (
        server.basic_secret.clone(),
        As {
            settings: r#"client_id = "basic", grant = "client_credentials""#,
            secrets: r#"client_secret = { env = "CLIENT_SECRET" }"#,
            tls: String::new(),
            more: "",
        },
    );
    let stage = Stage::set(server, &client, &secret).await?;
    let wanted = json!({ "provider": "real" });
    let old = stage.token(&wanted).await?;
    ensure!(
        stage.server.revoke(&old.access_token).await?,
        "the server knew the token"
    );
    assert!(!stage.server.is_active(&old.access_token).await?);

    let rejected = stage
        .keyfob
        .reject(&stage.key, &wanted, old.generation)
        .await?
        .token()?;
    assert_eq!(rejected.outcome.as_deref(), Some("refreshed"));
    assert!(rejected.generation > old.generation);
    assert!(stage.server.is_active(&rejected.access_token).await?);

    // Somebody who was slower to notice costs the server nothing.
    let late = stage
        .keyfob
        .reject(&stage.key, &wanted, old.generation)
        .await?
        .token()?;
    assert_eq!(late.outcome.as_deref(), Some("already_replaced"));
    assert_eq!(late.access_token, rejected.access_token);
    let requests = stage.server.requests().await?;
    assert_eq!(requests.len(), 2, "{requests:?}");
    stage.end().await
}
