//! `keyfob serve`: from a configuration file to two listening planes, through reloads, to a clean end.

mod orders;
mod prepare;
pub(super) mod sealing;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orders::{Orders, Signals, until_end};
pub use prepare::{Loaded, check};
use prepare::{build, load, located};

use super::config::{AuditSettings, Config, Mistake};
use super::environment::Environment;
use super::logging;
use super::server::{self, Connections, Front, Listener, Plane};
use crate::broker::Broker;
use crate::model::event::{Event, Observer};
use crate::model::time::SystemClock;
use crate::observe::Lines;
use crate::observe::audit::{self, Audit};

/// How long requests in flight may take after SIGTERM. Orchestrators kill after 30 s, and with the default
/// `refresh.timeout` of 10 s refreshes may take 11 s after this: that makes 29 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(18);
/// Beyond its own timeout, how long a refresh may take: to commit what the issuer answered in the last moment.
const COMMIT_WITHIN: Duration = Duration::from_secs(1);
/// The longest that refreshes in flight are waited for: the longest `refresh.timeout` there is, and its commit. Whoever
/// configures more than the default must have the orchestrator wait longer too; a rotated grant is worth it.
const FLIGHTS_MAX: Duration = Duration::from_secs(121);

/// Why the daemon did not serve.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration is wrong.
    Mistakes(Vec<Mistake>),
    /// The machine said no: an address in use, a signal that cannot be heard.
    Failed(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) => f.write_str(message),
            Self::Mistakes(mistakes) => {
                let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
                f.write_str(&all.join("\n"))
            }
        }
    }
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
    let loaded = match load(file, environment) {
        Ok(loaded) => loaded,
        Err(first) => {
            // What a check finds behind these is told along.
            let all = check(file, environment).await.err();
            return Err(ServeError::Mistakes(all.unwrap_or(first)));
        }
    };
    let filter = environment(logging::FILTER_VARIABLE);
    let logging =
        logging::start(&loaded.config.log, filter.as_deref()).map_err(ServeError::Failed)?;
    let served = run(loaded, file, environment).await;
    // The last spans are sent by a thread that must not starve this runtime.
    let _ = tokio::task::spawn_blocking(|| logging.finish()).await;
    served
}

/// Serves, and has the audit log say how that began and ended.
async fn run(loaded: Loaded, file: &Path, environment: &Environment) -> Result<(), ServeError> {
    // Before anything else: a signal during the start is an order too.
    let signals = Signals::new().map_err(|error| ServeError::Failed(error.to_string()))?;
    let audit = match &loaded.config.audit {
        Some(settings) => Some(
            open_audit(&loaded.config, settings)
                .await
                .map_err(ServeError::Mistakes)?,
        ),
        None => None,
    };
    let served = run_audited(loaded, file, environment, signals, audit.clone()).await;
    if let Some(audit) = audit {
        let reason = match &served {
            Ok(()) => "told to end".to_owned(),
            Err(error) => format!("could not serve: {error}"),
        };
        // Waits for the disk, within a bound.
        let _ = tokio::task::spawn_blocking(move || audit.close(&reason)).await;
    }
    served
}

/// Opens the audit log, aside: it reads, and waits for the disk.
async fn open_audit(config: &Config, settings: &AuditSettings) -> Result<Arc<Audit>, Vec<Mistake>> {
    let log = settings.log.clone();
    let run = audit::Run {
        version: env!("CARGO_PKG_VERSION"),
        config: config.file.clone(),
    };
    let open = move || Audit::open(log, &run, Arc::new(SystemClock), Arc::new(Lines));
    let (what, fix) = match tokio::task::spawn_blocking(open).await {
        Ok(Ok(audit)) => return Ok(Arc::new(audit)),
        Ok(Err(error)) => (format!("[audit] {error}"), "see docs/audit.md"),
        Err(_) => ("[audit] the process is ending".to_owned(), "start again"),
    };
    Err(vec![config.mistake_at(settings.line, what, fix)])
}

async fn run_audited(
    loaded: Loaded,
    file: &Path,
    environment: &Environment,
    mut signals: Signals,
    audit: Option<Arc<Audit>>,
) -> Result<(), ServeError> {
    let Loaded {
        config,
        live,
        warnings,
    } = loaded;
    let has_operators = config.has_operators();
    let broker = build(&config, environment, audit.clone())
        .await
        .map_err(ServeError::Mistakes)?;
    // What the daemon itself has to tell goes where the broker's events go: log, metrics, audit log.
    let observer = broker.observer();
    if let Some(audit) = audit {
        audit.tell(observer.clone());
    }
    let notice = |code, detail: String| observer.observe(&Event::Notice { code, detail });
    for warning in warnings {
        notice("config_warning", warning.to_string());
    }
    broker.verify_in_background();
    for warning in sealing::warnings(&config, environment, &live, &broker).await {
        notice("config_warning", warning.to_string());
    }
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
        served: server::data_plane(front.clone()),
    };
    let admin = match has_operators {
        false => None,
        true => Some(Plane {
            name: "admin",
            listener: Listener::bind(&config.server.admin_listen)
                .await
                .map_err(failed)?,
            served: server::admin_plane(front.clone()),
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
        let mut flights_within = flights_within(&config);
        until_end(&mut signals, async || {
            let reloaded = reload(&config, file, environment, &front, &broker, &*observer).await;
            // A flight keeps the timeout that it began with.
            flights_within = reloaded.map_or(flights_within, |within| within.max(flights_within));
        })
        .await;
        broker.stop_renewing();
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
        flights_within
    };
    let (_, flights_within) = tokio::join!(accepting, ending);
    drop((data, admin));
    broker.shutdown(flights_within).await;
    notice("stopped", String::new());
    Ok(())
}

/// How long the refreshes of this configuration may take to finish.
fn flights_within(config: &Config) -> Duration {
    let timeouts = config.broker.providers.iter().map(|p| p.refresh.timeout);
    let longest = timeouts.max().unwrap_or_default();
    longest.saturating_add(COMMIT_WITHIN).min(FLIGHTS_MAX)
}

/// Reads the configuration again: all of it comes into force, or nothing. Answers how long its refreshes may take.
///
/// # Cancel safety
///
/// Safe: what was not in force yet never is.
async fn reload(
    started: &Config,
    file: &Path,
    environment: &Environment,
    front: &Front,
    broker: &Broker,
    observer: &dyn Observer,
) -> Option<Duration> {
    let refused = |mistakes: Vec<Mistake>| {
        let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        observer.observe(&Event::ConfigReloaded {
            refused: Some(all.join("\n")),
        });
        None
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
    let before = front.live();
    let tls = before.tls.is_some() != live.tls.is_some();
    if tls {
        // Whether a listener speaks TLS was judged together with its address, and the address stays.
        live.tls = before.tls.clone();
    }
    let admin = live.directory.has_operators() && !started.has_operators();
    let warnings = warnings.into_iter();
    let warnings = warnings.chain(sealing::warnings(&config, environment, &live, broker).await);
    front.replace(live);
    let notice = |code, detail: String| observer.observe(&Event::Notice { code, detail });
    for warning in warnings {
        notice("config_warning", warning.to_string());
    }
    let waiting = [(tls, "the use of TLS"), (admin, "a first operator")];
    let waiting: Vec<_> = waiting
        .into_iter()
        .chain(kept_until_restart(started, &config))
        .filter_map(|(changed, what)| changed.then_some(what))
        .collect();
    if !waiting.is_empty() {
        let detail = format!("{}: takes effect at a restart", waiting.join(", "));
        notice("restart_needed", detail);
    }
    Some(flights_within(&config))
}

/// What of a configuration is looked at when the process starts, and whether it changed since.
fn kept_until_restart(started: &Config, now: &Config) -> [(bool, &'static str); 4] {
    let addresses = |config: &Config| {
        let server = &config.server;
        (server.listen.clone(), server.admin_listen.clone())
    };
    // Another sealing key is no reason: what the file is sealed with is looked at, in `sealing`.
    let store = |config: &Config| config.store.as_ref().map(|store| store.path.clone());
    let audit = |config: &Config| config.audit.as_ref().map(|audit| audit.log.clone());
    [
        (addresses(started) != addresses(now), "another address"),
        (store(started) != store(now), "[store]"),
        (started.log != now.log, "[log]"),
        (audit(started) != audit(now), "[audit]"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config;

    #[test]
    fn every_refresh_may_finish_before_the_process_ends() {
        let within = |refresh: &str| {
            let text = format!("[providers.a]\nplugin = \"oauth2\"\nallow = []\n{refresh}");
            flights_within(&read(&text))
        };
        let orchestrators_wait = Duration::from_secs(30);
        assert!(within("") > Duration::from_secs(10));
        assert!(DRAIN_WITHIN + within("") < orchestrators_wait);
        let longest = "refresh = { timeout = \"120s\" }";
        assert!(within(longest) > Duration::from_secs(120));
        assert!(within(longest) <= FLIGHTS_MAX);
        assert_eq!(flights_within(&read("")), COMMIT_WITHIN);
    }

    #[test]
    fn what_a_reload_cannot_change_is_named() {
        const STORE: &str =
            "[store]\nkind = \"embedded\"\npath = \"/k\"\nsealing_key = { env = \"K\" }\n";
        let changed = |old: &str, new: &str| -> Vec<_> {
            let kept = kept_until_restart(&read(old), &read(new));
            let changed = kept.into_iter().filter(|(changed, _)| *changed);
            changed.map(|(_, what)| what).collect()
        };
        assert_eq!(changed("", STORE), ["[store]"]);
        assert_eq!(changed(STORE, ""), ["[store]"]);
        assert_eq!(
            changed(STORE, &STORE.replace("\"/k\"", "\"/l\"")),
            ["[store]"]
        );
        // Which key opens the file is looked at by itself.
        assert_eq!(changed(STORE, &STORE.replace("\"K\"", "\"L\"")), [""; 0]);
        // Where it is written does not matter.
        assert_eq!(changed(STORE, &format!("\n\n{STORE}")), [""; 0]);
        let elsewhere = "[server]\nlisten = \"127.0.0.1:1\"\n[log]\nformat = \"json\"\n";
        assert_eq!(changed("", elsewhere), ["another address", "[log]"]);
        const AUDIT: &str = "[audit]\npath = \"/a\"\n";
        assert_eq!(changed(AUDIT, ""), ["[audit]"]);
        assert_eq!(changed(AUDIT, &format!("{AUDIT}keep = 2")), ["[audit]"]);
        assert_eq!(changed(AUDIT, &format!("\n{AUDIT}")), [""; 0]);
    }

    fn read(text: &str) -> Config {
        let parsed = config::parse(Path::new("k.toml"), text);
        let config = parsed.and_then(config::Draft::faultless);
        config.unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }
}
