//! From settings to a running broker, and from new settings to the same broker: all or nothing, every mistake at once.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;

use super::status::{BrokerSettings, StartError};
use super::{Broker, SetupMistake, transport};
use crate::cache::{Cache, CacheLimits, CoarseClock};
use crate::core::{Core, Given, Seeds};
use crate::model::contract::{Cause, PolicyPlugin, ProviderPlugin};
use crate::model::event::{Event, Observer};
use crate::model::key::{CredentialKey, ProviderName, Tenant, TokenKey};
use crate::model::policy::Principal;
use crate::model::secret::Secret;
use crate::model::time::{Clock, SystemClock, UnixTime};
use crate::observe::{Fanout, Lines, Metrics, Timeline};
use crate::refresh::{self, Want};
use crate::secrets::{Environment, SecretReader};
use crate::settings::{PluginSource, ProviderSettings};
use crate::snapshot::{Provider, Snapshot, fingerprint_of};
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::wasm::{Catalog, LoadedPlugin, Runtime, builtin_names};

/// Sets a broker up.
pub struct Builder {
    settings: BrokerSettings,
    clock: Arc<dyn Clock>,
    coarse: CoarseClock,
    observers: Vec<Arc<dyn Observer>>,
    environment: Environment,
    store: Arc<dyn Store>,
    limits: CacheLimits,
    catalog: Option<Arc<Catalog>>,
}

// === impl Builder ===

impl Default for Builder {
    fn default() -> Self {
        Self {
            settings: BrokerSettings::default(),
            clock: Arc::new(SystemClock),
            coarse: CoarseClock::Kernel,
            observers: Vec::new(),
            environment: Arc::new(|_| None),
            store: Arc::new(MemoryStore::new()),
            limits: CacheLimits::default(),
            catalog: None,
        }
    }
}

impl Builder {
    /// Tells the time; the system's clock unless given.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.coarse = CoarseClock::Exact(clock.clone());
        self.clock = clock;
        self
    }

    /// Hears every event, besides log, metrics and timeline.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Looks up environment variables that secrets name; none are found unless given.
    #[must_use]
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = environment;
        self
    }

    /// Keeps credentials; in memory unless given.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = store;
        self
    }

    /// How many keys are held.
    #[must_use]
    pub fn limits(mut self, limits: CacheLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Loads plugins; one of its own unless given. Brokers of one process share it, and with it engine and compiled code.
    #[must_use]
    pub fn catalog(mut self, catalog: Arc<Catalog>) -> Self {
        self.catalog = Some(catalog);
        self
    }

    /// What to run.
    #[must_use]
    pub fn settings(mut self, settings: BrokerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Loads and checks every plugin, and starts.
    ///
    /// # Errors
    ///
    /// Every mistake at once: a plugin that does not load, settings it refuses, needs that are not granted, secrets and
    /// certificates that cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing runs before it returns.
    pub async fn build(self) -> Result<Broker, StartError> {
        let broken = |detail: String| StartError {
            mistakes: vec![SetupMistake {
                provider: None,
                message: detail,
                fix: "see the log of the operating system".into(),
                widens: false,
            }],
        };
        let catalog = match self.catalog {
            Some(catalog) => catalog,
            None => {
                let runtime = Runtime::new().map_err(|fault| broken(fault.to_string()))?;
                Arc::new(Catalog::new(runtime))
            }
        };
        let random = || refresh::random::<32>().map_err(|failure| broken(failure.detail));
        let node = random()?;
        let parts = Parts {
            catalog,
            secrets: SecretReader::new(self.environment),
            fingerprints: Secret::new(random()?),
            clock: self.clock.clone(),
        };
        let snapshot = parts.assemble(&self.settings, 1, &HashMap::new()).await?;
        let metrics = Arc::new(Metrics::new());
        let timeline = Arc::new(Timeline::new(self.clock.clone()));
        let mut observers: Vec<Arc<dyn Observer>> =
            vec![Arc::new(Lines), metrics.clone(), timeline.clone()];
        observers.extend(self.observers);
        let observer: Arc<dyn Observer> = Arc::new(Fanout::new(observers));
        let core = Core::new(Given {
            coarse: self.coarse,
            clock: self.clock,
            observer: observer.clone(),
            metrics,
            timeline,
            store: self.store,
            secrets: parts.secrets,
            catalog: parts.catalog,
            cache: Cache::new(self.limits, observer),
            snapshot,
            seeds: Seeds {
                node: u64::from_le_bytes(*node.first_chunk().unwrap_or(&[0; 8])),
                fingerprints: parts.fingerprints,
            },
        });
        core.tracker.spawn(renew(core.clone()));
        let broker = Broker(core);
        broker.obtain_required();
        Ok(broker)
    }
}

// === impl Broker ===

impl Broker {
    /// Puts new settings in force, all or nothing; answers with the revision. Plugins that were swapped in stay where the
    /// settings name the same source; tokens of providers whose settings or secrets changed become absent.
    ///
    /// # Errors
    ///
    /// Every mistake at once; the old settings stay in force.
    ///
    /// # Cancel safety
    ///
    /// Safe: it is put in force in one step at the end.
    pub async fn apply(&self, settings: BrokerSettings) -> Result<u64, StartError> {
        let core = &self.0;
        let mut previous = core.changing.lock().await;
        let old = core.snapshot();
        let parts = Parts {
            catalog: core.catalog.clone(),
            secrets: core.secrets.clone(),
            fingerprints: core.seeds.fingerprints.clone(),
            clock: core.clock.clone(),
        };
        let revision = old.revision + 1;
        let next = match parts.assemble(&settings, revision, &old.providers).await {
            Ok(next) => next,
            Err(error) => {
                core.emit(&Event::ConfigReloaded {
                    refused: Some(error.to_string()),
                });
                return Err(error);
            }
        };
        for (name, provider) in &next.providers {
            // Takes the new limit.
            core.budget(provider);
            let same = old
                .providers
                .get(name)
                .is_some_and(|p| p.fingerprint == provider.fingerprint);
            if !same {
                previous.providers.remove(name);
            }
        }
        core.put(next.clone());
        core.forget_decisions();
        for (name, provider) in &old.providers {
            match next.providers.get(name) {
                Some(now) if now.fingerprint == provider.fingerprint => {}
                Some(_) => core.slots_of(name).iter().for_each(|slot| slot.withdraw()),
                None => core.slots_of(name).iter().for_each(|slot| slot.withdraw()),
            }
        }
        core.emit(&Event::ConfigReloaded { refused: None });
        self.obtain_required();
        Ok(revision)
    }

    /// Asks for the own account's token of every required provider, so that readiness can come true.
    fn obtain_required(&self) {
        let core = &self.0;
        for (name, provider) in &core.snapshot().providers {
            if !provider.settings.required {
                continue;
            }
            let now = core.now();
            let host = Principal::new("keyfob", Tenant::default(), Vec::new());
            let slot = core
                .cache
                .slot_or_insert(&required_key(name, provider), &host, now);
            if let Some(pin) = slot.ok().and_then(|slot| slot.pin()) {
                pin.permit(core.epoch.current(), UnixTime::MAX);
                if pin.current().is_none() {
                    super::nudge(
                        core,
                        &pin,
                        Want {
                            cause: Cause::First,
                            seen: None,
                        },
                        now,
                    );
                }
            }
        }
    }

    /// Stops refreshing, waits for flights in progress at most this long, and ends every task.
    ///
    /// # Cancel safety
    ///
    /// Safe: the rest of the wait is given up.
    pub async fn shutdown(&self, drain: std::time::Duration) {
        self.0.stop.cancel();
        self.0.tracker.close();
        // What does not land in time is dropped with the runtime; its waiters are told.
        let _ = tokio::time::timeout(drain, self.0.tracker.wait()).await;
    }
}

/// Wakes what is due until the broker stops.
async fn renew(core: Arc<Core>) {
    let run = core
        .scheduler
        .run(core.clone(), core.clock.clone(), core.epoch.clone());
    tokio::select! {
        () = core.stop.cancelled() => {}
        () = run => {}
    }
}

/// The key that readiness waits for: the own account of the default tenant with the provider's default scopes.
pub(super) fn required_key(name: &ProviderName, provider: &Provider) -> TokenKey {
    TokenKey {
        credential: CredentialKey {
            tenant: Tenant::default(),
            provider: name.clone(),
            subject: None,
        },
        audience: None,
        scopes: provider.settings.scopes.clone(),
    }
}

/// What assembling needs.
struct Parts {
    catalog: Arc<Catalog>,
    secrets: SecretReader,
    fingerprints: Secret<[u8; 32]>,
    clock: Arc<dyn Clock>,
}

// === impl Parts ===

impl Parts {
    async fn assemble(
        &self,
        settings: &BrokerSettings,
        revision: u64,
        running: &HashMap<ProviderName, Arc<Provider>>,
    ) -> Result<Snapshot, StartError> {
        let (policy, providers) = tokio::join!(
            self.policy(&settings.policy.plugin),
            join_all(
                settings
                    .providers
                    .iter()
                    .map(|p| { self.provider(p, revision, running.get(&p.name).map(|p| &**p)) })
            )
        );
        let mut mistakes = Vec::new();
        let mut by_name = HashMap::new();
        for result in providers {
            match result {
                Ok(provider) => {
                    by_name.insert(provider.settings.name.clone(), Arc::new(provider));
                }
                Err(more) => mistakes.extend(more),
            }
        }
        let policy = match policy {
            Ok(policy) => policy,
            Err(mistake) => {
                mistakes.push(mistake);
                return Err(StartError { mistakes });
            }
        };
        if !mistakes.is_empty() {
            return Err(StartError { mistakes });
        }
        let callers = settings
            .callers
            .iter()
            .map(|c| (c.name.clone(), c.rules.to_string().into()))
            .collect();
        Ok(Snapshot {
            revision,
            providers: by_name,
            policy,
            callers,
        })
    }

    async fn provider(
        &self,
        settings: &ProviderSettings,
        revision: u64,
        running: Option<&Provider>,
    ) -> Result<Provider, Vec<SetupMistake>> {
        let kept = running.filter(|p| p.settings.plugin.same_as(&settings.plugin));
        let (plugin, since): (Arc<dyn ProviderPlugin>, u64) = match kept {
            Some(running) => (running.plugin.clone(), running.revision),
            None => {
                let plugin = self.load(&settings.plugin).await.and_then(|loaded| {
                    loaded.provider.ok_or_else(|| {
                        (
                            "it is no provider plugin".to_owned(),
                            "export keyfob:provider/provider".into(),
                        )
                    })
                });
                let plugin = plugin.map_err(|(message, fix)| {
                    vec![SetupMistake {
                        provider: Some(settings.name.as_str().to_owned()),
                        message: format!("plugin {:?}: {message}", settings.plugin),
                        fix,
                        widens: false,
                    }]
                })?;
                (plugin, revision)
            }
        };
        let checked = Provider::check(settings, plugin.as_ref()).await;
        let fingerprint = fingerprint_of(settings, &self.secrets, &self.fingerprints).await;
        let upstream = transport::upstream(settings, &self.secrets, self.clock.clone()).await;
        match (checked, fingerprint, upstream) {
            (Ok((needs, rules)), Ok(fingerprint), Ok(upstream)) => Ok(Provider {
                settings: settings.clone(),
                plugin_settings: settings.settings.to_string().into(),
                plugin,
                revision: since,
                needs,
                rules: Arc::new(rules),
                upstream: Arc::new(upstream),
                fingerprint,
            }),
            (checked, fingerprint, upstream) => {
                let mut mistakes = checked.err().unwrap_or_default();
                mistakes.extend(fingerprint.err().unwrap_or_default());
                mistakes.extend(upstream.err().unwrap_or_default());
                Err(mistakes)
            }
        }
    }

    async fn policy(&self, source: &PluginSource) -> Result<Arc<dyn PolicyPlugin>, SetupMistake> {
        let loaded = self.load(source).await;
        let policy = loaded.and_then(|loaded| {
            loaded.policy.ok_or_else(|| {
                (
                    "it is no policy plugin".to_owned(),
                    "export keyfob:policy/policy".to_owned(),
                )
            })
        });
        policy.map_err(|(message, fix)| SetupMistake {
            provider: None,
            message: format!("[policy] plugin {source:?}: {message}"),
            fix,
            widens: false,
        })
    }

    async fn load(&self, source: &PluginSource) -> Result<LoadedPlugin, (String, String)> {
        let bytes: Arc<[u8]> = match source {
            PluginSource::Bytes(bytes) => bytes.clone(),
            PluginSource::Builtin(name) => super::builtin(name)
                .ok_or_else(|| {
                    let shipped: Vec<_> = builtin_names()
                        .map(|name| format!("builtin:{name}"))
                        .collect();
                    let fix = format!("use {}, or a file", shipped.join(", "));
                    ("no such plugin ships with this build".to_owned(), fix)
                })?
                .into(),
            PluginSource::File(path) => tokio::fs::read(path)
                .await
                .map_err(|fault| {
                    (
                        fault.kind().to_string(),
                        "name a component file that this process may read".into(),
                    )
                })?
                .into(),
        };
        self.catalog
            .load(bytes)
            .await
            .map_err(|fault| (fault.to_string(), "see docs/plugins.md".to_owned()))
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StartError {}
