//! Events as Prometheus metrics, in a registry of their own. Labels come from closed or bounded sets. What an event counts as
//! is in `counting`.

mod counting;

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels::Bounded;

/// What [`Metrics::render`] returns is written in: OpenMetrics, the format of Prometheus with units.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Providers with series of their own. Operators configure tens; a reload can rename them for ever.
const PROVIDERS_MAX: usize = 1_000;
/// Reason codes with series of their own: a policy plugin makes them up.
const CODES_MAX: usize = 64;
/// From an issuer next door to one that times out.
const LATENCY_SECONDS: [f64; 13] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Counts events and renders them.
pub struct Metrics {
    registry: Registry,
    refreshes: Family<RefreshLabels, Counter>,
    refresh_seconds: Family<OutcomeLabels, Histogram, fn() -> Histogram>,
    adopted: Family<ProviderLabels, Counter>,
    answers: Family<AnswerLabels, Counter>,
    answer_seconds: Family<ProviderLabels, Histogram, fn() -> Histogram>,
    plugin_failures: Family<KindLabels, Counter>,
    rejects: Family<OutcomeLabels, Counter>,
    denials: Family<CodeLabels, Counter>,
    failures: Family<KindLabels, Counter>,
    credential_changes: Family<StateLabels, Counter>,
    rotations: Family<ProviderLabels, Counter>,
    rotations_lost: Family<ProviderLabels, Counter>,
    rotations_replayed: Family<ProviderLabels, Counter>,
    store_orders: Family<OrderLabels, Counter>,
    swaps: Family<OutcomeLabels, Counter>,
    reloads: Family<ResultLabels, Counter>,
    evictions: Family<WhyLabels, Counter>,
    notices: Family<CodeLabels, Counter>,
    tokens: Family<ProviderLabels, Gauge>,
    flights: Family<ProviderLabels, Gauge>,
    next_expiry: Family<ProviderLabels, Gauge<f64, AtomicU64>>,
    credentials: Family<StateLabels, Gauge>,
    undurable: Family<ProviderLabels, Gauge>,
    oldest_grant: Family<ProviderLabels, Gauge<f64, AtomicU64>>,
    providers: Bounded,
    codes: Bounded,
    /// Where gauges come from; read by `render`.
    source: OnceLock<Box<Source>>,
    /// One rendering at a time: gauges are cleared and set again. Never held across `.await`.
    rendering: Mutex<()>,
}

type Source = dyn Fn() -> Vec<ProviderReading> + Send + Sync;

/// How one provider stands at the moment of a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderReading {
    /// Its name.
    pub provider: String,
    /// Tokens held, valid ones.
    pub tokens: u64,
    /// Flights in progress.
    pub flights: u64,
    /// Until the first of its tokens ends; none when it holds none.
    pub next_expiry: Option<Duration>,
    /// Credentials by the label of their state.
    pub credentials: Vec<(&'static str, u64)>,
    /// Credentials of which something is not on record yet.
    pub undurable: u64,
    /// The age of the oldest grant that can be used; none without one.
    pub oldest_grant: Option<Duration>,
}

macro_rules! label_sets {
    ($($name:ident { $($label:ident: $type:ty),+ })+) => {$(
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        struct $name { $($label: $type),+ }
    )+};
}

label_sets! {
    RefreshLabels { provider: String, outcome: &'static str, cause: &'static str }
    AnswerLabels { provider: String, status: &'static str }
    ProviderLabels { provider: String }
    OutcomeLabels { provider: String, outcome: &'static str }
    KindLabels { provider: String, kind: &'static str }
    StateLabels { provider: String, state: &'static str }
    WhyLabels { provider: String, why: &'static str }
    ResultLabels { outcome: &'static str }
    OrderLabels { what: &'static str, outcome: &'static str }
    CodeLabels { code: String }
}

// === impl Metrics ===

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let latency: fn() -> Histogram = || Histogram::new(LATENCY_SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("keyfob"),
            refreshes: Family::default(),
            refresh_seconds: Family::new_with_constructor(latency),
            adopted: Family::default(),
            answers: Family::default(),
            answer_seconds: Family::new_with_constructor(latency),
            plugin_failures: Family::default(),
            rejects: Family::default(),
            denials: Family::default(),
            failures: Family::default(),
            credential_changes: Family::default(),
            rotations: Family::default(),
            rotations_lost: Family::default(),
            rotations_replayed: Family::default(),
            store_orders: Family::default(),
            swaps: Family::default(),
            reloads: Family::default(),
            evictions: Family::default(),
            notices: Family::default(),
            tokens: Family::default(),
            flights: Family::default(),
            next_expiry: Family::default(),
            credentials: Family::default(),
            undurable: Family::default(),
            oldest_grant: Family::default(),
            providers: Bounded::new(PROVIDERS_MAX),
            codes: Bounded::new(CODES_MAX),
            source: OnceLock::new(),
            rendering: Mutex::new(()),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let Self { registry, .. } = self;
        registry.register("refreshes", "Refreshes finished", self.refreshes.clone());
        registry.register_with_unit(
            "refresh_duration",
            "From take-off of a refresh to its landing",
            Unit::Seconds,
            self.refresh_seconds.clone(),
        );
        registry.register(
            "tokens_adopted",
            "Tokens that the store kept and that are served again",
            self.adopted.clone(),
        );
        registry.register(
            "upstream_answers",
            "Requests to issuers by status class or fault",
            self.answers.clone(),
        );
        registry.register_with_unit(
            "upstream_duration",
            "From sending a request to its last byte or its failure",
            Unit::Seconds,
            self.answer_seconds.clone(),
        );
        registry.register(
            "plugin_failures",
            "Plugins that failed to answer",
            self.plugin_failures.clone(),
        );
        registry.register(
            "rejects",
            "Tokens that a resource refused",
            self.rejects.clone(),
        );
        registry.register(
            "denials",
            "Requests refused by policy",
            self.denials.clone(),
        );
        registry.register(
            "request_failures",
            "Callers that got an error",
            self.failures.clone(),
        );
        registry.register(
            "credential_changes",
            "Credentials by the state they entered",
            self.credential_changes.clone(),
        );
        registry.register(
            "grant_rotations",
            "Grants replaced by the issuer",
            self.rotations.clone(),
        );
        registry.register(
            "grant_rotations_lost",
            "Grants that may be spent because their answer was lost",
            self.rotations_lost.clone(),
        );
        registry.register(
            "grant_rotations_replayed",
            "Grants refused by the issuer when presented again after a lost answer",
            self.rotations_replayed.clone(),
        );
        registry.register(
            "store_orders",
            "What was done to the store as a whole",
            self.store_orders.clone(),
        );
        registry.register(
            "plugin_swaps",
            "Plugins and policies swapped or refused",
            self.swaps.clone(),
        );
        registry.register(
            "config_reloads",
            "Configurations read again",
            self.reloads.clone(),
        );
        registry.register(
            "evictions",
            "Keys that left the cache",
            self.evictions.clone(),
        );
        registry.register(
            "notices",
            "Things an operator should know",
            self.notices.clone(),
        );
        registry.register("tokens", "Valid tokens held", self.tokens.clone());
        registry.register("flights", "Refreshes in progress", self.flights.clone());
        registry.register_with_unit(
            "next_expiry",
            "Until the first of a provider's tokens ends",
            Unit::Seconds,
            self.next_expiry.clone(),
        );
        registry.register(
            "credentials",
            "Credentials by state",
            self.credentials.clone(),
        );
        registry.register(
            "undurable_records",
            "Credentials of which something waits to be recorded",
            self.undurable.clone(),
        );
        registry.register_with_unit(
            "oldest_grant_age",
            "Since the oldest usable grant was handed over or last rotated",
            Unit::Seconds,
            self.oldest_grant.clone(),
        );
    }

    /// Where gauges come from: called once a rendering, on the rendering thread. The first source stays.
    pub fn watch(&self, source: impl Fn() -> Vec<ProviderReading> + Send + Sync + 'static) {
        // A second source has nobody to tell: the broker that owns the first is still there.
        let _ = self.source.set(Box::new(source));
    }

    /// Everything in OpenMetrics text; its type is [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let _one_at_a_time = self
            .rendering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = self.source.get() {
            self.set_gauges(source());
        }
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn set_gauges(&self, readings: Vec<ProviderReading>) {
        // A provider that is gone must not keep its last reading.
        self.tokens.clear();
        self.flights.clear();
        self.next_expiry.clear();
        self.credentials.clear();
        self.undurable.clear();
        self.oldest_grant.clear();
        for reading in readings {
            let provider = self.providers.value(&reading.provider);
            let labels = ProviderLabels {
                provider: provider.clone(),
            };
            self.tokens
                .get_or_create(&labels)
                .inc_by(signed(reading.tokens));
            self.flights
                .get_or_create(&labels)
                .inc_by(signed(reading.flights));
            if let Some(left) = reading.next_expiry {
                self.next_expiry
                    .get_or_create(&labels)
                    .set(left.as_secs_f64());
            }
            self.undurable
                .get_or_create(&labels)
                .inc_by(signed(reading.undurable));
            if let Some(age) = reading.oldest_grant {
                self.oldest_grant
                    .get_or_create(&labels)
                    .set(age.as_secs_f64());
            }
            for (state, count) in reading.credentials {
                let labels = StateLabels {
                    provider: provider.clone(),
                    state,
                };
                self.credentials
                    .get_or_create(&labels)
                    .inc_by(signed(count));
            }
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::contract::Cause;
    use crate::model::credential::{CredentialState, EndCause, Version};
    use crate::model::error::{Correlation, ErrorKind};
    use crate::model::event::{Event, Observer, RefreshOutcome};
    use crate::model::key::{CredentialKey, ProviderName, ScopeSet, Tenant, TokenKey};
    use crate::model::time::UnixTime;
    use crate::model::transport::FaultKind;

    fn key() -> TokenKey {
        TokenKey {
            credential: CredentialKey {
                tenant: Tenant::default(),
                provider: ProviderName::parse("acme").unwrap(),
                subject: None,
            },
            audience: None,
            scopes: ScopeSet::default(),
        }
    }

    fn denied(code: String) -> Event {
        Event::Denied {
            caller: "c".into(),
            tenant: Tenant::default(),
            provider: "whatever a caller wrote".into(),
            code,
            fix: String::new(),
            correlation: Correlation(1),
        }
    }

    #[test]
    fn every_line_has_its_name_unit_and_labels() {
        let metrics = Metrics::new();
        let outcome = RefreshOutcome::Failed {
            kind: ErrorKind::Unavailable,
            detail: "x".into(),
            not_before: None,
            correlation: Correlation(1),
        };
        let took = Duration::from_millis(30);
        metrics.observe(&Event::RefreshFinished {
            key: key(),
            cause: Cause::First,
            outcome,
            took,
        });
        for result in [Ok(503), Err(FaultKind::Timeout)] {
            let provider = key().credential.provider;
            metrics.observe(&Event::UpstreamAnswered {
                provider,
                result,
                took,
                detail: None,
            });
        }
        let text = metrics.render();
        for line in [
            "# TYPE keyfob_refreshes counter",
            "keyfob_refreshes_total{provider=\"acme\",outcome=\"unavailable\",cause=\"first\"} 1",
            "# UNIT keyfob_refresh_duration_seconds seconds",
            "keyfob_refresh_duration_seconds_bucket{le=\"0.05\",provider=\"acme\",outcome=\"unavailable\"} 1",
            "keyfob_upstream_answers_total{provider=\"acme\",status=\"5xx\"} 1",
            "keyfob_upstream_answers_total{provider=\"acme\",status=\"timeout\"} 1",
            "# EOF",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn a_lost_answer_counts_once_and_its_refusal_apart() {
        let at = UnixTime::from_secs(1);
        let (live, doubt) = (
            CredentialState::Live,
            CredentialState::Uncertain { since: at },
        );
        let ended = |cause| CredentialState::ReauthorizationRequired { since: at, cause };
        let (lost, refused) = (ended(EndCause::LostAnswer), ended(EndCause::Refused));
        let revoked = CredentialState::Revoked { at };
        for (was, is, counts) in [
            (live, doubt, (1, 0)),
            (live, lost, (1, 0)),
            (live, refused, (0, 0)),
            (doubt, doubt, (0, 0)),
            (doubt, lost, (0, 0)),
            (doubt, refused, (0, 1)),
            (doubt, live, (0, 0)),
            (doubt, revoked, (0, 0)),
            // An operator orders a probe.
            (lost, doubt, (0, 0)),
        ] {
            let metrics = Metrics::new();
            metrics.observe(&Event::CredentialChanged {
                key: key().credential,
                was,
                state: is,
                version: Version(1),
                by: "refresh".into(),
            });
            let text = metrics.render();
            let count = |what: &str| {
                let line = format!("keyfob_grant_rotations_{what}_total{{provider=\"acme\"}} 1");
                usize::from(text.contains(&line))
            };
            assert_eq!((count("lost"), count("replayed")), counts, "{was:?} {is:?}");
        }
    }

    #[test]
    fn callers_and_plugins_cannot_grow_a_metric() {
        let metrics = Metrics::new();
        for n in 0..10 * CODES_MAX {
            metrics.observe(&denied(format!("code_{n}")));
        }
        let text = metrics.render();
        let series = text
            .lines()
            .filter(|line| line.starts_with("keyfob_denials_total"))
            .count();
        assert_eq!(series, CODES_MAX + 1);
        assert!(!text.contains("whatever a caller wrote"));
    }

    #[test]
    fn gauges_show_the_moment_of_the_scrape_only() {
        let metrics = Metrics::new();
        let scrapes = AtomicU64::new(0);
        metrics.watch(move || {
            let first = scrapes.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            let reading = ProviderReading {
                provider: if first { "acme" } else { "later" }.into(),
                tokens: 3,
                flights: 1,
                next_expiry: Some(Duration::from_millis(1500)),
                credentials: vec![("live", 2)],
                undurable: 1,
                oldest_grant: first.then_some(Duration::from_secs(90)),
            };
            vec![reading]
        });
        let text = metrics.render();
        assert!(
            text.contains("keyfob_tokens{provider=\"acme\"} 3"),
            "{text}"
        );
        assert!(
            text.contains("keyfob_next_expiry_seconds{provider=\"acme\"} 1.5"),
            "{text}"
        );
        assert!(
            text.contains("keyfob_credentials{provider=\"acme\",state=\"live\"} 2"),
            "{text}"
        );
        for line in [
            "keyfob_undurable_records{provider=\"acme\"} 1",
            "keyfob_oldest_grant_age_seconds{provider=\"acme\"} 90.0",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let text = metrics.render();
        assert!(
            text.contains("keyfob_flights{provider=\"later\"} 1") && !text.contains("acme"),
            "{text}"
        );
    }
}
