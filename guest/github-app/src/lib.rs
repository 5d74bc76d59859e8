//! Installation tokens of a GitHub App: `builtin:github-app`.
//!
//! Two steps: the app signs a JWT with its private key
//! (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>),
//! and trades it for a token of one installation
//! (<https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>).
//!
//! What is peculiar: the expiry comes as a date; a caller's scopes are GitHub's permissions, written `contents:read`; a
//! rate limit is a 403 as often as a 429
//! (<https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>); and some errors come inside a 200.

use keyfob_guest::serde_json::{Map, Value};
use keyfob_guest::{
    Call, Expiry, Flow, Holds, Leave, Limited, Needs, Provider, RateLimit, Reason, Refusal,
    Request, Response, Result, Rotation, Table, TokenSet, time,
};

const PRIVATE_KEY: &str = "private_key";

/// GitHub asks for a JWT issued a minute early, in case clocks differ, and allows ten minutes of life.
const BACKDATED_SECONDS: u32 = 60;
const LIFETIME_SECONDS: u32 = 9 * 60;

/// The version of the REST API that this plugin was written against.
const API_VERSION: &str = "2022-11-28";

/// What GitHub asks to wait after a secondary rate limit that states no time.
const SECONDARY_LIMIT_SECONDS: u32 = 60;

/// The plugin.
pub struct GithubApp;

/// The `settings` table.
pub struct Settings {
    app_id: String,
    /// The installation of the provider's own account; a subject names another.
    installation_id: Option<String>,
    api_url: String,
    repositories: Vec<String>,
    permissions: Vec<(String, String)>,
}

impl Provider for GithubApp {
    const NAME: &'static str = "github-app";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Installation tokens of a GitHub App";
    type Settings = Settings;

    fn settings(table: &mut Table) -> Settings {
        let app_id = table
            .setting("app_id", "The app's client id or app id")
            .id()
            .required();
        let installation_id = table.setting("installation_id", "The provider's own installation");
        let installation_id = installation_id.id().optional();
        let api_url = table
            .setting("api_url", "GitHub's own API by default")
            .url();
        let api_url = api_url.or("https://api.github.com".into());
        let repositories = table.setting("repositories", "Names of repositories; all by default");
        let repositories = repositories.texts().or(Vec::new());
        let permissions = table.setting("permissions", "All that was granted by default");
        let permissions = permissions.pairs().or(Vec::new());
        if !installation_id.as_deref().is_none_or(is_installation) {
            let fix = "write the number at the end of the installation's URL";
            table.mistake("/installation_id", "`installation_id` is not a number", fix);
        }
        let api_url = api_url.trim_end_matches('/').to_owned();
        Settings {
            app_id,
            installation_id,
            api_url,
            repositories,
            permissions,
        }
    }

    fn needs(settings: &Settings) -> Needs {
        Needs::default()
            .secret(PRIVATE_KEY)
            .destination(format!("{}/app/installations", settings.api_url))
            .readable("expires_at")
            .rotation(Rotation::Never)
    }

    fn refresh(flow: &mut Flow, call: &Call, settings: &Settings) -> Result<TokenSet> {
        let installation = installation(call, settings)?;
        let wanted = wanted(call, settings)?;
        let jwt = flow.assertion(PRIVATE_KEY).issuer(&settings.app_id);
        let jwt = jwt.backdated(BACKDATED_SECONDS).lifetime(LIFETIME_SECONDS);
        let jwt = flow.sign(jwt.without("jti"))?;
        let api = &settings.api_url;
        let url = format!("{api}/app/installations/{installation}/access_tokens");
        let request = Request::post(url)
            .bearer(jwt)
            .header("accept", "application/vnd.github+json")
            .header("x-github-api-version", API_VERSION)
            .capture("/token", Holds::AccessToken)
            .json(Value::Object(wanted).to_string());
        let reply = flow.send(request)?;
        let token = reply.sealed("/token").filter(|_| reply.is_success());
        let mut tokens = TokenSet::new(token.ok_or_else(|| refusal(&reply))?);
        if let Some(end) = reply.text("/expires_at").and_then(time::parse_rfc3339) {
            tokens.expires = Expiry::At(end);
        }
        Ok(tokens)
    }
}

/// Whose token: the subject is an installation id, and goes into a URL.
fn installation<'a>(call: &'a Call, settings: &'a Settings) -> Result<&'a str> {
    let named = call.subject.as_ref().or(settings.installation_id.as_ref());
    match named.map(String::as_str) {
        Some(id) if is_installation(id) => Ok(id),
        Some(_) => Err(wrong(
            "no_installation",
            "the subject is no installation id",
        )),
        None => Err(wrong(
            "no_installation",
            "neither `installation_id` nor a subject",
        )),
    }
}

fn is_installation(id: &str) -> bool {
    // Digits alone: a number may be parsed with a sign.
    id.bytes().all(|byte| byte.is_ascii_digit()) && id.parse::<u64>().is_ok()
}

/// What the token may do. A caller's scopes take the place of the configured permissions: nothing
/// that was asked for is ignored.
fn wanted(call: &Call, settings: &Settings) -> Result<Map<String, Value>> {
    if call.audience.is_some() {
        return Err(wrong("no_audience", "GitHub's tokens have no audience"));
    }
    let configured = settings.permissions.iter();
    let mut permissions: Map<String, Value> = configured
        .map(|(name, level)| (name.clone(), level.as_str().into()))
        .collect();
    if !call.scopes.is_empty() {
        permissions.clear();
    }
    for scope in &call.scopes {
        let Some((name, level)) = scope.split_once(':') else {
            return Err(wrong("no_permission", "a scope looks like `contents:read`"));
        };
        permissions.insert(name.into(), level.into());
    }
    let mut wanted = Map::new();
    if !permissions.is_empty() {
        wanted.insert("permissions".into(), permissions.into());
    }
    if !settings.repositories.is_empty() {
        wanted.insert("repositories".into(), settings.repositories.clone().into());
    }
    Ok(wanted)
}

fn wrong(code: &str, message: &str) -> Leave {
    Refusal::Misconfigured(Reason::new(code, message)).into()
}

/// GitHub's own ways to say no; what is left, the error inside a 200 included, is read as any OAuth
/// server's answer.
fn refusal(reply: &Response) -> Refusal {
    let code = match reply.status() {
        403 | 429 if limit(reply).is_some() => {
            let (after_seconds, scope) = (limit(reply), Limited::Client);
            return Refusal::RateLimited(RateLimit {
                after_seconds,
                scope,
            });
        }
        // None of these is the end of a grant: suspended installations come back.
        401 => "bad_jwt",
        403 => "installation_forbidden",
        404 => "installation_not_found",
        422 => "not_permitted",
        _ => return reply.refusal(),
    };
    Refusal::Misconfigured(reply.reason(code))
}

/// Seconds to wait, where this answer is a rate limit at all.
fn limit(reply: &Response) -> Option<u32> {
    let said = reply
        .text("/message")
        .is_some_and(|message| message.contains("rate limit"));
    let unstated = (said || reply.status() == 429).then_some(SECONDARY_LIMIT_SECONDS);
    reply.retry_after().or(unstated)
}

keyfob_guest::export_provider!(GithubApp);

#[cfg(test)]
mod tests;
