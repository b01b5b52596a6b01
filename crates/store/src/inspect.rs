//! Inspects a store without changing it: for `wsmb check`, and for tools before they open a store.
//!
//! Never creates a file, takes a lock or reads a message. A running broker is not disturbed.

mod report;

pub use report::Inspection;

use crate::error::StoreError;
use crate::settings::{Location, ONLY_THE_BROKER, Prefix, StoreSettings};
use crate::sqlite::inspect::{inspect_file, is_journal_of};

/// Inspects the store that the settings name.
///
/// # Errors
/// [`StoreError::Missing`] if there is no store; any error that would keep a broker from starting on the store; any error that keeps the store from
/// being inspected.
pub fn inspect(settings: &StoreSettings) -> Result<Inspection, StoreError> {
    let prefix = Prefix::parse(&settings.prefix)?;
    match Location::parse(&settings.url)? {
        Location::Sqlite(path) => inspect_file(&path, &prefix),
        Location::Memory => Err(StoreError::BadUrl { reason: ONLY_THE_BROKER.to_owned() }),
        #[cfg(any(feature = "mysql", feature = "postgres"))]
        Location::Server(backend) => {
            let mut seen = crate::sql::inspect(backend, settings, &prefix)?;
            let journal =
                settings.journal.as_ref().filter(|journal| is_journal_of(&journal.path, &prefix, &seen.place));
            if let Some(journal) = journal.filter(|_| seen.holder.is_none()) {
                seen.holder = inspect_file(&journal.path, &prefix)?.holder;
            }
            Ok(seen)
        }
        #[cfg(not(any(feature = "mysql", feature = "postgres")))]
        Location::Server(backend) => Err(StoreError::NotBuilt { backend: backend.name() }),
    }
}

/// Whether the configured journal has been used with this database before: then a broker starts even if the database is unreachable.
#[must_use]
pub fn starts_without_database(settings: &StoreSettings) -> bool {
    let known = || {
        let (journal, prefix) = (settings.journal.as_ref()?, Prefix::parse(&settings.prefix).ok()?);
        let Location::Server(backend) = Location::parse(&settings.url).ok()? else { return None };
        let place = crate::open::server_place(backend, &settings.url, &prefix).ok()?;
        Some(is_journal_of(&journal.path, &prefix, &place))
    };
    known().unwrap_or(false)
}
