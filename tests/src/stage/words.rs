//! Short words for what tests name all the time: the usual names, requests, reports and keys. What is written wrong here
//! is a mistake of the test.

use keyfob::broker::{Issued, RejectReport};
use keyfob::model::key::{Audience, CredentialKey, ProviderName, ScopeSet, Subject, Tenant};
use keyfob::model::policy::TokenRequest;
use keyfob::settings::{SecretSettings, SecretSource};

/// The provider every stage has.
pub const ACME: &str = "acme";
/// The caller that may have everything.
pub const BILLING: &str = "billing";
/// The issuer's client of [`ACME`].
pub const CLIENT: &str = "svc";
/// Its password, with characters that every encoding treats differently.
pub const CLIENT_SECRET: &str = "corr:ect/horse+battery=staple%21";
/// The scopes that clients are registered for.
pub const SCOPES: [&str; 4] = ["read", "write", "orders.read", "orders.write"];
/// A secret with no special grants.
pub fn secret(name: &str, value: &str) -> SecretSettings {
    SecretSettings {
        name: name.to_owned(),
        source: SecretSource::Value(value.into()),
        to: None,
        places: None,
        alg: None,
        key_id: None,
        audiences: None,
    }
}

/// Scopes that a test wrote itself.
pub fn scopes(names: &[&str]) -> ScopeSet {
    ScopeSet::parse(names.iter().copied()).expect("tests name scopes well")
}

/// A subject that a test wrote itself.
pub fn subject(name: &str) -> Subject {
    Subject::parse(name).expect("tests name subjects well")
}

/// An audience that a test wrote itself.
pub fn audience(name: &str) -> Audience {
    Audience::parse(name).expect("tests name audiences well")
}

/// A provider's name that a test wrote itself.
pub fn provider_name(name: &str) -> ProviderName {
    ProviderName::parse(name).expect("tests name providers well")
}

/// The usual token of a provider.
pub fn of(provider: &str) -> TokenRequest {
    TokenRequest::new(provider_name(provider))
}

/// The usual token of [`ACME`] with this one scope: a key of its own.
pub fn with_scope(scope: &str) -> TokenRequest {
    of(ACME).scopes(scopes(&[scope]))
}

/// The credential of a subject at [`ACME`], in the default tenant.
pub fn credential(name: Option<&str>) -> CredentialKey {
    CredentialKey {
        tenant: Tenant::default(),
        provider: provider_name(ACME),
        subject: name.map(subject),
    }
}

/// The token was refused with this status and challenge.
pub fn report(generation: u64, status: u16, challenge: Option<&str>) -> RejectReport {
    RejectReport {
        generation,
        status: Some(status),
        www_authenticate: challenge.map(str::to_owned),
    }
}

/// The token was refused, as most resources say it.
pub fn refused(generation: u64) -> RejectReport {
    report(generation, 401, Some("Bearer error=\"invalid_token\""))
}

/// Generation of an answer that has a token.
pub fn generation(issued: &Issued) -> u64 {
    issued.token.generation().number()
}
