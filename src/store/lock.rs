//! One store, one broker: a lock on a file beside the store's own.
//!
//! The operating system releases it when the process ends, however it ends; the file stays and means nothing by itself. SQLite's own locks don't
//! serve here: they are held for the time of a transaction only.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;
use crate::limits;

/// How long between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, held until dropped.
#[derive(Debug)]
pub(super) struct StoreLock {
    /// Never read: it is the open file that holds the lock.
    _file: File,
}

/// `wsmb.db` is locked by `wsmb.db.lock`.
fn lock_path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

impl StoreLock {
    /// Takes the lock of the store at this path; waits [`limits::STORE_LOCK_WAIT`] for it at the most.
    ///
    /// # Errors
    /// [`StoreError::Locked`], or [`StoreError::Unavailable`] if the lock file can't be made.
    pub(super) fn take(store: &Path) -> Result<Self, StoreError> {
        let place = store.display().to_string();
        let unavailable = |error: std::io::Error| StoreError::Unavailable {
            place: place.clone(),
            detail: format!("its lock file {}: {error}", lock_path(store).display()),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(lock_path(store)).map_err(unavailable)?;
        let deadline = Instant::now() + limits::STORE_LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    // Only to name the holder: without it the message is still true.
                    let _ = file.read_to_string(&mut text);
                    return Err(StoreError::Locked { place, holder: holder(&text) });
                }
                Err(TryLockError::Error(error)) => return Err(unavailable(error)),
            }
        }
        let note = format!("{}\n", std::process::id());
        // The number is there for people; a lock without it is as good.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes()));
        Ok(Self { _file: file })
    }

    /// Whether somebody holds the lock of the store at this path.
    pub(super) fn is_held(store: &Path) -> bool {
        File::open(lock_path(store)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Who holds the lock of the store at this path, as far as it can be found out; `None` if nobody does.
    pub(super) fn holder(store: &Path) -> Option<String> {
        let is_held = Self::is_held(store);
        let known = std::fs::read_to_string(lock_path(store)).ok().and_then(|text| holder(&text));
        is_held.then(|| known.unwrap_or_else(|| "a process that did not name itself".to_owned()))
    }
}

/// What the lock file says, if that is a process id.
fn holder(text: &str) -> Option<String> {
    text.trim().parse::<u32>().ok().map(|process| format!("process {process}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.db");
        assert!(!StoreLock::is_held(&path));
        let first = StoreLock::take(&path).expect("free");
        assert!(StoreLock::is_held(&path));
        assert_eq!(StoreLock::holder(&path), Some(format!("process {}", std::process::id())));
        let error = StoreLock::take(&path).expect_err("taken");
        assert!(matches!(error, StoreError::Locked { .. }));
        #[cfg(unix)]
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        assert!(!StoreLock::is_held(&path));
        assert_eq!(StoreLock::holder(&path), None);
        StoreLock::take(&path).expect("free again");
    }
}
