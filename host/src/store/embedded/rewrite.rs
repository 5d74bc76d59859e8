//! A store written anew into another file: to back it up, and to leave behind what the old file still has of rows and keys
//! that were replaced.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::WriteTransaction;
use redb::{Database, Key, ReadTransaction, ReadableTable, TableDefinition, Value};

use super::open::{self, OpenError};
use super::tables::{
    ABOUT, CHANGES, CREDENTIALS, DATA_KEYS, Fault, PLUGINS, REVOCATIONS, TOKEN_ENDS, TOKENS,
    begin_write,
};

/// Writes what a transaction sees to a file that is not whole yet, in the format in which it is kept. What cannot be
/// finished is removed.
pub(super) fn copy(
    read: &ReadTransaction,
    unfinished: &Path,
    give_up: &AtomicBool,
) -> Result<Database, Fault> {
    let copied = open::begun(unfinished)
        .map_err(|error| Fault::System(error.to_string()))
        .and_then(|database| fill(read, &database, give_up).map(|()| database));
    if copied.is_err() {
        // Whatever is wrong with it, the error is told; a file that stays is emptied by the next attempt.
        drop(std::fs::remove_file(unfinished));
    }
    copied
}

/// Gives a copy the name of the store; answers with the folder, to be flushed.
pub(super) fn name(unfinished: &Path, path: &Path) -> Result<File, Fault> {
    open::name(unfinished, path).map_err(|error| unnamed(unfinished, &error))
}

/// Gives a copy a name that nothing has.
pub(super) fn name_new(unfinished: &Path, path: &Path) -> Result<(), Fault> {
    open::name_new(unfinished, path).map_err(|error| unnamed(unfinished, &error))
}

fn unnamed(unfinished: &Path, error: &OpenError) -> Fault {
    drop(std::fs::remove_file(unfinished));
    Fault::System(error.to_string())
}

fn fill(read: &ReadTransaction, database: &Database, give_up: &AtomicBool) -> Result<(), Fault> {
    let write = begin_write(database)?;
    table(read, &write, ABOUT, give_up)?;
    table(read, &write, DATA_KEYS, give_up)?;
    table(read, &write, CREDENTIALS, give_up)?;
    table(read, &write, PLUGINS, give_up)?;
    table(read, &write, TOKENS, give_up)?;
    table(read, &write, TOKEN_ENDS, give_up)?;
    table(read, &write, CHANGES, give_up)?;
    table(read, &write, REVOCATIONS, give_up)?;
    write.commit().map_err(Fault::engine)
}

fn table<K: Key + 'static, V: Value + 'static>(
    read: &ReadTransaction,
    write: &WriteTransaction,
    table: TableDefinition<'static, K, V>,
    give_up: &AtomicBool,
) -> Result<(), Fault> {
    let from = read.open_table(table).map_err(Fault::engine)?;
    let mut to = write.open_table(table).map_err(Fault::engine)?;
    for row in from.iter().map_err(Fault::engine)? {
        let (key, value) = row.map_err(Fault::engine)?;
        to.insert(key.value(), value.value())
            .map_err(Fault::engine)?;
        if give_up.load(Ordering::Relaxed) {
            return Err(Fault::Closing);
        }
    }
    Ok(())
}
