//! Registered clients and how they prove who they are (RFC 6749 section 2.3, RFC 7523, RFC 8705).

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use percent_encoding::percent_decode_str;

use crate::model::time::UnixTime;

/// The longest an assertion may be valid: one that lives longer is a password.
const ASSERTION_MAX_LIFE: Duration = Duration::from_secs(3600);

/// A registered client.
#[derive(Clone, Debug)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// How it authenticates.
    pub auth: ClientAuth,
    /// Grant types it may use.
    pub grants: Vec<GrantType>,
    /// Scopes it may ask for; it gets all of them when it names none.
    pub scopes: Vec<String>,
    /// What happens to its refresh tokens.
    pub rotation: RefreshRotation,
    /// With whose signature it may present JWT bearer grants.
    pub assertions: Option<VerifyingKey>,
}

/// How a client authenticates.
#[derive(Clone)]
pub enum ClientAuth {
    /// `client_secret_basic`, form-encoded as RFC 6749 section 2.3.1 asks.
    Basic(String),
    /// HTTP Basic without that encoding, as many issuers have it.
    BasicRaw(String),
    /// `client_secret_post`.
    Post(String),
    /// `private_key_jwt`.
    PrivateKeyJwt(VerifyingKey),
    /// `tls_client_auth`: any certificate of the configured authority.
    Certificate,
    /// `none`.
    None,
}

/// A key that checks signatures.
#[derive(Clone)]
pub struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// A grant type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrantType {
    /// RFC 6749, section 4.4.
    ClientCredentials,
    /// RFC 6749, section 6.
    RefreshToken,
    /// RFC 7523, section 2.1.
    JwtBearer,
}

/// What happens to a refresh token that is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RefreshRotation {
    /// It stays.
    #[default]
    Never,
    /// It is replaced; presented again, its whole family dies (RFC 9700, section 4.14.2).
    SingleUse,
    /// It is replaced; presented again within this span it works once more, later its family dies.
    Grace(Duration),
}

/// What a client sent to prove who it is.
#[derive(Default)]
pub(super) struct Presented<'a> {
    pub(super) authorization: Option<&'a str>,
    pub(super) client_id: Option<&'a str>,
    pub(super) client_secret: Option<&'a str>,
    pub(super) assertion_type: Option<&'a str>,
    pub(super) assertion: Option<&'a str>,
    pub(super) certificate: bool,
}

/// A signed statement whose signature and times were right.
pub(super) struct Assertion {
    pub(super) issuer: String,
    pub(super) subject: String,
}

/// Against what an assertion is checked.
pub(super) struct AssertionRules<'a> {
    pub(super) audiences: [&'a str; 2],
    pub(super) now: UnixTime,
    /// `jti`s seen before.
    pub(super) spent: &'a mut HashSet<String>,
}

// === impl Client ===

impl Client {
    /// May use every grant type, has the scope `read`, and keeps its refresh tokens.
    pub fn new(id: &str, auth: ClientAuth) -> Self {
        Self {
            id: id.to_owned(),
            auth,
            grants: vec![
                GrantType::ClientCredentials,
                GrantType::RefreshToken,
                GrantType::JwtBearer,
            ],
            scopes: vec!["read".to_owned()],
            rotation: RefreshRotation::Never,
            assertions: None,
        }
    }

    /// With these scopes.
    #[must_use]
    pub fn scopes(mut self, scopes: &[&str]) -> Self {
        self.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self
    }

    /// With refresh tokens that rotate like this.
    #[must_use]
    pub fn rotation(mut self, rotation: RefreshRotation) -> Self {
        self.rotation = rotation;
        self
    }

    /// May use these grant types only.
    #[must_use]
    pub fn grants(mut self, grants: &[GrantType]) -> Self {
        self.grants = grants.to_vec();
        self
    }

    /// Takes JWT bearer grants signed with this key.
    #[must_use]
    pub fn assertions(mut self, key: VerifyingKey) -> Self {
        self.assertions = Some(key);
        self
    }

    pub(super) fn secret(&self) -> Option<&str> {
        match &self.auth {
            ClientAuth::Basic(secret) | ClientAuth::BasicRaw(secret) | ClientAuth::Post(secret) => {
                Some(secret)
            }
            ClientAuth::PrivateKeyJwt(_) | ClientAuth::Certificate | ClientAuth::None => None,
        }
    }
}

// === impl Presented ===

impl Presented<'_> {
    /// Finds the client that this proves; the error is an OAuth error code.
    pub(super) fn authenticate<'c>(
        &self,
        clients: &'c [Client],
        rules: AssertionRules<'_>,
    ) -> Result<&'c Client, &'static str> {
        let methods = [
            self.authorization.is_some(),
            self.client_secret.is_some(),
            self.assertion.is_some(),
        ];
        if methods.into_iter().filter(|used| *used).count() > 1 {
            return Err("invalid_request");
        }
        let basic = match self.authorization {
            Some(header) => Some(split_basic(header).ok_or("invalid_client")?),
            None => None,
        };
        let known = |id: &str| clients.iter().find(|c| c.id == id).ok_or("invalid_client");
        if let Some((user, password)) = basic {
            let (decoded_user, decoded) = (form_decode(&user), form_decode(&password));
            if self
                .client_id
                .is_some_and(|id| id != user && id != decoded_user)
            {
                return Err("invalid_request");
            }
            return match known(&decoded_user).or_else(|_| known(&user))? {
                c if matches!(&c.auth, ClientAuth::Basic(secret) if *secret == decoded) => Ok(c),
                c if matches!(&c.auth, ClientAuth::BasicRaw(secret) if *secret == password) => {
                    Ok(c)
                }
                _ => Err("invalid_client"),
            };
        }
        if let Some(assertion) = self.assertion {
            if self.assertion_type != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            {
                return Err("invalid_request");
            }
            let keyed = clients.iter().filter_map(|client| match &client.auth {
                ClientAuth::PrivateKeyJwt(key) => Some((client, key)),
                _ => None,
            });
            let mut rules = rules;
            for (client, key) in keyed {
                let Ok(said) = key.verify(assertion, &mut rules, true) else {
                    continue;
                };
                let same = said.issuer == client.id && said.subject == client.id;
                let named = self.client_id.is_none_or(|id| id == client.id);
                return if same && named {
                    Ok(client)
                } else {
                    Err("invalid_client")
                };
            }
            return Err("invalid_client");
        }
        let client = known(self.client_id.ok_or("invalid_client")?)?;
        let proven = match &client.auth {
            ClientAuth::Post(secret) => self.client_secret == Some(secret),
            ClientAuth::Certificate => self.client_secret.is_none() && self.certificate,
            ClientAuth::None => self.client_secret.is_none(),
            ClientAuth::Basic(_) | ClientAuth::BasicRaw(_) | ClientAuth::PrivateKeyJwt(_) => false,
        };
        proven.then_some(client).ok_or("invalid_client")
    }
}

fn split_basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    scheme
        .eq_ignore_ascii_case("basic")
        .then(|| (user.to_owned(), password.to_owned()))
}

fn form_decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8_lossy()
        .into_owned()
}

// === impl VerifyingKey ===

impl VerifyingKey {
    /// From `RS256`, `ES256` or `EdDSA` and a public key in PEM, or `HS256` and the shared secret. `None` for anything else.
    pub fn new(algorithm: &str, key: &[u8]) -> Option<Self> {
        let (algorithm, key) = match algorithm {
            "RS256" => (Algorithm::RS256, DecodingKey::from_rsa_pem(key).ok()?),
            "ES256" => (Algorithm::ES256, DecodingKey::from_ec_pem(key).ok()?),
            "EdDSA" => (Algorithm::EdDSA, DecodingKey::from_ed_pem(key).ok()?),
            "HS256" => (Algorithm::HS256, DecodingKey::from_secret(key)),
            _ => return None,
        };
        Some(Self { algorithm, key })
    }

    /// Checks signature, audience, times and, for client authentication, that the assertion is new (RFC 7523, section 3).
    pub(super) fn verify(
        &self,
        assertion: &str,
        rules: &mut AssertionRules<'_>,
        once: bool,
    ) -> Result<Assertion, &'static str> {
        let mut validation = Validation::new(self.algorithm);
        // Times are checked below against the issuer's own clock.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<serde_json::Value>(assertion, &self.key, &validation)
            .map_err(|_| "invalid_grant")?
            .claims;
        let text = |name: &str| claims.get(name).and_then(|v| v.as_str()).map(str::to_owned);
        let for_us = match claims.get("aud") {
            Some(serde_json::Value::String(one)) => rules.audiences.contains(&one.as_str()),
            Some(serde_json::Value::Array(many)) => many
                .iter()
                .filter_map(|v| v.as_str())
                .any(|one| rules.audiences.contains(&one)),
            _ => false,
        };
        let expires = claims
            .get("exp")
            .and_then(serde_json::Value::as_u64)
            .map(UnixTime::from_secs);
        let fresh =
            expires.is_some_and(|at| at > rules.now && at.since(rules.now) <= ASSERTION_MAX_LIFE);
        let said = text("iss")
            .zip(text("sub"))
            .filter(|_| for_us && fresh)
            .ok_or("invalid_grant")?;
        let new = match text("jti") {
            Some(jti) => rules.spent.insert(jti),
            None => !once,
        };
        new.then_some(Assertion {
            issuer: said.0,
            subject: said.1,
        })
        .ok_or("invalid_grant")
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} key", self.algorithm)
    }
}

// === impl ClientAuth ===

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic(_) => "client_secret_basic",
            Self::BasicRaw(_) => "client_secret_basic_raw",
            Self::Post(_) => "client_secret_post",
            Self::PrivateKeyJwt(_) => "private_key_jwt",
            Self::Certificate => "tls_client_auth",
            Self::None => "none",
        })
    }
}

// === impl GrantType ===

impl GrantType {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "client_credentials" => Self::ClientCredentials,
            "refresh_token" => Self::RefreshToken,
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => Self::JwtBearer,
            _ => return None,
        })
    }
}
