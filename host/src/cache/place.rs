//! What a key is without its subject. At a million keys of a few providers, each of these is shared by thousands.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::key::{
    Audience, CredentialKey, ProviderName, ScopeSet, Subject, Tenant, TokenKey,
};

/// A [`TokenKey`] without its subject.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) tenant: Tenant,
    pub(super) provider: ProviderName,
    pub(super) audience: Option<Audience>,
    pub(super) scopes: ScopeSet,
}

/// Every place that slots are of, each kept once.
#[derive(Default)]
pub(super) struct Places(HashSet<Arc<Place>, foldhash::quality::RandomState>);

// === impl Place ===

impl Place {
    /// The key of this subject here.
    pub(super) fn key(&self, subject: Option<&Subject>) -> TokenKey {
        TokenKey {
            credential: CredentialKey {
                tenant: self.tenant.clone(),
                provider: self.provider.clone(),
                subject: subject.cloned(),
            },
            audience: self.audience.clone(),
            scopes: self.scopes.clone(),
        }
    }
}

impl From<&TokenKey> for Place {
    fn from(key: &TokenKey) -> Self {
        Self {
            tenant: key.credential.tenant.clone(),
            provider: key.credential.provider.clone(),
            audience: key.audience.clone(),
            scopes: key.scopes.clone(),
        }
    }
}

// === impl Places ===

impl Places {
    /// The place of this key, shared with whoever has it already.
    pub(super) fn of(&mut self, key: &TokenKey) -> Arc<Place> {
        let wanted = Place::from(key);
        if let Some(known) = self.0.get(&wanted) {
            return Arc::clone(known);
        }
        let new = Arc::new(wanted);
        self.0.insert(Arc::clone(&new));
        new
    }

    /// Forgets those that no slot is of any more.
    pub(super) fn settle(&mut self) {
        self.0.retain(|place| Arc::strong_count(place) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(subject: &str, scope: &str) -> TokenKey {
        TokenKey {
            credential: CredentialKey {
                tenant: Tenant::default(),
                provider: ProviderName::parse("acme").unwrap(),
                subject: Some(Subject::parse(subject).unwrap()),
            },
            audience: None,
            scopes: ScopeSet::parse([scope]).unwrap(),
        }
    }

    #[test]
    fn keys_that_differ_in_their_subject_share_a_place_and_get_back_what_they_are() {
        let mut places = Places::default();
        let (ann, bob, writer) = (key("ann", "read"), key("bob", "read"), key("ann", "write"));
        let place = places.of(&ann);
        assert!(Arc::ptr_eq(&place, &places.of(&bob)));
        assert!(!Arc::ptr_eq(&place, &places.of(&writer)));
        assert_eq!(place.key(bob.credential.subject.as_ref()), bob);
    }

    #[test]
    fn a_place_is_forgotten_with_its_last_slot() {
        let mut places = Places::default();
        let kept = places.of(&key("ann", "read"));
        drop(places.of(&key("ann", "write")));
        places.settle();
        assert_eq!(places.0.len(), 1);
        assert!(places.0.contains(&kept));
    }
}
