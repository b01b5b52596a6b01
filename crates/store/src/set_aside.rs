//! Renames the files of a damaged store, so that a new store can be created and the damaged files can be examined. Never deletes a file.

use std::io;
use std::path::PathBuf;

use super::lock::StoreLock;
use crate::error::StoreError;
use crate::files::{aside_name, beside};
use crate::ids::ids_beside;
use crate::platform::canonical;
use crate::settings::{Location, StoreSettings};

/// The local file of the store that the settings name: the SQLite file, or the journal in front of a database server.
fn local(settings: &StoreSettings) -> Option<PathBuf> {
    match Location::parse(&settings.url).ok()? {
        Location::Sqlite(path) => Some(path),
        Location::Memory => None,
        Location::Server(_) => settings.journal.as_ref().map(|journal| journal.path.clone()),
    }
}

/// Renames the local files of a damaged store: first the files beside the main file, then the main file, so that an interrupted run never leaves an
/// old journal beside a new main file. Returns the new names. No process may have the store open.
///
/// # Errors
/// [`StoreError::Locked`] if a broker has the store open; the reason why a file cannot be renamed; [`StoreError::Missing`] if the store has no local
/// file.
pub fn set_aside(settings: &StoreSettings) -> Result<Vec<PathBuf>, StoreError> {
    let missing = || StoreError::Missing { place: "this store's own files".to_owned() };
    let main = local(settings).and_then(|path| canonical(&path).ok()).ok_or_else(missing)?;
    let _lock = StoreLock::take(&main)?;
    let target = aside_name(&main, "damaged");
    let ends = |ending: &str| (beside(&main, ending), beside(&target, ending));
    let mut moved = Vec::new();
    for (from, to) in [ends("-wal"), ends("-shm"), (ids_beside(&main), ids_beside(&target)), ends("")] {
        match std::fs::rename(&from, &to) {
            Ok(()) => moved.push(to),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::of_io(&from.display().to_string(), "renamed", &error)),
        }
    }
    Ok(moved)
}
