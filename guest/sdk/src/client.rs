//! How an OAuth client proves who it is at its server (RFC 6749, section 2.3; method names of OpenID Connect Core,
//! section 9).

use crate::bindings::provider::Needs;
use crate::bindings::provider::types::HttpRequest;
use crate::flow::{Flow, Result};
use crate::request::secret;
use crate::settings::Table;

/// The secret of the methods that have one.
pub const CLIENT_SECRET: &str = "client_secret";

/// The key that signs assertions.
pub const SIGNING_KEY: &str = "signing_key";

/// RFC 7523, section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

const METHODS: [(&str, Method); 5] = [
    ("client_secret_basic", Method::Basic),
    ("client_secret_basic_raw", Method::BasicRaw),
    ("client_secret_post", Method::Post),
    ("private_key_jwt", Method::PrivateKeyJwt),
    ("none", Method::None),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Basic,
    BasicRaw,
    Post,
    PrivateKeyJwt,
    /// Named in the form, proven by nothing or by the certificate of mutual TLS (RFC 8705).
    None,
}

/// An OAuth client: its name at the server, and how it authenticates.
#[derive(Clone, Debug)]
pub struct Client {
    /// The name at the server.
    pub id: String,
    /// `aud` of this client's assertions.
    pub assertion_audience: String,
    method: Method,
}

impl Client {
    /// Reads `client_id`, `client_auth` and `assertion_audience`; the last is the token URL by default.
    pub fn settings(table: &mut Table, token_url: &str) -> Self {
        let id = table.setting("client_id", "The client's name at the server");
        let id = id.text().required();
        let method = table.setting(
            "client_auth",
            "How the client authenticates; client_secret_basic by default",
        );
        let method = method.choice(&METHODS).or(Method::Basic);
        let audience = table.setting(
            "assertion_audience",
            "The audience of assertions; the token URL by default",
        );
        let assertion_audience = audience.text().or(token_url.to_owned());
        Self {
            id,
            assertion_audience,
            method,
        }
    }

    /// Adds the secret that this client's method needs.
    pub fn needs(&self, needs: Needs) -> Needs {
        match self.method {
            Method::Basic | Method::BasicRaw | Method::Post => needs.secret(CLIENT_SECRET),
            Method::PrivateKeyJwt => needs.secret(SIGNING_KEY),
            Method::None => needs,
        }
    }

    /// Writes the proof into a request, after a step of signing where the method needs one.
    ///
    /// # Errors
    ///
    /// Leaves while there is no signature yet.
    pub fn authenticate(&self, flow: &mut Flow, request: HttpRequest) -> Result<HttpRequest> {
        let id = &self.id;
        Ok(match self.method {
            Method::Basic => request.basic(id, secret(CLIENT_SECRET)),
            Method::BasicRaw => request.basic_raw(id, secret(CLIENT_SECRET)),
            Method::Post => request
                .form("client_id", id)
                .form("client_secret", secret(CLIENT_SECRET)),
            Method::PrivateKeyJwt => {
                let assertion = flow.assertion(SIGNING_KEY).issuer(id).subject(id);
                let assertion = flow.sign(assertion.audience(&self.assertion_audience))?;
                request
                    .form("client_id", id)
                    .form("client_assertion_type", ASSERTION_TYPE)
                    .form("client_assertion", assertion)
            }
            Method::None => request.form("client_id", id),
        })
    }
}
