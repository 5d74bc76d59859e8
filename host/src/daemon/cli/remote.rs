//! Commands that a running daemon answers.

use reqwest::Method;
use serde_json::{Value, json};

use super::args::{AdminArgs, ExplainArgs, PluginRollbackArgs, PluginSwapArgs, Target, TokenArgs};
use super::client::Daemon;
use super::exit::{Exit, Failure};
use super::output::{Output, leaf, table};
use super::story;
use crate::daemon::environment::Environment;
use crate::model::time::{Clock, SystemClock};

pub(super) async fn token(
    args: TokenArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let daemon = Daemon::data(&args.data, environment)?;
    let key = args.key;
    let scopes: Vec<&str> = key
        .scope
        .iter()
        .flat_map(|s| s.split_ascii_whitespace())
        .collect();
    let body = json!({
        "provider": key.provider,
        "subject": key.subject,
        "scopes": if key.scope.is_empty() { Value::Null } else { json!(scopes) },
        "audience": key.audience,
        "min_validity_seconds": args.min_validity,
    });
    let url = daemon.url(&["v1", "token"], &[]);
    let answer = daemon.call(daemon.json(Method::POST, url, &body)).await?;
    let token = answer["access_token"].as_str();
    let token = token.ok_or_else(|| Failure::new(Exit::Failed, "the answer holds no token"))?;
    output.answer(&answer, || match args.header {
        true => format!(
            "Authorization: {} {token}",
            answer["token_type"].as_str().unwrap_or("Bearer")
        ),
        false => token.to_owned(),
    })
}

pub(super) async fn explain(
    args: ExplainArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let daemon = Daemon::admin(&args.admin, environment)?;
    let key = &args.key;
    let scope = (!key.scope.is_empty()).then(|| key.scope.join(" "));
    let query = [
        ("tenant", Some(args.tenant.as_str())),
        ("subject", key.subject.as_deref()),
        ("scope", scope.as_deref()),
        ("audience", key.audience.as_deref()),
    ];
    let url = daemon.url(&["admin", "v1", "explain", &key.provider], &query);
    let answer = daemon.call(daemon.empty(Method::GET, url)).await?;
    output.answer(&answer, || story::of(&answer, SystemClock.now()))
}

pub(super) async fn providers(
    args: AdminArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    const COLUMNS: [&str; 8] = [
        "name",
        "plugin",
        "version",
        "revision",
        "tokens",
        "flights",
        "ready",
        "last_error",
    ];
    let daemon = Daemon::admin(&args, environment)?;
    let url = daemon.url(&["admin", "v1", "providers"], &[]);
    let answer = daemon.call(daemon.empty(Method::GET, url)).await?;
    output.answer(&answer, || {
        let rows = answer["providers"].as_array().into_iter().flatten();
        table(
            &COLUMNS,
            rows.map(|row| COLUMNS.iter().map(|name| leaf(&row[*name])).collect()),
        )
    })
}

pub(super) async fn plugin_swap(
    args: PluginSwapArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let daemon = Daemon::admin(&args.admin, environment)?;
    let component = std::fs::read(&args.file)
        .map_err(|error| Failure::new(Exit::Usage, format!("{}: {error}", args.file.display())))?;
    let url = daemon.url(&path(&args.target, "plugin"), &[]);
    let request = daemon.bytes(Method::PUT, url, "application/wasm", component);
    let answer = daemon.call(request).await?;
    output.answer(&answer, || in_force(&answer))
}

pub(super) async fn plugin_rollback(
    args: PluginRollbackArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let daemon = Daemon::admin(&args.admin, environment)?;
    let url = daemon.url(&path(&args.target, "rollback"), &[]);
    let answer = daemon.call(daemon.empty(Method::POST, url)).await?;
    output.answer(&answer, || in_force(&answer))
}

fn path<'a>(target: &'a Target, last: &'a str) -> Vec<&'a str> {
    match &target.provider {
        Some(name) => vec!["admin", "v1", "providers", name, last],
        None => vec!["admin", "v1", "policy", last],
    }
}

fn in_force(answer: &Value) -> String {
    format!(
        "revision {} is in force ({})",
        leaf(&answer["revision"]),
        leaf(&answer["digest"])
    )
}
