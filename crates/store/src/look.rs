//! A look at a store from outside, for whoever must change nothing: `wsmb check`, and tools before they open a store.
//!
//! Makes no file, takes no lock, and reads no message. A running broker does not notice it.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::lock::StoreLock;
use super::sqlite::{Tables, classify, exists, row, settle, torn, wal};
use super::{ONLY_THE_BROKER, Place, Prefix, StoreError, StoreSettings};
use crate::limits;

/// What is known of a store without opening it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The store, as an administrator knows it.
    pub place: String,
    /// Which broker runs on it, as far as it can be found out; `None` if none does.
    pub holder: Option<String>,
    /// What the store does not keep, in sentences, the last of which says what would help; empty if it keeps everything.
    pub lacks: Vec<String>,
    /// The tables beside that of the messages that the next start of a broker makes.
    pub missing: Vec<String>,
    /// The store is a journal, and this is the database that it stands in front of.
    pub journal_of: Option<String>,
}

/// Looks at the store that the settings name.
///
/// # Errors
/// [`StoreError::Missing`] if there is none; what would keep a broker from starting on it; whatever keeps it from being seen.
pub fn look(settings: &StoreSettings) -> Result<Look, StoreError> {
    let prefix = Prefix::parse(&settings.prefix)?;
    match Place::parse(&settings.url)? {
        Place::Sqlite(path) => look_at_file(&path, &prefix),
        Place::Memory => Err(StoreError::BadUrl { reason: ONLY_THE_BROKER.to_owned() }),
        #[cfg(any(feature = "mysql", feature = "postgres"))]
        Place::Server(backend) => {
            let mut seen = super::sql::look(backend, settings, &prefix)?;
            let journal =
                settings.journal.as_ref().filter(|journal| is_journal_of(&journal.path, &prefix, &seen.place));
            if let Some(journal) = journal.filter(|_| seen.holder.is_none()) {
                seen.holder = look_at_file(&journal.path, &prefix)?.holder;
            }
            Ok(seen)
        }
        #[cfg(not(any(feature = "mysql", feature = "postgres")))]
        Place::Server(backend) => Err(StoreError::NotBuilt { backend: backend.name() }),
    }
}

fn look_at_file(path: &Path, prefix: &Prefix) -> Result<Look, StoreError> {
    let missing = StoreError::Missing { place: path.display().to_string() };
    let path = settle(path).ok().filter(|path| path.exists()).ok_or_else(|| missing.clone())?;
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

/// Whether the configured journal has stood in front of this database before: then a broker starts even while the database is away.
#[must_use]
pub fn starts_without_database(settings: &StoreSettings) -> bool {
    let known = || {
        let (journal, prefix) = (settings.journal.as_ref()?, Prefix::parse(&settings.prefix).ok()?);
        let Place::Server(backend) = Place::parse(&settings.url).ok()? else { return None };
        let place = super::server_place(backend, &settings.url, &prefix).ok()?;
        Some(is_journal_of(&journal.path, &prefix, &place))
    };
    known().unwrap_or(false)
}

/// Whether this file is the journal of that database. One that can't be read is left to whoever opens it to say so.
pub(super) fn is_journal_of(path: &Path, prefix: &Prefix, database: &str) -> bool {
    match look_at_file(path, prefix) {
        Ok(found) => found.journal_of.as_deref() == Some(database),
        Err(StoreError::Missing { .. }) => false,
        Err(_) => true,
    }
}
