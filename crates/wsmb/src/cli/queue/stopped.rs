//! Opens the store of a stopped broker. Never opens the store of a running broker: returns a failure instead.

use wsmb_store::{StoppedStore, StoreError, StoreSettings};

use crate::cli::{Failure, build};
use wsmb_config::Config;

/// Opens the configured store. Fails if a broker uses it.
pub(super) fn open(config: &Config) -> Result<StoppedStore<'static>, Failure> {
    let settings = build::store_settings(config).map_err(Failure::failed)?;
    StoppedStore::open(&settings).map_err(|error| open_failure(&error, &settings))
}

/// Returns the failure for a store that cannot be opened. If the broker could start with its journal alone, the message names the journal.
fn open_failure(error: &StoreError, settings: &StoreSettings) -> Failure {
    match &settings.journal {
        Some(journal) if error.is_outage() && wsmb_store::starts_without_database(settings) => Failure::failed(
            format_args!("{error}; to see the messages in its journal, add --store sqlite:{}", journal.path.display()),
        ),
        _ => Failure::failed(error),
    }
}
