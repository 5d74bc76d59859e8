//! Makes permits, and is the only place that can: a [`Permit`] is the proof that policy allowed one principal one token,
//! and nothing else reaches cache and flights.

use std::time::Duration;

use crate::model::contract::{Allowance, Query};
use crate::model::key::{CredentialKey, ScopeSet, TokenKey};
use crate::model::policy::{Principal, TokenRequest};
use crate::model::time::UnixTime;
use crate::snapshot::Snapshot;

/// How long a decision holds when the policy does not say: a change of policy or rules ends it at once anyway.
const REMEMBER_DEFAULT: Duration = Duration::from_secs(300);
/// The longest a decision holds, whatever the policy says: attributes of a caller change.
const REMEMBER_MAX: Duration = Duration::from_secs(3600);

/// Proof that policy allowed this principal this token.
pub(crate) struct Permit {
    key: TokenKey,
    until: UnixTime,
    max_lifetime: Option<Duration>,
}

/// Why there is no permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// A closed code, or the policy's.
    pub code: String,
    /// What an operator would have to write.
    pub fix: String,
    /// Whether the policy plugin itself failed.
    pub fault: Option<(&'static str, String)>,
}

// === impl Permit ===

impl Permit {
    /// Which token.
    pub(crate) fn key(&self) -> &TokenKey {
        &self.key
    }

    /// Until when the decision holds.
    pub(crate) fn until(&self) -> UnixTime {
        self.until
    }

    /// How long the token may be handed out.
    pub(crate) fn max_lifetime(&self) -> Option<Duration> {
        self.max_lifetime
    }
}

/// Asks the policy.
///
/// # Cancel safety
///
/// Safe: a policy is pure.
pub(crate) async fn authorize(
    snapshot: &Snapshot,
    principal: &Principal,
    request: &TokenRequest,
    now: UnixTime,
) -> Result<Permit, Denial> {
    let name = request.provider.as_str();
    let Some(provider) = snapshot.providers.get(&request.provider) else {
        return Err(Denial::new(
            "unknown_provider",
            format!("add a section [providers.{name}]"),
        ));
    };
    let caller = principal.name();
    let Some(rules) = snapshot.callers.get(caller) else {
        return Err(Denial::new(
            "unknown_caller",
            format!("add a section [callers.{caller}]"),
        ));
    };
    let asked = request
        .scopes
        .clone()
        .unwrap_or_else(|| provider.settings.scopes.clone());
    let query = Query {
        now: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
        tenant: principal.tenant().as_str().to_owned(),
        caller: caller.to_owned(),
        attributes: principal.attributes().to_vec(),
        provider: name.to_owned(),
        subject: request.subject.as_ref().map(|s| s.as_str().to_owned()),
        scopes: asked.iter().map(str::to_owned).collect(),
        audience: request.audience.as_ref().map(|a| a.as_str().to_owned()),
        settings: rules.clone(),
    };
    let allowance = match snapshot.policy.decide(&query).await {
        Ok(Ok(allowance)) => allowance,
        Ok(Err(reason)) => return Err(Denial::new(&reason.code, reason.message)),
        Err(fault) => {
            return Err(Denial {
                fault: Some((fault.label(), fault.to_string())),
                ..Denial::new("policy_failed", "swap or roll back the policy plugin")
            });
        }
    };
    let scopes = narrowed(&asked, &allowance)?;
    Ok(Permit {
        key: TokenKey {
            credential: CredentialKey {
                tenant: principal.tenant().clone(),
                provider: request.provider.clone(),
                subject: request.subject.clone(),
            },
            audience: request.audience.clone(),
            scopes,
        },
        until: now.plus(
            allowance
                .remember_for
                .unwrap_or(REMEMBER_DEFAULT)
                .min(REMEMBER_MAX),
        ),
        max_lifetime: allowance.max_lifetime,
    })
}

/// A policy narrows and says so.
fn narrowed(asked: &ScopeSet, allowance: &Allowance) -> Result<ScopeSet, Denial> {
    let scopes = ScopeSet::parse(allowance.scopes.iter().map(String::as_str))
        .map_err(|bad| Denial::new("policy_broken", format!("the policy allowed {}", bad.fix)))?;
    if !asked.covers(&scopes) {
        return Err(Denial::new(
            "policy_broken",
            "the policy allowed scopes nobody asked for",
        ));
    }
    if scopes != *asked && !allowance.partial {
        return Err(Denial::new(
            "scope",
            format!("allow the scopes \"{asked}\" to this caller"),
        ));
    }
    if scopes.is_empty() && !asked.is_empty() {
        // An empty set would let the issuer choose: that is more, not less.
        return Err(Denial::new(
            "scope",
            format!("allow one of the scopes \"{asked}\" to this caller"),
        ));
    }
    Ok(scopes)
}

// === impl Denial ===

impl Denial {
    fn new(code: &str, fix: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            fix: fix.into(),
            fault: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &[&str]) -> ScopeSet {
        ScopeSet::parse(text.iter().copied()).unwrap()
    }

    fn allowed(scopes: &[&str], partial: bool) -> Allowance {
        Allowance {
            scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
            partial,
            max_lifetime: None,
            remember_for: None,
        }
    }

    #[test]
    fn a_dropped_scope_is_a_denial_unless_the_policy_meant_it() {
        let asked = scopes(&["a", "b"]);
        assert_eq!(
            narrowed(&asked, &allowed(&["a"], false)).unwrap_err().code,
            "scope"
        );
        assert_eq!(
            narrowed(&asked, &allowed(&["a"], true)).unwrap(),
            scopes(&["a"])
        );
    }

    #[test]
    fn a_policy_cannot_widen() {
        let widened = narrowed(&scopes(&["a"]), &allowed(&["a", "b"], true));
        assert_eq!(widened.unwrap_err().code, "policy_broken");
        assert_eq!(
            narrowed(&scopes(&["a"]), &allowed(&[], true))
                .unwrap_err()
                .code,
            "scope"
        );
        assert!(
            narrowed(&scopes(&[]), &allowed(&[], false))
                .unwrap()
                .is_empty()
        );
    }
}
