//! How what a store keeps is written as bytes, before they are sealed. Its own layout instead of a serializer, so that no
//! secret passes through a buffer that is not zeroed, and so that a layout changes only where this folder does.
//!
//! The first byte of every record is the number of its layout. A higher one than is known is refused, a lower one read as
//! what it was; `bytes` has the rest.

mod bytes;
mod credential;
mod plugin;
mod token;

pub(super) use self::bytes::Malformed;
use self::bytes::{Reading, Writing};
pub(super) use self::credential::{decode_credential, encode_credential};
pub(super) use self::plugin::{decode_plugin, encode_plugin};
pub(super) use self::token::{decode_revocation, decode_token, encode_revocation, encode_token};
use crate::model::key::{CredentialKey, ProviderName, Subject, Tenant};

fn write_key(out: &mut Writing, key: &CredentialKey) {
    // Taken apart by name: a member added to the model does not compile until it is kept.
    let CredentialKey {
        tenant,
        provider,
        subject,
    } = key;
    out.text(tenant.as_str());
    out.text(provider.as_str());
    out.optional(subject.as_ref(), |out, subject| out.text(subject.as_str()));
}

fn read_key(from: &mut Reading<'_>) -> Result<CredentialKey, Malformed> {
    Ok(CredentialKey {
        tenant: Tenant::parse(from.text()?).map_err(|_| Malformed)?,
        provider: ProviderName::parse(from.text()?).map_err(|_| Malformed)?,
        subject: from.optional(|from| Subject::parse(from.text()?).map_err(|_| Malformed))?,
    })
}

#[cfg(test)]
mod tests;
