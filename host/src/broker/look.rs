//! What operators see: providers, readiness, the timeline of a key, metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Broker;
use super::setup::required_key;
use super::status::{Explanation, ProviderStatus, Readiness};
use crate::cache::Slot;
use crate::core::lock;
use crate::model::event::Observer;
use crate::model::key::{ProviderName, TokenKey};
use crate::model::time::UnixTime;
use crate::snapshot::Provider;

// === impl Broker ===

impl Broker {
    /// Every provider, by name.
    pub fn providers(&self) -> Vec<ProviderStatus> {
        let snapshot = self.0.snapshot();
        let mut all: Vec<_> = snapshot
            .providers
            .iter()
            .map(|(name, p)| self.status(name, p))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// One provider.
    pub fn provider(&self, name: &str) -> Option<ProviderStatus> {
        let name = ProviderName::parse(name).ok()?;
        self.0
            .provider(&name)
            .map(|provider| self.status(&name, &provider))
    }

    fn status(&self, name: &ProviderName, provider: &Provider) -> ProviderStatus {
        let core = &self.0;
        let now = core.now();
        let slots = core.slots_of(name);
        let description = provider.plugin.description();
        ProviderStatus {
            name: name.as_str().to_owned(),
            plugin: description.name.clone(),
            version: description.version.clone(),
            digest: provider.plugin.digest().to_owned(),
            revision: provider.plugin.revision,
            tokens: slots
                .iter()
                .filter(|slot| slot.current().is_some_and(|token| token.expires() > now))
                .count(),
            flights: core.budget(provider).load().0,
            required: provider.settings.required,
            ready: self.is_ready(name, provider),
            last_error: slots
                .iter()
                .filter_map(|slot| slot.failure(now))
                .map(|error| error.detail().to_owned())
                .next(),
        }
    }

    /// Whether the own account's token was obtained once, under the settings in force.
    fn is_ready(&self, name: &ProviderName, provider: &Provider) -> bool {
        if !provider.settings.required || lock(&self.0.obtained).contains(name) {
            return true;
        }
        let slot = self.0.cache.slot(&required_key(name, provider));
        let obtained = slot.is_some_and(|slot| slot.current().is_some());
        if obtained {
            lock(&self.0.obtained).insert(name.clone());
        }
        obtained
    }

    /// Whether traffic is welcome: every required token was obtained once, and the process is not draining. Asking is the
    /// demand for what is missing: before readiness there are no callers whose requests would try again.
    pub fn ready(&self) -> Readiness {
        let snapshot = self.0.snapshot();
        let mut waiting_for: Vec<_> = snapshot
            .providers
            .iter()
            .filter(|(name, provider)| !self.is_ready(name, provider))
            .map(|(name, _)| name.as_str().to_owned())
            .collect();
        waiting_for.sort_unstable();
        let draining = self.0.stop.is_cancelled();
        if !waiting_for.is_empty() && !draining {
            self.obtain_required();
        }
        Readiness {
            ready: waiting_for.is_empty() && !draining,
            degraded: self.0.store_away.load(Ordering::Relaxed)
                || self.0.store_damaged.load(Ordering::Relaxed)
                || !self.0.unsaved.is_empty(),
            waiting_for,
        }
    }

    /// How one key got where it is; `None` when neither the key nor its credential was ever seen.
    ///
    /// # Cancel safety
    ///
    /// Safe: reads only.
    pub async fn explain(&self, key: &TokenKey) -> Option<Explanation> {
        let core = &self.0;
        let now = core.now();
        let slot = core.cache.slot(key);
        let stored = self.load(&key.credential).await;
        let timeline = core.timeline.facts(key);
        if slot.is_none()
            && timeline.is_empty()
            && stored.as_ref().is_ok_and(|stored| stored.version.0 == 0)
        {
            return None;
        }
        let current = slot.as_ref().and_then(|slot| slot.current());
        Some(Explanation {
            provider: key.credential.provider.as_str().to_owned(),
            tenant: key.credential.tenant.as_str().to_owned(),
            subject: key
                .credential
                .subject
                .as_ref()
                .map(|s| s.as_str().to_owned()),
            audience: key.audience.as_ref().map(|a| a.as_str().to_owned()),
            scope: key.scopes.to_string(),
            generation: current.as_ref().map(|token| token.generation().number()),
            expires_at: current.as_ref().map(|token| token.expires().as_secs()),
            refresh_at: slot
                .as_ref()
                .and_then(|slot| due_of(slot))
                .map(|at| at.as_secs()),
            refreshing: slot
                .as_ref()
                .is_some_and(|slot| core.flights.in_air(&slot.id())),
            failures: slot.as_ref().map_or(0, |slot| slot.attempts()),
            last_error: slot
                .as_ref()
                .and_then(|slot| slot.failure(now))
                .map(|error| error.detail().to_owned()),
            credential: stored
                .ok()
                .map(|stored| self.standing(&key.credential, &stored)),
            timeline,
        })
    }

    /// Takes what the process around the broker has to tell: into log, metrics and whatever else listens to it.
    pub fn observer(&self) -> Arc<dyn Observer> {
        self.0.observer.clone()
    }

    /// Prometheus text.
    ///
    /// # Cancel safety
    ///
    /// Safe: reads only.
    pub async fn metrics(&self) -> String {
        // A store out of reach leaves the last count standing: the rest of the page is worth more than an error.
        if let Ok(census) = self.0.store.census().await {
            *lock(&self.0.census) = census;
        }
        self.0.metrics.render()
    }
}

/// When a slot's token is renewed, if that is planned.
fn due_of(slot: &Slot) -> Option<UnixTime> {
    Some(slot.due()).filter(|due| *due < UnixTime::MAX)
}
