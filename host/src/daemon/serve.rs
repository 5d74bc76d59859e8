//! `keyfob serve`: from a configuration file to two listening planes, through reloads, to a clean end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::authn::Directory;
use super::config::{self, Config, Mistake, StoreSettings};
use super::environment::{self, Environment};
use super::logging;
use super::server::{self, Connections, Front, Listener, Live, Plane};
use crate::broker::{Broker, Builder, StartError};
use crate::model::event::{Event, Observer};
use crate::model::time::SystemClock;
use crate::observe::Lines;
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;

/// How long requests in flight may take after SIGTERM: orchestrators kill after 30 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);
/// How long refreshes in flight may take after that: a grant that is being rotated is worth waiting for.
const FLIGHTS_WITHIN: Duration = Duration::from_secs(8);

/// Why the daemon did not serve.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration is wrong.
    Mistakes(Vec<Mistake>),
    /// The machine said no: an address in use, a signal that cannot be heard.
    Failed(String),
}

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
/// Every mistake at once.
pub fn load(file: &Path, environment: &Environment) -> Result<Loaded, Vec<Mistake>> {
    let config = config::read(file)?;
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
    if !mistakes.is_empty() {
        mistakes.sort_by_key(|mistake| mistake.line);
        return Err(mistakes);
    }
    let warnings = config.warnings.iter().cloned().chain(weak).collect();
    Ok(Loaded {
        live: Live::new(&config, directory, tls),
        config,
        warnings,
    })
}

/// Builds the broker of a configuration.
///
/// # Errors
///
/// Every mistake at once, at the line of its provider.
pub async fn build(config: &Config, environment: &Environment) -> Result<Broker, Vec<Mistake>> {
    let mut builder = builder(config, environment);
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
    let mistake = |what: String, fix: String| {
        vec![Mistake {
            file: config.file.clone(),
            line: Some(settings.line),
            what,
            fix,
        }]
    };
    let key = environment::fetch(&settings.sealing_key, environment)
        .map_err(|(what, fix)| mistake(format!("[store] sealing_key: {what}"), fix))?;
    let path = settings.path.clone();
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path, &key)).await;
    match opened {
        Ok(Ok(store)) => Ok(Arc::new(store)),
        Ok(Err(error)) => Err(mistake(
            format!("[store] {error}"),
            "see docs/store.md".to_owned(),
        )),
        Err(_) => Err(mistake(
            "[store] the process is ending".to_owned(),
            "start again".to_owned(),
        )),
    }
}

/// Checks everything that [`build`] would, and starts nothing.
///
/// # Errors
///
/// As [`build`].
pub async fn check(config: &Config, environment: &Environment) -> Result<(), Vec<Mistake>> {
    let checked = builder(config, environment).check().await;
    checked.map_err(|error| located(config, &error))
}

fn builder(config: &Config, environment: &Environment) -> Builder {
    Broker::builder()
        .environment(environment.clone())
        .settings(config.broker.clone())
}

fn located(config: &Config, error: &StartError) -> Vec<Mistake> {
    error
        .mistakes
        .iter()
        .map(|mistake| config.locate(mistake))
        .collect()
}

/// Serves until SIGTERM or SIGINT, then answers what is in flight. A second signal does not wait.
///
/// # Errors
///
/// [`ServeError`] when it could not start.
///
/// # Cancel safety
///
/// Not meant to be dropped: connections and refreshes would go on without a listener.
pub async fn serve(file: &Path, environment: &Environment) -> Result<(), ServeError> {
    let loaded = load(file, environment).map_err(ServeError::Mistakes)?;
    let filter = environment(logging::FILTER_VARIABLE);
    let logging =
        logging::start(&loaded.config.log, filter.as_deref()).map_err(ServeError::Failed)?;
    let served = run(loaded, file, environment).await;
    // The last spans are sent by a thread that must not starve this runtime.
    let _ = tokio::task::spawn_blocking(|| logging.finish()).await;
    served
}

async fn run(loaded: Loaded, file: &Path, environment: &Environment) -> Result<(), ServeError> {
    let Loaded {
        config,
        live,
        warnings,
    } = loaded;
    let observer: Arc<dyn Observer> = Arc::new(Lines);
    let notice = |code, detail: String| observer.observe(&Event::Notice { code, detail });
    for warning in warnings {
        notice("config_warning", warning.to_string());
    }
    // Before anything listens: a signal during the start is an order too.
    let mut signals = Signals::new().map_err(|error| ServeError::Failed(error.to_string()))?;
    let has_operators = config.has_operators();
    let broker = build(&config, environment)
        .await
        .map_err(ServeError::Mistakes)?;
    let front = Front::new(
        broker.clone(),
        Arc::new(SystemClock),
        observer.clone(),
        live,
    );

    let failed = |error: std::io::Error| ServeError::Failed(error.to_string());
    let data = Plane {
        name: "data",
        listener: Listener::bind(&config.server.listen)
            .await
            .map_err(failed)?,
        router: server::data_plane(front.clone()),
    };
    let admin = match has_operators {
        false => None,
        true => Some(Plane {
            name: "admin",
            listener: Listener::bind(&config.server.admin_listen)
                .await
                .map_err(failed)?,
            router: server::admin_plane(front.clone()),
        }),
    };
    for plane in [Some(&data), admin.as_ref()].into_iter().flatten() {
        let address = plane.listener.address().map_err(failed)?;
        notice("listening", format!("{} plane on {address}", plane.name));
    }

    let connections = Connections::default();
    let accepting = async {
        let admin = async {
            if let Some(admin) = &admin {
                connections.accept(admin, &front).await;
            }
        };
        tokio::join!(connections.accept(&data, &front), admin)
    };
    let ending = async {
        while signals.next().await == Order::Reload {
            reload(&config, file, environment, &front, &broker, &*observer).await;
        }
        front.start_draining();
        notice(
            "draining",
            format!("answering what is in flight, {DRAIN_WITHIN:?} at most"),
        );
        let finished = tokio::select! {
            finished = connections.finish(DRAIN_WITHIN) => finished,
            () = signals.end() => false,
        };
        connections.stop();
        if !finished {
            notice("drain_cut", "requests in flight were cut off".to_owned());
        }
    };
    tokio::join!(accepting, ending);
    drop((data, admin));
    broker.shutdown(FLIGHTS_WITHIN).await;
    notice("stopped", String::new());
    Ok(())
}

/// Reads the configuration again: all of it comes into force, or nothing.
async fn reload(
    started: &Config,
    file: &Path,
    environment: &Environment,
    front: &Front,
    broker: &Broker,
    observer: &dyn Observer,
) {
    let refused = |mistakes: Vec<Mistake>| {
        let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        observer.observe(&Event::ConfigReloaded {
            refused: Some(all.join("\n")),
        });
    };
    let Loaded {
        config,
        mut live,
        warnings,
    } = match load(file, environment) {
        Ok(loaded) => loaded,
        Err(mistakes) => return refused(mistakes),
    };
    // The broker tells by itself whether it took them; its mistakes are told here once more, with lines.
    if let Err(error) = broker.apply(config.broker.clone()).await {
        return refused(located(&config, &error));
    }
    let (old, new) = (&started.server, &config.server);
    let addresses = (&old.listen, &old.admin_listen) != (&new.listen, &new.admin_listen);
    let before = front.live();
    let tls = before.tls.is_some() != live.tls.is_some();
    if tls {
        // Whether a listener speaks TLS was judged together with its address, and the address stays.
        live.tls = before.tls.clone();
    }
    let admin = live.directory.has_operators() && !started.has_operators();
    front.replace(live);
    let notice = |code, detail: String| observer.observe(&Event::Notice { code, detail });
    for warning in warnings {
        notice("config_warning", warning.to_string());
    }
    if addresses || tls || admin || started.log != config.log {
        let detail =
            "addresses, the use of TLS, a first operator and [log] take effect at a restart";
        notice("restart_needed", detail.to_owned());
    }
}

/// What the process is told to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Reload,
    End,
}

/// The signals that the daemon hears.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

// === impl Signals ===

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::End,
            _ = self.interrupt.recv() => Order::End,
            _ = self.hangup.recv() => Order::Reload,
        }
    }

    /// Waits for an order to end; reloads make no sense any more.
    async fn end(&mut self) {
        while self.next().await != Order::End {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_outside_the_file_is_told_at_once_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("k.toml");
        let text = "[server]\ntls = { cert = \"no.pem\", key = { env = \"NO\" } }\nadmin_key = { env = \"NO\" }\n\
                    [callers.a]\nkey = { file = \"no.key\" }\nallow = []\n";
        std::fs::write(&file, text).unwrap();
        let nothing: Environment = Arc::new(|_| None);
        let mistakes = load(&file, &nothing).err().expect("nothing is there");
        let lines: Vec<_> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [Some(2), Some(3), Some(5)]);
    }
}
