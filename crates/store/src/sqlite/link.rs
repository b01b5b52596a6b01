//! The connection to the file: opens it, closes it after failures, and translates SQLite's errors.

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
use crate::{Columns, StoreError, platform};

/// Prepared statements that are kept: every statement that recurs.
const STATEMENTS: usize = 32;

/// A connection that is reopened after a failure.
///
/// The order of the fields matters: the connection must close before the lock is released.
#[derive(Debug)]
pub(crate) struct Link {
    path: PathBuf,
    tables: Tables,
    columns: Columns,
    /// `None` after a failure that makes a connection unusable.
    connection: Option<Connection>,
    /// The connection can only read; a new connection may be able to write.
    stale: bool,
    /// The lock on the file that is or was open.
    lock: Option<FileLock>,
    /// The open files, to detect that they have been replaced or deleted.
    files: Files,
}

impl Link {
    /// Opens the file, which must exist, and its tables.
    ///
    /// # Errors
    /// See [`super::SqliteStore::open`].
    pub(super) fn open(path: PathBuf, tables: Tables, columns: Columns) -> Result<Self, StoreError> {
        let files = Files::new(&path);
        let mut link = Self { path, tables, columns, connection: None, stale: false, lock: None, files };
        link.connection()?;
        Ok(link)
    }

    /// The path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file, for messages to an administrator.
    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Returns the connection; opens a new one if the last failure or a moved file requires it.
    pub(super) fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        if self.connection.is_some() && self.files.is_moved() {
            // Moves the content of the write-ahead log to the moved file, as far as possible; closing alone would not do that. The connection is
            // closed before the next one opens, because SQLite finds the log by its name only.
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
                    // The old lock is released first: the new file may be the same file.
                    self.lock = None;
                    self.lock = Some(FileLock::take(&self.path)?);
                    self.files.track();
                }
                let connection = self.connect()?;
                self.files.track();
                self.stale = false;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// After a full disk: moves the write-ahead log into the main file, which has reserved space for it ([`reserve_space`]). The log's own disk space
    /// is then used again, so that removals can be written although the disk is full.
    pub(super) fn checkpoint(&self) {
        if let Some(connection) = &self.connection {
            // If a reader blocks the checkpoint, the next failure tries again.
            let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
    }

    /// Handles a failure: some make the connection unusable.
    pub(super) fn failed(&mut self, error: &StoreError) {
        match error {
            StoreError::Damaged { .. } | StoreError::Unavailable { .. } | StoreError::System { .. } => {
                self.connection = None
            }
            StoreError::ReadOnly { .. } => self.stale = true,
            _ => {}
        }
    }

    /// Translates an error of the connection.
    pub(super) fn meaning(&self, error: &rusqlite::Error) -> StoreError {
        meaning(&self.place(), error, self.connection.as_ref().map_or(0, errno))
    }

    /// Detects that the write-ahead log or its index was deleted or replaced while in use. Writes the log's content to the main file before it closes
    /// the connection. To be called at intervals.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if a file was deleted or replaced; the next call opens a new connection, once the content is saved.
    pub(super) fn check_side_files(&mut self) -> Result<(), StoreError> {
        self.files.track_new_side_files();
        let Some(name) = self.files.lost_side_file() else { return Ok(()) };
        let Some(connection) = &self.connection else { return Ok(()) };
        let is_saved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        let place = self.place();
        match is_saved {
            Ok(0) => {
                self.files.rename_foreign_files();
                self.connection = None;
                let detail = format!(
                    "its file {name} was removed or replaced while in use; its content has been saved to the main file"
                );
                Err(StoreError::Unavailable { place, detail })
            }
            // A reader blocks the checkpoint, or the disk fails: the connection must stay open, because only it holds the log's content.
            _ => {
                let detail =
                    format!("its file {name} was removed or replaced while in use, and its content can't be saved yet");
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

/// `auto_vacuum` works on an empty file only, and must be set before its first page is written. On any other file the pragma writes a useless page
/// after the content of the write-ahead log, before that content is safe ([`write_journal_again`]).
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

/// Writes the content of the existing write-ahead log once more, and syncs it. Every new connection does so before it appends or copies pages. The
/// inner error is one of the operating system.
///
/// The reason: after a failed sync, Linux keeps the written pages in its cache and marks them as clean, although the disk may not have them. SQLite
/// would append after such a gap, or copy pages from it to the main file, and the next power cut would lose messages that were accepted since, or
/// damage the file. Pages that are written again are synced again. The transaction keeps other processes from writing meanwhile.
fn write_journal_again(connection: &mut Connection, main: &Path) -> rusqlite::Result<io::Result<()>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let written = match OpenOptions::new().read(true).write(true).open(beside(main, "-wal")) {
        Ok(journal) => rewrite_all(journal),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    transaction.rollback()?;
    Ok(written)
}

fn rewrite_all(mut journal: File) -> io::Result<()> {
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

/// Reserves the disk space that the main file needs once the running transaction is copied to it. Otherwise the write-ahead log could fill the disk
/// with pages for which the main file has no space, and then not even a removal could be written.
pub(super) fn reserve_space(connection: &Connection) -> rusqlite::Result<()> {
    let pragma = |statement| connection.prepare_cached(statement)?.query_row([], |row| row.get::<_, i64>(0));
    let mut bytes = pragma("PRAGMA page_count")? * pragma("PRAGMA page_size")?;
    control(connection, ffi::SQLITE_FCNTL_SIZE_HINT, &mut bytes).map_err(|error| match error.sqlite_error_code() {
        // SQLite returns this code for every failed extension of a file, whatever the cause is.
        Some(ErrorCode::SystemIoFailure) if platform::is_full(last_errno(connection)) => {
            rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None)
        }
        _ => error,
    })
}

/// The operating system's error number for the last failure of the main file; 0 if unknown.
fn last_errno(connection: &Connection) -> c_int {
    let mut errno: c_int = 0;
    match control(connection, ffi::SQLITE_FCNTL_LAST_ERRNO, &mut errno) {
        Ok(()) => errno,
        Err(_) => 0,
    }
}

/// The operating system's error number for the last failure of the connection; 0 if unknown.
fn errno(connection: &Connection) -> c_int {
    match last_errno(connection) {
        // SAFETY: the handle is open as long as `connection` lives; the call only reads a number in it.
        0 => unsafe { ffi::sqlite3_system_errno(connection.handle()) },
        errno => errno,
    }
}

/// Sends a file control to SQLite for the open file. `T` is the type that `sqlite3_file_control` documents for `opcode`.
fn control<T>(connection: &Connection, opcode: c_int, value: &mut T) -> rusqlite::Result<()> {
    // SAFETY: the handle is open as long as `connection` lives; SQLite reads or writes one value of the type that belongs to `opcode` (`int` for the
    // chunk size and the error number, `sqlite3_int64` for the size hint, as given above) and keeps no pointer to it.
    let code = unsafe {
        ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), opcode, std::ptr::from_mut(value).cast())
    };
    match code {
        // Other file systems may not support the control, and do not need it.
        ffi::SQLITE_OK | ffi::SQLITE_NOTFOUND => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
    }
}
