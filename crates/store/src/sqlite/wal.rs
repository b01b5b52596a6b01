//! Checks whether the write-ahead log that SQLite left still holds every committed page. Must be called before SQLite opens the store: SQLite takes
//! the first damaged frame for the end of the log, reports nothing, and overwrites the rest.
//!
//! Two observations show a loss. First, the `-shm` file, which outlives the process but not the machine, has the number of committed frames. Second,
//! a transaction is made durable before the next one is written (`synchronous = FULL`): if a frame is damaged and a whole transaction follows that
//! another one continues, the damaged frame had been committed. A power cut alone only damages the last transaction, which was never reported; and a
//! disk that refuses to sync leaves fragments of several failed transactions, none of which continues another. Formats:
//! <https://sqlite.org/fileformat2.html#the_write_ahead_log>, <https://sqlite.org/walformat.html>.
//!
//! Never writes, and must not be called while a process has the store open.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::files::beside;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// The loss of a damaged write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The number of readable frames (pages).
    pub(crate) readable: u32,
    /// The least number of frames that were committed.
    pub(crate) committed: u32,
}

/// The content of the `-shm` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Index {
    salts: [u32; 2],
    /// The number of the last committed frame.
    last: u32,
    /// The frames up to this number are in the main file.
    moved: u32,
}

/// The content of the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Journal {
    /// `None`: the header is damaged.
    salts: Option<[u32; 2]>,
    /// The last frame of the last complete transaction before any damage.
    readable: u32,
    /// The last frame of a transaction after the damage that another transaction continues, so that it had been committed.
    after_damage: u32,
}

/// Returns the loss of the store's write-ahead log; `None` if no loss can be detected.
///
/// # Errors
/// If the files cannot be read.
pub(crate) fn loss(main: &Path) -> io::Result<Option<Loss>> {
    let open = |ending| match File::open(beside(main, ending)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let index = open("-shm")?.map(|mut file| index(&mut file)).transpose()?.flatten();
    let journal = match open("-wal")? {
        Some(file) => journal(&mut BufReader::with_capacity(1 << 16, file))?,
        None => None,
    };
    Ok(compare(journal, index))
}

fn compare(journal: Option<Journal>, index: Option<Index>) -> Option<Loss> {
    let found = journal.unwrap_or_default();
    // A restarted log has other salts than an older index, and then the index is not about this log.
    let index = index.filter(|index| found.salts.is_none_or(|salts| salts == index.salts));
    let committed = index.map_or(0, |index| index.last).max(found.after_damage);
    let safe = found.readable.max(index.map_or(0, |index| index.moved));
    (committed > safe).then_some(Loss { readable: found.readable, committed })
}

/// Reads the two copies of the index's header and the fields after them, in the byte order of this machine.
fn index(file: &mut File) -> io::Result<Option<Index>> {
    let mut bytes = [0; 100];
    match file.read_exact(&mut bytes) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let is_initialised = bytes[12] == 1;
    // If the copies differ, the process ended while it wrote them.
    if !is_initialised || bytes[..48] != bytes[48..96] {
        return Ok(None);
    }
    // The salts are stored as in the log, which is big-endian.
    let salts = [32, 36].map(|at| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    Ok(Some(Index { salts, last: word(16), moved: word(96) }))
}

/// The running checksum of a write-ahead log.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    sums: [u32; 2],
    is_big_endian: bool,
}

impl Sum {
    /// Adds bytes, eight at a time.
    fn add(&mut self, bytes: &[u8]) {
        let [mut first, mut second] = self.sums;
        let (pairs, _) = bytes.as_chunks::<8>();
        for [a, b, c, d, e, f, g, h] in pairs.iter().copied() {
            let word = if self.is_big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
            first = first.wrapping_add(word([a, b, c, d])).wrapping_add(second);
            second = second.wrapping_add(word([e, f, g, h])).wrapping_add(first);
        }
        self.sums = [first, second];
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads a write-ahead log; `None` if it is empty or has no complete header.
fn journal(reader: &mut impl Read) -> io::Result<Option<Journal>> {
    let mut header = [0; HEADER];
    if !read_full(reader, &mut header)? {
        return Ok(None);
    }
    let mut sum = Sum { is_big_endian: word(&header, 0) & 1 == 1, ..Sum::default() };
    sum.add(&header[..24]);
    let page = word(&header, 8) as usize;
    let is_whole = word(&header, 0) & !1 == 0x377f_0682
        && sum.sums == [word(&header, 24), word(&header, 28)]
        && (512..=65_536).contains(&page)
        && page.is_power_of_two();
    if !is_whole {
        return Ok(Some(Journal::default()));
    }
    let salts = [word(&header, 16), word(&header, 20)];
    let mut found = Journal { salts: Some(salts), ..Journal::default() };
    let mut frame = vec![0; FRAME_HEADER + page];
    let (mut number, mut is_broken) = (0, false);
    // The previous frame's number, if that frame is a commit after the damage. It counts once a frame continues it.
    let mut commit_behind = 0;
    while read_full(reader, &mut frame)? {
        number += 1;
        let is_ours = [word(&frame, 8), word(&frame, 12)] == salts;
        let is_commit = word(&frame, 4) != 0;
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME_HEADER..]);
        let written = [word(&frame, 16), word(&frame, 20)];
        let continues = is_ours && sum.sums == written;
        // The next frame is compared with the checksum that is stored in this frame.
        sum.sums = written;
        is_broken |= !continues;
        if !is_broken {
            if is_commit {
                found.readable = number;
            }
            continue;
        }
        if continues {
            found.after_damage = found.after_damage.max(commit_behind);
        }
        commit_behind = if is_ours && is_commit { number } else { 0 };
    }
    Ok(Some(found))
}

/// Fills `bytes`; false if the input is shorter.
fn read_full(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rusqlite::Connection;

    use super::*;

    /// A store after a crash with ten transactions: copies of its files, taken while it was open.
    struct Crashed {
        _directory: tempfile::TempDir,
        main: PathBuf,
    }

    impl Crashed {
        fn new(after_checkpoint: bool) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let live = directory.path().join("live.db");
            let connection = Connection::open(&live).expect("opens");
            connection
                .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE a (b)")
                .expect("made");
            for number in 0..10 {
                connection.execute("INSERT INTO a VALUES (?1)", [number]).expect("written");
            }
            if after_checkpoint {
                connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("moved");
            }
            let main = directory.path().join("a.db");
            for ending in ["", "-wal", "-shm"] {
                std::fs::copy(beside(&live, ending), beside(&main, ending)).expect("copied");
            }
            Self { _directory: directory, main }
        }

        fn path(&self, ending: &str) -> PathBuf {
            beside(&self.main, ending)
        }

        fn change(&self, ending: &str, change: impl FnOnce(&mut Vec<u8>)) {
            let mut bytes = std::fs::read(self.path(ending)).expect("a file");
            change(&mut bytes);
            std::fs::write(self.path(ending), bytes).expect("changed");
        }

        fn loss(&self) -> Option<Loss> {
            loss(&self.main).expect("readable")
        }

        /// The number of rows that SQLite reads.
        fn rows(&self) -> u32 {
            let connection = Connection::open(&self.main).expect("opens");
            connection.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap_or(0)
        }
    }

    /// The offset of a frame.
    fn frame(number: usize) -> usize {
        HEADER + (number - 1) * (FRAME_HEADER + 4_096)
    }

    #[test]
    fn a_crash_loses_nothing() {
        for after_checkpoint in [false, true] {
            let crashed = Crashed::new(after_checkpoint);
            assert_eq!(crashed.loss(), None);
            std::fs::remove_file(crashed.path("-shm")).expect("removed");
            assert_eq!((crashed.loss(), crashed.rows()), (None, 10));
        }
    }

    #[test]
    fn damage_in_the_middle_is_told() {
        for without_index in [false, true] {
            let crashed = Crashed::new(false);
            crashed.change("-wal", |bytes| bytes[frame(6) + 100] ^= 1);
            if without_index {
                std::fs::remove_file(crashed.path("-shm")).expect("removed");
            }
            let loss = crashed.loss().expect("a loss");
            assert!(loss.readable == 5 && loss.committed > 6, "{loss:?}");
            assert!(crashed.rows() < 10, "SQLite says nothing of it");
        }
    }

    #[test]
    fn a_journal_that_was_cut_or_removed_is_told() {
        let crashed = Crashed::new(false);
        crashed.change("-wal", |bytes| bytes.truncate(frame(4)));
        let loss = crashed.loss().expect("a loss");
        assert!(loss.readable == 3 && loss.committed > 10, "{loss:?}");

        std::fs::remove_file(crashed.path("-wal")).expect("removed");
        assert_eq!(crashed.loss().map(|loss| loss.readable), Some(0));

        let crashed = Crashed::new(false);
        crashed.change("-wal", |bytes| bytes[..32].fill(0));
        assert_eq!(crashed.loss().map(|loss| loss.readable), Some(0), "a header that is gone");
    }

    #[test]
    fn what_is_in_the_main_file_already_is_no_loss() {
        let crashed = Crashed::new(true);
        crashed.change("-wal", |bytes| bytes.truncate(frame(4)));
        assert_eq!(crashed.loss(), None);
    }

    #[test]
    fn a_last_transaction_that_a_power_cut_spoilt_is_no_loss() {
        let crashed = Crashed::new(false);
        // A power cut also loses the index.
        std::fs::remove_file(crashed.path("-shm")).expect("removed");
        crashed.change("-wal", |bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        });
        assert_eq!(crashed.loss(), None);
    }

    /// On a disk that refuses to sync, transactions fail; each is written over the previous one, and the longest leaves the longest rest.
    #[test]
    fn rests_of_transactions_that_failed_are_no_loss() {
        let crashed = Crashed::new(false);
        std::fs::remove_file(crashed.path("-shm")).expect("removed");
        let whole = std::fs::read(crashed.path("-wal")).expect("the journal");
        // Three attempts at the same offset, each with other pages.
        let attempt = |rows: u32, text: &str| {
            let directory = tempfile::tempdir().expect("a directory");
            let main = directory.path().join("a.db");
            for ending in ["", "-wal"] {
                std::fs::copy(crashed.path(ending), beside(&main, ending)).expect("copied");
            }
            let mut connection = Connection::open(&main).expect("opens");
            let transaction = connection.transaction().expect("begun");
            for row in 0..rows {
                transaction
                    .execute("INSERT INTO a VALUES (?1)", [format!("{text}{row}").repeat(800)])
                    .expect("written");
            }
            transaction.commit().expect("written");
            let bytes = std::fs::read(beside(&main, "-wal")).expect("the journal");
            assert_eq!(bytes[..whole.len()], whole, "it goes on where the others go on");
            bytes
        };
        let (first, second, third) = (attempt(12, "first"), attempt(6, "second"), attempt(2, "third"));
        assert!(first.len() > second.len() && second.len() > third.len(), "each is shorter");
        crashed.change("-wal", |bytes| {
            *bytes = first;
            bytes[..second.len()].copy_from_slice(&second);
            bytes[..third.len()].copy_from_slice(&third);
        });
        assert_eq!((crashed.loss(), crashed.rows()), (None, 12));
    }

    #[test]
    fn what_is_no_journal_is_none() {
        let crashed = Crashed::new(true);
        std::fs::remove_file(crashed.path("-shm")).expect("removed");
        for text in ["", "short", &"no journal ".repeat(1_000)] {
            std::fs::write(crashed.path("-wal"), text).expect("written");
            assert_eq!(crashed.loss(), None);
        }
    }
}
