//! The room for new rows: a maximum size of the file, or a reserve of free space on its disk. Above the limit new rows are refused before the disk
//! is full, so that removals, the write-ahead log and other programs still find space.
//!
//! Removals are never refused here.

use std::path::Path;

use rusqlite::Connection;

use crate::limits;
use crate::platform::{Space, space};
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

    /// As [`Self::new`], with a disk that the test makes up.
    #[cfg(test)]
    pub(super) fn on_disk(measure: fn(&Path) -> Option<Space>) -> Self {
        Self { limit: SizeLimit::DiskReserve, measure }
    }

    /// Returns the most bytes of the pages in use; `None` if only the disk limits them.
    pub(super) fn most_bytes(&self) -> Option<u64> {
        match self.limit {
            SizeLimit::Bytes(most) => Some(most),
            SizeLimit::DiskReserve => None,
        }
    }

    /// Returns the space of the file's disk if the limit is the reserve and less than the reserve is free.
    pub(super) fn scarce_space(&self, file: &Path) -> Option<Space> {
        let space = (self.limit == SizeLimit::DiskReserve).then(|| (self.measure)(file)).flatten();
        space.filter(|space| space.free < space.reserve())
    }
}

/// Returns the bytes of the pages in use.
pub(super) fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(pragma(connection, "page_count")?.saturating_sub(pragma(connection, "freelist_count")?)
        * pragma(connection, "page_size")?)
}

/// Returns the bytes of the free pages.
pub(super) fn unused_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(pragma(connection, "freelist_count")? * pragma(connection, "page_size")?)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<u64> {
    connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

impl Space {
    /// Whether too little is left for new rows, if `unused` bytes of the file are free pages.
    pub(super) fn is_low(self, unused: u64) -> bool {
        self.free + unused < self.reserve()
    }

    /// Whether the write-ahead log must not grow to its usual size.
    pub(super) fn is_too_small_for_a_log(self) -> bool {
        self.free < limits::STORE_JOURNAL_BYTES.unsigned_abs()
    }

    fn reserve(self) -> u64 {
        (self.total / 100 * limits::DISK_RESERVE_PERCENT).min(limits::DISK_RESERVE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_share_of_a_small_disk_and_bounded_on_a_large_one() {
        let reserve = |total| Space { total, free: 0 }.reserve();
        assert_eq!(reserve(1_000 << 20), 50 << 20);
        assert_eq!(reserve(1 << 40), 256 << 20);
    }

    #[cfg(unix)]
    #[test]
    fn the_space_of_a_disk_is_measured() {
        let directory = tempfile::tempdir().expect("a directory");
        let space = space(directory.path()).expect("the system tells");
        assert!(space.total > 0 && space.free <= space.total, "{space:?}");
    }
}
