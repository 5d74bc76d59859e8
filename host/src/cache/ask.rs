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

/// The index's key. Without the minimum validity: that is compared with the token, and a caller who varies it must not
/// make new entries.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Ask {
    subject: Option<Subject>,
    route: Arc<Route>,
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

/// What the index leads to: 32 bytes, so that an entry fits into one line.
#[derive(Clone)]
pub(super) struct Remembered {
    pub(super) slot: Arc<Slot>,
    epoch: u64,
    allowed_until: UnixTime,
    max_lifetime_secs: u32,
}

/// A slot under its own key.
#[derive(Clone)]
pub(super) struct Keyed(pub(super) Arc<Slot>);

// === impl Ask ===

impl Ask {
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
        hash_subject(state, self.subject.as_ref());
    }
}

// === impl AskRef ===

impl AskRef<'_> {
    /// The same, to keep; what is shared is found among the caller's `routes`, or put there.
    pub(super) fn to_owned(self, routes: &mut Routes) -> Ask {
        Ask {
            subject: self.request.subject.clone(),
            route: routes.enter(self),
        }
    }

    /// Whether policy could have led it to this key: it narrows scopes and nothing else.
    pub(super) fn may_lead_to(self, key: &TokenKey) -> bool {
        let (request, credential) = (self.request, &key.credential);
        request.subject == credential.subject
            && request.provider == credential.provider
            && request.audience == key.audience
            && *self.principal.tenant() == credential.tenant
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
        request.subject == key.subject
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
    /// Remembers what `decision` leads to.
    pub(super) fn new(slot: &Arc<Slot>, decision: Decision) -> Self {
        // Whole seconds, as policies speak; what does not fit is no bound to a token.
        let secs = decision
            .max_lifetime
            .map(|max| u32::try_from(max.as_secs()));
        Self {
            slot: Arc::clone(slot),
            epoch: decision.epoch,
            allowed_until: decision.allowed_until,
            max_lifetime_secs: secs.map_or(UNBOUNDED, |secs| secs.unwrap_or(UNBOUNDED)),
        }
    }

    /// Whether there is nothing to be gained by remembering that `decision` leads to `slot` in place of this.
    pub(super) fn outlasts(&self, slot: &Arc<Slot>, decision: Decision) -> bool {
        let same = self.epoch == decision.epoch && Arc::ptr_eq(&self.slot, slot);
        self.epoch > decision.epoch || (same && self.allowed_until >= decision.allowed_until)
    }

    /// The decision.
    #[inline]
    pub(super) fn decision(&self) -> Decision {
        let bounded = self.max_lifetime_secs != UNBOUNDED;
        Decision {
            epoch: self.epoch,
            allowed_until: self.allowed_until,
            max_lifetime: bounded.then(|| Duration::from_secs(self.max_lifetime_secs.into())),
        }
    }
}

// === impl Keyed ===

impl Hash for Keyed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for Keyed {}

impl Equivalent<Keyed> for TokenKey {
    fn equivalent(&self, key: &Keyed) -> bool {
        self == key.0.key()
    }
}
