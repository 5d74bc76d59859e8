//! `keyfob store`: tends the store as a whole, through a daemon that runs or, offline, with the file itself.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::args::{StoreArgs, StoreCommand};
use super::client::Daemon;
use super::exit::{Exit, Failure};
use super::output::{Output, leaf};
use crate::daemon::config::{self, Config};
use crate::daemon::environment::Environment;
use crate::daemon::serve::sealing;
use crate::model::key::Tenant;
use crate::model::secret::Secret;
use crate::store::embedded::{EmbeddedStore, OpenError};
use crate::store::{Unreachable, Upkeep};

/// How long an order may take: a file of 100 GB is read in less on a slow disk. The order goes on without its caller.
const ORDER_WITHIN: Duration = Duration::from_secs(3600);

/// What is to be done, whoever does it.
enum Order {
    Verify,
    Compact,
    Backup(String),
    RotateKey,
    Shred(String),
}

pub(super) async fn run(
    command: StoreCommand,
    config: &Path,
    output: &Output,
    environment: &Environment,
) -> Result<(), Failure> {
    let (order, args) = match command {
        StoreCommand::Verify(args) => (Order::Verify, args),
        StoreCommand::Compact(args) => (Order::Compact, args),
        StoreCommand::Backup(args) => {
            let to = args.to.to_str().map(str::to_owned);
            let to = to.ok_or_else(|| Failure::new(Exit::Usage, "the path is not UTF-8"))?;
            (Order::Backup(to), args.store)
        }
        StoreCommand::RotateKey(args) => (Order::RotateKey, args),
        StoreCommand::Shred(args) => {
            if !args.yes && !agreed(&args.tenant)? {
                let message = "nothing was done: say --yes if everything of this tenant is to be forgotten for good";
                return Err(Failure::new(Exit::Usage, message));
            }
            (Order::Shred(args.tenant), args.store)
        }
    };
    let answer = match args.offline {
        true => order.offline(config, environment).await?,
        false => order.online(&args, environment).await?,
    };
    output.answer(&answer, || order.words(&answer))
}

/// Asks whoever sits at the terminal; nobody there has not agreed.
fn agreed(tenant: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    let shown = leaf(&tenant.into());
    write!(
        io::stderr().lock(),
        "Everything of the tenant {shown} will be forgotten for good. Write its name to agree: "
    )?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']) == tenant)
}

// === impl Order ===

impl Order {
    async fn online(&self, args: &StoreArgs, environment: &Environment) -> Result<Value, Failure> {
        let daemon = Daemon::admin(&args.admin, environment)?;
        let store = |what| daemon.url(&["admin", "v1", "store", what], &[]);
        let request = match self {
            Self::Verify => daemon.empty(Method::POST, store("verify")),
            Self::Compact => daemon.empty(Method::POST, store("compact")),
            Self::Backup(to) => daemon.json(Method::POST, store("backup"), &json!({ "path": to })),
            Self::RotateKey => daemon.empty(Method::POST, store("rotate-key")),
            Self::Shred(tenant) => {
                let url = daemon.url(&["admin", "v1", "tenants", tenant], &[]);
                daemon.empty(Method::DELETE, url)
            }
        };
        daemon.call(request.timeout(ORDER_WITHIN)).await
    }

    async fn offline(&self, config: &Path, environment: &Environment) -> Result<Value, Failure> {
        let config = config::read(config).map_err(Failure::mistakes)?;
        let (store, next) = open(&config, environment).await?;
        match self {
            Self::Verify => {
                let rows = store.verify().await.map_err(failed)?;
                Ok(json!({ "rows": rows }))
            }
            Self::Compact => {
                let [before, after] = store.compact().await.map_err(failed)?;
                Ok(json!({ "bytes_before": before, "bytes_after": after }))
            }
            Self::Backup(to) => {
                let to = config.folder().join(to);
                let to = std::path::absolute(&to).unwrap_or(to);
                let bytes = store.backup(&to).await.map_err(failed)?;
                Ok(json!({ "path": to, "bytes": bytes }))
            }
            Self::RotateKey => {
                let inapplicable = |words: &str| Failure::new(Exit::Failed, words);
                let next = next.ok_or_else(|| {
                    inapplicable("`next_sealing_key` is not set: write it under [store]")
                })?;
                if store.is_sealed_with(next.clone()).await {
                    return Err(inapplicable("the store is sealed with this key already"));
                }
                let [from, to] = store.rotate_key(next).await.map_err(failed)?;
                let compacted = store.compact().await.is_ok();
                Ok(json!({ "from": from, "to": to, "compacted": compacted }))
            }
            Self::Shred(tenant) => {
                let tenant = Tenant::parse(tenant)
                    .map_err(|bad| Failure::new(Exit::Usage, bad.to_string()))?;
                let credentials = store.shred(&tenant).await.map_err(failed)?;
                let compacted = store.compact().await.is_ok();
                Ok(json!({ "credentials": credentials, "compacted": compacted }))
            }
        }
    }

    fn words(&self, answer: &Value) -> String {
        let part = |member: &str| leaf(&answer[member]);
        let words = match self {
            Self::Verify => format!(
                "the store is what was written to it, rows: {}",
                part("rows")
            ),
            Self::Compact => format!(
                "written anew: {} bytes before, {} after",
                part("bytes_before"),
                part("bytes_after")
            ),
            Self::Backup(_) => format!(
                "a copy of {} bytes is in {}; keep the sealing key apart from it",
                part("bytes"),
                part("path")
            ),
            Self::RotateKey => format!(
                "sealed with the key {} instead of {}\nnow move `next_sealing_key` to `sealing_key`, and remove it",
                part("to"),
                part("from")
            ),
            Self::Shred(tenant) => format!(
                "forgotten: the tenant {}, credentials: {}",
                leaf(&tenant.as_str().into()),
                part("credentials")
            ),
        };
        match answer["compacted"] == false {
            true => format!(
                "{words}\nthe file could not be written anew: what was replaced is still in its free pages until \
                 `keyfob store compact` succeeds"
            ),
            false => words,
        }
    }
}

/// Opens the file that a configuration names, as a start would, but makes none.
async fn open(
    config: &Config,
    environment: &Environment,
) -> Result<(EmbeddedStore, Option<Secret<String>>), Failure> {
    let settings = config.store.as_ref().ok_or_else(|| {
        let words = format!(
            "{} has no [store]: there is no file to open",
            config.file.display()
        );
        Failure::new(Exit::Config, words)
    })?;
    let keys = sealing::keys(config, settings, environment)
        .map_err(|mistake| Failure::mistakes(vec![mistake]))?;
    if !settings.path.exists() {
        let words = format!("there is no store at {}", settings.path.display());
        return Err(Failure::new(Exit::Failed, words));
    }
    let next = keys.next.clone();
    match sealing::open(settings.path.clone(), keys).await {
        Some(Ok(store)) => Ok((store, next)),
        Some(Err(error)) => {
            let exit = match &error {
                OpenError::InUse(_) => Exit::Unavailable,
                OpenError::SealingKey | OpenError::WrongSealingKey { .. } => Exit::Config,
                _ => Exit::Failed,
            };
            let mut words = error.to_string();
            if exit == Exit::Unavailable {
                words.push_str("; to have the daemon do it, leave --offline out");
            }
            Err(Failure::new(exit, words))
        }
        None => Err(Failure::new(Exit::Failed, "the process is ending")),
    }
}

fn failed(Unreachable(why): Unreachable) -> Failure {
    Failure::new(Exit::Failed, why)
}
