//! The key of a remembered decision: who asks, and for what. Looked up by reference, so that a hit copies nothing.

use std::hash::{Hash, Hasher};

use papaya::Equivalent;

use crate::model::policy::{Principal, TokenRequest};

/// A principal and its request, owned by the index. Without the minimum validity: that is compared with the token, and
/// a caller who varies it must not make new entries.
pub(super) struct Ask {
    principal: Principal,
    request: TokenRequest,
}

/// The same, borrowed.
#[derive(Clone, Copy)]
pub(super) struct AskRef<'a> {
    pub(super) principal: &'a Principal,
    pub(super) request: &'a TokenRequest,
}

// === impl Ask ===

impl Ask {
    fn borrow(&self) -> AskRef<'_> {
        AskRef {
            principal: &self.principal,
            request: &self.request,
        }
    }
}

impl Hash for Ask {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.borrow().hash(state);
    }
}

impl PartialEq for Ask {
    fn eq(&self, other: &Self) -> bool {
        self.borrow() == other.borrow()
    }
}

impl Eq for Ask {}

// === impl AskRef ===

impl AskRef<'_> {
    pub(super) fn to_owned(self) -> Ask {
        Ask {
            principal: self.principal.clone(),
            request: self.request.clone(),
        }
    }
}

impl Hash for AskRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.principal.hash(state);
        self.request.provider.hash(state);
        self.request.subject.hash(state);
        self.request.scopes.hash(state);
        self.request.audience.hash(state);
    }
}

impl PartialEq for AskRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (self.request, other.request);
        // What differs most often comes first.
        one.subject == two.subject
            && one.provider == two.provider
            && one.scopes == two.scopes
            && one.audience == two.audience
            && self.principal == other.principal
    }
}

impl Equivalent<Ask> for AskRef<'_> {
    fn equivalent(&self, key: &Ask) -> bool {
        *self == key.borrow()
    }
}
