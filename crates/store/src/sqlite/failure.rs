//! Translates SQLite's errors, by the extended code and by the error number of the operating system.

use rusqlite::ffi;

use crate::{StoreError, platform};

/// The failed operation of SQLite, as a participle that follows "could not be".
fn doing(extended: i32) -> &'static str {
    match extended {
        ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_MMAP => "read",
        ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_TRUNCATE | ffi::SQLITE_IOERR_SEEK => "written",
        ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => "made durable (fsync)",
        ffi::SQLITE_IOERR_LOCK
        | ffi::SQLITE_IOERR_RDLOCK
        | ffi::SQLITE_IOERR_UNLOCK
        | ffi::SQLITE_IOERR_CHECKRESERVEDLOCK => "locked",
        ffi::SQLITE_IOERR_SHMOPEN
        | ffi::SQLITE_IOERR_SHMSIZE
        | ffi::SQLITE_IOERR_SHMLOCK
        | ffi::SQLITE_IOERR_SHMMAP => "shared with other processes (its -shm file)",
        ffi::SQLITE_IOERR_DELETE | ffi::SQLITE_IOERR_DELETE_NOENT => "removed (its -wal and -shm files)",
        _ if extended & 0xff == ffi::SQLITE_CANTOPEN => "opened",
        _ => "used",
    }
}

/// Translates an error; `errno` is the error number of the operating system, 0 if unknown.
pub(crate) fn meaning(place: &str, error: &rusqlite::Error, errno: i32) -> StoreError {
    let place = place.to_owned();
    let detail = error.to_string();
    let Some(extended) = error.sqlite_error().map(|error| error.extended_code) else {
        return StoreError::Unavailable { place, detail };
    };
    match (extended & 0xff, extended) {
        (ffi::SQLITE_FULL, _) => StoreError::Full { place },
        (ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED, _) => StoreError::Busy { place },
        (ffi::SQLITE_READONLY, ffi::SQLITE_READONLY_DBMOVED) => {
            StoreError::Unavailable { place, detail: "its file was moved, removed or replaced while in use".to_owned() }
        }
        (ffi::SQLITE_READONLY, _) => StoreError::ReadOnly { place },
        (ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB, _) | (_, ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA) => {
            StoreError::Damaged { place, detail }
        }
        (ffi::SQLITE_NOMEM, _) | (_, ffi::SQLITE_IOERR_NOMEM) => {
            StoreError::of_errno(&place, "used", platform::OUT_OF_MEMORY)
        }
        (ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN, _) if errno != 0 => {
            StoreError::of_errno(&place, doing(extended), errno)
        }
        (ffi::SQLITE_IOERR | ffi::SQLITE_CANTOPEN, _) => {
            let detail = format!("it could not be {}: {detail}, code {extended}", doing(extended));
            StoreError::Unavailable { place, detail }
        }
        _ => StoreError::Unavailable { place, detail },
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn translated(extended: i32, errno: i32) -> StoreError {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(extended), None);
        meaning("a.db", &error, errno)
    }

    #[test]
    fn every_code_is_told_by_what_helps() {
        for (extended, errno, wanted) in [
            (ffi::SQLITE_IOERR_WRITE, libc::EIO, ["could not be written", "EIO", "dmesg"]),
            (ffi::SQLITE_IOERR_FSYNC, libc::EIO, ["fsync", "EIO", "replace the card"]),
            (ffi::SQLITE_IOERR_READ, libc::EIO, ["could not be read", "EIO", "copy"]),
            (ffi::SQLITE_IOERR_WRITE, libc::EDQUOT, ["EDQUOT", "quota", "raise"]),
            (ffi::SQLITE_IOERR_WRITE, libc::EFBIG, ["EFBIG", "may not grow", "ulimit -f"]),
            (ffi::SQLITE_CANTOPEN, libc::EMFILE, ["could not be opened", "EMFILE", "LimitNOFILE"]),
            (ffi::SQLITE_CANTOPEN_FULLPATH, libc::EACCES, ["could not be opened", "EACCES", "chown"]),
            (ffi::SQLITE_IOERR_SHMOPEN, libc::EROFS, ["-shm", "EROFS", "read-only"]),
            (ffi::SQLITE_IOERR_LOCK, 0, ["could not be locked", "3850", "a.db"]),
            (ffi::SQLITE_NOMEM, 0, ["ENOMEM", "memory", "a.db"]),
            (ffi::SQLITE_CORRUPT_INDEX, 0, ["damaged", "a.db", "--set-aside-damaged"]),
            (ffi::SQLITE_NOTADB, 0, ["damaged", "a.db", "--set-aside-damaged"]),
            (ffi::SQLITE_IOERR_CORRUPTFS, libc::EIO, ["damaged", "a.db", "--set-aside-damaged"]),
            (ffi::SQLITE_FULL, libc::ENOSPC, ["full", "free space", "a.db"]),
            (ffi::SQLITE_READONLY_DIRECTORY, 0, ["can't be written", "a.db", "writable"]),
            (ffi::SQLITE_READONLY_DBMOVED, 0, ["moved", "a.db", "in use"]),
            (ffi::SQLITE_BUSY_SNAPSHOT, 0, ["locked", "a.db", "wait"]),
        ] {
            let said = translated(extended, errno).to_string();
            assert!(wanted.iter().all(|part| said.contains(part)), "{extended}: {said}");
        }
    }

    #[test]
    fn a_dying_disk_is_not_called_full() {
        assert!(!translated(ffi::SQLITE_IOERR_WRITE, libc::EIO).is_out_of_room());
        assert!(translated(ffi::SQLITE_FULL, libc::ENOSPC).is_out_of_room());
    }
}
/// Translates an error of SQLite without the error number of the operating system.
pub(crate) fn classify(place: &str, error: &rusqlite::Error) -> StoreError {
    meaning(place, error, 0)
}
