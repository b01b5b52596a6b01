//! Inspects a store in a file. Never creates a file, takes a lock or reads a message.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::failure::classify;
use super::schema::{Tables, exists};
use super::{row, torn_journal, wal};
use crate::error::StoreError;
use crate::inspect::Inspection;
use crate::limits;
use crate::lock::StoreLock;
use crate::platform::canonical;
use crate::settings::Prefix;

/// Inspects the file.
///
/// # Errors
/// [`StoreError::Missing`] if there is no file, or if the file is not a store; any error that would keep a broker from starting on it.
pub(crate) fn inspect_file(path: &Path, prefix: &Prefix) -> Result<Inspection, StoreError> {
    let missing = StoreError::Missing { place: path.display().to_string() };
    let path = canonical(path).ok().filter(|path| path.exists()).ok_or_else(|| missing.clone())?;
    let (tables, place) = (Tables::new(prefix), path.display().to_string());
    let holder = StoreLock::holder(&path);
    // Opening the file makes SQLite recover the write-ahead log, which hides a loss. If a broker runs, the broker has checked its log.
    if holder.is_none()
        && let Ok(Some(loss)) = wal::loss(&path)
    {
        return Err(torn_journal(&path, loss));
    }
    let failed = |error: rusqlite::Error| classify(&place, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
    // A tool may wait longer than a broker.
    connection.busy_timeout(4 * limits::STORE_BUSY).map_err(failed)?;
    tables.check_layout(&connection, &place)?;
    if !exists(&connection, &tables.meta).map_err(failed)? {
        return Err(missing);
    }
    let query = format!("SELECT value FROM \"{}\" WHERE name = 'database'", tables.meta);
    let database = connection.query_row(&query, [], |found| Ok(row::text(found.get_ref(0)?))).optional();
    let journal_of = database.map_err(failed)?.flatten();
    Ok(Inspection { place, holder, journal_of, ..Inspection::default() })
}

/// Whether this file is the journal of that database. True for an unreadable file, so that opening it reports the error.
pub(crate) fn is_journal_of(path: &Path, prefix: &Prefix, database: &str) -> bool {
    match inspect_file(path, prefix) {
        Ok(found) => found.journal_of.as_deref() == Some(database),
        Err(StoreError::Missing { .. }) => false,
        Err(_) => true,
    }
}
