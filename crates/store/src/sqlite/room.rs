//! The room for new rows: a maximum size of the file, or a reserve of free space on its disk. Above the limit new rows are refused before the disk
//! is full, so that removals, the write-ahead log and other programs still find space.
//!
//! Removals are never refused here.

use std::path::Path;

use rusqlite::Connection;

use super::SqliteStore;
use crate::StoreError;
use crate::limits;
use crate::settings::SizeLimit;

/// The state of a limit.
#[derive(Debug)]
pub(super) struct Room {
    limit: SizeLimit,
    /// Measures the disk of a file. Tests replace it.
    measure: fn(&Path) -> Option<Space>,
}

impl Room {
    pub(super) fn new(limit: SizeLimit) -> Self {
        Self { limit, measure: space }
    }
}

impl SqliteStore {
    /// Checks that new rows may be written that take `more` bytes.
    ///
    /// # Errors
    /// [`StoreError::OverBudget`] or [`StoreError::LowDisk`] if there is no room; any error that keeps the file from being read.
    pub(crate) fn check_room(&mut self, more: usize) -> Result<(), StoreError> {
        let Some(most) = self.limit_of_rows()? else { return Ok(()) };
        let used = self.run(|connection, _, _| used_bytes(connection))?;
        if used + more as u64 > most { Err(StoreError::OverBudget { place: self.place() }) } else { Ok(()) }
    }

    /// Returns the most bytes of rows; `None` if only the disk limits them.
    ///
    /// # Errors
    /// [`StoreError::LowDisk`] if the disk has too little space; any error that keeps the file from being read.
    pub(super) fn limit_of_rows(&mut self) -> Result<Option<u64>, StoreError> {
        match self.room.limit {
            SizeLimit::Bytes(most) => Ok(Some(most)),
            SizeLimit::DiskReserve => match self.low_space()? {
                Some(free) => Err(StoreError::LowDisk { place: self.place(), free }),
                None => Ok(None),
            },
        }
    }

    /// Returns the free bytes of the disk if less than the reserve is left, and the file has too few free pages of its own.
    fn low_space(&mut self) -> Result<Option<u64>, StoreError> {
        Ok(match (self.room.measure)(self.link.path()) {
            Some(space) if space.free < space.reserve() => {
                let unused = self.run(|connection, _, _| unused_bytes(connection))?;
                let is_low = space.free + unused < space.reserve();
                if !is_low && space.free < limits::STORE_JOURNAL_BYTES.unsigned_abs() {
                    // The free pages are of use only while the write-ahead log does not grow.
                    self.link.checkpoint();
                }
                is_low.then_some(space.free)
            }
            _ => None,
        })
    }
}

/// Returns the bytes of the pages in use.
pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(pragma(connection, "page_count")?.saturating_sub(pragma(connection, "freelist_count")?)
        * pragma(connection, "page_size")?)
}

/// Returns the bytes of the free pages.
fn unused_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(pragma(connection, "freelist_count")? * pragma(connection, "page_size")?)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// The space of a disk, in bytes.
#[derive(Clone, Copy, Debug)]
struct Space {
    total: u64,
    /// What a process without special rights may still use.
    free: u64,
}

impl Space {
    fn reserve(self) -> u64 {
        (self.total / 100 * limits::DISK_RESERVE_PERCENT).min(limits::DISK_RESERVE_BYTES)
    }
}

/// Measures the disk of a file; `None` if the system does not tell.
#[cfg(unix)]
fn space(file: &Path) -> Option<Space> {
    let found = rustix::fs::statvfs(file).ok()?;
    Some(Space { total: found.f_blocks * found.f_frsize, free: found.f_bavail * found.f_frsize })
}

/// Other systems refuse new rows when the disk is full.
#[cfg(not(unix))]
fn space(_file: &Path) -> Option<Space> {
    None
}

#[cfg(test)]
mod tests {
    use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};

    use super::*;
    use crate::{Background, Columns, Group, MessageStore, Prefix};

    #[test]
    fn the_reserve_is_a_share_of_a_small_disk_and_bounded_on_a_large_one() {
        let reserve = |total| Space { total, free: 0 }.reserve();
        assert_eq!(reserve(1_000 << 20), 50 << 20);
        assert_eq!(reserve(1 << 40), 256 << 20);
    }

    #[test]
    fn new_rows_are_refused_while_the_disk_is_low_unless_the_file_has_free_pages() {
        const TOTAL: u64 = 100 << 20;
        let directory = tempfile::tempdir().expect("a directory");
        let prefix = Prefix::parse("mq_").expect("a valid prefix");
        let path = directory.path().join("wsmb.db");
        let mut store = SqliteStore::open(&path, &prefix, &Columns::default(), SizeLimit::DiskReserve).expect("opens");
        let set = |store: &mut SqliteStore, measure: fn(&Path) -> Option<Space>| {
            store.room = Room { limit: SizeLimit::DiskReserve, measure };
        };
        let group = |ids: std::ops::Range<u64>| {
            let message = |id| Message {
                id: MessageId(id),
                channel: ChannelName::parse("a").expect("a valid name"),
                payload: Payload::text("x".repeat(100_000)),
                created: Timestamp(1_763_800_000_000),
                expires: None,
                due: None,
                receivers: None,
                publication: None,
                deliveries: 0,
                dead: None,
            };
            Group { appends: ids.map(message).collect(), ..Group::default() }
        };
        set(&mut store, |_| Some(Space { total: TOTAL, free: TOTAL / 20 }));
        store.commit(&group(1..61)).expect("the reserve is untouched");
        set(&mut store, |_| Some(Space { total: TOTAL, free: TOTAL / 20 - 1 }));
        let low = |result| matches!(result, Err(StoreError::LowDisk { free, .. }) if free == TOTAL / 20 - 1);
        assert!(low(store.commit(&group(61..62))) && low(store.check()));
        let removals = (1..=59).map(MessageId).collect();
        store.commit(&Group { removals, ..Group::default() }).expect("removals are never refused");
        set(&mut store, |_| Some(Space { total: TOTAL, free: 0 }));
        store.commit(&group(61..62)).expect("the free pages are more than the reserve");
    }

    #[cfg(unix)]
    #[test]
    fn the_space_of_a_disk_is_measured() {
        let directory = tempfile::tempdir().expect("a directory");
        let space = space(directory.path()).expect("the system tells");
        assert!(space.total > 0 && space.free <= space.total, "{space:?}");
    }
}
