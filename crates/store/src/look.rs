//! A look at a store from outside, for whoever must change nothing: `wsmb check`, and tools before they open a store.
//!
//! Makes no file, takes no lock, and reads no message. A running broker does not notice it.

mod report;

pub use report::Look;

use crate::error::StoreError;
use crate::settings::{Location, ONLY_THE_BROKER, Prefix, StoreSettings};
use crate::sqlite::look::{is_journal_of, look_at_file};

/// Looks at the store that the settings name.
///
/// # Errors
/// [`StoreError::Missing`] if there is none; what would keep a broker from starting on it; whatever keeps it from being seen.
pub fn look(settings: &StoreSettings) -> Result<Look, StoreError> {
    let prefix = Prefix::parse(&settings.prefix)?;
    match Location::parse(&settings.url)? {
        Location::Sqlite(path) => look_at_file(&path, &prefix),
        Location::Memory => Err(StoreError::BadUrl { reason: ONLY_THE_BROKER.to_owned() }),
        #[cfg(any(feature = "mysql", feature = "postgres"))]
        Location::Server(backend) => {
            let mut seen = crate::sql::look(backend, settings, &prefix)?;
            let journal =
                settings.journal.as_ref().filter(|journal| is_journal_of(&journal.path, &prefix, &seen.place));
            if let Some(journal) = journal.filter(|_| seen.holder.is_none()) {
                seen.holder = look_at_file(&journal.path, &prefix)?.holder;
            }
            Ok(seen)
        }
        #[cfg(not(any(feature = "mysql", feature = "postgres")))]
        Location::Server(backend) => Err(StoreError::NotBuilt { backend: backend.name() }),
    }
}

/// Whether the configured journal has stood in front of this database before: then a broker starts even while the database is away.
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
