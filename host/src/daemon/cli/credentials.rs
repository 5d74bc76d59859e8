//! `keyfob credentials`: list, show, revoke, probe. What hands grants over is in `import`.

use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::args::{ListArgs, OneArgs};
use super::client::Daemon;
use super::exit::Failure;
use super::output::{Output, leaf, table, tree};
use super::story;
use crate::daemon::environment::Environment;
use crate::model::time::{Clock, SystemClock, UnixTime};

/// Lists credentials, as many calls as that takes: a call that looked at its most without finding enough says where to go
/// on.
pub(super) async fn list(
    args: ListArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let daemon = Daemon::admin(&args.admin, environment)?;
    let wanted = usize::from(args.limit);
    let (mut found, mut damaged, mut next) = (Vec::new(), 0, args.after.clone());
    loop {
        let left = (wanted - found.len()).to_string();
        let query = [
            ("tenant", args.tenant.as_deref()),
            ("provider", args.provider.as_deref()),
            ("state", args.state.as_deref()),
            ("limit", Some(left.as_str())),
            ("after", next.as_deref()),
        ];
        let url = daemon.url(&["admin", "v1", "credentials"], &query);
        let mut page = daemon.call(daemon.empty(Method::GET, url)).await?;
        if let Value::Array(credentials) = page["credentials"].take() {
            found.extend(credentials);
        }
        damaged += page["damaged"].as_u64().unwrap_or_default();
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() || found.len() >= wanted {
            break;
        }
    }
    let mut answer = json!({ "credentials": found, "damaged": damaged });
    if let Some(next) = &next {
        answer["next"] = next.as_str().into();
    }
    output.answer(&answer, || rows(&answer["credentials"], SystemClock.now()))?;
    if damaged > 0 {
        output.remark(&format!(
            "records that do not open: {damaged}; run `keyfob store verify`, and put back a backup"
        ));
    }
    if let Some(next) = next {
        output.remark(&format!("there may be more: --after {next}"));
    }
    Ok(())
}

fn rows(credentials: &Value, now: UnixTime) -> String {
    let row = |one: &Value| {
        let mut row: Vec<_> = ["tenant", "provider", "subject", "state", "cause"]
            .map(|member| leaf(&one[member]))
            .into();
        row.push(story::age(&one["since"], now));
        row.push(story::age(&one["grant_since"], now));
        row.push(leaf(&one["rotates"]));
        row.push(story::remark(one, now));
        row
    };
    let found: Vec<_> = credentials.as_array().into_iter().flatten().collect();
    if found.is_empty() {
        return "no credentials".to_owned();
    }
    let heading = [
        "tenant", "provider", "subject", "state", "cause", "for", "grant", "rotates", "remark",
    ];
    table(&heading, found.into_iter().map(row))
}

pub(super) async fn show(
    args: OneArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let daemon = Daemon::admin(&args.admin, environment)?;
    let url = url_of(&daemon, "credentials", &args);
    let answer = daemon.call(daemon.empty(Method::GET, url)).await?;
    told(&args, &answer, output)
}

pub(super) async fn probe(
    args: OneArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let daemon = Daemon::admin(&args.admin, environment)?;
    let url = url_of(&daemon, "probe", &args);
    let answer = daemon.call(daemon.empty(Method::POST, url)).await?;
    told(&args, &answer, output)
}

pub(super) async fn revoke(
    args: OneArgs,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let daemon = Daemon::admin(&args.admin, environment)?;
    let url = url_of(&daemon, "credentials", &args);
    let answer = daemon.call(daemon.empty(Method::DELETE, url)).await?;
    output.answer(&answer, || {
        format!("revoked {}\n{}", whose(&args), tree(&answer))
    })
}

fn told(args: &OneArgs, answer: &Value, output: &Output) -> Result<(), Failure> {
    output.answer(answer, || {
        let story = story::credential(answer, SystemClock.now());
        format!("{}, {}\n{}", args.provider, whose(args), story.join("\n"))
    })
}

fn whose(args: &OneArgs) -> String {
    match &args.subject {
        Some(subject) => leaf(&subject.as_str().into()),
        None => "the own account".to_owned(),
    }
}

fn url_of(daemon: &Daemon, call: &str, args: &OneArgs) -> Url {
    let mut segments = vec!["admin", "v1", call, &args.provider];
    segments.extend(args.subject.as_deref());
    daemon.url(&segments, &[("tenant", Some(&args.tenant))])
}
