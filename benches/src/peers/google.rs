//! `google-cloud-auth`: a user's credentials, the kind with the least beside the token, and a token endpoint of our own. It
//! makes its requests itself, and renews by itself four minutes before the end.

use anyhow::Result;
use google_cloud_auth::credentials::{AccessTokenCredentials, Credentials, user_account};
use serde_json::json;

use crate::issuer::Issuer;

/// What gives headers. Starts asking for a token at once, on the runtime it is made on.
///
/// # Errors
///
/// Never: the settings are complete.
pub fn credentials(issuer: &Issuer) -> Result<Credentials> {
    Ok(builder(issuer).build()?)
}

/// What gives tokens, likewise.
///
/// # Errors
///
/// Never: the settings are complete.
pub fn access_tokens(issuer: &Issuer) -> Result<AccessTokenCredentials> {
    Ok(builder(issuer).build_access_token_credentials()?)
}

fn builder(issuer: &Issuer) -> user_account::Builder {
    let user = json!({
        "type": "authorized_user",
        "client_id": "svc",
        "client_secret": "correct-horse",
        "refresh_token": "a-grant-of-ours",
    });
    user_account::Builder::new(user).with_token_uri(issuer.token_url())
}
