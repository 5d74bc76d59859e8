//! The parts of a broker, wired: what a flight, a caller and an operator's order share. Holds state; decides nothing.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, CoarseClock, PolicyEpoch, Slot};
use crate::flight::Flights;
use crate::gate::Gates;
use crate::model::contract::PolicyPlugin;
use crate::model::error::{Correlation, Error, ErrorKind, Retry};
use crate::model::event::{Event, Observer};
use crate::model::key::{CredentialKey, ProviderName, Tenant};
use crate::model::secret::Secret;
use crate::model::time::{Clock, UnixTime};
use crate::model::token::{AccessToken, SlotId};
use crate::model::transport::Upstream;
use crate::observe::{Metrics, ProviderReading, Timeline};
use crate::refresh::{self, Keeping};
use crate::schedule::{Budget, Budgets, Limits, Refresher, Scheduler};
use crate::secrets::SecretReader;
use crate::snapshot::{Placed, Provider, Snapshot};
use crate::store::{Census, Store, Stored, Unreachable};
use crate::unsaved::Unsaved;
use crate::wasm::Catalog;
use crate::watchers::Watchers;

/// How one flight ended, for everyone who waited.
pub(crate) type Landed = Result<Arc<AccessToken>, Error>;

/// Everything a broker shares. The table of what is mutable and what guards it is in `lib.rs`.
pub(crate) struct Core {
    /// Itself: a handle nudges through it without keeping the broker alive.
    pub(crate) me: Weak<Core>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) coarse: CoarseClock,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) secrets: SecretReader,
    pub(crate) catalog: Arc<Catalog>,
    /// In place of each provider's own way out.
    pub(crate) upstream: Option<Arc<dyn Upstream>>,
    /// What is in force. Read once per decision, written by swaps and reloads only; not held across an await.
    pub(crate) snapshot: RwLock<Arc<Snapshot>>,
    /// One change of the snapshot at a time; held across the compilation of a plugin, touched by no caller.
    pub(crate) changing: tokio::sync::Mutex<Previous>,
    /// Grows when a remembered decision may be wrong: policy, rules or default scopes changed.
    pub(crate) epoch: PolicyEpoch,
    pub(crate) cache: Cache,
    pub(crate) flights: Flights<SlotId, Landed>,
    pub(crate) gates: Gates<CredentialKey>,
    /// What each provider can take; outlives swaps.
    pub(crate) budgets: Budgets,
    pub(crate) scheduler: Scheduler,
    /// Who is to hear of a change.
    pub(crate) watchers: Watchers,
    /// Credentials by state as of the last scrape. Held for one copy.
    pub(crate) census: Mutex<Census>,
    /// What the store should hold and does not.
    pub(crate) unsaved: Unsaved,
    /// Tokens on their way into the store.
    pub(crate) keeping: Keeping,
    /// Required providers whose own account had a token. Held for one look.
    pub(crate) obtained: Mutex<HashSet<ProviderName>>,
    /// The store did not answer the last time it was asked.
    pub(crate) store_away: AtomicBool,
    /// The store was not what was written to it when it was last read whole.
    pub(crate) store_damaged: AtomicBool,
    /// One order to the store as a whole at a time: while one reads all of it, another that needs it alone would have every
    /// load wait for both. Held until the order is done; taken by none that would have to wait.
    pub(crate) tending: tokio::sync::Mutex<()>,
    /// Where flights run: the runtime that built the broker, whichever runtime or thread asks.
    runtime: tokio::runtime::Handle,
    pub(crate) tracker: TaskTracker,
    /// No renewal ahead of time starts any more.
    pub(crate) quiet: CancellationToken,
    /// No flight starts any more.
    pub(crate) stop: CancellationToken,
    pub(crate) seeds: Seeds,
    correlations: AtomicU64,
}

/// What a rollback goes back to.
#[derive(Default)]
pub(crate) struct Previous {
    pub(crate) providers: HashMap<ProviderName, Arc<Provider>>,
    pub(crate) policy: Option<Placed<dyn PolicyPlugin>>,
}

/// Randomness drawn once per process.
pub(crate) struct Seeds {
    /// Makes jitter differ between processes.
    pub(crate) node: u64,
    /// Keys the fingerprints of settings and of spent grants.
    pub(crate) fingerprints: Secret<[u8; 32]>,
}

/// The parts that are given, rather than made.
pub(crate) struct Given {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) coarse: CoarseClock,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) secrets: SecretReader,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) upstream: Option<Arc<dyn Upstream>>,
    pub(crate) cache: Cache,
    pub(crate) snapshot: Snapshot,
    pub(crate) seeds: Seeds,
}

// === impl Core ===

impl Core {
    pub(crate) fn new(given: Given) -> Arc<Self> {
        let scheduler = Scheduler::new(given.clock.now());
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            coarse: given.coarse,
            clock: given.clock,
            observer: given.observer,
            metrics: given.metrics,
            timeline: given.timeline,
            store: given.store,
            secrets: given.secrets,
            catalog: given.catalog,
            upstream: given.upstream,
            snapshot: RwLock::new(Arc::new(given.snapshot)),
            changing: tokio::sync::Mutex::default(),
            epoch: PolicyEpoch::default(),
            cache: given.cache,
            flights: flights(me.clone()),
            gates: Gates::default(),
            budgets: Budgets::new(scheduler.freed()),
            scheduler,
            watchers: Watchers::default(),
            census: Mutex::default(),
            unsaved: Unsaved::default(),
            keeping: Keeping::default(),
            obtained: Mutex::default(),
            store_away: AtomicBool::new(false),
            store_damaged: AtomicBool::new(false),
            tending: tokio::sync::Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
            tracker: TaskTracker::new(),
            quiet: CancellationToken::new(),
            stop: CancellationToken::new(),
            correlations: AtomicU64::new(given.seeds.node),
            seeds: given.seeds,
        })
    }

    /// Lets a scrape see how things stand.
    pub(crate) fn watch(self: &Arc<Self>) {
        let core = Arc::downgrade(self);
        self.metrics
            .watch(move || core.upgrade().map_or_else(Vec::new, |core| readings(&core)));
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn provider(&self, name: &ProviderName) -> Option<Arc<Provider>> {
        self.snapshot
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .providers
            .get(name)
            .cloned()
    }

    /// Puts another snapshot in force.
    pub(crate) fn put(&self, snapshot: Snapshot) {
        *self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }

    /// Makes every remembered decision be taken again.
    pub(crate) fn forget_decisions(&self) {
        let epoch = self.epoch.advance();
        self.cache.forget_before(epoch);
        self.watchers.everything_changed();
    }

    /// Runs a task of the broker's own: it outlives whoever asked for it, and the end of the process waits for it.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.tracker.spawn_on(task, &self.runtime)
    }

    /// Reads a credential's record, and remembers whether the store answered.
    pub(crate) async fn load(&self, key: &CredentialKey) -> Result<Stored, Unreachable> {
        let loaded = self.store.load(key).await;
        self.store_away.store(loaded.is_err(), Ordering::Relaxed);
        loaded
    }

    /// Forgets what a provider's issuer or plugin did wrong: an operator has changed something.
    pub(crate) fn forgive(&self, provider: &Provider) {
        self.budget(provider).resume();
        for slot in self.slots_of(&provider.settings.name) {
            slot.clear_failure();
        }
    }

    pub(crate) fn emit(&self, event: &Event) {
        self.observer.observe(event);
    }

    /// A number that no other failure of this process has.
    pub(crate) fn correlation(&self) -> Correlation {
        Correlation(self.correlations.fetch_add(1, Ordering::Relaxed))
    }

    /// What this provider can take.
    pub(crate) fn budget(&self, provider: &Provider) -> Arc<Budget> {
        let refresh = &provider.settings.refresh;
        let limits = Limits {
            most: refresh.concurrency,
            rate: refresh.rate,
        };
        self.budgets.of(&provider.settings.name, limits)
    }

    /// Slots that hold or held tokens of one provider.
    pub(crate) fn slots_of(&self, provider: &ProviderName) -> Vec<Arc<Slot>> {
        let mut slots = self.cache.slots();
        slots.retain(|slot| slot.provider() == provider);
        slots
    }
}

/// What a scrape is told of each provider.
fn readings(core: &Core) -> Vec<ProviderReading> {
    let now = core.now();
    let census = core
        .census
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let mut readings: HashMap<ProviderName, ProviderReading> = HashMap::new();
    for (name, provider) in &core.snapshot().providers {
        let reading = readings.entry(name.clone()).or_default();
        reading.provider = name.as_str().to_owned();
        reading.flights = core.budget(provider).load().0 as u64;
        reading.credentials = census
            .states
            .iter()
            .filter(|((of, _), _)| of == name)
            .map(|((_, state), count)| (*state, *count))
            .collect();
        let oldest = census.oldest_grants.get(name);
        reading.oldest_grant = oldest.map(|since| now.since(*since));
    }
    for key in core.unsaved.keys() {
        if let Some(reading) = readings.get_mut(&key.provider) {
            reading.undurable += 1;
        }
    }
    for slot in core.cache.slots() {
        let Some(reading) = readings.get_mut(slot.provider()) else {
            continue;
        };
        let Ok(token) = slot.servable(now) else {
            continue;
        };
        let left = token.expires().since(now);
        reading.tokens += 1;
        reading.next_expiry = Some(reading.next_expiry.map_or(left, |next| next.min(left)));
    }
    readings.into_values().collect()
}

impl Refresher for Core {
    fn room(&self, provider: &ProviderName, tenant: &Tenant) -> usize {
        let provider = self.provider(provider);
        provider.map_or(0, |provider| {
            self.budget(&provider).room(tenant, self.now())
        })
    }

    fn paused(&self, provider: &ProviderName) -> Option<UnixTime> {
        let provider = self.provider(provider)?;
        self.budget(&provider).paused(self.now())
    }

    fn renewal_from(&self, slot: &Slot, from: UnixTime) -> Option<UnixTime> {
        refresh::renewal_from(self, slot, from)
    }
}

/// Flights whose waiters are told when the task that led them is gone.
fn flights(core: Weak<Core>) -> Flights<SlotId, Landed> {
    Flights::new(move || {
        let correlation = core
            .upgrade()
            .map_or(Correlation(0), |core| core.correlation());
        Err(Error::new(
            ErrorKind::Internal,
            Retry::After(refresh::ABORTED_PAUSE),
            "Keyfob failed: see the operator's log",
            "the refresh ended without a result",
            correlation,
        ))
    })
}

/// Takes a mutex, poisoned or not: nothing here panics between two writes that belong together.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
