//! The keys of the store's file: `sealing_key`, and the one that is to take its place. A start must not depend on whether that
//! happened yet; a reload says what is left to do.

use std::path::PathBuf;

use crate::broker::Broker;
use crate::daemon::config::{Config, Mistake, StoreSettings};
use crate::daemon::environment::{self, Environment};
use crate::daemon::server::Live;
use crate::model::secret::Secret;
use crate::settings::SecretSource;
use crate::store::embedded::{EmbeddedStore, OpenError, is_sealing_key};

/// What may open the file.
pub(in crate::daemon) struct Keys {
    pub(in crate::daemon) now: Secret<String>,
    pub(in crate::daemon) next: Option<Secret<String>>,
}

/// Reads both keys.
///
/// # Errors
///
/// The first that cannot be read.
pub(in crate::daemon) fn keys(
    config: &Config,
    settings: &StoreSettings,
    environment: &Environment,
) -> Result<Keys, Mistake> {
    Ok(Keys {
        now: fetch(
            config,
            settings,
            "sealing_key",
            &settings.sealing_key,
            environment,
        )?,
        next: next(config, environment)?,
    })
}

/// Reads the key that is to be next.
///
/// # Errors
///
/// When it is named and cannot be read.
pub(super) fn next(
    config: &Config,
    environment: &Environment,
) -> Result<Option<Secret<String>>, Mistake> {
    let Some(settings) = &config.store else {
        return Ok(None);
    };
    let source = settings.next_sealing_key.as_ref();
    source
        .map(|source| fetch(config, settings, "next_sealing_key", source, environment))
        .transpose()
}

/// Reads both keys, and looks whether they are any.
///
/// # Errors
///
/// The first that cannot be read, or is none.
pub(in crate::daemon) fn check(
    config: &Config,
    settings: &StoreSettings,
    environment: &Environment,
) -> Result<(), Mistake> {
    let Keys { now, next } = keys(config, settings, environment)?;
    let none = |name: &str| {
        let what = format!("[store] {name}: is not 32 bytes of base64");
        let fix = "make one with: head -c 32 /dev/urandom | base64";
        Err(config.mistake_at(settings.line, what, fix))
    };
    match next {
        _ if !is_sealing_key(&now) => none("sealing_key"),
        Some(next) if !is_sealing_key(&next) => none("next_sealing_key"),
        _ => Ok(()),
    }
}

/// Opens the file with whichever key fits; none when the process is ending.
pub(in crate::daemon) async fn open(
    path: PathBuf,
    keys: Keys,
) -> Option<Result<EmbeddedStore, OpenError>> {
    let open = move || match &keys.next {
        Some(next) => EmbeddedStore::open_with_either(&path, &keys.now, next),
        None => EmbeddedStore::open(&path, &keys.now),
    };
    tokio::task::spawn_blocking(open).await.ok()
}

/// What an operator should do about the keys of a store that is open.
pub(super) async fn warnings(
    config: &Config,
    environment: &Environment,
    live: &Live,
    broker: &Broker,
) -> Vec<Mistake> {
    let Some(settings) = &config.store else {
        return Vec::new();
    };
    let at = |what: &str, fix: &str| vec![config.mistake_at(settings.line, what, fix)];
    let sealing_key = environment::fetch(&settings.sealing_key, environment).ok();
    let is_now = match sealing_key {
        Some(key) => broker.is_sealed_with(key).await,
        None => Some(false),
    };
    let is_next = match live.next_sealing_key.clone() {
        Some(next) if !is_sealing_key(&next) => {
            return at(
                "`next_sealing_key` is not 32 bytes of base64",
                "make one with: head -c 32 /dev/urandom | base64",
            );
        }
        Some(next) => broker.is_sealed_with(next).await,
        None => Some(false),
    };
    match (is_now, is_next) {
        (Some(true), Some(true)) => at(
            "`next_sealing_key` is the same key as `sealing_key`",
            "remove `next_sealing_key`, or give it a new key",
        ),
        (Some(false), Some(true)) => at(
            "the store is sealed with `next_sealing_key`",
            "move it to `sealing_key`, and remove `next_sealing_key`",
        ),
        (Some(false), Some(false)) => at(
            "the store that is open is sealed with another key than `sealing_key`: the next start would refuse it",
            "give `sealing_key` the key that opened the store; to replace it, write `next_sealing_key` and run `keyfob store rotate-key`",
        ),
        _ => Vec::new(),
    }
}

fn fetch(
    config: &Config,
    settings: &StoreSettings,
    name: &str,
    source: &SecretSource,
    environment: &Environment,
) -> Result<Secret<String>, Mistake> {
    environment::fetch(source, environment).map_err(|(what, fix)| {
        config.mistake_at(settings.line, format!("[store] {name}: {what}"), fix)
    })
}
