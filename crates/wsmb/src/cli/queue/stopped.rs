//! Opens the store of a broker that does not run. Refuses, with a sentence, if one runs.

use wsmb_store::{StoppedStore, StoreError, StoreSettings};

use crate::cli::{Failure, build};
use wsmb_config::Config;

/// Opens the configured store.
pub(super) fn open(config: &Config) -> Result<StoppedStore<'static>, Failure> {
    let settings = build::store_settings(config).map_err(Failure::failed)?;
    StoppedStore::open(&settings).map_err(|error| unusable(&error, &settings))
}

/// Why a store can't be used; where a journal has what the database would show, that is said, too.
fn unusable(error: &StoreError, settings: &StoreSettings) -> Failure {
    match &settings.journal {
        Some(journal) if error.is_outage() && wsmb_store::starts_without_database(settings) => Failure::failed(
            format_args!("{error}. What is in its journal can be seen with --store sqlite:{}", journal.path.display()),
        ),
        _ => Failure::failed(error),
    }
}
