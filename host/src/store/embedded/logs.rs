//! The two logs of the file: which rows changed, and what was revoked. Dense numbers from 1; the oldest entries leave.

use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable, Table, TableError, Value};

use super::tables::{
    self, ABOUT, CHANGES, CREDENTIALS, DATA_KEYS, Fault, REVOCATIONS, data_key, open_credential,
};
use crate::model::credential::Version;
use crate::store::vault::{Head, Ledger, RowId, Vault};
use crate::store::{Revocation, RowChange, Since};

/// An entry of the log of changes.
pub(super) type ChangeBytes = [u8; 40];

/// A row got a version.
pub(super) fn change(id: &RowId, version: Version) -> ChangeBytes {
    let mut entry = [0; 40];
    entry[..32].copy_from_slice(id);
    entry[32..].copy_from_slice(&version.0.to_le_bytes());
    entry
}

/// Adds the next entry, and lets go of the one that is too old.
pub(super) fn push<'v, V: Value + 'static>(
    log: &mut Table<'_, u64, V>,
    newest: &mut u64,
    most: u64,
    entry: V::SelfType<'v>,
) -> Result<(), Fault> {
    *newest += 1;
    log.insert(*newest, entry).map_err(Fault::engine)?;
    if let Some(old) = newest.checked_sub(most) {
        log.remove(old).map_err(Fault::engine)?;
    }
    Ok(())
}

/// The changes after one.
pub(super) fn changes(
    read: &ReadTransaction,
    vault: &Vault,
    after: u64,
    limit: usize,
) -> Result<Since<RowChange>, Fault> {
    let log = read.open_table(CHANGES).map_err(Fault::engine)?;
    let newest = ledger(read, vault)?.changes;
    let rows = read.open_table(CREDENTIALS).map_err(Fault::engine)?;
    let data_keys = read.open_table(DATA_KEYS).map_err(Fault::engine)?;
    since(&log, newest, after, limit, |number, entry: &ChangeBytes| {
        let (id, version) = entry.split_first_chunk().ok_or(Fault::Log("change"))?;
        let version = version.try_into().map_err(|_| Fault::Log("change"))?;
        let row = rows.get(id).map_err(Fault::engine)?;
        let opened = row.map(|row| open_credential(&data_keys, vault, id, row.value()));
        let key = match opened.transpose() {
            Ok(opened) => opened.map(|(key, _)| key),
            Err(Fault::Unsealed(..) | Fault::KeyMissing) => None,
            Err(fault) => return Err(fault),
        };
        Ok(RowChange {
            number,
            key,
            version: Version(u64::from_le_bytes(version)),
        })
    })
}

/// The revocations after one.
pub(super) fn revocations(
    read: &ReadTransaction,
    vault: &Vault,
    after: u64,
    limit: usize,
) -> Result<Since<Revocation>, Fault> {
    let log = read.open_table(REVOCATIONS).map_err(Fault::engine)?;
    let newest = ledger(read, vault)?.revocations;
    let data_keys = read.open_table(DATA_KEYS).map_err(Fault::engine)?;
    since(&log, newest, after, limit, |number, entry: &[u8]| {
        let unsealed = |why| Fault::Unsealed("a revocation", why);
        let (head, _) = Head::split(entry).map_err(unsealed)?;
        // Without its key, its tenant was shredded.
        let of = match data_key(&data_keys, vault, head.tenant, head.key_number)? {
            Some(key) => Some(
                vault
                    .open_revocation(number, entry, &key)
                    .map_err(unsealed)?,
            ),
            None => None,
        };
        Ok(Revocation { number, of })
    })
}

/// Fails when entries are missing that should be there.
pub(super) fn check(read: &ReadTransaction, ledger: &Ledger) -> Result<(), Fault> {
    let newest = match read.open_table(CHANGES) {
        // A file of the first schema.
        Err(TableError::TableDoesNotExist(_)) => None,
        log => dense(&log.map_err(Fault::engine)?)?,
    };
    // A shredded tenant takes the log of changes along.
    if newest.is_some_and(|newest| newest != ledger.changes) {
        return Err(Fault::Log("change"));
    }
    let newest = match read.open_table(REVOCATIONS) {
        Err(TableError::TableDoesNotExist(_)) => None,
        log => dense(&log.map_err(Fault::engine)?)?,
    };
    if newest.unwrap_or_default() != ledger.revocations {
        return Err(Fault::Log("revocation"));
    }
    Ok(())
}

/// The number of the newest entry, if there is one and none before it is missing.
fn dense<V: Value + 'static>(log: &impl ReadableTable<u64, V>) -> Result<Option<u64>, Fault> {
    let first = log.first().map_err(Fault::engine)?;
    let last = log.last().map_err(Fault::engine)?;
    let Some((first, last)) = first.zip(last) else {
        return Ok(None);
    };
    let (first, last) = (first.0.value(), last.0.value());
    let all = log.len().map_err(Fault::engine)? == last - first + 1;
    all.then_some(Some(last))
        .ok_or(Fault::Log("change or revocation"))
}

fn since<V: Value + 'static, E>(
    log: &impl ReadableTable<u64, V>,
    newest: u64,
    after: u64,
    limit: usize,
    entry: impl Fn(u64, V::SelfType<'_>) -> Result<E, Fault>,
) -> Result<Since<E>, Fault> {
    let first = log.first().map_err(Fault::engine)?;
    let gone = first.map_or(newest, |(first, _)| first.value() - 1);
    // A number from the future is of another history: nothing known of it follows.
    if after < gone || after > newest {
        return Ok(Since::Gap { newest });
    }
    let range = (Bound::Excluded(after), Bound::Unbounded);
    let entries = log.range::<u64>(range).map_err(Fault::engine)?;
    let entries = entries.take(limit).map(|row| {
        let (number, value) = row.map_err(Fault::engine)?;
        entry(number.value(), value.value())
    });
    entries.collect::<Result<_, _>>().map(Since::Entries)
}

fn ledger(read: &ReadTransaction, vault: &Vault) -> Result<Ledger, Fault> {
    let about = read.open_table(ABOUT).map_err(Fault::engine)?;
    tables::ledger(&about, vault)
}
