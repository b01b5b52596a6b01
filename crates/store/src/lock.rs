//! One store, one broker: a lock on a file beside the store's own, and one on the store's file itself.
//!
//! The operating system releases both when the process ends, however it ends. SQLite's own locks don't serve here: they are held for the time of a
//! transaction only, or keep everybody from looking. The file beside tells who the holder is, and is there before the store is; but somebody may remove it,
//! or reach the store by a hard link. So the store's file itself is locked, too, by its inode.
//!
//! **Never** open and close the store's file beside SQLite: when a process closes *any* descriptor of a file, it loses the locks of SQLite on it. Whoever wants
//! to know whether a file is locked reads the system's list of locks.

use std::fs::{File, OpenOptions, TryLockError};
#[cfg(target_os = "linux")]
use std::io::ErrorKind;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::StoreError;
use crate::files::beside;
use crate::limits;

/// How long between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the system's list of locks is read for one that is not found. It comes a page at a time, and while others take and release locks, an entry between two pages is left out.
#[cfg(target_os = "linux")]
const LOOKS: usize = 3;

/// The lock, held until dropped.
#[derive(Debug)]
pub(super) struct StoreLock {
    /// Never read: it is the open file that holds the lock.
    _file: File,
}

/// `wsmb.db` is locked by `wsmb.db.lock`.
fn lock_path(store: &Path) -> PathBuf {
    beside(store, ".lock")
}

/// Locks an open file; waits [`limits::STORE_LOCK_WAIT`] for it at the most. False if somebody else has it.
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
    /// Takes the lock of the store at this path; waits [`limits::STORE_LOCK_WAIT`] for it at the most.
    ///
    /// # Errors
    /// [`StoreError::Locked`], or [`StoreError::Unavailable`] if the lock file can't be made.
    pub(super) fn take(store: &Path) -> Result<Self, StoreError> {
        let place = store.display().to_string();
        let beside = lock_path(store).display().to_string();
        let unavailable = |error: std::io::Error| StoreError::of_io(&beside, "opened", &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(lock_path(store)).map_err(unavailable)?;
        if !lock(&file).map_err(unavailable)? {
            let mut text = String::new();
            // Only to name the holder: without it the message is still true.
            let _ = file.read_to_string(&mut text);
            return Err(StoreError::Locked { place, holder: holder(&text) });
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
        // Its file may have been removed under the broker's feet.
        if let Some(process) = FileLock::holder(store) {
            return Some(process);
        }
        let is_held = Self::is_held(store);
        let known = std::fs::read_to_string(lock_path(store)).ok().and_then(|text| holder(&text));
        is_held.then(|| known.unwrap_or_else(|| "a process that did not name itself".to_owned()))
    }
}

/// The lock on the store's file itself, held until dropped; to be dropped behind SQLite's connection. Where the system's locks would be in SQLite's way
/// (elsewhere than on Linux), it locks nothing.
#[derive(Debug)]
pub(super) struct FileLock {
    /// Never read: it is the open file that holds the lock.
    _file: Option<File>,
}

impl FileLock {
    /// Takes the lock of the store's file, made empty if it is not there; waits [`limits::STORE_LOCK_WAIT`] for it at the most. The process must have no connection
    /// of SQLite to it yet.
    ///
    /// # Errors
    /// [`StoreError::Locked`], or why the file can't be opened.
    #[cfg(target_os = "linux")]
    pub(super) fn take(store: &Path) -> Result<Self, StoreError> {
        let place = store.display().to_string();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let both = options.open(store);
        // One that may only be read is SQLite's to refuse, when it is written.
        let file = both.or_else(|error| match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => File::open(store),
            _ => Err(error),
        });
        let file = file.map_err(|error| StoreError::of_io(&place, "opened", &error))?;
        match lock(&file) {
            Ok(true) => Ok(Self { _file: Some(file) }),
            Ok(false) => Err(StoreError::Locked { holder: Self::holder(store), place }),
            // A file system without locks: the file beside has to do.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Self { _file: Some(file) }),
            Err(error) => Err(StoreError::of_io(&place, "locked", &error)),
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unnecessary_wraps)] // It is one function to its callers.
    pub(super) fn take(_store: &Path) -> Result<Self, StoreError> {
        Ok(Self { _file: None })
    }

    /// Who holds the lock of the store's file, as the system's list of locks says; `None` if nobody does, or the list does not say.
    #[cfg(target_os = "linux")]
    fn holder(store: &Path) -> Option<String> {
        use std::os::unix::fs::MetadataExt as _;
        let file = std::fs::metadata(store).ok()?;
        let wanted = format!("{:02x}:{:02x}:{}", libc::major(file.dev()), libc::minor(file.dev()), file.ino());
        (0..LOOKS).find_map(|_| listed(&wanted))
    }

    #[cfg(not(target_os = "linux"))]
    fn holder(_store: &Path) -> Option<String> {
        None
    }
}

/// Who has a `flock` on the file with this number ("08:01:123456"), as the system's list of locks says.
#[cfg(target_os = "linux")]
fn listed(wanted: &str) -> Option<String> {
    let mut list = Vec::with_capacity(64 * 1024);
    File::open("/proc/locks").and_then(|mut locks| locks.read_to_end(&mut list)).ok()?;
    // "1: FLOCK  ADVISORY  WRITE 812 08:01:123456 0 EOF"; one that waits has "->" in the second place.
    let list = String::from_utf8_lossy(&list);
    let mut locks = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let process = locks.find_map(|words| match words[..] {
        [_, "FLOCK", _, "WRITE", process, file, ..] if file == wanted => Some(process.to_owned()),
        _ => None,
    })?;
    // Of a process in another container the list tells nothing.
    Some(if process == "0" { "a process in another container".to_owned() } else { format!("process {process}") })
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
