//! A remembered decision under the key it is found by: who asks, and for what. Looked up by reference, so that a hit copies
//! nothing.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use scc::Equivalent;

use super::decision::Decision;
use super::slot::Slot;
use crate::model::key::{Audience, ProviderName, ScopeSet, Subject, TokenKey};
use crate::model::policy::{Principal, TokenRequest};

/// A decision and where it leads. One allocation; the index holds a pointer to it.
pub(super) struct Remembered {
    /// Its key has the provider, subject and audience that were asked for: policy narrows scopes and nothing else.
    pub(super) slot: Arc<Slot>,
    pub(super) decision: Decision,
    principal: Principal,
    /// As asked for, which may be more than the slot's key has.
    scopes: Option<ScopeSet>,
}

/// The index's key.
#[derive(Clone)]
pub(super) struct Ask(pub(super) Arc<Remembered>);

/// The same, borrowed: a principal and its request. Without the minimum validity: that is compared with the token, and a
/// caller who varies it must not make new entries.
#[derive(Clone, Copy)]
pub(super) struct AskRef<'a> {
    pub(super) principal: &'a Principal,
    pub(super) request: &'a TokenRequest,
}

/// A slot under its own key.
#[derive(Clone)]
pub(super) struct Keyed(pub(super) Arc<Slot>);

// === impl Remembered ===

impl Remembered {
    /// Remembers `decision` for whoever asks this; `None` when `slot` is not what the request could lead to.
    pub(super) fn new(ask: AskRef<'_>, slot: &Arc<Slot>, decision: Decision) -> Option<Self> {
        let new = Self {
            slot: Arc::clone(slot),
            decision,
            principal: ask.principal.clone(),
            scopes: ask.request.scopes.clone(),
        };
        let key = slot.key();
        let tenant = &key.credential.tenant;
        (ask.finds(&new) && tenant == ask.principal.tenant()).then_some(new)
    }

    /// Who asked.
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }
}

// === impl Ask ===

impl Hash for Ask {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let TokenKey {
            credential,
            audience,
            scopes: _,
        } = self.0.slot.key();
        hash(
            state,
            &self.0.principal,
            &credential.provider,
            credential.subject.as_ref(),
            self.0.scopes.as_ref(),
            audience.as_ref(),
        );
    }
}

impl PartialEq for Ask {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (self.0.slot.key(), other.0.slot.key());
        self.0.principal == other.0.principal
            && self.0.scopes == other.0.scopes
            && one.credential == two.credential
            && one.audience == two.audience
    }
}

impl Eq for Ask {}

// === impl AskRef ===

impl AskRef<'_> {
    /// Whether that is the decision about this.
    #[inline]
    fn finds(&self, remembered: &Remembered) -> bool {
        let key = remembered.slot.key();
        // What differs most often comes first.
        self.request.subject == key.credential.subject
            && self.request.provider == key.credential.provider
            && self.request.scopes == remembered.scopes
            && self.request.audience == key.audience
            && *self.principal == remembered.principal
    }
}

impl Hash for AskRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let request = self.request;
        hash(
            state,
            self.principal,
            &request.provider,
            request.subject.as_ref(),
            request.scopes.as_ref(),
            request.audience.as_ref(),
        );
    }
}

impl Equivalent<Ask> for AskRef<'_> {
    fn equivalent(&self, key: &Ask) -> bool {
        self.finds(&key.0)
    }
}

/// One order for both forms.
#[inline]
fn hash<H: Hasher>(
    state: &mut H,
    principal: &Principal,
    provider: &ProviderName,
    subject: Option<&Subject>,
    scopes: Option<&ScopeSet>,
    audience: Option<&Audience>,
) {
    principal.hash(state);
    provider.hash(state);
    subject.hash(state);
    scopes.hash(state);
    audience.hash(state);
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
