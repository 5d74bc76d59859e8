//! Credentials, tokens, revocations and plugins as rows, and back. A row that opens is still compared with where it stands.

use super::super::record;
use super::super::sealing::{DataKey, NoRandomness};
use super::{Head, Kind, RowId, Unsealed, Vault};
use crate::model::credential::{Credential, Stored, Version};
use crate::model::key::{CredentialKey, TokenKey};
use crate::model::time::UnixTime;
use crate::model::token::TokenRecord;
use crate::store::KeptPlugin;

// === impl Vault ===

impl Vault {
    /// A credential as a row.
    pub(in crate::store) fn seal_credential(
        &self,
        head: Head,
        key: &DataKey,
        whose: &CredentialKey,
        credential: &Credential,
    ) -> Result<Vec<u8>, NoRandomness> {
        let plain = record::encode_credential(whose, credential);
        self.seal(
            Kind::Credential,
            &self.credential_id(whose),
            head,
            key,
            &plain,
        )
    }

    /// The credential of a row, and whose it is.
    pub(in crate::store) fn open_credential(
        &self,
        id: &RowId,
        row: &[u8],
        key: &DataKey,
    ) -> Result<(CredentialKey, Stored), Unsealed> {
        let (version, plain) = self.open_row(Kind::Credential, id, row, key)?;
        let (whose, credential) = record::decode_credential(&plain)?;
        if self.credential_id(&whose) != *id {
            return Err(Unsealed::Broken);
        }
        Ok((
            whose,
            Stored {
                version,
                credential,
            },
        ))
    }

    /// A commit that is to be made: the credential, and the version it replaces. None where its tenant's key is not held open.
    pub(in crate::store) fn seal_noted(
        &self,
        whose: &CredentialKey,
        expected: Version,
        credential: &Credential,
    ) -> Option<Vec<u8>> {
        let tenant = self.tenant_id(&whose.tenant);
        let (key_number, key) = self.newest_held_data_key(tenant)?;
        let plain = record::encode_credential(whose, credential);
        let head = Head {
            tenant,
            key_number,
            version: expected,
        };
        let id = self.credential_id(whose);
        self.seal(Kind::Noted, &id, head, &key, &plain).ok()
    }

    /// What [`Vault::seal_noted`] sealed.
    pub(in crate::store) fn open_noted(
        &self,
        id: &RowId,
        row: &[u8],
        key: &DataKey,
    ) -> Result<(CredentialKey, Version, Credential), Unsealed> {
        let (expected, plain) = self.open_row(Kind::Noted, id, row, key)?;
        let (whose, credential) = record::decode_credential(&plain)?;
        (self.credential_id(&whose) == *id)
            .then_some((whose, expected, credential))
            .ok_or(Unsealed::Broken)
    }

    /// A token as a row of its tenant.
    pub(in crate::store) fn seal_token(
        &self,
        key_number: u32,
        key: &DataKey,
        whose: &TokenKey,
        record: &TokenRecord,
    ) -> Result<Vec<u8>, NoRandomness> {
        let plain = record::encode_token(whose, record);
        let head = Head {
            tenant: self.tenant_id(&whose.credential.tenant),
            key_number,
            version: Version(record.token.expires.as_millis()),
        };
        self.seal(Kind::Token, &self.token_id(whose), head, key, &plain)
    }

    /// The token of a row, and what it is for.
    pub(in crate::store) fn open_token(
        &self,
        id: &RowId,
        row: &[u8],
        key: &DataKey,
    ) -> Result<(TokenKey, TokenRecord), Unsealed> {
        let (_, plain) = self.open_row(Kind::Token, id, row, key)?;
        let (whose, record) = record::decode_token(&plain)?;
        (self.token_id(&whose) == *id)
            .then_some((whose, record))
            .ok_or(Unsealed::Broken)
    }

    /// An entry of the revocation log, sealed with its tenant's key: it is to be unreadable with the tenant.
    pub(in crate::store) fn seal_revocation(
        &self,
        number: u64,
        (key_number, key): (u32, &DataKey),
        whose: &CredentialKey,
        at: UnixTime,
    ) -> Result<Vec<u8>, NoRandomness> {
        let plain = record::encode_revocation(whose, at);
        let head = Head {
            tenant: self.tenant_id(&whose.tenant),
            key_number,
            version: Version(number),
        };
        self.seal(Kind::Revocation, &log_id(number), head, key, &plain)
    }

    /// What [`Vault::seal_revocation`] sealed.
    pub(in crate::store) fn open_revocation(
        &self,
        number: u64,
        row: &[u8],
        key: &DataKey,
    ) -> Result<(CredentialKey, UnixTime), Unsealed> {
        let (_, plain) = self.open_row(Kind::Revocation, &log_id(number), row, key)?;
        Ok(record::decode_revocation(&plain)?)
    }

    /// A plugin as a row.
    pub(in crate::store) fn seal_plugin(
        &self,
        version: Version,
        place: &str,
        plugin: &KeptPlugin,
    ) -> Result<Vec<u8>, NoRandomness> {
        let plain = record::encode_plugin(place, plugin);
        let head = Head::of_host(version);
        self.seal(
            Kind::Plugin,
            &self.plugin_id(place),
            head,
            &self.host,
            &plain,
        )
    }

    /// The plugin of a row, and its place.
    pub(in crate::store) fn open_plugin(
        &self,
        id: &RowId,
        row: &[u8],
    ) -> Result<(String, KeptPlugin), Unsealed> {
        let (_, plain) = self.open_row(Kind::Plugin, id, row, &self.host)?;
        let (place, plugin) = record::decode_plugin(&plain)?;
        if self.plugin_id(&place) != *id {
            return Err(Unsealed::Broken);
        }
        Ok((place, plugin))
    }
}

/// The place of an entry of a log.
fn log_id(number: u64) -> RowId {
    let mut id = RowId::default();
    id[24..].copy_from_slice(&number.to_be_bytes());
    id
}
