//! Opens the store that a URL names. Knows the kinds of stores, and nothing about how each kind works.

use crate::error::StoreError;
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::journal::{JournaledStore, OfflineStore};
use crate::memory::MemoryStore;
use crate::message_store::{Background, MessageStore};
use crate::settings::{Backend, Location, ONLY_THE_BROKER, Prefix, StoreSettings};
#[cfg(any(feature = "mysql", feature = "postgres"))]
use crate::sql::SqlStore;
use crate::sqlite::SqliteStore;

/// Opens the store that the settings name; creates the store if there is none.
///
/// # Errors
/// [`StoreError`] names the cause and the remedy.
pub fn open(settings: &StoreSettings) -> Result<Box<dyn Background>, StoreError> {
    let prefix = Prefix::parse(&settings.prefix)?;
    match Location::parse(&settings.url)? {
        Location::Sqlite(path) => Ok(Box::new(SqliteStore::open(&path, &prefix, &settings.columns, settings.limit())?)),
        Location::Memory => Ok(Box::new(MemoryStore::new(settings.memory))),
        Location::Server(backend) => open_server(backend, settings, &prefix),
    }
}

/// Opens a store for a tool, exclusively: nothing runs in the background, and the rows of a journal are moved to the database at once, as far as the
/// database can hold them.
///
/// # Errors
/// As [`open`]; a `memory:` store is visible to the broker only.
pub(crate) fn open_for_tool(settings: &StoreSettings) -> Result<Box<dyn MessageStore>, StoreError> {
    match Location::parse(&settings.url)? {
        Location::Memory => Err(StoreError::BadUrl { reason: ONLY_THE_BROKER.to_owned() }),
        Location::Sqlite(_) => Ok(open(settings)?),
        Location::Server(backend) => open_server_for_tool(backend, settings),
    }
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
fn open_server_for_tool(backend: Backend, settings: &StoreSettings) -> Result<Box<dyn MessageStore>, StoreError> {
    let prefix = Prefix::parse(&settings.prefix)?;
    let place = server_place(backend, &settings.url, &prefix)?;
    let server = open(&StoreSettings { journal: None, ..settings.clone() })?;
    OfflineStore::open(server, settings.journal.as_ref(), &prefix, &place)
}

#[cfg(not(any(feature = "mysql", feature = "postgres")))]
fn open_server_for_tool(backend: Backend, _settings: &StoreSettings) -> Result<Box<dyn MessageStore>, StoreError> {
    Err(StoreError::NotBuilt { backend: backend.name() })
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
fn open_server(backend: Backend, settings: &StoreSettings, prefix: &Prefix) -> Result<Box<dyn Background>, StoreError> {
    let StoreSettings { url, password, columns, .. } = settings.clone();
    let place = server_place(backend, &url, prefix)?;
    let prefix_of_tables = prefix.clone();
    let open = move || -> Result<Box<dyn Background>, StoreError> {
        Ok(Box::new(SqlStore::open(backend, &url, password.as_deref(), &prefix_of_tables, &columns)?))
    };
    match &settings.journal {
        None => open(),
        Some(journal) => Ok(Box::new(JournaledStore::open(journal, prefix, &place, Box::new(open))?)),
    }
}

/// The address of the database that a URL names, without secrets, for messages to an administrator.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) fn server_place(backend: Backend, url: &str, prefix: &Prefix) -> Result<String, StoreError> {
    SqlStore::place(backend, url, prefix)
}

#[cfg(not(any(feature = "mysql", feature = "postgres")))]
fn open_server(
    backend: Backend,
    _settings: &StoreSettings,
    _prefix: &Prefix,
) -> Result<Box<dyn Background>, StoreError> {
    Err(StoreError::NotBuilt { backend: backend.name() })
}

#[cfg(not(any(feature = "mysql", feature = "postgres")))]
pub(crate) fn server_place(backend: Backend, _url: &str, _prefix: &Prefix) -> Result<String, StoreError> {
    Err(StoreError::NotBuilt { backend: backend.name() })
}
