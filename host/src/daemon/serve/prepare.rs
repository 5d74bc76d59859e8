//! From a configuration file to what a daemon needs before it listens, or every mistake that stands in the way.

use std::path::Path;
use std::sync::Arc;

use super::sealing;
use crate::broker::{Broker, Builder, StartError};
use crate::daemon::authn::Directory;
use crate::daemon::config::{self, Config, Mistake, StoreSettings};
use crate::daemon::environment::Environment;
use crate::daemon::server::{self, Live};
use crate::observe::audit::Audit;
use crate::store::Store;

/// A configuration with everything that the daemon itself needs of it.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the planes need.
    pub live: Live,
    /// What an operator should reconsider.
    pub warnings: Vec<Mistake>,
}

/// Reads a configuration, the keys of callers and operators, and certificates.
///
/// # Errors
///
/// Every mistake in the file at once; where it has none, every one in what the daemon itself needs.
pub(super) fn load(file: &Path, environment: &Environment) -> Result<Loaded, Vec<Mistake>> {
    equip(config::read(file)?, environment)
}

/// Reads what the daemon itself needs of what a configuration names.
fn equip(config: Config, environment: &Environment) -> Result<Loaded, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let tls = server::server_config(&config, environment);
    let tls = tls.unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        None
    });
    let directory = Directory::load(&config, environment);
    let (directory, weak) = directory.unwrap_or_else(|wrong| {
        mistakes.extend(wrong);
        (Directory::default(), Vec::new())
    });
    let next_sealing_key = sealing::next(&config, environment).unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        None
    });
    if !mistakes.is_empty() {
        mistakes.sort_by_key(|mistake| mistake.line);
        return Err(mistakes);
    }
    let warnings = config.warnings.iter().cloned().chain(weak).collect();
    let mut live = Live::new(&config, directory, tls);
    live.next_sealing_key = next_sealing_key;
    let store = config.store.as_ref();
    live.next_sealing_source = store.and_then(|store| store.next_sealing_key.clone());
    Ok(Loaded {
        live,
        config,
        warnings,
    })
}

/// Builds the broker of a configuration, which tells `audit` of its events.
///
/// # Errors
///
/// The store's, or every one of the providers' and the policy's at once, each at its line.
pub(super) async fn build(
    config: &Config,
    environment: &Environment,
    audit: Option<Arc<Audit>>,
) -> Result<Broker, Vec<Mistake>> {
    let mut builder = builder(config, environment);
    if let Some(audit) = audit {
        builder = builder.observer(audit);
    }
    if let Some(settings) = &config.store {
        builder = builder.store(open_store(config, settings, environment).await?);
    }
    let built = builder.build().await;
    built.map_err(|error| located(config, &error))
}

/// Opens the store's file, aside: it reads, and may wait for the disk.
async fn open_store(
    config: &Config,
    settings: &StoreSettings,
    environment: &Environment,
) -> Result<Arc<dyn Store>, Vec<Mistake>> {
    let mistake = |what: String, fix: &str| vec![config.mistake_at(settings.line, what, fix)];
    let keys = sealing::keys(config, settings, environment).map_err(|mistake| vec![mistake])?;
    match sealing::open(settings.path.clone(), keys).await {
        Some(Ok(store)) => Ok(Arc::new(store)),
        Some(Err(error)) => Err(mistake(format!("[store] {error}"), "see docs/store.md")),
        None => Err(mistake(
            "[store] the process is ending".to_owned(),
            "start again",
        )),
    }
}

/// Reads a configuration and checks everything that it names as [`serve`](super::serve) would, but for the inside of the store's
/// file, and starts nothing.
///
/// # Errors
///
/// Every mistake at once: in the file, and in what the faultless parts of it name.
pub async fn check(file: &Path, environment: &Environment) -> Result<Loaded, Vec<Mistake>> {
    let config::Draft {
        config,
        mut mistakes,
    } = config::draft(file)?;
    let settings = config.store.as_ref();
    let keys = settings.map(|settings| sealing::check(&config, settings, environment));
    mistakes.extend(keys.and_then(Result::err));
    if let Err(error) = builder(&config, environment).check().await {
        mistakes.extend(located(&config, &error));
    }
    let equipped = equip(config, environment);
    if let Err(more) = &equipped {
        mistakes.extend_from_slice(more);
    }
    if mistakes.is_empty() {
        return equipped;
    }
    mistakes.sort_by_key(|mistake| mistake.line);
    // The next sealing key is looked at in both places.
    mistakes.dedup();
    Err(mistakes)
}

fn builder(config: &Config, environment: &Environment) -> Builder {
    Broker::builder()
        .environment(environment.clone())
        .settings(config.broker.clone())
}

pub(super) fn located(config: &Config, error: &StartError) -> Vec<Mistake> {
    error
        .mistakes
        .iter()
        .map(|mistake| config.locate(mistake))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;

    /// A configuration file, in a folder that lives as long as it is held.
    fn written(text: &str) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k.toml");
        std::fs::write(&file, text).unwrap();
        (dir, file)
    }

    /// An environment in which no variable is set.
    fn nothing() -> Environment {
        Arc::new(|_| None)
    }

    #[tokio::test]
    async fn a_check_misses_the_stores_key_before_a_start_does() {
        let text =
            "\n[store]\nkind = \"embedded\"\npath = \"k.redb\"\nsealing_key = { env = \"NO\" }\n";
        let (dir, file) = written(text);
        let mistakes = check(&file, &nothing()).await.err().expect("no key");
        assert!(mistakes[0].what.contains("NO is not set"), "{mistakes:?}");
        assert!(!dir.path().join("k.redb").exists());
    }

    #[test]
    fn what_is_missing_outside_the_file_is_told_at_once_too() {
        let text = "[server]\ntls = { cert = \"no.pem\", key = { env = \"NO\" } }\nadmin_key = { env = \"NO\" }\n\
                    [callers.a]\nkey = { file = \"no.key\" }\nallow = []\n";
        let (_dir, file) = written(text);
        let mistakes = load(&file, &nothing()).err().expect("nothing is there");
        let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [Some(2), Some(3), Some(5)]);
    }

    #[tokio::test]
    async fn a_check_tells_the_mistakes_in_the_file_and_what_is_missing_outside_it_at_once() {
        let text = "[server]\nadmin_key = { env = \"NO\" }\n\
                    [providers.acme]\nplugin = \"no.wasm\"\nallow = [\"https://acme.example\"]\n\
                    [providers.other]\nplugin = \"builtin:oauth2\"\nallow = []\nsettings = []\n\
                    [callers.billing]\nkey = { env = \"NO\" }\nallow = [{ provider = \"stranger\" }]\n";
        let (_dir, file) = written(text);
        let mistakes = check(&file, &nothing())
            .await
            .err()
            .expect("it is full of mistakes");
        let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.line).collect();
        // The settings of `other` are one mistake and not what a plugin makes of it as well.
        assert_eq!(lines, [2, 3, 9, 11, 12].map(Some), "{mistakes:#?}");
    }
}
