//! One broker per store: a lock on a file beside the store's file, and a lock on the store's file itself.
//!
//! The operating system releases both locks when the process ends. SQLite's own locks are not enough: SQLite holds them for one transaction only, or
//! they keep every other process from reading. The file beside the store holds the process id of the holder and can be locked before the store
//! exists; but somebody may delete this file, or open the store through a hard link. So the store's file itself is locked too, by its inode.
//!
//! **Never** open and close the store's file while SQLite has it open: when a process closes *any* descriptor of a file, the process loses SQLite's
//! locks on that file. To find out whether a file is locked, read the system's list of locks.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;
use crate::files::{beside, private};
use crate::{limits, platform};

/// Pause between two attempts to lock a file.
const PAUSE: Duration = Duration::from_millis(20);

/// The lock, held until dropped.
#[derive(Debug)]
pub(super) struct StoreLock {
    /// Never read: it is the open file that holds the lock.
    _file: File,
}

/// The path of the lock file: `wsmb.db.lock` for `wsmb.db`.
fn lock_path(store: &Path) -> PathBuf {
    beside(store, ".lock")
}

/// Locks an open file; waits at most [`limits::STORE_LOCK_WAIT`]. False if another process holds the lock.
fn lock(file: &File) -> Result<bool, std::io::Error> {
    let deadline = Instant::now() + limits::STORE_LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

impl StoreLock {
    /// Takes the lock of the store at this path; waits at most [`limits::STORE_LOCK_WAIT`].
    ///
    /// # Errors
    /// [`StoreError::Locked`], or [`StoreError::Unavailable`] if the lock file cannot be created.
    pub(super) fn take(store: &Path) -> Result<Self, StoreError> {
        let place = store.display().to_string();
        let beside = lock_path(store).display().to_string();
        let unavailable = |error: std::io::Error| StoreError::of_io(&beside, "opened", &error);
        let mut file = private().open(lock_path(store)).map_err(unavailable)?;
        if !lock(&file).map_err(unavailable)? {
            let mut text = String::new();
            // The text only names the holder; the error is correct without a name.
            let _ = file.read_to_string(&mut text);
            return Err(StoreError::Locked { place, holder: holder(&text) });
        }
        let note = format!("{}\n", std::process::id());
        // The process id is information for administrators; the lock works without it.
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes()));
        Ok(Self { _file: file })
    }

    /// Whether a process holds the lock of the store at this path.
    pub(super) fn is_held(store: &Path) -> bool {
        File::open(lock_path(store)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The process that holds the lock of the store at this path; `None` if no process does.
    pub(super) fn holder(store: &Path) -> Option<String> {
        // The lock file may have been deleted while the broker runs.
        if let Some(process) = platform::lock_holder(store) {
            return Some(process);
        }
        let is_held = Self::is_held(store);
        let known = std::fs::read_to_string(lock_path(store)).ok().and_then(|text| holder(&text));
        is_held.then(|| known.unwrap_or_else(|| "a process that did not name itself".to_owned()))
    }
}

/// The lock on the store's file itself, held until dropped. Drop it after SQLite's connection. On other systems than Linux, where this lock would
/// conflict with SQLite's locks, it locks nothing.
#[derive(Debug)]
pub(super) struct FileLock {
    /// Never read: it is the open file that holds the lock.
    _file: Option<File>,
}

impl FileLock {
    /// Takes the lock of the store's file; creates an empty file if there is none; waits at most [`limits::STORE_LOCK_WAIT`]. The process must not
    /// have a connection of SQLite to the file yet.
    ///
    /// # Errors
    /// [`StoreError::Locked`], or the reason why the file cannot be opened.
    pub(super) fn take(store: &Path) -> Result<Self, StoreError> {
        if !platform::CAN_LOCK_STORE {
            return Ok(Self { _file: None });
        }
        let place = store.display().to_string();
        // SQLite reports a read-only file when the broker writes to it.
        let file = private().open(store).or_else(|error| match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => File::open(store),
            _ => Err(error),
        });
        let file = file.map_err(|error| StoreError::of_io(&place, "opened", &error))?;
        match lock(&file) {
            Ok(true) => Ok(Self { _file: Some(file) }),
            Ok(false) => Err(StoreError::Locked { holder: platform::lock_holder(store), place }),
            // The file system has no locks: only the lock file beside the store protects it.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Self { _file: Some(file) }),
            Err(error) => Err(StoreError::of_io(&place, "locked", &error)),
        }
    }
}

/// The holder that the text of the lock file names, if the text is a process id.
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

    #[cfg(target_os = "linux")]
    #[test]
    fn the_file_itself_is_locked_by_whatever_name_it_is_reached() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, other) = (directory.path().join("a.db"), directory.path().join("b.db"));
        std::fs::write(&path, "").expect("a file");
        std::fs::hard_link(&path, &other).expect("a link");
        assert_eq!(StoreLock::holder(&other), None);
        let first = FileLock::take(&path).expect("free");
        let me = format!("process {}", std::process::id());
        assert_eq!(StoreLock::holder(&other), Some(me.clone()), "the list of locks tells");
        let error = FileLock::take(&other).expect_err("taken");
        assert_eq!(error, StoreError::Locked { place: other.display().to_string(), holder: Some(me) });
        drop(first);
        FileLock::take(&other).expect("free again");
    }
}
