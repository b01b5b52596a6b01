//! Opens the store for a server and reads its summary; sets a damaged store aside if the administrator asked for it. Blocks.

use std::time::Duration;

use tracing::error;

use super::clock::Clock;
use super::error::ServeError;
use super::registry::SLOT_BITS;
use super::settings::StoreChoice;
use super::{storage, timekeeping};
use wsmb_core::message::{MessageId, Timestamp};
use wsmb_store::{Background, StoreSettings, Summary};

/// An open store, the clock that was started with its stored time, its summary, and the id of [`storage::suspect_up_to`].
pub(super) type Opened = (Box<dyn Background>, Clock, (Summary, MessageId));

/// Opens the store and reads its summary. `dedup_window`: how long the id of a publication is remembered.
///
/// # Errors
/// The store cannot be opened or read. With `--set-aside-damaged`, a damaged store is set aside, and a second failure is returned.
pub(super) fn open(choice: &StoreChoice, dedup_window: Duration) -> Result<Opened, ServeError> {
    let settings = &choice.settings;
    match attempt(settings, dedup_window) {
        // Only a file is set aside, never the table of a database server.
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

/// The start of the dedup window: older ids of publications are ignored.
pub(super) fn dedup_start(now: Timestamp, window: Duration) -> Timestamp {
    Timestamp(now.since(Timestamp(0)).saturating_sub(window).as_millis() as u64)
}

/// Returns a seed that no earlier run of the broker has used.
pub(super) fn seed(now: Timestamp) -> u64 {
    // Without random numbers the serial numbers start at the time in milliseconds: no broker accepts a thousand connections a second for its whole run.
    getrandom::u64().unwrap_or(now.0 << (SLOT_BITS + 1))
}
