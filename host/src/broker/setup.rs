//! From settings to a running broker, and from new settings to the same broker: all or nothing, every mistake at once.

use std::sync::Arc;
use std::time::Duration;

use super::assemble::{Parts, Standing};
use super::recover::recover;
use super::status::{BrokerSettings, StartError};
use super::{Broker, SetupMistake};
use crate::cache::{Cache, CacheLimits, CoarseClock, Ticks};
use crate::core::lock;
use crate::core::{Core, Given, Seeds};
use crate::model::contract::Cause;
use crate::model::event::{Event, Observer};
use crate::model::key::{CredentialKey, ProviderName, Tenant, TokenKey};
use crate::model::policy::Principal;
use crate::model::secret::Secret;
use crate::model::time::{Clock, SystemClock, UnixTime};
use crate::model::transport::Upstream;
use crate::observe::{Fanout, Lines, Metrics, Timeline};
use crate::refresh::{self, Want};
use crate::secrets::{Environment, SecretReader};
use crate::snapshot::{Provider, Snapshot};
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::wasm::{Catalog, Runtime};

/// How often idle keys are looked for: a walk over all of them.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// After how long without a question a key leaves: longer than most tokens live, so that what leaves is dead weight.
const IDLE_AFTER: Duration = Duration::from_secs(2 * 3600);
/// How many kept tokens that are over are forgotten in one step: each step is one commit, and others wait for it.
const FORGET_AT_ONCE: usize = 500;
/// How many such steps are taken in a row: with [`TIDY_EVERY`], more tokens than one process renews.
const FORGET_STEPS: usize = 200;

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
    upstream: Option<Arc<dyn Upstream>>,
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
            upstream: None,
        }
    }
}

impl Builder {
    /// Tells the time; the system's clock unless given. Hits read it too: not to be given with [`Builder::ticks`], which keeps
    /// the system's time (of the two, hits read the one given last).
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.coarse = CoarseClock::Exact(clock.clone());
        self.clock = clock;
        self
    }

    /// Hits read the time from here instead of the kernel's coarse clock: a hit by handle then takes half as long. The thread
    /// that [`Ticks::start`] started must get its turn: while it is starved or the process is stopped, time stands still for
    /// hits. After a second of that, or a tenth of the token's life where that is less, they may be handed a token that is over,
    /// which the resource refuses; after a tenth of a second, a token whose permit is over, which nobody refuses. A process
    /// made by `fork` has no such thread.
    #[must_use]
    pub fn ticks(mut self, ticks: Ticks) -> Self {
        self.coarse = CoarseClock::Ticked(ticks);
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

    /// Sends every provider's requests through here, and none into the network: to count what a refresh costs without one,
    /// or to let an issuer be a function. What the configuration says of addresses, certificates and proxies is not looked
    /// at then.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn upstream(mut self, upstream: Arc<dyn Upstream>) -> Self {
        self.upstream = Some(upstream);
        self
    }

    /// What to run.
    #[must_use]
    pub fn settings(mut self, settings: BrokerSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Loads and checks every plugin as [`Builder::build`] does, and starts nothing.
    ///
    /// # Errors
    ///
    /// Every mistake at once.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn check(&self) -> Result<(), StartError> {
        self.assemble().await.map(|_| ())
    }

    async fn assemble(&self) -> Result<(Parts, [u8; 32], Snapshot), StartError> {
        let broken = |detail: String| StartError {
            mistakes: vec![SetupMistake {
                provider: None,
                message: detail,
                fix: "see the log of the operating system".into(),
                widens: false,
            }],
        };
        let catalog = match &self.catalog {
            Some(catalog) => catalog.clone(),
            None => {
                let runtime = Runtime::new().map_err(|fault| broken(fault.to_string()))?;
                Arc::new(Catalog::new(runtime))
            }
        };
        let random = || refresh::random::<32>().map_err(|failure| broken(failure.detail));
        let node = random()?;
        let parts = Parts {
            catalog,
            secrets: SecretReader::new(self.environment.clone()),
            fingerprints: match self.store.fingerprint_key() {
                Some(key) => key,
                None => Secret::new(random()?),
            },
            clock: self.clock.clone(),
            upstream: self.upstream.clone(),
        };
        let kept = self
            .store
            .plugins()
            .await
            .map_err(|fault| broken(format!("the store: {}", fault.0)))?;
        let standing = Standing::Starting(kept.into_iter().collect());
        let snapshot = parts.assemble(&self.settings, 1, &standing).await?;
        Ok((parts, node, snapshot))
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
        let (parts, node, snapshot) = self.assemble().await?;
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
            upstream: parts.upstream,
            cache: Cache::new(self.limits, observer),
            snapshot,
            seeds: Seeds {
                node: u64::from_le_bytes(*node.first_chunk().unwrap_or(&[0; 8])),
                fingerprints: parts.fingerprints,
            },
        });
        core.watch();
        core.spawn(renew(core.clone()));
        core.spawn(pace(core.clone()));
        core.spawn(tidy(core.clone()));
        core.spawn(recover(core.clone()));
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
            upstream: core.upstream.clone(),
        };
        let revision = old.revision + 1;
        let next = parts
            .assemble(&settings, revision, &Standing::Running(&old))
            .await?;
        for (name, provider) in &next.providers {
            // Takes the new limit.
            core.budget(provider);
            let same = old
                .providers
                .get(name)
                .is_some_and(|p| p.fingerprint == provider.fingerprint);
            let placed = old.providers.get(name).map(|p| p.plugin.digest());
            if !same || placed != Some(provider.plugin.digest()) {
                // What was rolled back to would be what the configuration took out of force.
                previous.providers.remove(name);
            }
        }
        if old.policy.digest() != next.policy.digest() {
            previous.policy = None;
        }
        core.put(next.clone());
        core.forget_decisions();
        for (name, provider) in &old.providers {
            match next.providers.get(name) {
                Some(now) if now.fingerprint == provider.fingerprint => {}
                Some(now) => {
                    for slot in core.slots_of(name) {
                        slot.withdraw();
                        core.watchers.changed(&slot.key());
                    }
                    core.forgive(now);
                }
                None => core.slots_of(name).iter().for_each(|slot| {
                    core.cache.remove(&slot.key());
                    core.watchers.changed(&slot.key());
                }),
            }
        }
        // Once the old tokens are gone, so that nobody counts one of them.
        lock(&core.obtained).clear();
        core.emit(&Event::ConfigReloaded { refused: None });
        self.obtain_required();
        Ok(revision)
    }

    /// Asks for the own account's token of every required provider, so that readiness can come true. A refresh that failed
    /// a moment ago is not repeated.
    pub(super) fn obtain_required(&self) {
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

    /// Starts no renewal ahead of time any more; callers are answered as before. For the beginning of a drain.
    pub fn stop_renewing(&self) {
        self.0.quiet.cancel();
    }

    /// Stops refreshing, waits for flights in progress at most this long, and ends every task.
    ///
    /// # Cancel safety
    ///
    /// Safe: the rest of the wait is given up.
    pub async fn shutdown(&self, drain: Duration) {
        self.stop_renewing();
        self.0.stop.cancel();
        self.0.tracker.close();
        // What does not land in time is dropped with the runtime; its waiters are told.
        let _ = tokio::time::timeout(drain, self.0.tracker.wait()).await;
        let unsaved = self.0.unsaved.keys();
        if !unsaved.is_empty() {
            self.0.emit(&Event::Notice {
                code: "record_lost",
                detail: format!("the store did not take what became of {unsaved:?}"),
            });
        }
    }
}

/// Wakes what is due until the broker stops.
async fn renew(core: Arc<Core>) {
    let run = core
        .scheduler
        .run(core.clone(), core.clock.clone(), core.epoch.clone());
    tokio::select! {
        () = core.quiet.cancelled() => {}
        () = run => {}
    }
}

/// Lets those through whom a provider's rate held back, until the broker stops: nobody queues any more then.
async fn pace(core: Arc<Core>) {
    tokio::select! {
        () = core.stop.cancelled() => {}
        () = core.budgets.run() => {}
    }
}

/// Lets go of keys that nobody asks for and of kept tokens that are over, until the broker stops.
async fn tidy(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(TIDY_EVERY) => {
                let evicting = core.clone();
                let evict = move || evicting.cache.evict_idle(evicting.now(), IDLE_AFTER);
                // Where an observer panicked, its message was printed; who was not evicted now is the next time.
                let _ = tokio::task::spawn_blocking(evict).await;
                if core.store.durable() {
                    forget_tokens(&core).await;
                }
            }
        }
    }
}

/// Forgets tokens that are over. What a store does not forget now it is asked for again next time.
async fn forget_tokens(core: &Core) {
    for _ in 0..FORGET_STEPS {
        let forgotten = core.store.forget_tokens(core.now(), FORGET_AT_ONCE).await;
        let more = forgotten.is_ok_and(|forgotten| forgotten >= FORGET_AT_ONCE);
        if !more || core.stop.is_cancelled() {
            return;
        }
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
