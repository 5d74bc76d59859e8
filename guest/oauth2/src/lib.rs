//! OAuth 2.0 as the RFCs have it: `builtin:oauth2`.
//!
//! Grants: client credentials and refresh token (RFC 6749, <https://www.rfc-editor.org/rfc/rfc6749>), JWT bearer
//! (RFC 7523, <https://www.rfc-editor.org/rfc/rfc7523>). Revocation: RFC 7009,
//! <https://www.rfc-editor.org/rfc/rfc7009>. Target of the token: `resource` (RFC 8707) or the `audience` that several
//! vendors knew before it.
//!
//! Under mutual TLS (RFC 8705) the certificate authenticates: choose `client_auth = "none"`, which names the client in
//! the form and proves nothing there.

use keyfob_guest::{
    Call, Client, Flow, Holds, Needs, Provider, Reason, Refusal, Request, Result, Revocation,
    Revoked, Rotation, SIGNING_KEY, Table, TokenSet,
};

/// RFC 7523, section 2.1.
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Form members that this plugin writes itself; `params` may not.
const OWN_MEMBERS: [&str; 8] = [
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "assertion",
    "refresh_token",
    "scope",
];

/// The plugin.
pub struct OAuth2;

/// The `settings` table.
pub struct Settings {
    token_url: String,
    revocation_url: Option<String>,
    client: Client,
    grant: Grant,
    /// The form member that carries the call's audience.
    audience_as: &'static str,
    params: Vec<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grant {
    ClientCredentials,
    RefreshToken,
    JwtBearer,
}

const GRANTS: [(&str, Grant); 3] = [
    ("client_credentials", Grant::ClientCredentials),
    ("refresh_token", Grant::RefreshToken),
    ("jwt_bearer", Grant::JwtBearer),
];

impl Provider for OAuth2 {
    const NAME: &'static str = "oauth2";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "OAuth 2.0: client credentials, refresh token, JWT bearer";
    type Settings = Settings;

    fn settings(table: &mut Table) -> Settings {
        let token_url = table
            .setting("token_url", "Where tokens are asked for")
            .url()
            .required();
        let client = Client::settings(table, &token_url);
        let revocation_url = table.setting("revocation_url", "Where tokens are revoked");
        let revocation_url = revocation_url.url().optional();
        let grant = table.setting("grant", "The grant; client_credentials by default");
        let grant = grant.choice(&GRANTS).or(Grant::ClientCredentials);
        let audience_as = table.setting(
            "audience_as",
            "The form member for a token's audience; audience by default",
        );
        let audience_as = audience_as.choice(&[("audience", "audience"), ("resource", "resource")]);
        let audience_as = audience_as.or("audience");
        let params = table
            .setting("params", "Further form members")
            .pairs()
            .or(Vec::new());
        for name in params.iter().map(|(name, _)| name.as_str()) {
            if OWN_MEMBERS.contains(&name) {
                let message = format!("`{name}` is written by the plugin itself");
                let fix = "remove it; default scopes are named in the provider's `scopes`";
                table.mistake(&format!("/params/{name}"), message, fix);
            }
        }
        Settings {
            token_url,
            revocation_url,
            client,
            grant,
            audience_as,
            params,
        }
    }

    fn needs(settings: &Settings) -> Needs {
        let mut needs = settings
            .client
            .needs(Needs::default().destination(&settings.token_url));
        if let Some(url) = &settings.revocation_url {
            needs = needs.destination(url);
        }
        match settings.grant {
            Grant::RefreshToken => needs.rotation(Rotation::Unknown),
            // Nothing is spent: the same secret or key serves again.
            Grant::ClientCredentials => needs.rotation(Rotation::Never),
            Grant::JwtBearer => needs.secret(SIGNING_KEY).rotation(Rotation::Never),
        }
    }

    fn refresh(flow: &mut Flow, call: &Call, settings: &Settings) -> Result<TokenSet> {
        let mut request = granted(flow, call, settings)?;
        if !call.scopes.is_empty() {
            request = request.form("scope", call.scopes.join(" "));
        }
        request = request.form_if(settings.audience_as, call.audience.as_ref());
        for (name, value) in &settings.params {
            request = request.form(name, value);
        }
        let request = settings.client.authenticate(flow, request)?;
        let mut tokens = flow.send(request)?.tokens()?;
        if settings.grant != Grant::RefreshToken {
            // Servers should not send one (RFC 6749, section 4.4.3), and nobody would present it.
            tokens.refresh_token = None;
        }
        Ok(tokens)
    }

    fn revoke(flow: &mut Flow, what: &Revocation, settings: &Settings) -> Result<Revoked> {
        let hint = match what.holds {
            Holds::AccessToken => "access_token",
            Holds::RefreshToken => "refresh_token",
            Holds::IdToken | Holds::Other => return Ok(Revoked::Unsupported),
        };
        let Some(url) = &settings.revocation_url else {
            return Ok(Revoked::Unsupported);
        };
        let request = Request::post(url).accept_json();
        let request = request
            .form("token", &what.token)
            .form("token_type_hint", hint);
        let request = settings.client.authenticate(flow, request)?;
        let reply = flow.send(request)?;
        match reply.text("/error") {
            _ if reply.is_success() => Ok(Revoked::Done),
            Some("unsupported_token_type") => Ok(Revoked::Unsupported),
            _ => Err(reply.refusal().into()),
        }
    }
}

/// The request with its grant in it.
fn granted(flow: &mut Flow, call: &Call, settings: &Settings) -> Result<Request> {
    let request = Request::post(&settings.token_url).accept_json();
    Ok(match settings.grant {
        Grant::ClientCredentials => request.form("grant_type", "client_credentials"),
        Grant::RefreshToken => {
            let grant = call.refresh_token.as_ref().ok_or_else(no_grant)?;
            request
                .form("grant_type", "refresh_token")
                .form("refresh_token", grant)
        }
        Grant::JwtBearer => {
            let client = &settings.client;
            let subject = call.subject.as_ref().unwrap_or(&client.id);
            let assertion = flow
                .assertion(SIGNING_KEY)
                .issuer(&client.id)
                .subject(subject);
            let assertion = flow.sign(assertion.audience(&client.assertion_audience))?;
            request
                .form("grant_type", JWT_BEARER)
                .form("assertion", assertion)
        }
    })
}

fn no_grant() -> Refusal {
    let hand_over = "PUT /admin/v1/credentials/{provider}[/{subject}]";
    let message = format!("no refresh token is held; hand one over with {hand_over}");
    Refusal::Reauthorize(Reason::new("no_grant", message))
}

keyfob_guest::export_provider!(OAuth2);

#[cfg(test)]
mod tests;
