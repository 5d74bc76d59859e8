//! The tables of the file, and what is read from them within one transaction: here of keys, credentials and plugins, in
//! `tokens` and `logs` of theirs. What is written is `rows`'s, when transactions begin and end `live`'s, and what a row looks
//! like `vault`'s.

use std::collections::HashSet;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable};
use redb::{ReadableTableMetadata, StorageError, TableDefinition, WriteTransaction};

use super::logs;
use crate::model::credential::Stored;
use crate::model::key::CredentialKey;
use crate::store::sealing::{DataKey, KeyId, NoRandomness, SealingKey};
use crate::store::vault::{Head, Kind, Ledger, RowId, SCHEMA, TenantId, Unsealed, Vault};
use crate::store::{KeptPlugin, Page};

pub(super) type Bytes = &'static [u8];

/// `schema`, in the clear; `root` and `ledger`, sealed.
pub(super) const ABOUT: TableDefinition<'static, &str, Bytes> = TableDefinition::new("about");
/// Data keys, sealed, by tenant and number (big-endian, so that the last of a tenant is its newest).
pub(super) const DATA_KEYS: TableDefinition<'static, [u8; 20], Bytes> =
    TableDefinition::new("data keys");
/// Sealed credentials.
pub(super) const CREDENTIALS: TableDefinition<'static, RowId, Bytes> =
    TableDefinition::new("credentials");
/// Sealed plugins.
pub(super) const PLUGINS: TableDefinition<'static, RowId, Bytes> = TableDefinition::new("plugins");

/// Sealed access tokens.
pub(super) const TOKENS: TableDefinition<'static, RowId, Bytes> = TableDefinition::new("tokens");
/// When a token ends (unix milliseconds, big-endian) and its row: which to forget next.
pub(super) const TOKEN_ENDS: TableDefinition<'static, [u8; 40], ()> =
    TableDefinition::new("token ends");
/// Which row got which version, by the number of the change.
pub(super) const CHANGES: TableDefinition<'static, u64, &'static [u8; 40]> =
    TableDefinition::new("changes");
/// Sealed revocations by their number.
pub(super) const REVOCATIONS: TableDefinition<'static, u64, Bytes> =
    TableDefinition::new("revocations");

const ABOUT_SCHEMA: &str = "schema";
const ABOUT_ROOT: &str = "root";
pub(super) const ABOUT_LEDGER: &str = "ledger";

/// Why a transaction did not do what it should.
#[derive(Debug)]
pub(super) enum Fault {
    /// The engine failed; opening the file again may help.
    Engine(String),
    /// The system failed, or has no more room.
    System(String),
    /// The file has none of our tables.
    Foreign,
    /// The file has a newer schema.
    Newer(u32),
    /// Something sealed, named here, was not opened.
    Unsealed(&'static str, Unsealed),
    /// A tenant's data key is not there.
    KeyMissing,
    /// The rows are not those that were written last.
    Ledger,
    /// The store closes.
    Closing,
    /// A log is not the one that was written last.
    Log(&'static str),
}

/// The keys of the store that a transaction sees, and its schema.
pub(super) fn open_vault(
    read: &ReadTransaction,
    operator: SealingKey,
) -> Result<(Vault, u32), Fault> {
    let about = match read.open_table(ABOUT) {
        Err(redb::TableError::Storage(error)) => return Err(Fault::engine(error)),
        table => table.map_err(|_| Fault::Foreign)?,
    };
    let schema = about
        .get(ABOUT_SCHEMA)
        .map_err(Fault::engine)?
        .ok_or(Fault::Foreign)?;
    let schema = match schema.value().try_into().map(u32::from_le_bytes) {
        Ok(known @ 1..=SCHEMA) => known,
        Ok(newer) if newer > SCHEMA => return Err(Fault::Newer(newer)),
        _ => return Err(Fault::Foreign),
    };
    let root = about
        .get(ABOUT_ROOT)
        .map_err(Fault::engine)?
        .ok_or(Fault::Foreign)?;
    let vault = Vault::open(operator, root.value());
    let vault = vault.map_err(|why| Fault::Unsealed("its root", why))?;
    Ok((vault, schema))
}

/// Writes a new store.
pub(super) fn found(database: &Database, operator: SealingKey) -> Result<Vault, Fault> {
    let vault = Vault::create(operator)?;
    establish(database, &vault, &Ledger::default())?;
    Ok(vault)
}

/// Makes a store of an older schema one of this schema, in one step. Rows stay as they are: what they are sealed about did
/// not change, and their layouts are known.
pub(super) fn migrate(database: &Database, vault: &Vault) -> Result<(), Fault> {
    let ledger = {
        let read = database.begin_read().map_err(Fault::engine)?;
        let about = read.open_table(ABOUT).map_err(Fault::engine)?;
        ledger(&about, vault)?
    };
    establish(database, vault, &ledger)
}

/// Writes what there is one of, and makes the tables that are not there.
fn establish(database: &Database, vault: &Vault, ledger: &Ledger) -> Result<(), Fault> {
    let (root, ledger) = (vault.seal_root()?, vault.seal_ledger(ledger)?);
    let write = begin_write(database)?;
    {
        let mut about = write.open_table(ABOUT).map_err(Fault::engine)?;
        for (name, value) in [
            (ABOUT_SCHEMA, SCHEMA.to_le_bytes().as_slice()),
            (ABOUT_ROOT, &root),
            (ABOUT_LEDGER, &ledger),
        ] {
            about.insert(name, value).map_err(Fault::engine)?;
        }
        write.open_table(DATA_KEYS).map_err(Fault::engine)?;
        write.open_table(CREDENTIALS).map_err(Fault::engine)?;
        write.open_table(PLUGINS).map_err(Fault::engine)?;
        write.open_table(TOKENS).map_err(Fault::engine)?;
        write.open_table(TOKEN_ENDS).map_err(Fault::engine)?;
        write.open_table(CHANGES).map_err(Fault::engine)?;
        write.open_table(REVOCATIONS).map_err(Fault::engine)?;
    }
    write.commit().map_err(Fault::engine)
}

/// Names the operator's key that a file is sealed with.
pub(super) fn sealed_with(read: &ReadTransaction) -> Result<Option<KeyId>, Fault> {
    let about = read.open_table(ABOUT).map_err(Fault::engine)?;
    let root = about.get(ABOUT_ROOT).map_err(Fault::engine)?;
    Ok(root.and_then(|root| KeyId::of_sealed(root.value())))
}

/// Seals the root and every data key with the key of `next` instead of that of `now`.
pub(super) fn seal_keys_anew(
    write: &WriteTransaction,
    now: &Vault,
    next: &Vault,
) -> Result<(), Fault> {
    let mut data_keys = write.open_table(DATA_KEYS).map_err(Fault::engine)?;
    let mut anew = Vec::new();
    for row in data_keys.iter().map_err(Fault::engine)? {
        let (place, sealed) = row.map_err(Fault::engine)?;
        let place = place.value();
        let (tenant, number) = key_of_place(&place);
        let key = now.open_data_key(tenant, number, sealed.value());
        let key = key.map_err(|why| Fault::Unsealed("a data key", why))?;
        anew.push((place, next.seal_data_key(tenant, number, &key)?));
    }
    for (place, sealed) in anew {
        data_keys
            .insert(place, sealed.as_slice())
            .map_err(Fault::engine)?;
    }
    let mut about = write.open_table(ABOUT).map_err(Fault::engine)?;
    about
        .insert(ABOUT_ROOT, next.seal_root()?.as_slice())
        .map_err(Fault::engine)?;
    Ok(())
}

/// A transaction whose commit is on disk before it returns.
///
/// With quick repair a commit takes two flushes, which a group shares, and says which pages are in use. Without, the engine
/// reads the whole file after a crash, and falls back to the commit before where the newest does not match its checksums:
/// a grant that is spent would come back.
pub(super) fn begin_write(database: &Database) -> Result<WriteTransaction, Fault> {
    let mut write = database.begin_write().map_err(Fault::engine)?;
    write
        .set_durability(Durability::Immediate)
        .map_err(Fault::engine)?;
    write.set_quick_repair(true);
    Ok(write)
}

/// Fails when there are not as many rows as the ledger has.
pub(super) fn check_counts(read: &ReadTransaction, vault: &Vault) -> Result<(), Fault> {
    let credentials = read.open_table(CREDENTIALS).map_err(Fault::engine)?;
    let plugins = read.open_table(PLUGINS).map_err(Fault::engine)?;
    let rows = credentials.len().map_err(Fault::engine)? + plugins.len().map_err(Fault::engine)?;
    let about = read.open_table(ABOUT).map_err(Fault::engine)?;
    (rows == ledger(&about, vault)?.rows)
        .then_some(())
        .ok_or(Fault::Ledger)
}

/// Reads every row, one at a time, and sums them: how many there are, when they are the ones that were written last. Gives
/// up when the store closes: a process that ends does not wait for all of a long file.
pub(super) fn verify(
    read: &ReadTransaction,
    vault: &Vault,
    closing: &AtomicBool,
) -> Result<u64, Fault> {
    let mut sum = Ledger::default();
    let data_keys = read.open_table(DATA_KEYS).map_err(Fault::engine)?;
    let mut keys = HashSet::new();
    for row in data_keys.iter().map_err(Fault::engine)? {
        let (place, sealed) = row.map_err(Fault::engine)?;
        let place = place.value();
        let (tenant, number) = key_of_place(&place);
        vault
            .open_data_key(tenant, number, sealed.value())
            .map_err(|why| Fault::Unsealed("a data key", why))?;
        keys.insert(place);
    }
    for (kind, table) in [(Kind::Credential, CREDENTIALS), (Kind::Plugin, PLUGINS)] {
        let table = read.open_table(table).map_err(Fault::engine)?;
        for row in table.iter().map_err(Fault::engine)? {
            let (id, row) = row.map_err(Fault::engine)?;
            sum.add(vault.element(kind, &id.value(), row.value()));
            let (head, _) =
                Head::split(row.value()).map_err(|why| Fault::Unsealed("a row", why))?;
            let place = data_key_place(head.tenant, head.key_number);
            if kind == Kind::Credential && !keys.contains(&place) {
                return Err(Fault::KeyMissing);
            }
            if closing.load(Ordering::Relaxed) {
                return Err(Fault::Closing);
            }
        }
    }
    let about = read.open_table(ABOUT).map_err(Fault::engine)?;
    let ledger = ledger(&about, vault)?;
    if !sum.same_rows(&ledger) {
        return Err(Fault::Ledger);
    }
    logs::check(read, &ledger)?;
    Ok(sum.rows)
}

/// The record of a key.
pub(super) fn load(
    read: &ReadTransaction,
    vault: &Vault,
    key: &CredentialKey,
) -> Result<Stored, Fault> {
    let id = vault.credential_id(key);
    let rows = read.open_table(CREDENTIALS).map_err(Fault::engine)?;
    let Some(row) = rows.get(id).map_err(Fault::engine)? else {
        return Ok(Stored::default());
    };
    let data_keys = read.open_table(DATA_KEYS).map_err(Fault::engine)?;
    open_credential(&data_keys, vault, &id, row.value()).map(|(_, stored)| stored)
}

/// The rows that open, at most `limit`, after the one of a key.
pub(super) fn scan(
    read: &ReadTransaction,
    vault: &Vault,
    after: Option<&CredentialKey>,
    limit: usize,
) -> Result<Page, Fault> {
    let rows = read.open_table(CREDENTIALS).map_err(Fault::engine)?;
    let data_keys = read.open_table(DATA_KEYS).map_err(Fault::engine)?;
    let after = after.map(|key| vault.credential_id(key));
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut page = Page::default();
    for row in rows
        .range::<RowId>((from, Bound::Unbounded))
        .map_err(Fault::engine)?
    {
        if page.rows.len() == limit {
            break;
        }
        let (id, row) = row.map_err(Fault::engine)?;
        match open_credential(&data_keys, vault, &id.value(), row.value()) {
            Ok(row) => page.rows.push(row),
            // One damaged row must not hide the others; loading it says what is wrong.
            Err(Fault::Unsealed(..) | Fault::KeyMissing) => page.damaged += 1,
            Err(fault) => return Err(fault),
        }
    }
    Ok(page)
}

/// Every plugin.
pub(super) fn plugins(
    read: &ReadTransaction,
    vault: &Vault,
) -> Result<Vec<(String, KeptPlugin)>, Fault> {
    let rows = read.open_table(PLUGINS).map_err(Fault::engine)?;
    rows.iter()
        .map_err(Fault::engine)?
        .map(|row| {
            let (id, row) = row.map_err(Fault::engine)?;
            let opened = vault.open_plugin(&id.value(), row.value());
            opened.map_err(|why| Fault::Unsealed("a plugin", why))
        })
        .collect()
}

pub(super) fn open_credential(
    data_keys: &impl ReadableTable<[u8; 20], Bytes>,
    vault: &Vault,
    id: &RowId,
    row: &[u8],
) -> Result<(CredentialKey, Stored), Fault> {
    let unsealed = |why| Fault::Unsealed("a credential", why);
    let (head, _) = Head::split(row).map_err(unsealed)?;
    let key = data_key(data_keys, vault, head.tenant, head.key_number)?.ok_or(Fault::KeyMissing)?;
    vault.open_credential(id, row, &key).map_err(unsealed)
}

pub(super) fn data_key(
    data_keys: &impl ReadableTable<[u8; 20], Bytes>,
    vault: &Vault,
    tenant: TenantId,
    number: u32,
) -> Result<Option<Arc<DataKey>>, Fault> {
    if let Some(key) = vault.held_data_key(tenant, number) {
        return Ok(Some(key));
    }
    let Some(sealed) = data_keys
        .get(data_key_place(tenant, number))
        .map_err(Fault::engine)?
    else {
        return Ok(None);
    };
    let key = vault.open_data_key(tenant, number, sealed.value());
    key.map(Some)
        .map_err(|why| Fault::Unsealed("a data key", why))
}

pub(super) fn data_key_place(tenant: TenantId, number: u32) -> [u8; 20] {
    let mut place = [0; 20];
    place[..16].copy_from_slice(&tenant);
    place[16..].copy_from_slice(&number.to_be_bytes());
    place
}

fn key_of_place(place: &[u8; 20]) -> (TenantId, u32) {
    let mut tenant = TenantId::default();
    tenant.copy_from_slice(&place[..16]);
    let [.., a, b, c, d] = *place;
    (tenant, u32::from_be_bytes([a, b, c, d]))
}

pub(super) fn ledger(
    about: &impl ReadableTable<&'static str, Bytes>,
    vault: &Vault,
) -> Result<Ledger, Fault> {
    let sealed = about
        .get(ABOUT_LEDGER)
        .map_err(Fault::engine)?
        .ok_or(Fault::Foreign)?;
    vault
        .open_ledger(sealed.value())
        .map_err(|why| Fault::Unsealed("its ledger", why))
}

// === impl Fault ===

impl Fault {
    /// An error of the engine, in its words: it sees page numbers and sealed bytes only.
    pub(super) fn engine(error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(error) => Self::System(error.to_string()),
            redb::Error::PreviousIo => Self::System(StorageError::PreviousIo.to_string()),
            error => Self::Engine(error.to_string()),
        }
    }
}

impl From<NoRandomness> for Fault {
    fn from(_: NoRandomness) -> Self {
        Self::System("the system has no random bytes to give".into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(detail) | Self::System(detail) => f.write_str(detail),
            Self::Foreign => f.write_str("it has no tables of Keyfob"),
            Self::Newer(schema) => write!(f, "it has schema {schema}"),
            Self::Unsealed(what, why) => write!(f, "{what} cannot be opened: {why}"),
            Self::KeyMissing => f.write_str("the data key of its tenant is gone"),
            Self::Ledger => f.write_str(
                "its rows are not those that were written last: some were removed, brought in or put back",
            ),
            Self::Closing => f.write_str("it is being closed"),
            Self::Log(which) => write!(f, "entries of its {which} log are missing"),
        }
    }
}
