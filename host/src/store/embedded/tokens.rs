//! Access tokens in the file: found by their key, forgotten by their end.

use std::ops::RangeTo;

use redb::{ReadTransaction, ReadableTable, Table};

use super::tables::{Bytes, DATA_KEYS, Fault, TOKENS, data_key};
use crate::model::key::TokenKey;
use crate::model::time::UnixTime;
use crate::model::token::TokenRecord;
use crate::store::vault::{Head, RowId, TenantId, Vault};

/// The token of a key. One whose tenant was shredded is none.
pub(super) fn load(
    read: &ReadTransaction,
    vault: &Vault,
    key: &TokenKey,
) -> Result<Option<TokenRecord>, Fault> {
    let unsealed = |why| Fault::Unsealed("a token", why);
    let id = vault.token_id(key);
    let rows = read.open_table(TOKENS).map_err(Fault::engine)?;
    let Some(row) = rows.get(id).map_err(Fault::engine)? else {
        return Ok(None);
    };
    let (head, _) = Head::split(row.value()).map_err(unsealed)?;
    let data_keys = read.open_table(DATA_KEYS).map_err(Fault::engine)?;
    let Some(key) = data_key(&data_keys, vault, head.tenant, head.key_number)? else {
        return Ok(None);
    };
    let opened = vault.open_token(&id, row.value(), &key);
    opened.map(|(_, record)| Some(record)).map_err(unsealed)
}

/// The two tables of tokens, within one write.
pub(super) struct Tokens<'t> {
    pub(super) rows: Table<'t, RowId, Bytes>,
    pub(super) ends: Table<'t, [u8; 40], ()>,
}

// === impl Tokens ===

impl Tokens<'_> {
    /// Puts a sealed token in place of the one before.
    pub(super) fn keep(&mut self, id: RowId, row: &[u8]) -> Result<(), Fault> {
        self.remove(id)?;
        self.rows.insert(id, row).map_err(Fault::engine)?;
        let end = end_of(row, &id)?;
        self.ends.insert(end, ()).map_err(Fault::engine)?;
        Ok(())
    }

    /// Forgets at most `limit` tokens that were over before this time; answers how many.
    pub(super) fn forget(&mut self, before: UnixTime, limit: usize) -> Result<usize, Fault> {
        let range: RangeTo<[u8; 40]> = ..place(before.as_millis(), &RowId::default());
        let mut over = Vec::new();
        for end in self.ends.range(range).map_err(Fault::engine)?.take(limit) {
            over.push(end.map_err(Fault::engine)?.0.value());
        }
        for end in &over {
            self.ends.remove(end).map_err(Fault::engine)?;
            let (_, id) = end.split_last_chunk::<32>().unwrap_or((&[], &[0; 32]));
            self.rows.remove(id).map_err(Fault::engine)?;
        }
        Ok(over.len())
    }

    /// Forgets every token of a tenant.
    pub(super) fn shred(&mut self, tenant: TenantId) -> Result<(), Fault> {
        let mut of_tenant = Vec::new();
        for row in self.rows.iter().map_err(Fault::engine)? {
            let (id, row) = row.map_err(Fault::engine)?;
            if Head::split(row.value()).is_ok_and(|(head, _)| head.tenant == tenant) {
                of_tenant.push(id.value());
            }
        }
        of_tenant.into_iter().try_for_each(|id| self.remove(id))
    }

    fn remove(&mut self, id: RowId) -> Result<(), Fault> {
        let old = self.rows.remove(id).map_err(Fault::engine)?;
        let end = old.map(|row| end_of(row.value(), &id)).transpose()?;
        if let Some(end) = end {
            self.ends.remove(end).map_err(Fault::engine)?;
        }
        Ok(())
    }
}

/// The place of a sealed token among the ends.
fn end_of(row: &[u8], id: &RowId) -> Result<[u8; 40], Fault> {
    let (head, _) = Head::split(row).map_err(|why| Fault::Unsealed("a token", why))?;
    Ok(place(head.version.0, id))
}

fn place(end_millis: u64, id: &RowId) -> [u8; 40] {
    let mut place = [0; 40];
    place[..8].copy_from_slice(&end_millis.to_be_bytes());
    place[8..].copy_from_slice(id);
    place
}
