//! A look at a store in a file from outside. Makes no file, takes no lock, and reads no message.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::failure::classify;
use super::schema::{Tables, exists};
use super::{row, torn, wal};
use crate::error::StoreError;
use crate::files::canonical;
use crate::limits;
use crate::lock::StoreLock;
use crate::look::Look;
use crate::settings::Prefix;

/// Looks at the file.
///
/// # Errors
/// [`StoreError::Missing`] if there is none, or if it is no store; what would keep a broker from starting on it.
pub(crate) fn look_at_file(path: &Path, prefix: &Prefix) -> Result<Look, StoreError> {
    let missing = StoreError::Missing { place: path.display().to_string() };
    let path = canonical(path).ok().filter(|path| path.exists()).ok_or_else(|| missing.clone())?;
    let (tables, place) = (Tables::new(prefix), path.display().to_string());
    let holder = StoreLock::holder(&path);
    // To look is to have SQLite tidy up, and then nobody can tell any more. Whether a broker's journal is whole, the broker knows.
    if holder.is_none()
        && let Ok(Some(loss)) = wal::loss(&path)
    {
        return Err(torn(&path, loss));
    }
    let failed = |error: rusqlite::Error| classify(&place, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
    // A tool has more patience than a broker.
    connection.busy_timeout(4 * limits::STORE_BUSY).map_err(failed)?;
    tables.check_layout(&connection, &place)?;
    if !exists(&connection, &tables.meta).map_err(failed)? {
        return Err(missing);
    }
    let query = format!("SELECT value FROM \"{}\" WHERE name = 'database'", tables.meta);
    let database = connection.query_row(&query, [], |found| Ok(row::text(found.get_ref(0)?))).optional();
    let journal_of = database.map_err(failed)?.flatten();
    Ok(Look { place, holder, journal_of, ..Look::default() })
}

/// Whether this file is the journal of that database. One that can't be read is left to whoever opens it to say so.
pub(crate) fn is_journal_of(path: &Path, prefix: &Prefix, database: &str) -> bool {
    match look_at_file(path, prefix) {
        Ok(found) => found.journal_of.as_deref() == Some(database),
        Err(StoreError::Missing { .. }) => false,
        Err(_) => true,
    }
}
