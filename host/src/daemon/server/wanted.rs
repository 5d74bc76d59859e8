//! What a caller asks for: the members of the data plane's calls, read from JSON into the model's names.

use std::borrow::Cow;
use std::time::Duration;

use super::json::{Members, bad_member, shown};
use super::problem::Problem;
use crate::broker::RejectReport;
use crate::model::key::{Audience, ProviderName, ScopeSet, Subject};
use crate::model::policy::TokenRequest;
use crate::model::token::Generation;

/// A token with more life than this left is no access token.
const MIN_VALIDITY_MAX_SECS: u64 = 31 * 86_400;
/// The longest `WWW-Authenticate` that is looked at.
const CHALLENGE_MAX_BYTES: usize = 4 * 1024;

/// The one token that a body asks for.
pub(super) fn one(body: &[u8]) -> Result<TokenRequest, Problem> {
    token(Members::parse(body)?)
}

/// The tokens that the list of this name asks for, 1 to `most`; what is wrong with one is said with its place.
pub(super) fn many(
    body: &[u8],
    list: &'static str,
    most: usize,
) -> Result<Vec<TokenRequest>, Problem> {
    let mut members = Members::parse(body)?;
    let wanted = members.objects(list, most)?;
    members.finish()?;
    wanted.into_iter().map(token).collect()
}

/// The tokens that a query asks for: each parameter of this name is one, 1 to `most`.
pub(super) fn queried(
    query: Option<&str>,
    name: &'static str,
    most: usize,
) -> Result<Vec<TokenRequest>, Problem> {
    let mut wanted = Vec::new();
    for (parameter, text) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if parameter != name {
            let parameter = shown(&parameter);
            return Err(Problem::invalid(format!("unknown parameter {parameter}")));
        }
        if wanted.len() == most {
            return Err(bad_member(name, &format!("there at most {most} times")));
        }
        wanted.push(token(Members::element(name, wanted.len(), &text)?)?);
    }
    match wanted.is_empty() {
        true => Err(Problem::invalid(format!("`{name}` is missing"))),
        false => Ok(wanted),
    }
}

/// The token that a resource refused, and how.
pub(super) fn refused(body: &[u8]) -> Result<(TokenRequest, RejectReport), Problem> {
    let mut members = Members::parse(body)?;
    let request = request(&mut members)?;
    let report = report(&mut members)?;
    members.finish()?;
    Ok((request, report))
}

fn token(mut members: Members<'_>) -> Result<TokenRequest, Problem> {
    let request = request(&mut members)?;
    members.finish()?;
    Ok(request)
}

/// The members that say which token is wanted.
fn request(members: &mut Members<'_>) -> Result<TokenRequest, Problem> {
    let provider = members.named("provider", ProviderName::parse)?;
    let provider = provider.ok_or_else(|| members.missing("provider"))?;
    let scopes = members.texts("scopes")?;
    let scopes = scopes.map(|scopes| ScopeSet::parse(scopes.iter().map(Cow::as_ref)));
    let scopes = scopes.transpose();
    let min_validity = members.number("min_validity_seconds", 0..=MIN_VALIDITY_MAX_SECS)?;
    Ok(TokenRequest {
        provider,
        scopes: scopes.map_err(|bad| members.bad("scopes", bad.fix))?,
        subject: members.named("subject", Subject::parse)?,
        audience: members.named("audience", Audience::parse)?,
        min_validity: Duration::from_secs(min_validity.unwrap_or(0)),
    })
}

/// The members that say how a resource refused it.
fn report(members: &mut Members<'_>) -> Result<RejectReport, Problem> {
    let generation = members.number("generation", 1..=Generation::MAX)?;
    let generation = generation.ok_or_else(|| members.missing("generation"))?;
    let status = members.number("status", 100..=599)?;
    let www_authenticate = members.text("www_authenticate")?;
    if www_authenticate
        .as_ref()
        .is_some_and(|text| text.len() > CHALLENGE_MAX_BYTES)
    {
        return Err(members.bad("www_authenticate", "at most 4096 bytes"));
    }
    Ok(RejectReport {
        generation,
        status: status.and_then(|status| u16::try_from(status).ok()),
        www_authenticate: www_authenticate.map(Cow::into_owned),
    })
}
