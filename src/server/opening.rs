//! Opens the store for a server and reads what it holds; sets a damaged one aside if that is wanted. Blocks.

use std::time::Duration;

use tracing::error;

use super::clock::Clock;
use super::error::ServeError;
use super::{storage, timekeeping};
use crate::config::Config;
use crate::message::{MessageId, Timestamp};
use crate::store::{self, Columns, JournalSettings, MessageStore, StoreSettings, Summary};

/// A store that is open, the clock that goes by what it remembers, what it holds, and up to which id that may have been delivered more often than it says.
pub(super) type Opened = (Box<dyn MessageStore>, Clock, (Summary, MessageId));

/// Opens the store and reads what it holds.
///
/// # Errors
/// Whatever keeps it from being used. One that is damaged is set aside once, with `--set-aside-damaged`.
pub(super) fn open(config: &Config) -> Result<Opened, ServeError> {
    let settings = store_settings(config)?;
    match attempt(config, &settings) {
        // A database server's table is nobody's to rename.
        Err(ServeError::Store(cause)) if config.store.set_aside_damaged && cause.is_damaged_file() => {
            let files = store::set_aside(&settings)?;
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            error!(
                "{cause}: SET ASIDE as asked. The broker begins with an empty store; what the old one held is not delivered. Its files are now {}; \
                 save what can be saved with `sqlite3 FILE .recover`, and omit --set-aside-damaged from now on",
                names.join(", ")
            );
            attempt(config, &settings)
        }
        result => result,
    }
}

fn attempt(config: &Config, settings: &StoreSettings) -> Result<Opened, ServeError> {
    let mut store = store::open(settings)?;
    let clock = timekeeping::start(&mut *store)?;
    let summary = store.summary(dedup_start(clock.now(), config.server.dedup_window))?;
    let suspect = storage::suspect_up_to(&mut *store, &summary)?;
    Ok((store, clock, (summary, suspect)))
}

/// From when on ids of publications count.
pub(super) fn dedup_start(now: Timestamp, window: Duration) -> Timestamp {
    Timestamp(now.since(Timestamp(0)).saturating_sub(window).as_millis() as u64)
}

/// How the store of this configuration is opened. Blocks: the password may be in a file.
///
/// # Errors
/// [`ServeError::Column`] and [`ServeError::Password`].
pub fn store_settings(config: &Config) -> Result<StoreSettings, ServeError> {
    let store = &config.store;
    let columns = store.columns.iter().map(|(column, pointer)| (column.as_str(), pointer.as_str()));
    let journal = store.journal.as_ref().filter(|_| store.url.server().is_some());
    Ok(StoreSettings {
        url: store.url.with_secrets().to_owned(),
        password: store.read_password().map_err(ServeError::Password)?,
        prefix: store.prefix.clone(),
        columns: Columns::parse(columns).map_err(ServeError::Column)?,
        journal: journal.map(|path| JournalSettings { path: path.clone(), bytes: store.journal_max }),
        ..StoreSettings::default()
    })
}
