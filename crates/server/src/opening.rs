//! Opens the store for a server and reads what it holds; sets a damaged one aside if that is wanted. Blocks.

use std::time::Duration;

use tracing::error;

use super::clock::Clock;
use super::error::ServeError;
use super::registry::SLOT_BITS;
use super::settings::StoreChoice;
use super::{storage, timekeeping};
use wsmb_core::message::{MessageId, Timestamp};
use wsmb_store::{Background, StoreSettings, Summary};

/// A store that is open, the clock that goes by what it remembers, what it holds, and up to which id that may have been delivered more often than it says.
pub(super) type Opened = (Box<dyn Background>, Clock, (Summary, MessageId));

/// Opens the store and reads what it holds. `dedup_window`: how long the id of a publication is remembered.
///
/// # Errors
/// Whatever keeps it from being used. One that is damaged is set aside once, with `--set-aside-damaged`.
pub(super) fn open(choice: &StoreChoice, dedup_window: Duration) -> Result<Opened, ServeError> {
    let settings = &choice.settings;
    match attempt(settings, dedup_window) {
        // A database server's table is nobody's to rename.
        Err(ServeError::Store(cause)) if choice.set_aside_damaged && cause.is_damaged_file() => {
            let files = wsmb_store::set_aside(settings)?;
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            error!(
                "{cause}: SET ASIDE as asked. The broker begins with an empty store; what the old one held is not delivered. Its files are now {}; \
                 save what can be saved with `sqlite3 FILE .recover`, and omit --set-aside-damaged from now on",
                names.join(", ")
            );
            attempt(settings, dedup_window)
        }
        result => result,
    }
}

fn attempt(settings: &StoreSettings, dedup_window: Duration) -> Result<Opened, ServeError> {
    let mut store = wsmb_store::open(settings)?;
    let clock = timekeeping::start(&mut *store)?;
    let summary = store.summary(dedup_start(clock.now(), dedup_window))?;
    let suspect = storage::suspect_up_to(&mut *store, &summary)?;
    Ok((store, clock, (summary, suspect)))
}

/// From when on ids of publications count.
pub(super) fn dedup_start(now: Timestamp, window: Duration) -> Timestamp {
    Timestamp(now.since(Timestamp(0)).saturating_sub(window).as_millis() as u64)
}

/// A number that no earlier run of the broker began with.
pub(super) fn seed(now: Timestamp) -> u64 {
    // Without random numbers the time has to serve: no broker takes a thousand connections a second for as long as it runs.
    getrandom::u64().unwrap_or(now.0 << (SLOT_BITS + 1))
}
