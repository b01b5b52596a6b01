//! The connection to the file: how it is made, when it is given up, and what SQLite's errors mean.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, ffi};

use super::failure::{classify, meaning};
use super::files::Files;
use super::schema::Tables;
use crate::files::beside;
use crate::limits;
use crate::lock::FileLock;
use crate::{Columns, StoreError};

/// Prepared statements kept: every one that recurs.
const STATEMENTS: usize = 32;

/// A connection that heals.
///
/// The order of the fields matters: the connection closes before the lock is released.
#[derive(Debug)]
pub(crate) struct Link {
    path: PathBuf,
    tables: Tables,
    columns: Columns,
    /// `None` after a failure that a connection does not survive.
    connection: Option<Connection>,
    /// The connection can be read, but a new one may be able to write.
    stale: bool,
    /// The lock on the file that is open, or was.
    lock: Option<FileLock>,
    /// Which files are open, to notice that others, or none, have taken their names.
    files: Files,
}

impl Link {
    /// Opens the file, which must be there, and its tables.
    ///
    /// # Errors
    /// See [`super::SqliteStore::open`].
    pub(super) fn open(path: PathBuf, tables: Tables, columns: Columns) -> Result<Self, StoreError> {
        let files = Files::new(&path);
        let mut link = Self { path, tables, columns, connection: None, stale: false, lock: None, files };
        link.connection()?;
        Ok(link)
    }

    /// The file, as an administrator knows it.
    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The connection, made anew if the last failure or a moved file demands it.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        if self.connection.is_some() && self.files.is_moved() {
            // What is in the journal goes into the file that was moved, as far as it can; closing alone would not do it. And it is closed before
            // the next one opens, because SQLite knows the journal by its name only.
            if let Some(connection) = self.connection.take() {
                let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            }
            let detail = "its file was moved, removed or replaced while in use".to_owned();
            return Err(StoreError::Unavailable { place: self.place(), detail });
        }
        if self.stale
            && let Ok(connection) = self.connect()
        {
            self.connection = Some(connection);
            self.stale = false;
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                if self.lock.is_none() || self.files.is_moved() {
                    // That of the file before is released first: the new one may be the same.
                    self.lock = None;
                    self.lock = Some(FileLock::take(&self.path)?);
                    self.files.note();
                }
                let connection = self.connect()?;
                self.files.note();
                self.stale = false;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// After a disk was found full: folds the journal into the file, which has had room for it since [`claim`]. The journal's own place on the
    /// disk then serves anew, so that removals can be written where nothing else can.
    pub(super) fn fold(&self) {
        if let Some(connection) = &self.connection {
            // If a reader is in the way, the next failure comes here again.
            let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
    }

    /// Takes note of a failure: some leave a connection useless.
    pub(super) fn failed(&mut self, error: &StoreError) {
        match error {
            StoreError::Damaged { .. } | StoreError::Unavailable { .. } | StoreError::System { .. } => {
                self.connection = None
            }
            StoreError::ReadOnly { .. } => self.stale = true,
            _ => {}
        }
    }

    /// What an error of the connection means.
    pub(super) fn meaning(&self, error: &rusqlite::Error) -> StoreError {
        meaning(&self.place(), error, self.connection.as_ref().map_or(0, errno))
    }

    /// Notices that the journal, or the file that processes share, was removed or replaced while in use. What it holds is written to the main file, which is as good a
    /// place, before the connection is given up. To be called now and then.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if that has happened; the next call makes everything anew, once everything is safe.
    pub(super) fn look_beside(&mut self) -> Result<(), StoreError> {
        self.files.note_beside();
        let Some(name) = self.files.lost_beside() else { return Ok(()) };
        let Some(connection) = &self.connection else { return Ok(()) };
        let is_saved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        let place = self.place();
        match is_saved {
            Ok(0) => {
                self.files.put_aside_beside();
                self.connection = None;
                let detail = format!(
                    "its file {name} was removed or replaced while in use; what it held is in the main file now"
                );
                Err(StoreError::Unavailable { place, detail })
            }
            // A reader is in the way, or the disk fails: the journal's content must not be let go.
            _ => {
                let detail = format!(
                    "its file {name} was removed or replaced while in use, and what it holds can't be saved yet"
                );
                Err(StoreError::Unavailable { place, detail })
            }
        }
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let place = self.place();
        let failed = |error: rusqlite::Error| classify(&place, &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags).map_err(failed)?;
        connection.busy_timeout(limits::STORE_BUSY).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        self.tables.check_layout(&connection, &place)?;
        configure(&connection).map_err(|error| meaning(&place, &error, errno(&connection)))?;
        let written = write_journal_again(&mut connection, &self.path);
        written
            .map_err(|error| meaning(&place, &error, errno(&connection)))?
            .map_err(|error| StoreError::of_io(&place, "written", &error))?;
        self.tables.prepare(&mut connection, &self.columns, &place)?;
        Ok(connection)
    }
}

/// `auto_vacuum` has an effect on an empty file only, and must come before its first page is written. On any other file it writes a page for nothing, behind whatever
/// the journal holds, before that is safe ([`write_journal_again`]).
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -limits::STORE_CACHE_KIB)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    if connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))? == 0 {
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", limits::STORE_JOURNAL_BYTES)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let mut chunk = limits::STORE_CHUNK_BYTES;
    control(connection, ffi::SQLITE_FCNTL_CHUNK_SIZE, &mut chunk)
}

/// Writes the content of the existing journal to the journal once more, and syncs it. Every new connection does this before it appends or copies anything. The inner error is one of the system.
///
/// The reason: after a sync has failed, Linux keeps the written pages in its cache and marks them as clean, although the disk may not have them. SQLite would append behind such a gap, or copy pages
/// from it into the main file, and the next power cut would lose messages that were accepted since, or leave a damaged file. Pages that are written once more are synced once more. The transaction keeps
/// other processes from writing meanwhile.
fn write_journal_again(connection: &mut Connection, main: &Path) -> rusqlite::Result<io::Result<()>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let written = match OpenOptions::new().read(true).write(true).open(beside(main, "-wal")) {
        Ok(journal) => again(journal),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    transaction.rollback()?;
    Ok(written)
}

fn again(mut journal: File) -> io::Result<()> {
    let mut bytes = vec![0; limits::STORE_COPY_BYTES];
    let mut at = 0;
    loop {
        journal.seek(SeekFrom::Start(at))?;
        let length = journal.read(&mut bytes)?;
        if length == 0 {
            break;
        }
        journal.seek(SeekFrom::Start(at))?;
        journal.write_all(&bytes[..length])?;
        at += length as u64;
    }
    if at > 0 { journal.sync_all() } else { Ok(()) }
}

/// Has the file take the room on the disk that it needs once the running transaction is folded into it. Else the journal could fill the disk
/// with what the file has no room for, and then not even a removal could be written.
pub(super) fn claim(connection: &Connection) -> rusqlite::Result<()> {
    let pragma = |statement| connection.prepare_cached(statement)?.query_row([], |row| row.get::<_, i64>(0));
    let mut bytes = pragma("PRAGMA page_count")? * pragma("PRAGMA page_size")?;
    control(connection, ffi::SQLITE_FCNTL_SIZE_HINT, &mut bytes).map_err(|error| match error.sqlite_error_code() {
        // What SQLite says of any file that can't be made longer, whatever the reason is.
        Some(ErrorCode::SystemIoFailure) if is_full(last_errno(connection)) => {
            rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None)
        }
        _ => error,
    })
}

#[cfg(unix)]
fn is_full(errno: c_int) -> bool {
    errno == libc::ENOSPC || errno == 0
}

#[cfg(not(unix))]
fn is_full(_errno: c_int) -> bool {
    true
}

/// What the system said to the last failure of the main file; 0 if nothing is known.
fn last_errno(connection: &Connection) -> c_int {
    let mut errno: c_int = 0;
    match control(connection, ffi::SQLITE_FCNTL_LAST_ERRNO, &mut errno) {
        Ok(()) => errno,
        Err(_) => 0,
    }
}

/// What the system said to the last failure of the connection; 0 if nothing is known.
fn errno(connection: &Connection) -> c_int {
    match last_errno(connection) {
        // SAFETY: the handle is open as long as `connection` lives; the call only reads a number in it.
        0 => unsafe { ffi::sqlite3_system_errno(connection.handle()) },
        errno => errno,
    }
}

/// Tells SQLite something about the open file. `T` is what `sqlite3_file_control` documents for `wish`.
fn control<T>(connection: &Connection, wish: c_int, value: &mut T) -> rusqlite::Result<()> {
    // SAFETY: the handle is open as long as `connection` lives; SQLite reads or writes one value of the type that belongs to `wish`
    // (`int` for the chunk size and the error number, `sqlite3_int64` for the size hint, as given above) and keeps no pointer to it.
    let code = unsafe {
        ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), wish, std::ptr::from_mut(value).cast())
    };
    match code {
        // A file system of another kind may know nothing of this, and needs nothing of it.
        ffi::SQLITE_OK | ffi::SQLITE_NOTFOUND => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}
