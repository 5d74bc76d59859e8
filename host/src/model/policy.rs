//! Who asks, and for what. The permit itself is made in `authorize`, the only place that can.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::key::{Audience, ProviderName, ScopeSet, Subject, Tenant};

/// An authenticated caller. Whoever embeds the host makes it after authenticating; the daemon does in `authn`. Clones compare
/// faster than equals: keep one for each caller.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal(Arc<PrincipalInner>);

#[derive(PartialEq, Eq)]
struct PrincipalInner {
    /// Of everything below, computed once: a hit would otherwise spend more on the caller than on the key.
    hash: u64,
    name: String,
    tenant: Tenant,
    attributes: Vec<(String, String)>,
}

/// What a caller asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TokenRequest {
    /// Which provider.
    pub provider: ProviderName,
    /// Whose token; none is the provider's own account.
    pub subject: Option<Subject>,
    /// Which scopes; none means the provider's defaults.
    pub scopes: Option<ScopeSet>,
    /// For which resource or audience.
    pub audience: Option<Audience>,
    /// How much life the token must have left, as far as the issuer grants it.
    pub min_validity: Duration,
}

// === impl Principal ===

impl Principal {
    /// A caller of this name in this tenant; `attributes` are what authentication learned, for the policy.
    pub fn new(name: &str, tenant: Tenant, attributes: Vec<(String, String)>) -> Self {
        // Of this process alone, so that nobody outside can choose attributes that collide.
        static HASHER: LazyLock<foldhash::quality::RandomState> = LazyLock::new(Default::default);
        Self(Arc::new(PrincipalInner {
            hash: HASHER.hash_one((name, &tenant, &attributes)),
            name: name.to_owned(),
            tenant,
            attributes,
        }))
    }

    /// The caller's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The caller's tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    /// What authentication learned.
    pub fn attributes(&self) -> &[(String, String)] {
        &self.0.attributes
    }
}

impl Hash for Principal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.tenant, self.0.name)
    }
}

// === impl TokenRequest ===

impl TokenRequest {
    /// The provider's own account, default scopes, no audience.
    pub fn new(provider: ProviderName) -> Self {
        Self {
            provider,
            subject: None,
            scopes: None,
            audience: None,
            min_validity: Duration::ZERO,
        }
    }

    /// For this subject.
    #[must_use]
    pub fn subject(mut self, subject: Subject) -> Self {
        self.subject = Some(subject);
        self
    }

    /// With these scopes.
    #[must_use]
    pub fn scopes(mut self, scopes: ScopeSet) -> Self {
        self.scopes = Some(scopes);
        self
    }

    /// For this audience.
    #[must_use]
    pub fn audience(mut self, audience: Audience) -> Self {
        self.audience = Some(audience);
        self
    }

    /// With at least this much life left.
    #[must_use]
    pub fn min_validity(mut self, min_validity: Duration) -> Self {
        self.min_validity = min_validity;
        self
    }
}
