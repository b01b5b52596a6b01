//! Sets the files of a damaged store aside, under other names, so that a new one can be made and the old one examined. Never deletes anything.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::lock::StoreLock;
use super::{Place, StoreError, StoreSettings, beside, datetime, ids_beside, system};
use wsmb_core::message::Timestamp;

/// A name for a file that is set aside, that no file has yet: `wsmb.db.damaged-20261122T100000Z`.
pub(super) fn name(path: &Path, why: &str) -> PathBuf {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let stamp: String = datetime::to_text(Timestamp(now.as_millis() as u64))
        .chars()
        .map(|character| if character == ' ' { 'T' } else { character })
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let with = |ending: &str| beside(path, &format!(".{why}-{stamp}Z{ending}"));
    let mut numbered = (2..).map(|number| with(&format!("-{number}")));
    let first = with("");
    // Ends: a directory is finite.
    if first.exists() { numbered.find(|name| !name.exists()).unwrap_or(first) } else { first }
}

/// The local file of the store that the settings name: that of SQLite, or the journal in front of a database server.
fn local(settings: &StoreSettings) -> Option<PathBuf> {
    match Place::parse(&settings.url).ok()? {
        Place::Sqlite(path) => Some(path),
        Place::Memory => None,
        Place::Server(_) => settings.journal.as_ref().map(|journal| journal.path.clone()),
    }
}

/// Renames the local files of a store that is damaged: what it keeps beside first, the main file last, so that an interruption leaves no journal to a new main file.
/// Gives the new names. No store must be open on it.
///
/// # Errors
/// [`StoreError::Locked`] if a broker has it; why a file can't be renamed. [`StoreError::Missing`] if the store has no local file.
pub fn set_aside(settings: &StoreSettings) -> Result<Vec<PathBuf>, StoreError> {
    let missing = || StoreError::Missing { place: "this store's own files".to_owned() };
    let main = local(settings).and_then(|path| super::sqlite::settle(&path).ok()).ok_or_else(missing)?;
    let _lock = StoreLock::take(&main)?;
    let aside = name(&main, "damaged");
    let ends = |ending: &str| (beside(&main, ending), beside(&aside, ending));
    let mut moved = Vec::new();
    for (from, to) in [ends("-wal"), ends("-shm"), (ids_beside(&main), ids_beside(&aside)), ends("")] {
        match std::fs::rename(&from, &to) {
            Ok(()) => moved.push(to),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(system::failed(&from.display().to_string(), "renamed", &error)),
        }
    }
    Ok(moved)
}
