//! An access token that outlives the process, and an entry of the revocation log, as bytes.

use zeroize::Zeroizing;

use super::bytes::{Malformed, Reading, Writing};
use super::{read_key, write_key};
use crate::model::credential::{Fingerprint, Version};
use crate::model::key::{Audience, CredentialKey, ScopeSet, TokenKey};
use crate::model::secret::Secret;
use crate::model::time::UnixTime;
use crate::model::token::{Generation, ObtainedToken, TokenRecord};

/// The layout of a token written here, and the only one there was.
const TOKEN_LAYOUT: u8 = 1;
/// The same of an entry of the revocation log.
const REVOCATION_LAYOUT: u8 = 1;

/// A token together with what it is for.
pub(in crate::store) fn encode_token(key: &TokenKey, record: &TokenRecord) -> Zeroizing<Vec<u8>> {
    // Taken apart by name: a member added to the model does not compile until it is kept.
    let TokenKey {
        credential,
        audience,
        scopes,
    } = key;
    let TokenRecord {
        token,
        generation,
        fingerprint,
        obtained_at,
    } = record;
    let ObtainedToken {
        value,
        token_type,
        expires,
        issued,
        scopes: granted,
        extra,
    } = token;
    let mut out = Writing::new(TOKEN_LAYOUT);
    write_key(&mut out, credential);
    out.optional(audience.as_ref(), |out, audience| {
        out.text(audience.as_str())
    });
    write_scopes(&mut out, scopes);
    out.text(value.expose());
    out.text(token_type);
    out.time(*expires);
    out.time(*issued);
    write_scopes(&mut out, granted);
    out.list(extra.iter(), |out, (name, value)| {
        out.text(name);
        out.text(value.expose());
    });
    out.number(generation.number());
    out.raw(&fingerprint.0);
    out.number(obtained_at.0);
    out.finish()
}

/// What [`encode_token`] wrote.
pub(in crate::store) fn decode_token(bytes: &[u8]) -> Result<(TokenKey, TokenRecord), Malformed> {
    let (_, mut from) = Reading::new(bytes, TOKEN_LAYOUT)?;
    let key = TokenKey {
        credential: read_key(&mut from)?,
        audience: from.optional(|from| Audience::parse(from.text()?).map_err(|_| Malformed))?,
        scopes: read_scopes(&mut from)?,
    };
    let record = TokenRecord {
        token: ObtainedToken {
            value: from.text().map(Secret::from)?,
            token_type: from.text()?.to_owned(),
            expires: from.time()?,
            issued: from.time()?,
            scopes: read_scopes(&mut from)?,
            extra: from.list(|from| Ok((from.text()?.to_owned(), Secret::from(from.text()?))))?,
        },
        generation: Generation::from_number(from.number()?).ok_or(Malformed)?,
        fingerprint: Fingerprint(from.array()?),
        obtained_at: Version(from.number()?),
    };
    from.end()?;
    Ok((key, record))
}

/// Whose credential was revoked, and when.
pub(in crate::store) fn encode_revocation(key: &CredentialKey, at: UnixTime) -> Zeroizing<Vec<u8>> {
    let mut out = Writing::new(REVOCATION_LAYOUT);
    write_key(&mut out, key);
    out.time(at);
    out.finish()
}

/// What [`encode_revocation`] wrote.
pub(in crate::store) fn decode_revocation(
    bytes: &[u8],
) -> Result<(CredentialKey, UnixTime), Malformed> {
    let (_, mut from) = Reading::new(bytes, REVOCATION_LAYOUT)?;
    let revoked = (read_key(&mut from)?, from.time()?);
    from.end()?;
    Ok(revoked)
}

fn write_scopes(out: &mut Writing, scopes: &ScopeSet) {
    out.list(scopes.iter(), |out, scope| out.text(scope));
}

fn read_scopes(from: &mut Reading<'_>) -> Result<ScopeSet, Malformed> {
    ScopeSet::parse(from.list(Reading::text)?).map_err(|_| Malformed)
}
