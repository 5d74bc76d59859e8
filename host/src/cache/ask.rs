//! What a remembered decision is found by: who asks, and for what. Looked up by reference, so that a hit copies nothing.
//!
//! At a million keys a lookup costs as much as the lines of memory that it misses. What most requests share is therefore
//! kept once, as a [`Route`], and stays in the processor's cache; what differs lies in the index itself.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use scc::Equivalent;

use super::decision::Decision;
use super::slot::Slot;
use crate::model::key::{Audience, ProviderName, ScopeSet, Subject, TokenKey};
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;

/// In place of a number of seconds: no bound.
const UNBOUNDED: u32 = u32::MAX;

/// The index's key, with what it leads to: the subject asked for is the slot's own. Without the minimum validity: that is
/// compared with the token, and a caller who varies it must not make new entries.
#[derive(Clone)]
pub(super) struct Ask {
    route: Arc<Route>,
    pub(super) slot: Arc<Slot>,
}

/// A request without its subject, and who makes it.
#[derive(PartialEq, Eq)]
pub(super) struct Route {
    principal: Principal,
    provider: ProviderName,
    /// As asked for, which may be more than the slot's key has.
    scopes: Option<ScopeSet>,
    audience: Option<Audience>,
}

/// An [`Ask`], borrowed.
#[derive(Clone, Copy)]
pub(super) struct AskRef<'a> {
    pub(super) principal: &'a Principal,
    pub(super) request: &'a TokenRequest,
}

/// The routes that one caller asked by, and how many remembered decisions go by each.
#[derive(Default)]
pub(super) struct Routes {
    by_route: HashMap<Arc<Route>, usize, foldhash::quality::RandomState>,
    decisions: usize,
}

/// A decision in 16 bytes, so that two entries of the index fit into one line.
#[derive(Clone, Copy)]
pub(super) struct Remembered {
    allowed_until: UnixTime,
    epoch: u32,
    max_lifetime_secs: u32,
}

/// A slot under its own key.
#[derive(Clone)]
pub(super) struct Keyed(pub(super) Arc<Slot>);

// === impl Ask ===

impl Ask {
    /// The same, leading to another slot of the same subject.
    pub(super) fn leading_to(self, slot: &Arc<Slot>) -> Self {
        Self {
            slot: Arc::clone(slot),
            ..self
        }
    }

    /// Who asked.
    pub(super) fn principal(&self) -> &Principal {
        &self.route.principal
    }
}

impl Hash for Ask {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let route = &*self.route;
        let (scopes, audience) = (route.scopes.as_ref(), route.audience.as_ref());
        hash(state, &route.principal, &route.provider, scopes, audience);
        hash_subject(state, self.slot.subject());
    }
}

impl PartialEq for Ask {
    fn eq(&self, other: &Self) -> bool {
        self.slot.subject() == other.slot.subject() && self.route == other.route
    }
}

impl Eq for Ask {}

// === impl AskRef ===

impl AskRef<'_> {
    /// The same, to keep, leading to `slot`; what is shared is found among the caller's `routes`, or put there.
    pub(super) fn to_owned(self, routes: &mut Routes, slot: &Arc<Slot>) -> Ask {
        Ask {
            route: routes.enter(self),
            slot: Arc::clone(slot),
        }
    }

    /// Whether policy could have led it to this slot: it narrows scopes and nothing else.
    pub(super) fn may_lead_to(self, slot: &Slot) -> bool {
        let (request, place) = (self.request, slot.place());
        request.subject.as_ref() == slot.subject()
            && request.provider == place.provider
            && request.audience == place.audience
            && *self.principal.tenant() == place.tenant
    }
}

impl Hash for AskRef<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let request = self.request;
        let (scopes, audience) = (request.scopes.as_ref(), request.audience.as_ref());
        hash(state, self.principal, &request.provider, scopes, audience);
        hash_subject(state, request.subject.as_ref());
    }
}

impl Equivalent<Ask> for AskRef<'_> {
    #[inline]
    fn equivalent(&self, key: &Ask) -> bool {
        // What differs most often comes first.
        let (request, route) = (self.request, &*key.route);
        request.subject.as_ref() == key.slot.subject()
            && request.provider == route.provider
            && *self.principal == route.principal
            && request.scopes == route.scopes
            && request.audience == route.audience
    }
}

/// One order for all forms. What is absent is not hashed: equality is decided elsewhere.
#[inline]
fn hash<H: Hasher>(
    state: &mut H,
    principal: &Principal,
    provider: &ProviderName,
    scopes: Option<&ScopeSet>,
    audience: Option<&Audience>,
) {
    principal.hash(state);
    state.write(provider.as_str().as_bytes());
    if let Some(scopes) = scopes {
        scopes.hash(state);
    }
    if let Some(audience) = audience {
        audience.hash(state);
    }
}

#[inline]
fn hash_subject<H: Hasher>(state: &mut H, subject: Option<&Subject>) {
    if let Some(subject) = subject {
        state.write(subject.as_str().as_bytes());
    }
}

// === impl Route ===

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (scopes, audience) = (self.scopes.as_ref(), self.audience.as_ref());
        hash(state, &self.principal, &self.provider, scopes, audience);
    }
}

// === impl Routes ===

impl Routes {
    /// One more decision goes by the route of this.
    fn enter(&mut self, ask: AskRef<'_>) -> Arc<Route> {
        let wanted = Route {
            principal: ask.principal.clone(),
            provider: ask.request.provider.clone(),
            scopes: ask.request.scopes.clone(),
            audience: ask.request.audience.clone(),
        };
        let known = self.by_route.get_key_value(&wanted);
        let known = known.map(|(known, _)| Arc::clone(known));
        let route = known.unwrap_or_else(|| Arc::new(wanted));
        *self.by_route.entry(Arc::clone(&route)).or_default() += 1;
        self.decisions += 1;
        route
    }

    /// One decision less goes by the route of this.
    pub(super) fn leave(&mut self, ask: &Ask) {
        if let Some(decisions) = self.by_route.get_mut(&ask.route) {
            *decisions -= 1;
            self.decisions -= 1;
            if *decisions == 0 {
                self.by_route.remove(&ask.route);
            }
        }
    }

    /// How many decisions there are.
    pub(super) fn decisions(&self) -> usize {
        self.decisions
    }
}

// === impl Remembered ===

impl Remembered {
    /// Remembers a decision.
    pub(super) fn new(decision: Decision) -> Self {
        // Whole seconds, as policies speak; what does not fit is no bound to a token.
        let secs = decision
            .max_lifetime
            .map(|max| u32::try_from(max.as_secs()));
        Self {
            epoch: decision.epoch,
            allowed_until: decision.allowed_until,
            max_lifetime_secs: secs.map_or(UNBOUNDED, |secs| secs.unwrap_or(UNBOUNDED)),
        }
    }

    /// Whether there is nothing to be gained by remembering `decision` in place of this, which leads to the `same` slot or to
    /// another.
    pub(super) fn outlasts(self, same: bool, decision: Decision) -> bool {
        let as_long = self.epoch == decision.epoch && self.allowed_until >= decision.allowed_until;
        self.epoch > decision.epoch || (same && as_long)
    }

    /// The decision.
    #[inline]
    pub(super) fn decision(self) -> Decision {
        let bounded = self.max_lifetime_secs != UNBOUNDED;
        Decision {
            epoch: self.epoch,
            allowed_until: self.allowed_until,
            max_lifetime: bounded.then(|| Duration::from_secs(self.max_lifetime_secs.into())),
        }
    }
}

// === impl Keyed ===

/// As a [`TokenKey`] is hashed, its parts in the same order.
impl Hash for Keyed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (slot, place) = (&self.0, self.0.place());
        place.tenant.hash(state);
        place.provider.hash(state);
        slot.subject().hash(state);
        place.audience.hash(state);
        place.scopes.hash(state);
    }
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.0.subject() == other.0.subject() && self.0.place() == other.0.place()
    }
}

impl Eq for Keyed {}

impl Equivalent<Keyed> for TokenKey {
    fn equivalent(&self, key: &Keyed) -> bool {
        let (slot, place) = (&key.0, key.0.place());
        slot.is_of(&self.credential)
            && self.audience == place.audience
            && self.scopes == place.scopes
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    use super::*;
    use crate::model::key::{CredentialKey, Tenant};
    use crate::model::token::SlotId;

    #[test]
    fn a_slot_is_found_by_its_key() {
        let key = |subject: Option<&str>, audience: Option<&str>| TokenKey {
            credential: CredentialKey {
                tenant: Tenant::default(),
                provider: ProviderName::parse("acme").unwrap(),
                subject: subject.map(|text| Subject::parse(text).unwrap()),
            },
            audience: audience.map(|text| Audience::parse(text).unwrap()),
            scopes: ScopeSet::parse(["read", "write"]).unwrap(),
        };
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let keys = [
            key(None, None),
            key(Some("ann"), None),
            key(None, Some("ann")),
            key(Some("ann"), Some("https://api.example")),
        ];
        for key in &keys {
            let (subject, place) = (key.credential.subject.clone(), Arc::new(key.into()));
            let slot = Slot::new(SlotId(1), subject, place, UnixTime::default());
            let keyed = Keyed(Arc::new(slot));
            assert_eq!(hasher.hash_one(&keyed), hasher.hash_one(key), "{key:?}");
            let mut found = keys.iter().filter(|key| (**key).equivalent(&keyed));
            assert_eq!((found.next(), found.next()), (Some(key), None));
        }
    }
}
