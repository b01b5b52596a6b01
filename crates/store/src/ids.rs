//! The file that keeps the ids of accepted publications over a restart (SPEC 6.7), so that a repetition after the restart is recognised.
//!
//! ```text
//! header: "wsmbids1" · seed of the hash (16 bytes) · check (8)
//! record: time (8) · hash of channel, user and id (16) · hash of the user (8) · check (4)      all numbers little-endian
//! ```
//!
//! Records are appended without fsync: they survive the death of the process at once, and a power cut when the kernel has written them or after
//! [`crate::limits::IDS_SYNC`] at the latest. When the file has many more records than there are live ids, a new file is written beside it and
//! replaces it. The broker works without the file: a damaged or unusable file loses its ids, and nothing else.
//!
//! Never stores an id in plain text or a user's name, and never decides which publication is a repetition.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::files::{beside, private};
use crate::limits;
use crate::platform::sync_directory;
use wsmb_core::message::{AcceptedId, Timestamp};

const MAGIC: [u8; 8] = *b"wsmbids1";
const HEADER: usize = 32;
const RECORD: usize = 36;

/// An open file of ids.
#[derive(Debug)]
pub struct IdFile {
    path: PathBuf,
    file: File,
    seed: [u64; 2],
    /// The number of complete records in the file.
    records: usize,
    /// The time of the first write since the last fsync; `None` if there was none.
    dirty_since: Option<Instant>,
    /// A write has failed: the file may end with an incomplete record.
    torn: bool,
}

/// The contents of a file of ids.
#[derive(Debug, Default)]
pub struct FoundIds {
    /// The key of the hash of the ids.
    pub seed: [u64; 2],
    /// The ids in the order of writing: from the given time on, and none later than the time of the call.
    pub ids: Vec<AcceptedId>,
    /// The problem with the file, for the log.
    pub problem: Option<String>,
}

impl IdFile {
    /// Opens the file, or creates it (mode 0600). Damaged records are skipped; a foreign file, or a file of another version, is overwritten. Ids from
    /// before `since` are skipped, and a time after `now` becomes `now`. `random` is the seed of a new file.
    ///
    /// # Errors
    /// If the file can be neither read nor created.
    pub fn open(path: &Path, since: Timestamp, now: Timestamp, random: [u64; 2]) -> io::Result<(Self, FoundIds)> {
        let file = private().open(path)?;
        let mut bytes = Vec::new();
        // A file that another program has enlarged is read up to the longest length that this module writes.
        (&file).take(longest() as u64).read_to_end(&mut bytes)?;
        let mut found = FoundIds { seed: random, ..FoundIds::default() };
        let mut ids = Self { path: path.to_owned(), file, seed: random, records: 0, dirty_since: None, torn: false };
        match seed(&bytes) {
            Some(seed) => {
                (found.seed, ids.seed) = (seed, seed);
                let (records, half) = bytes[HEADER..].as_chunks::<RECORD>();
                let read: Vec<Option<AcceptedId>> = records.iter().map(|bytes| record(seed, bytes)).collect();
                let damaged = read.iter().filter(|id| id.is_none()).count();
                let alive = read.into_iter().flatten().filter(|id| id.at >= since);
                found.ids = alive.map(|id| AcceptedId { at: id.at.min(now), ..id }).collect();
                ids.records = records.len();
                if damaged > 0 {
                    found.problem = Some(format!("{damaged} of its {} records are damaged and skipped", records.len()));
                }
                if !half.is_empty() || ids.file.metadata()?.len() > bytes.len() as u64 {
                    ids.file.set_len((HEADER + records.len() * RECORD) as u64)?;
                }
            }
            None => {
                if !bytes.is_empty() {
                    found.problem =
                        Some("it is damaged, or not a file of ids of this version; it is overwritten".to_owned());
                }
                ids.begin()?;
            }
        }
        ids.file.seek(SeekFrom::End(0))?;
        Ok((ids, found))
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file should be rewritten: a write has failed, or the file has many more records than the `alive` ids that the broker remembers.
    #[must_use]
    pub fn wants_rewrite(&self, alive: usize) -> bool {
        self.torn || self.records > limits::IDS_SPARE.max(2 * alive)
    }

    /// Appends records, without fsync.
    ///
    /// # Errors
    /// Some records may be missing, until [`Self::rewrite`] succeeds.
    pub fn append(&mut self, ids: &[AcceptedId]) -> io::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = ids.iter().flat_map(|id| written(self.seed, *id)).collect();
        self.dirty_since.get_or_insert_with(Instant::now);
        self.file.write_all(&bytes).inspect_err(|_| self.torn = true)?;
        self.records += ids.len();
        Ok(())
    }

    /// Replaces the file by one with these records, atomically and durably.
    ///
    /// # Errors
    /// The file is unchanged.
    pub fn rewrite(&mut self, ids: &[AcceptedId]) -> io::Result<()> {
        let beside = beside(&self.path, ".new");
        let write = || -> io::Result<File> {
            let mut file = private().truncate(true).open(&beside)?;
            let mut bytes = header(self.seed).to_vec();
            bytes.extend(ids.iter().flat_map(|id| written(self.seed, *id)));
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&beside, &self.path)?;
            sync_directory(&self.path);
            Ok(file)
        };
        match write() {
            Ok(file) => {
                (self.file, self.records) = (file, ids.len());
                (self.torn, self.dirty_since) = (false, None);
                Ok(())
            }
            Err(error) => {
                // If the temporary file stays, the next attempt overwrites it.
                let _ = std::fs::remove_file(&beside);
                self.torn = true;
                Err(error)
            }
        }
    }

    /// Makes appended records durable: now, or if `lazily`, only if the oldest of them is older than [`limits::IDS_SYNC`].
    ///
    /// # Errors
    /// The system's error.
    pub fn sync(&mut self, lazily: bool) -> io::Result<()> {
        let due = self.dirty_since.is_some_and(|since| !lazily || since.elapsed() >= limits::IDS_SYNC);
        if due {
            self.file.sync_data()?;
            self.dirty_since = None;
        }
        Ok(())
    }

    /// Whether appended records are not durable yet.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty_since.is_some()
    }

    fn begin(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header(self.seed))
    }
}

/// The path of the file of ids that belongs to a store's file.
#[must_use]
pub fn ids_beside(store: &Path) -> PathBuf {
    beside(store, ".ids")
}

/// The length of the longest file that this module writes, in bytes.
fn longest() -> usize {
    HEADER + RECORD * (limits::IDS_SPARE.max(2 * wsmb_core::limits::DEDUP_IDS) + wsmb_core::limits::DEDUP_IDS)
}

fn header(seed: [u64; 2]) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&seed[0].to_le_bytes());
    bytes[16..24].copy_from_slice(&seed[1].to_le_bytes());
    let check = check(seed, &bytes[..24]);
    bytes[24..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// The seed of a file with a valid header.
fn seed(bytes: &[u8]) -> Option<[u64; 2]> {
    let (head, _) = bytes.split_first_chunk::<HEADER>()?;
    let seed = [number(&head[8..16]), number(&head[16..24])];
    (*head == header(seed)).then_some(seed)
}

fn written(seed: [u64; 2], id: AcceptedId) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    for (slot, value) in bytes.chunks_exact_mut(8).zip([id.at.0, id.key[0], id.key[1], id.user]) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    let check = check(seed, &bytes[..32]) as u32;
    bytes[32..].copy_from_slice(&check.to_le_bytes());
    bytes
}

/// Decodes a record; `None` if it is damaged.
fn record(seed: [u64; 2], bytes: &[u8; RECORD]) -> Option<AcceptedId> {
    let [at, first, second, user] = [0, 8, 16, 24].map(|start| number(&bytes[start..start + 8]));
    let id = AcceptedId { at: Timestamp(at), key: [first, second], user };
    (written(seed, id) == *bytes).then_some(id)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A checksum that detects damage and records of other files. It does not protect against forgery: an attacker who can write the file can do worse.
fn check(seed: [u64; 2], bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    // FNV-1a over words, and a final mixing (SplitMix64), so that every bit of the result depends on every bit of the input.
    let sum = words.iter().fold(seed[0] ^ 0xcbf2_9ce4_8422_2325, |sum, word| {
        (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
    });
    let mixed = (sum ^ (sum >> 30) ^ seed[1]).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANDOM: [u64; 2] = [11, 22];

    fn id(number: u64) -> AcceptedId {
        AcceptedId { at: Timestamp(1_000 + number), key: [number, !number], user: number % 3 }
    }

    fn ids(numbers: std::ops::Range<u64>) -> Vec<AcceptedId> {
        numbers.map(id).collect()
    }

    fn open(path: &Path) -> (IdFile, FoundIds) {
        IdFile::open(path, Timestamp(0), Timestamp(u64::MAX), RANDOM).expect("a file")
    }

    /// The contents of a file with these bytes, and its contents after one more id was appended.
    fn found(path: &Path, bytes: &[u8]) -> (FoundIds, Vec<AcceptedId>) {
        std::fs::write(path, bytes).expect("a file");
        let (mut file, found) = open(path);
        file.append(&[id(99)]).expect("appends");
        drop(file);
        (found, open(path).1.ids)
    }

    #[test]
    fn what_is_appended_is_found_again_under_the_same_seed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = ids_beside(&dir.path().join("wsmb.db"));
        let (mut file, first) = open(&path);
        assert!(first.ids.is_empty() && first.problem.is_none());
        file.append(&ids(0..3)).expect("appends");
        file.append(&[]).expect("appends");
        file.append(&ids(3..5)).expect("appends");
        drop(file);
        let (_, found) = IdFile::open(&path, Timestamp(1_001), Timestamp(1_003), [5, 6]).expect("a file");
        assert_eq!((found.seed, found.problem), (RANDOM, None));
        let late = AcceptedId { at: Timestamp(1_003), ..id(4) };
        assert_eq!(found.ids, [id(1), id(2), id(3), late], "too old ones are left out, and none is in the future");
    }

    #[test]
    fn a_file_cut_at_any_byte_loses_what_is_cut_and_goes_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ids");
        let (mut file, _) = open(&path);
        file.append(&ids(0..3)).expect("appends");
        drop(file);
        let whole = std::fs::read(&path).expect("the file");
        assert_eq!(whole.len(), HEADER + 3 * RECORD);
        for length in 0..=whole.len() {
            let (found, then) = found(&path, &whole[..length]);
            let left = length.saturating_sub(HEADER) / RECORD;
            assert_eq!(found.ids, ids(0..left as u64), "{length} bytes");
            assert_eq!(found.problem.is_some(), (1..HEADER).contains(&length), "{length} bytes: {:?}", found.problem);
            assert_eq!(then, [ids(0..left as u64), vec![id(99)]].concat(), "{length} bytes");
        }
    }

    #[test]
    fn a_damaged_byte_costs_its_record_and_one_in_the_header_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ids");
        let (mut file, _) = open(&path);
        file.append(&ids(0..3)).expect("appends");
        drop(file);
        let whole = std::fs::read(&path).expect("the file");
        for position in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[position] ^= 0x10;
            let (found, then) = found(&path, &bytes);
            let left: Vec<AcceptedId> = match position.checked_sub(HEADER) {
                None => Vec::new(),
                Some(offset) => {
                    ids(0..3).into_iter().enumerate().filter(|(n, _)| *n != offset / RECORD).map(|(_, id)| id).collect()
                }
            };
            assert_eq!(found.ids, left, "byte {position}");
            assert!(found.problem.is_some(), "byte {position}");
            assert_eq!(then, [left, vec![id(99)]].concat(), "byte {position}");
        }
        let zeros = [&whole[..], &[0; 2 * RECORD]].concat();
        assert_eq!(super::tests::found(&path, &zeros).0.ids, ids(0..3), "what a power cut may leave");
    }

    #[test]
    fn a_foreign_file_begins_anew_and_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ids");
        for text in ["x", "this is no file of ids, but it is as long as one would be, and longer than its header"] {
            let (found, then) = found(&path, text.as_bytes());
            assert_eq!((found.seed, found.ids.len()), (RANDOM, 0));
            assert!(found.problem.is_some_and(|problem| problem.contains("overwritten")));
            assert_eq!(then, [id(99)]);
        }
        let mut other = header(RANDOM);
        other[7] = b'2';
        assert!(found(&path, &other).0.problem.is_some(), "another version");
    }

    #[test]
    fn a_file_that_has_grown_is_written_anew_and_keeps_what_it_is_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ids");
        let (mut file, _) = open(&path);
        assert!(!file.wants_rewrite(0));
        let many = limits::IDS_SPARE as u64 + 1;
        file.append(&ids(0..many)).expect("appends");
        assert!(file.wants_rewrite(10) && !file.wants_rewrite(limits::IDS_SPARE));
        file.rewrite(&ids(5..15)).expect("rewrites");
        assert!(!file.wants_rewrite(10) && !file.is_dirty());
        file.append(&ids(15..16)).expect("appends");
        assert!(file.is_dirty());
        file.sync(true).expect("not yet");
        assert!(file.is_dirty());
        file.sync(false).expect("syncs");
        assert!(!file.is_dirty());
        assert_eq!(open(&path).1.ids, ids(5..16));
        assert_eq!(std::fs::read_dir(dir.path()).expect("the directory").count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_failed_rewrite_leaves_the_file_as_it_was_and_is_wanted_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ids");
        let (mut file, _) = open(&path);
        file.append(&ids(0..3)).expect("appends");
        // A directory with the name of the temporary file.
        std::fs::create_dir(beside(&path, ".new")).expect("a directory");
        file.rewrite(&ids(0..1)).expect_err("a directory is in the way");
        assert!(file.wants_rewrite(10));
        assert_eq!(open(&path).1.ids, ids(0..3));
        std::fs::remove_dir(beside(&path, ".new")).expect("it goes");
        file.rewrite(&ids(0..1)).expect("rewrites");
        assert_eq!(open(&path).1.ids, ids(0..1));
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ids");
        drop(open(&path));
        assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    }
}
