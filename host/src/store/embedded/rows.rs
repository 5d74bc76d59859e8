//! What one write transaction does to the rows.

use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};

use super::logs::{self, ChangeBytes};
use super::tables::{
    self, ABOUT, ABOUT_LEDGER, Bytes, CHANGES, CREDENTIALS, DATA_KEYS, Fault, PLUGINS, REVOCATIONS,
    TOKEN_ENDS, TOKENS, data_key, data_key_place, open_credential,
};
use super::tokens::Tokens;
use crate::model::credential::{CommitFault, Credential, Version};
use crate::model::key::{CredentialKey, Tenant, TokenKey};
use crate::model::time::UnixTime;
use crate::model::token::TokenRecord;
use crate::store::sealing::DataKey;
use crate::store::vault::{Head, Kind, Ledger, RowId, TenantId, Vault};
use crate::store::{CHANGES_MAX, KeptPlugin, REVOCATIONS_MAX};

/// What one write transaction does to the rows. Every change of a row that the ledger sums goes through `replace`.
pub(super) struct Rows<'t> {
    vault: &'t Vault,
    about: Table<'t, &'static str, Bytes>,
    data_keys: Table<'t, [u8; 20], Bytes>,
    credentials: Table<'t, RowId, Bytes>,
    plugins: Table<'t, RowId, Bytes>,
    tokens: Tokens<'t>,
    changes: Table<'t, u64, &'static ChangeBytes>,
    revocations: Table<'t, u64, Bytes>,
    ledger: Ledger,
    before: Ledger,
    /// Something changed that the ledger does not sum.
    touched: bool,
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
            tokens: Tokens {
                rows: write.open_table(TOKENS).map_err(Fault::engine)?,
                ends: write.open_table(TOKEN_ENDS).map_err(Fault::engine)?,
            },
            changes: write.open_table(CHANGES).map_err(Fault::engine)?,
            revocations: write.open_table(REVOCATIONS).map_err(Fault::engine)?,
            ledger,
            before: ledger,
            touched: false,
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
        let (current, was_revoked) = match &old {
            None => (Version::default(), false),
            // A row that does not open is left as it is: what it held may still be wanted.
            Some(row) => match open_credential(&self.data_keys, self.vault, &id, row) {
                Ok((_, stored)) => {
                    let revoked = stored.credential.revoked_at().is_some();
                    (stored.version, revoked)
                }
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
        logs::push(
            &mut self.changes,
            &mut self.ledger.changes,
            CHANGES_MAX,
            &logs::change(&id, version),
        )?;
        if let Some(at) = credential.revoked_at().filter(|_| !was_revoked) {
            let number = self.ledger.revocations + 1;
            let key = (key_number, &*key);
            let entry = self.vault.seal_revocation(number, key, whose, at)?;
            logs::push(
                &mut self.revocations,
                &mut self.ledger.revocations,
                REVOCATIONS_MAX,
                entry.as_slice(),
            )?;
        }
        Ok(Ok(version))
    }

    /// The sealed data keys.
    pub(super) fn data_keys(&self) -> &Table<'t, [u8; 20], Bytes> {
        &self.data_keys
    }

    /// Keeps a token in place of the one before.
    pub(super) fn keep_token(
        &mut self,
        whose: &TokenKey,
        record: &TokenRecord,
    ) -> Result<(), Fault> {
        let id = self.vault.credential_id(&whose.credential);
        let row = self.credentials.get(id).map_err(Fault::engine)?;
        let row = row.map(|row| open_credential(&self.data_keys, self.vault, &id, row.value()));
        let row = row.transpose()?.map(|(_, row)| row).unwrap_or_default();
        // Withdrawn, or its tenant shredded, while it waited for its turn.
        if !record.may_be_kept(&row) {
            return Ok(());
        }
        let tenant = self.vault.tenant_id(&whose.credential.tenant);
        let (number, key) = self.newest_data_key(tenant)?;
        let row = self.vault.seal_token(number, &key, whose, record)?;
        self.touched = true;
        self.tokens.keep(self.vault.token_id(whose), &row)
    }

    /// Forgets at most `limit` tokens that were over before this time; answers how many.
    pub(super) fn forget_tokens(&mut self, before: UnixTime, limit: usize) -> Result<usize, Fault> {
        let forgotten = self.tokens.forget(before, limit)?;
        self.touched |= forgotten > 0;
        Ok(forgotten)
    }

    /// Forgets everything of a tenant, its keys last of all; answers how many credentials that were. What is left of it in
    /// the log of revocations opens no more.
    pub(super) fn shred(&mut self, tenant: &Tenant) -> Result<u64, Fault> {
        let tenant = self.vault.tenant_id(tenant);
        let mut of_tenant = Vec::new();
        for row in self.credentials.iter().map_err(Fault::engine)? {
            let (id, row) = row.map_err(Fault::engine)?;
            if Head::split(row.value()).is_ok_and(|(head, _)| head.tenant == tenant) {
                of_tenant.push((id.value(), row.value().to_vec()));
            }
        }
        for (id, row) in &of_tenant {
            self.replace(Kind::Credential, *id, Some(row), None)?;
        }
        self.tokens.shred(tenant)?;
        let keys = data_key_place(tenant, 0)..=data_key_place(tenant, u32::MAX);
        self.data_keys
            .retain_in(keys, |_, _| false)
            .map_err(Fault::engine)?;
        // Whoever follows the log is to read all rows anew: those that are gone are in no entry of it.
        self.changes.retain(|_, _| false).map_err(Fault::engine)?;
        self.ledger.changes += 1;
        Ok(of_tenant.len() as u64)
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
            return Ok(self.touched);
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
            Kind::Token | Kind::Revocation | Kind::Noted => return Err(Fault::Log("wrong")),
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
        let all = data_key_place(tenant, 0)..=data_key_place(tenant, u32::MAX);
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
        let (number, key, sealed) = self.vault.first_data_key(tenant)?;
        self.data_keys
            .insert(data_key_place(tenant, number), sealed.as_slice())
            .map_err(Fault::engine)?;
        Ok((number, key))
    }
}
