//! Names: who a token is for and what it may do. Parsed once, compared whole.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The longest name of a tenant, provider, caller or subject, in bytes: they are metric labels, map keys and rows.
pub const NAME_MAX_BYTES: usize = 256;
/// The most scopes in one request: authorization servers refuse long before.
pub const SCOPES_MAX: usize = 64;
/// The longest audience or resource indicator, in bytes (RFC 8707 asks for a URI; servers cap them about here).
pub const AUDIENCE_MAX_BYTES: usize = 1024;

/// What is wrong with a name, and how to write it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    /// Which name: `"subject"`, `"scope"` …
    pub what: &'static str,
    /// What a right one looks like.
    pub fix: &'static str,
}

/// Whose deployment this is: tenants share no slot, gate, data key or error.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

/// A plugin configured by an operator under this name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderName(Arc<str>);

/// Whose token: a user or account of the authorization server.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

/// The resource or audience a token is for (RFC 8707, RFC 8693).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Audience(Arc<str>);

/// Scopes as a sorted set of scope tokens (RFC 6749, section 3.3).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ScopeSet(Arc<[Arc<str>]>);

/// Names a credential: one grant of one subject at one provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialKey {
    /// Whose deployment.
    pub tenant: Tenant,
    /// At which provider.
    pub provider: ProviderName,
    /// Whose grant; none is the provider's own account.
    pub subject: Option<Subject>,
}

/// Names a token: a credential, narrowed to an audience and scopes. Whatever reaches the wire per request is in here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenKey {
    /// The credential it is obtained with.
    pub credential: CredentialKey,
    /// The resource it is for.
    pub audience: Option<Audience>,
    /// What it may do; empty lets the server choose.
    pub scopes: ScopeSet,
}

// === impl TokenKey ===

impl TokenKey {
    /// A number that differs between keys and is the same in every process that reads the same seed: for jitter, not for
    /// maps.
    pub fn hash_word(&self) -> u64 {
        foldhash::quality::FixedState::default().hash_one(self)
    }
}

macro_rules! name {
    ($type:ident, $what:literal, $max:expr, $fix:literal) => {
        impl $type {
            /// Checks and takes a name.
            ///
            /// # Errors
            ///
            /// [`BadName`] when it is empty, too long, or holds control characters.
            pub fn parse(text: &str) -> Result<Self, BadName> {
                let good =
                    !text.is_empty() && text.len() <= $max && !text.chars().any(|c| c.is_control());
                good.then(|| Self(text.into())).ok_or(BadName {
                    what: $what,
                    fix: $fix,
                })
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    Tenant,
    "tenant",
    NAME_MAX_BYTES,
    "1 to 256 bytes without control characters"
);
name!(
    ProviderName,
    "provider",
    NAME_MAX_BYTES,
    "1 to 256 bytes without control characters"
);
name!(
    Subject,
    "subject",
    NAME_MAX_BYTES,
    "1 to 256 bytes without control characters"
);
name!(
    Audience,
    "audience",
    AUDIENCE_MAX_BYTES,
    "1 to 1024 bytes without control characters"
);

// === impl BadName ===

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {}: it has {}", self.what, self.fix)
    }
}

impl std::error::Error for BadName {}

// === impl Tenant ===

impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

// === impl ScopeSet ===

impl ScopeSet {
    /// Sorts and checks scope tokens; order and duplicates do not matter.
    ///
    /// # Errors
    ///
    /// [`BadName`] for more than [`SCOPES_MAX`] scopes, or one that is no `scope-token` of RFC 6749, section 3.3.
    pub fn parse<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Result<Self, BadName> {
        let mut all = Vec::new();
        for scope in scopes {
            let token = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            if scope.is_empty() || scope.len() > NAME_MAX_BYTES || !scope.bytes().all(token) {
                return Err(BadName {
                    what: "scope",
                    fix: "printable ASCII without spaces, quotes and backslashes, one scope an element",
                });
            }
            if all.len() == SCOPES_MAX {
                return Err(BadName {
                    what: "scopes",
                    fix: "at most 64 scopes",
                });
            }
            all.push(Arc::<str>::from(scope));
        }
        all.sort_unstable();
        all.dedup();
        Ok(Self(all.into()))
    }

    /// The scopes in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|scope| &**scope)
    }

    /// True when none is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every scope of `other` is in this set.
    pub fn covers(&self, other: &Self) -> bool {
        other
            .0
            .iter()
            .all(|scope| self.0.binary_search(scope).is_ok())
    }
}

impl fmt::Display for ScopeSet {
    /// Space-separated, as the `scope` parameter has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, scope) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_order_and_duplicates_do_not_make_another_key() {
        let one = ScopeSet::parse(["b", "a", "b"]).unwrap();
        assert_eq!(one, ScopeSet::parse(["a", "b"]).unwrap());
        assert_eq!(one.to_string(), "a b");
    }

    #[test]
    fn scopes_that_could_split_or_smuggle_are_refused() {
        for bad in ["", "a b", "a\"", "a\\", "a\nb", "ü"] {
            assert!(ScopeSet::parse([bad]).is_err(), "{bad:?}");
        }
        let many: Vec<String> = (0..=SCOPES_MAX).map(|n| format!("s{n}")).collect();
        assert!(ScopeSet::parse(many.iter().map(String::as_str)).is_err());
    }

    #[test]
    fn names_have_a_bound() {
        assert!(Subject::parse("").is_err());
        assert!(Subject::parse("a\r\nb").is_err());
        assert!(Subject::parse(&"x".repeat(NAME_MAX_BYTES + 1)).is_err());
    }
}
