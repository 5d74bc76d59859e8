//! npm's `oidc-provider` as a child process: a certified authorization server that nobody here wrote, with a throw-away
//! PKI, secrets of its own and a private socket to look behind the scenes. Its own half is `fixtures/oidc-provider`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyfob::testing::Canary;
use keyfob::testing::issuer::Moments;
use rcgen::KeyPair;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::watch;

use crate::pki::{CLIENT_NAME, Pki, write};
use crate::process::Process;

/// What makes Node available.
const INSTALL_NODE: &str = "apt-get install nodejs npm";
/// What makes the fixture's modules available, from the repository's root.
const INSTALL_MODULES: &str = "npm ci --prefix tests/fixtures/oidc-provider";

/// A running authorization server. Its clients: `basic`, `post`, `assertion` and `mtls` for their own account with the
/// scopes `api:read` and `api:write`, and `web` for users with `offline_access api:read`.
#[derive(Debug)]
pub struct OidcProvider {
    process: Process,
    dir: TempDir,
    issuer: String,
    pki: Pki,
    /// Of the client `basic`.
    pub basic_secret: String,
    /// Of the client `post`.
    pub post_secret: String,
    /// Of the client `web`.
    pub web_secret: String,
    introspector_secret: String,
    assertion_key: PathBuf,
    canary: Canary,
    /// As any client of its own would see it.
    https: reqwest::Client,
    /// Behind the scenes.
    control: reqwest::Client,
}

/// One request at the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TokenRequest {
    /// Who asked, if that could be told.
    pub client_id: Option<String>,
    /// `client_credentials` or `refresh_token`.
    pub grant_type: Option<String>,
    /// Of the answer.
    pub status: u16,
    /// RFC 6749's code, in a refusal.
    pub error: Option<String>,
    /// SHA-256 of the refresh token, in hexadecimal.
    pub presented: Option<String>,
    /// That of the refresh token in the answer.
    pub brought: Option<String>,
    /// The refresh token was spent before, and its whole grant was revoked for it.
    pub replayed: bool,
    /// When the connection it came over ended, if it did, in milliseconds since 1970.
    pub left: Option<u64>,
}

/// What the fixture reads at its start.
#[derive(Serialize)]
struct Config<'a> {
    cert: &'a Path,
    key: &'a Path,
    client_ca: &'a Path,
    control: &'a Path,
    basic_secret: &'a str,
    post_secret: &'a str,
    web_secret: &'a str,
    introspector_secret: &'a str,
    assertion_key: String,
    san_dns: &'a str,
    web_token_seconds: u32,
}

// === impl OidcProvider ===

impl OidcProvider {
    /// Starts one; access tokens of the client `web` live for `web_token_seconds`, all others for five minutes.
    ///
    /// # Errors
    ///
    /// When Node or the fixture's modules are missing (the error says how to install them), or it does not get ready.
    pub async fn start(web_token_seconds: u32) -> anyhow::Result<Self> {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oidc-provider");
        anyhow::ensure!(
            fixture.join("node_modules/oidc-provider").is_dir(),
            "oidc-provider is not installed; run: {INSTALL_MODULES}"
        );
        let dir = tempfile::tempdir()?;
        let pki = Pki::create(dir.path())?;
        let canary = Canary::new();
        let secret = || -> anyhow::Result<String> {
            let secret = random_secret()?;
            canary.add(&secret);
            Ok(secret)
        };
        let (basic_secret, post_secret, web_secret) = (secret()?, secret()?, secret()?);
        let introspector_secret = secret()?;
        let key = KeyPair::generate()?;
        let assertion_key = write(dir.path(), "assertion.key.pem", &key.serialize_pem())?;
        for line in key
            .serialize_pem()
            .lines()
            .filter(|line| !line.starts_with('-'))
        {
            canary.add(line);
        }
        let control = dir.path().join("control.sock");
        let config = Config {
            cert: &pki.server_cert,
            key: &pki.server_key,
            client_ca: &pki.ca,
            control: &control,
            basic_secret: &basic_secret,
            post_secret: &post_secret,
            web_secret: &web_secret,
            introspector_secret: &introspector_secret,
            assertion_key: key.public_key_pem(),
            san_dns: CLIENT_NAME,
            web_token_seconds,
        };
        let config = write(dir.path(), "fixture.json", &serde_json::to_string(&config)?)?;
        let mut node = Command::new("node");
        node.arg(fixture.join("server.mjs")).arg(config);
        let mut process = Process::start(node, INSTALL_NODE)?;
        let issuer = process.line("ready ").await?;
        Ok(Self {
            https: pki.trusting()?.build()?,
            control: reqwest::Client::builder().unix_socket(control).build()?,
            process,
            dir,
            issuer,
            pki,
            basic_secret,
            post_secret,
            web_secret,
            introspector_secret,
            assertion_key,
            canary,
        })
    }

    /// `https://localhost:PORT`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.issuer)
    }

    /// The revocation endpoint (RFC 7009).
    pub fn revocation_url(&self) -> String {
        format!("{}/token/revocation", self.issuer)
    }

    /// Its authority, and the certificate of the client `mtls`.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// PEM file of the ES256 key of the client `assertion`.
    pub fn assertion_key(&self) -> &Path {
        &self.assertion_key
    }

    /// Every secret of this server that is known so far; see [`Self::note_issued`].
    pub fn canary(&self) -> &Canary {
        &self.canary
    }

    /// A directory that lives as long as this.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What was written to its log.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// A fresh refresh token of `web` for a user.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn mint(&self, subject: &str) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Minted {
            refresh_token: String,
        }
        let body = serde_json::json!({ "subject": subject });
        let minted: Minted = self.control(http::Method::POST, "mint", &body).await?;
        self.canary.add(&minted.refresh_token);
        Ok(minted.refresh_token)
    }

    /// As [`Self::mint`], with the SHA-256 by which [`Self::requests`] names it.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn mint_numbered(&self, subject: &str) -> anyhow::Result<(String, String)> {
        #[derive(Deserialize)]
        struct Minted {
            refresh_token: String,
            sha256: String,
        }
        let body = serde_json::json!({ "subject": subject });
        let minted: Minted = self.control(http::Method::POST, "mint", &body).await?;
        self.canary.add(&minted.refresh_token);
        Ok((minted.refresh_token, minted.sha256))
    }

    /// The SHA-256 of the refresh tokens that were issued beside these access tokens.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn beside(&self, access_tokens: &[String]) -> anyhow::Result<Vec<Option<String>>> {
        let body = serde_json::json!(access_tokens);
        self.control(http::Method::POST, "beside", &body).await
    }

    /// How far requests at the token endpoint came, as it goes on.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn moments(&self) -> anyhow::Result<watch::Receiver<Moments>> {
        let url = "http://control/moments";
        let mut answer = self.control.get(url).send().await?.error_for_status()?;
        let (moments, told) = watch::channel(Moments::default());
        // Ends with the server, or with whoever listens.
        tokio::spawn(async move {
            while let Ok(Some(signs)) = answer.chunk().await {
                moments.send_modify(|moments| {
                    for sign in signs {
                        moments.presented += u64::from(sign == b'p');
                        moments.answered += u64::from(sign == b'a');
                        moments.left += u64::from(sign == b'l');
                    }
                });
                if moments.is_closed() {
                    break;
                }
            }
        });
        Ok(told)
    }

    /// Makes an access token worthless, as an administrator of the server would. Whether it was known.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn revoke(&self, access_token: &str) -> anyhow::Result<bool> {
        #[derive(Deserialize)]
        struct Done {
            revoked: bool,
        }
        let body = serde_json::json!({ "access_token": access_token });
        let done: Done = self.control(http::Method::POST, "revoke", &body).await?;
        Ok(done.revoked)
    }

    /// Everything asked at the token endpoint, oldest first.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn requests(&self) -> anyhow::Result<Vec<TokenRequest>> {
        self.control(http::Method::GET, "requests", &serde_json::Value::Null)
            .await
    }

    /// Adds every token that was issued to the canary.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn note_issued(&self) -> anyhow::Result<()> {
        let none = serde_json::Value::Null;
        let issued: Vec<String> = self.control(http::Method::GET, "issued", &none).await?;
        issued.iter().for_each(|token| self.canary.add(token));
        Ok(())
    }

    /// Whether a token is good, as a resource server learns it (RFC 7662).
    ///
    /// # Errors
    ///
    /// When the server is gone or refuses.
    pub async fn is_active(&self, token: &str) -> anyhow::Result<bool> {
        #[derive(Deserialize)]
        struct Introspection {
            active: bool,
        }
        let request = self
            .https
            .post(format!("{}/token/introspection", self.issuer))
            .basic_auth("introspector", Some(&self.introspector_secret))
            .header(
                http::header::CONTENT_TYPE,
                "application/x-www-form-urlencoded",
            )
            // Opaque tokens of this server are base64url: nothing to escape.
            .body(format!("token={token}"));
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        let introspection: Introspection = serde_json::from_slice(&answer)?;
        Ok(introspection.active)
    }

    async fn control<T: DeserializeOwned>(
        &self,
        method: http::Method,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<T> {
        let mut request = self
            .control
            .request(method, format!("http://control/{path}"));
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let sent = request.send().await;
        let answer = sent.and_then(reqwest::Response::error_for_status);
        let answer = answer.with_context(|| format!("the fixture's log:\n{}", self.log()))?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }
}

/// 43 characters that nobody can guess and no innocent text holds.
///
/// # Errors
///
/// When the system has no randomness.
pub fn random_secret() -> anyhow::Result<String> {
    // A fresh P-256 point: the kit has a generator of keys and needs no second source of randomness.
    let key = KeyPair::generate()?;
    let point = key.public_key_raw();
    let x = point
        .get(1..33)
        .context("an uncompressed P-256 point has 65 bytes")?;
    Ok(URL_SAFE_NO_PAD.encode(x))
}
