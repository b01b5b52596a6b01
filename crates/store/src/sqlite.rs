//! The default store: one SQLite file in WAL mode; every commit is durable before it is reported (`synchronous = FULL`).
//!
//! An unusable connection (file damaged, moved, or gone) is closed, and the next call opens a new one, so the store recovers when the cause is gone.
//! Two brokers never share a file ([`super::lock`]); other processes may read the file.

mod failure;
mod files;
pub(super) mod inspect;
mod link;
mod restamp;
mod room;
pub(super) mod row;
mod schema;
mod summary;
mod sweep;
pub(super) mod wal;
mod write;

pub(super) use link::Link;
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) use restamp::restamp;
pub(super) use row::Sql;
pub(super) use schema::Tables;
pub(super) use write::append;

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Rows, Transaction, TransactionBehavior, params};

use super::lock::StoreLock;
use super::{Background, Columns, Group, MessageStore, Page, Prefix, Restamp, StoreError, Summary, Swept};
use crate::files::{aside_name, beside, private};
use crate::limits;
use crate::page::PageBuilder;
use crate::platform::{self, canonical, sync_directory};
use crate::settings::SizeLimit;
use room::Room;
use write::remove;
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// A store in one file.
///
/// The order of the fields matters: the connection must close before the lock is released.
#[derive(Debug)]
pub struct SqliteStore {
    link: Link,
    sql: Sql,
    columns: Columns,
    /// Whether the previous broker stopped in an orderly way, according to the file.
    was_clean: bool,
    /// The last failure was a full disk: the next check must write a large row.
    was_full: bool,
    room: Room,
    /// Where the next sweep continues.
    swept_to: sweep::SweptTo,
    _lock: StoreLock,
}

impl SqliteStore {
    /// Opens the file, or creates it (mode 0600) and its directory (0700); creates or completes the tables; clears the mark of a clean stop.
    ///
    /// # Errors
    /// [`StoreError`]: locked by another broker, newer layout, no message table, damaged, no rights.
    pub(crate) fn open(path: &Path, prefix: &Prefix, columns: &Columns, limit: SizeLimit) -> Result<Self, StoreError> {
        Self::open_tables(path, Tables::new(prefix), columns, limit)
    }

    /// As [`Self::open`], with other tables.
    pub(super) fn open_tables(
        path: &Path,
        tables: Tables,
        columns: &Columns,
        limit: SizeLimit,
    ) -> Result<Self, StoreError> {
        let path = create(path)?;
        let lock = StoreLock::take(&path)?;
        let is_damaged = report_lost_pages(&path);
        let sql = Sql::new(&tables, columns);
        let link = Link::open(path, tables, columns.clone())?;
        let mut store = Self {
            link,
            sql,
            columns: columns.clone(),
            was_clean: false,
            was_full: false,
            room: Room::new(limit),
            swept_to: None,
            _lock: lock,
        };
        store.was_clean = store.run(|connection, sql, _| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let clean: Option<i64> = transaction.query_row(&sql.read_clean, [], |row| row.get(0)).optional()?;
            transaction.execute(&sql.write_clean, [0])?;
            transaction.commit()?;
            Ok(clean.unwrap_or(1) == 1 && !is_damaged)
        })?;
        Ok(store)
    }

    /// The path of the file, for messages to an administrator.
    pub(super) fn place(&self) -> String {
        self.link.place()
    }

    /// Runs `work` on the connection, which is opened if necessary, and translates errors.
    pub(super) fn run<T>(
        &mut self,
        work: impl FnOnce(&mut Connection, &Sql, &Columns) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let result = work(self.link.connection()?, &self.sql, &self.columns);
        result.map_err(|error| {
            let error = self.link.meaning(&error);
            if error.is_out_of_room() {
                self.was_full = true;
                self.link.checkpoint();
            }
            self.link.failed(&error);
            error
        })
    }

    /// Checks that new rows may be written that take `more` bytes.
    ///
    /// # Errors
    /// [`StoreError::OverBudget`] or [`StoreError::LowDisk`] if there is no room; any error that keeps the file from being read.
    pub(crate) fn check_room(&mut self, more: usize) -> Result<(), StoreError> {
        let Some(most) = self.limit_of_rows()? else { return Ok(()) };
        let used = self.run(|connection, _, _| room::used_bytes(connection))?;
        if used + more as u64 > most { Err(StoreError::OverBudget { place: self.place() }) } else { Ok(()) }
    }

    /// Returns the most bytes of the pages in use; `None` if only the disk limits them.
    ///
    /// # Errors
    /// [`StoreError::LowDisk`] if the disk has too little space; any error that keeps the file from being read.
    fn limit_of_rows(&mut self) -> Result<Option<u64>, StoreError> {
        if let Some(space) = self.room.scarce_space(self.link.path()) {
            let unused = self.run(|connection, _, _| room::unused_bytes(connection))?;
            if space.is_low(unused) {
                return Err(StoreError::LowDisk { place: self.place(), free: space.free });
            }
            if space.is_too_small_for_a_log() {
                // The free pages are of use only while the write-ahead log does not grow.
                self.link.checkpoint();
            }
        }
        Ok(self.room.most_bytes())
    }

    /// Sweeps; runs `also` in the same transaction.
    ///
    /// # Errors
    /// No row has been removed.
    pub(crate) fn sweep_with(
        &mut self,
        now: Timestamp,
        limit: usize,
        spare: &Spare,
        also: impl FnOnce(&Transaction<'_>, &Swept) -> rusqlite::Result<()>,
    ) -> Result<Swept, StoreError> {
        let from = self.swept_to;
        let (swept, to) = self.run(|connection, sql, _| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let found = sweep::sweep(&transaction, sql, (now, limit), spare, from)?;
            also(&transaction, &found.0)?;
            transaction.commit()?;
            Ok(found)
        })?;
        self.swept_to = to;
        Ok(swept)
    }
}

impl MessageStore for SqliteStore {
    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        let limit = if group.appends.is_empty() { None } else { self.limit_of_rows()? };
        let fits = self.run(|connection, sql, columns| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let before = limit.map(|_| room::used_bytes(&transaction)).transpose()?;
            append(&transaction, sql, columns, &group.appends)?;
            remove(&transaction, sql, &group.removals)?;
            if !group.deliveries.is_empty() {
                let mut count = transaction.prepare_cached(&sql.deliveries)?;
                for (id, deliveries) in &group.deliveries {
                    count.execute(params![row::integer(id.0), deliveries])?;
                }
            }
            for (name, value) in &group.marks {
                transaction.prepare_cached(&sql.write_mark)?.execute(params![name, row::integer(*value)])?;
            }
            if let Some((most, before)) = limit.zip(before) {
                let after = room::used_bytes(&transaction)?;
                // A group that makes room is accepted even if the store stays above its limit.
                if after > most && after > before {
                    return Ok(false);
                }
            }
            transaction.commit()?;
            Ok(true)
        })?;
        if !fits {
            return Err(StoreError::OverBudget { place: self.place() });
        }
        self.was_full = false;
        Ok(())
    }

    fn load(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        self.run(|connection, sql, _| {
            let mut statement = connection.prepare_cached(&sql.load)?;
            // One row more than requested shows whether there are more rows; this row is not decoded.
            let wanted = row::integer(limit as u64).saturating_add(1);
            let rows = statement.query(params![channel.as_str(), row::integer(after.0), wanted])?;
            page(rows, limit, max_bytes)
        })
    }

    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError> {
        self.run(|connection, sql, _| {
            let mut statement = connection.prepare_cached(&sql.scan)?;
            // The statement has no limit: rows that are not messages do not count, and SQLite does not read rows that are not requested.
            let rows = statement.query([row::integer(after.0)])?;
            page(rows, limit, max_bytes)
        })
    }

    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError> {
        self.run(|connection, sql, _| {
            let value: Option<i64> =
                connection.prepare_cached(&sql.read_mark)?.query_row([name], |row| row.get(0)).optional()?;
            Ok(value.map(i64::unsigned_abs))
        })
    }

    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        self.run(|connection, sql, _| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let parameters = params![channel.as_str(), row::integer(up_to.0), row::integer(limit as u64)];
            let gone = transaction.prepare_cached(&sql.purge)?.execute(parameters)?;
            transaction.commit()?;
            Ok(gone as u64)
        })
    }

    fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        let clean = self.was_clean;
        let (summary, foreign) = self.run(|connection, sql, _| {
            let (channels, foreign) = summary::channels(connection, sql)?;
            let delayed = summary::delayed(connection, sql)?;
            let publications = summary::publications(connection, sql, publications_since)?;
            let last_id = summary::last_id(connection, sql)?;
            let expiries = restamp::expiries(connection, sql)?;
            Ok((Summary { channels, expiries, delayed, publications, last_id, clean }, foreign))
        })?;
        if foreign > 0 {
            let (table, place) = (&self.link.tables().data, self.link.place());
            tracing::warn!(
                "{foreign} rows of {table} in {place} have no channel, or an invalid channel name; they are ignored"
            );
        }
        Ok(summary)
    }

    fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.run(|connection, sql, _| {
            connection.execute(&sql.write_clean, [1])?;
            // Leaves a single file. If a reader holds the write-ahead log, the log stays, and no data is lost.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })
    }
}

impl Background for SqliteStore {
    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        self.sweep_with(now, limit, spare, |_, _| Ok(()))
    }

    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        self.run(|connection, sql, _| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            restamp::restamp(&transaction, sql, restamp)?;
            transaction.commit()
        })
    }

    fn clamp_future_rows(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        self.run(|connection, sql, _| restamp::clamp_future_rows(connection, sql, now, up_to))
    }

    fn check(&mut self) -> Result<(), StoreError> {
        // A full disk may still have room for a page in the existing file.
        let size = if self.was_full { limits::STORE_PROBE_BYTES } else { 0 };
        self.run(|connection, sql, _| {
            connection.execute(&sql.write_probe, [row::integer(size as u64)])?;
            if size > 0 {
                connection.execute(&sql.write_probe, [0])?;
            }
            Ok(())
        })?;
        self.was_full = false;
        self.check_room(limits::STORE_PROBE_BYTES)
    }

    fn maintain(&mut self) -> Result<(), StoreError> {
        self.link.check_side_files()?;
        self.run(|connection, _, _| vacuum(connection))
    }
}

/// Logs an error if the write-ahead log that the previous process left has lost committed pages, and keeps a copy of the log. True if pages were
/// lost.
fn report_lost_pages(path: &Path) -> bool {
    let place = path.display();
    let loss = match wal::loss(path) {
        Ok(None) => return false,
        Ok(Some(loss)) => loss,
        Err(error) => {
            tracing::warn!("the journal of the store {place} can't be checked for lost pages ({error})");
            return false;
        }
    };
    let journal = beside(path, "-wal");
    let copy = aside_name(&journal, "damaged");
    let kept = match std::fs::copy(&journal, &copy) {
        Ok(_) => format!("a copy of the journal is kept as {}", copy.display()),
        Err(error) => format!("no copy of the journal could be made ({error})"),
    };
    tracing::error!("{}; {kept}", torn_journal(path, loss));
    true
}

/// The error for a damaged write-ahead log.
pub(super) fn torn_journal(path: &Path, loss: wal::Loss) -> StoreError {
    StoreError::TornJournal { place: path.display().to_string(), readable: loss.readable, committed: loss.committed }
}

/// Collects messages up to the bounds of a page.
fn page(mut rows: Rows<'_>, limit: usize, max_bytes: usize) -> rusqlite::Result<Page> {
    let mut page = PageBuilder::new(limit, max_bytes);
    while let Some(found) = rows.next()? {
        if page.is_full() {
            return Ok(page.finish(false));
        }
        if let Some(message) = row::message(found)? {
            page.push(message);
        }
    }
    Ok(page.finish(true))
}

/// Creates the file and its directory if they are missing; returns the canonical path, by which every broker locks the file.
fn create(path: &Path) -> Result<PathBuf, StoreError> {
    let unavailable = |error: std::io::Error| StoreError::of_io(&path.display().to_string(), "made", &error);
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        make_directory(directory).map_err(unavailable)?;
    }
    if !path.exists() {
        private().open(path).map_err(unavailable)?;
        sync_directory(path);
    }
    canonical(path).map_err(unavailable)
}

/// Creates a directory and its missing parents, durably.
fn make_directory(directory: &Path) -> std::io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = directory.ancestors().take_while(is_missing).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    platform::make_directories_private(&mut builder);
    builder.create(directory)?;
    missing.into_iter().for_each(sync_directory);
    Ok(())
}

/// Returns free pages of an emptied backlog to the file system, a bounded number at a time.
fn vacuum(connection: &Connection) -> rusqlite::Result<()> {
    let free: i64 = connection.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    let spare = (free - limits::STORE_SPARE_PAGES).min(limits::STORE_VACUUM_PAGES);
    if spare <= 0 {
        return Ok(());
    }
    // Each step frees one page.
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({spare})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    drop(rows);
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests;
