//! The allow lists of `[callers.NAME]`: `builtin:allowlist`.
//!
//! A rule names one provider, and the subjects, scopes and audiences that may go with it; `"*"` stands for any of them
//! and for none. A list left out is empty: no subject but the provider's own account, no audience. What a caller asks
//! for must be covered by its rules for that provider, subject and audience together; nothing is dropped silently. To
//! ask for no scope at all is to let the server choose, which needs `scopes = ["*"]`.
//!
//! A denial tells the operator the line to add, and no more than was asked for. Scopes are those of RFC 6749, section
//! 3.3 (<https://www.rfc-editor.org/rfc/rfc6749#section-3.3>).

use keyfob_guest::bindings::policy::types::Reason;
use keyfob_guest::bindings::policy::{Allowance, Query};
use keyfob_guest::{Policy, deny};
use serde::Deserialize;

/// Covers everything, and nothing being named at all.
const ANY: &str = "*";

/// The plugin.
pub struct Allowlist;

/// One caller's settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    allow: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    provider: String,
    #[serde(default)]
    subjects: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
}

impl Policy for Allowlist {
    const NAME: &'static str = "allowlist";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Reads the callers' allow lists";
    const SETTINGS_SCHEMA: &'static str = include_str!("settings.schema.json");

    fn decide(query: &Query) -> Result<Allowance, Reason> {
        let settings: Settings = serde_json::from_str(&query.settings).map_err(|error| {
            deny(
                "settings",
                format!("the allow list cannot be read: {error}"),
            )
        })?;
        let rules: Vec<&Rule> = settings
            .allow
            .iter()
            .filter(|rule| rule.provider == query.provider)
            .collect();
        let rules = narrowed(rules, query, "provider_not_allowed", |_| true)?;
        let rules = narrowed(rules, query, "subject_not_allowed", |rule| {
            covers(&rule.subjects, query.subject.as_deref())
        })?;
        let rules = narrowed(rules, query, "audience_not_allowed", |rule| {
            covers(&rule.audiences, query.audience.as_deref())
        })?;

        let allowed = |scope: Option<&str>| {
            rules.iter().any(|rule| match scope {
                Some(scope) => covers(&rule.scopes, Some(scope)),
                None => rule.scopes.iter().any(|allowed| allowed == ANY),
            })
        };
        if query.scopes.is_empty() && !allowed(None) {
            return Err(refused(query, "scopes_unbounded"));
        }
        if !query.scopes.iter().all(|scope| allowed(Some(scope))) {
            return Err(refused(query, "scope_not_allowed"));
        }
        Ok(Allowance {
            scopes: query.scopes.clone(),
            partial: false,
            max_lifetime_seconds: None,
            remember_for_seconds: None,
        })
    }
}

/// The rules that still apply; none left is a denial that says at which point.
fn narrowed<'r>(
    rules: Vec<&'r Rule>,
    query: &Query,
    code: &str,
    applies: impl Fn(&Rule) -> bool,
) -> Result<Vec<&'r Rule>, Reason> {
    let left: Vec<_> = rules.into_iter().filter(|rule| applies(rule)).collect();
    if left.is_empty() {
        Err(refused(query, code))
    } else {
        Ok(left)
    }
}

/// A list covers what it names; an empty one covers what is not named; `"*"` covers both.
fn covers(list: &[String], value: Option<&str>) -> bool {
    match value {
        _ if list.iter().any(|allowed| allowed == ANY) => true,
        Some(value) => list.iter().any(|allowed| allowed == value),
        None => list.is_empty(),
    }
}

fn refused(query: &Query, code: &str) -> Reason {
    let Query {
        caller, provider, ..
    } = query;
    let mut rule = format!("{{ provider = {}", quoted(provider));
    let scopes = if query.scopes.is_empty() {
        vec![ANY.to_owned()]
    } else {
        query.scopes.clone()
    };
    for (name, values) in [
        ("subjects", query.subject.iter().cloned().collect()),
        ("scopes", scopes),
        ("audiences", query.audience.iter().cloned().collect()),
    ] {
        if !Vec::is_empty(&values) {
            let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
            rule.push_str(&format!(", {name} = [{}]", values.join(", ")));
        }
    }
    rule.push_str(" }");
    deny(
        code,
        format!("add to `allow` of [callers.{caller}]: {rule}"),
    )
}

/// A JSON string is a TOML basic string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

keyfob_guest::export_policy!(Allowlist);

#[cfg(test)]
mod tests;
