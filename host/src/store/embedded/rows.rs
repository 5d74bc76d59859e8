//! What one write transaction does to the rows.

use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};

use super::tables::{
    self, ABOUT, ABOUT_LEDGER, Bytes, CREDENTIALS, DATA_KEYS, Fault, PLUGINS, data_key,
    data_key_place, open_credential,
};
use crate::model::credential::{CommitFault, Credential, Version};
use crate::model::key::CredentialKey;
use crate::store::KeptPlugin;
use crate::store::sealing::DataKey;
use crate::store::vault::{FIRST_DATA_KEY, Head, Kind, Ledger, RowId, TenantId, Vault};

/// What one write transaction does to the rows. Every change goes through [`Rows::replace`], so none misses the ledger.
pub(super) struct Rows<'t> {
    vault: &'t Vault,
    about: Table<'t, &'static str, Bytes>,
    data_keys: Table<'t, [u8; 20], Bytes>,
    credentials: Table<'t, RowId, Bytes>,
    plugins: Table<'t, RowId, Bytes>,
    ledger: Ledger,
    before: Ledger,
}

// === impl Rows ===

impl<'t> Rows<'t> {
    pub(super) fn open(write: &'t WriteTransaction, vault: &'t Vault) -> Result<Self, Fault> {
        let about = write.open_table(ABOUT).map_err(Fault::engine)?;
        let ledger = tables::ledger(&about, vault)?;
        Ok(Self {
            vault,
            about,
            data_keys: write.open_table(DATA_KEYS).map_err(Fault::engine)?,
            credentials: write.open_table(CREDENTIALS).map_err(Fault::engine)?,
            plugins: write.open_table(PLUGINS).map_err(Fault::engine)?,
            ledger,
            before: ledger,
        })
    }

    /// Replaces a credential whose version is `expected`. The outer error fails the transaction, the inner one this
    /// commit only.
    pub(super) fn commit(
        &mut self,
        whose: &CredentialKey,
        expected: Version,
        credential: &Credential,
    ) -> Result<Result<Version, CommitFault>, Fault> {
        let id = self.vault.credential_id(whose);
        let old = self
            .credentials
            .get(id)
            .map_err(Fault::engine)?
            .map(|row| row.value().to_vec());
        let current = match &old {
            None => Version::default(),
            // A row that does not open is left as it is: what it held may still be wanted.
            Some(row) => match open_credential(&self.data_keys, self.vault, &id, row) {
                Ok((_, stored)) => stored.version,
                Err(fault @ (Fault::Unsealed(..) | Fault::KeyMissing)) => {
                    return Ok(Err(CommitFault::Unreachable(fault.to_string())));
                }
                Err(fault) => return Err(fault),
            },
        };
        if current != expected {
            return Ok(Err(CommitFault::Conflict));
        }
        if old.is_none() && credential.is_blank() {
            return Ok(Ok(current));
        }
        let version = Version(current.0 + 1);
        let tenant = self.vault.tenant_id(&whose.tenant);
        let (key_number, key) = self.newest_data_key(tenant)?;
        let head = Head {
            tenant,
            key_number,
            version,
        };
        let row = self.vault.seal_credential(head, &key, whose, credential)?;
        self.replace(Kind::Credential, id, old.as_deref(), Some(&row))?;
        Ok(Ok(version))
    }

    /// Keeps a plugin, or forgets it.
    pub(super) fn keep_plugin(
        &mut self,
        place: &str,
        plugin: Option<&KeptPlugin>,
    ) -> Result<Version, Fault> {
        let id = self.vault.plugin_id(place);
        let old = self
            .plugins
            .get(id)
            .map_err(Fault::engine)?
            .map(|row| row.value().to_vec());
        let version = match &old {
            None => Version::default(),
            Some(row) => {
                Head::split(row)
                    .map_err(|why| Fault::Unsealed("a plugin", why))?
                    .0
                    .version
            }
        };
        let version = Version(version.0.wrapping_add(1));
        let row = plugin
            .map(|plugin| self.vault.seal_plugin(version, place, plugin))
            .transpose()?;
        self.replace(Kind::Plugin, id, old.as_deref(), row.as_deref())?;
        Ok(version)
    }

    /// Writes the ledger; false when nothing changed, and the transaction need not be committed.
    pub(super) fn finish(mut self) -> Result<bool, Fault> {
        if self.ledger == self.before {
            return Ok(false);
        }
        let sealed = self.vault.seal_ledger(&self.ledger)?;
        self.about
            .insert(ABOUT_LEDGER, sealed.as_slice())
            .map_err(Fault::engine)?;
        Ok(true)
    }

    fn replace(
        &mut self,
        kind: Kind,
        id: RowId,
        old: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let table = match kind {
            Kind::Credential => &mut self.credentials,
            Kind::Plugin => &mut self.plugins,
        };
        match new {
            Some(row) => table.insert(id, row).map(drop),
            None => table.remove(id).map(drop),
        }
        .map_err(Fault::engine)?;
        if let Some(row) = old {
            self.ledger.remove(self.vault.element(kind, &id, row));
        }
        if let Some(row) = new {
            self.ledger.add(self.vault.element(kind, &id, row));
        }
        Ok(())
    }

    /// The key that seals a tenant's rows; made with its first.
    fn newest_data_key(&mut self, tenant: TenantId) -> Result<(u32, Arc<DataKey>), Fault> {
        let all = data_key_place(tenant, FIRST_DATA_KEY)..=data_key_place(tenant, u32::MAX);
        let newest = self
            .data_keys
            .range(all)
            .map_err(Fault::engine)?
            .next_back()
            .transpose()
            .map_err(Fault::engine)?
            .map(|(place, _)| place.value());
        if let Some(place) = newest {
            let [.., a, b, c, d] = place;
            let number = u32::from_be_bytes([a, b, c, d]);
            let key = data_key(&self.data_keys, self.vault, tenant, number)?;
            return Ok((number, key.ok_or(Fault::KeyMissing)?));
        }
        // Not held open before it is durable: a transaction that fails takes it along.
        let (key, sealed) = self.vault.new_data_key(tenant, FIRST_DATA_KEY)?;
        self.data_keys
            .insert(data_key_place(tenant, FIRST_DATA_KEY), sealed.as_slice())
            .map_err(Fault::engine)?;
        Ok((FIRST_DATA_KEY, key))
    }
}
