//! A model of a disk: its contents, and the contents that survive a power cut.
//!
//! The rules are those of POSIX, not of one file system. Synced bytes of a file survive, and so do the names in a synced directory. Each unsynced
//! write survives, is lost, or is torn between two sectors, independently of the others. Changes of names survive in order: the first few survive, the rest are lost.

use std::collections::BTreeMap;
use std::path::Path;

use crate::random::Random;
use crate::record::Change;

/// Bytes that a disk writes atomically.
const SECTOR: usize = 512;

/// Which of the unsynced changes survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None.
    Nothing,
    /// All: only the program has ended.
    Everything,
    /// A random part.
    Some,
}

/// Names with the bytes of the file, or `None` for a directory.
pub type Contents = BTreeMap<String, Option<Vec<u8>>>;

/// Writes these files and directories into an empty directory.
///
/// # Errors
/// The error of the file system.
pub fn write(contents: &Contents, directory: &Path) -> std::io::Result<()> {
    // The map's order puts a directory before its contents.
    contents.iter().try_for_each(|(name, content)| match content {
        None => std::fs::create_dir(directory.join(name)),
        Some(bytes) => std::fs::write(directory.join(name), bytes),
    })
}

/// The target of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    File(usize),
}

#[derive(Clone, Debug)]
enum Bytes {
    Write { at: usize, bytes: Vec<u8> },
    Resize(usize),
}

impl Bytes {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => write_at(content, *at, bytes),
            Self::Resize(length) => content.resize(*length, 0),
        }
    }

    /// Writes a random part of the sectors.
    fn tear(&self, content: &mut Vec<u8>, random: &mut Random) {
        let Self::Write { at, bytes } = self else { return self.apply(content) };
        let mut from = 0;
        while from < bytes.len() {
            let to = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
            if random.one_in(2) {
                write_at(content, at + from, &bytes[from..to]);
            }
            from = to;
        }
    }
}

fn write_at(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

#[derive(Clone, Debug, Default)]
struct File {
    synced: Vec<u8>,
    unsynced: Vec<Bytes>,
}

impl File {
    fn sync(&mut self) {
        for bytes in self.unsynced.drain(..) {
            bytes.apply(&mut self.synced);
        }
    }

    /// Keeps, loses or tears each unsynced write at random.
    fn lose_some(&mut self, random: &mut Random) {
        for bytes in self.unsynced.drain(..) {
            match random.below(3) {
                0 => {}
                1 => bytes.apply(&mut self.synced),
                _ => bytes.tear(&mut self.synced, random),
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Naming {
    Add(String, Entry),
    Remove(String),
    Rename(String, String),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, Entry>) {
        match self {
            Self::Add(name, entry) => drop(names.insert(name.clone(), *entry)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to) => {
                if let Some(entry) = names.remove(from) {
                    names.insert(to.clone(), entry);
                }
            }
        }
    }

    fn directory(&self) -> &str {
        let (Self::Add(name, _) | Self::Remove(name) | Self::Rename(name, _)) = self;
        name.rsplit_once('/').map_or("", |(directory, _)| directory)
    }
}

/// A disk that a program writes to.
#[derive(Clone, Debug)]
pub struct Disk {
    files: Vec<File>,
    /// The index in `files` of each inode number in use.
    numbers: BTreeMap<u64, usize>,
    names: BTreeMap<String, Entry>,
    unsynced_names: Vec<Naming>,
    random: Random,
}

impl Disk {
    /// An empty disk. The seed determines every random choice.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            files: Vec::new(),
            numbers: BTreeMap::new(),
            names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            random: Random::new(seed),
        }
    }

    /// A disk with the contents of a directory, all synced.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn of(directory: &Path, seed: u64) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let mut disk = Self::new(seed);
        let mut open = vec![String::new()];
        while let Some(inside) = open.pop() {
            for found in std::fs::read_dir(directory.join(&inside))? {
                let found = found?;
                let name = found.file_name().to_string_lossy().into_owned();
                let name = if inside.is_empty() { name } else { format!("{inside}/{name}") };
                let entry = if found.file_type()?.is_dir() {
                    open.push(name.clone());
                    Entry::Directory
                } else {
                    let file = disk.file(found.metadata()?.ino());
                    disk.files[file].synced = std::fs::read(found.path())?;
                    Entry::File(file)
                };
                disk.names.insert(name, entry);
            }
        }
        Ok(disk)
    }

    /// Adds a file with this inode number and returns its index.
    fn file(&mut self, number: u64) -> usize {
        self.files.push(File::default());
        self.numbers.insert(number, self.files.len() - 1);
        self.files.len() - 1
    }

    /// The file with this inode number. A file whose creation was not recorded gets no name, so no cut contains it.
    fn open(&mut self, number: u64) -> &mut File {
        let index = self.numbers.get(&number).copied().unwrap_or_else(|| self.file(number));
        &mut self.files[index]
    }

    /// Applies a recorded change.
    pub fn apply(&mut self, change: &Change) {
        let to_usize = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        match change {
            Change::Create { name, file } => {
                let file = self.file(*file);
                self.unsynced_names.push(Naming::Add(name.clone(), Entry::File(file)));
            }
            Change::MakeDirectory { name } => self.unsynced_names.push(Naming::Add(name.clone(), Entry::Directory)),
            Change::Write { file, at, bytes } => {
                self.open(*file).unsynced.push(Bytes::Write { at: to_usize(*at), bytes: bytes.clone() });
            }
            Change::Resize { file, length } => self.open(*file).unsynced.push(Bytes::Resize(to_usize(*length))),
            Change::Remove { name } => self.unsynced_names.push(Naming::Remove(name.clone())),
            Change::Rename { from, to } => self.unsynced_names.push(Naming::Rename(from.clone(), to.clone())),
            Change::Synced { file } => self.open(*file).sync(),
            Change::SyncFailed { file } => {
                let mut random = self.random.clone();
                self.open(*file).lose_some(&mut random);
                self.random = random;
            }
            Change::SyncedDirectory { name } => {
                let (inside, others) = self.unsynced_names.drain(..).partition(|naming| naming.directory() == name);
                self.unsynced_names = others;
                let inside: Vec<Naming> = inside;
                inside.iter().for_each(|naming| naming.apply(&mut self.names));
            }
        }
    }

    /// The contents of the disk after a power cut now.
    #[must_use]
    pub fn cut(mut self, survival: Survival) -> Contents {
        let mut random = self.random.clone();
        for file in &mut self.files {
            match survival {
                Survival::Nothing => file.unsynced.clear(),
                Survival::Everything => file.sync(),
                Survival::Some => file.lose_some(&mut random),
            }
        }
        // The number of name changes that still survive, for each directory.
        let mut kept: BTreeMap<String, u64> = BTreeMap::new();
        let count = self.unsynced_names.len() as u64;
        for naming in &self.unsynced_names {
            let left = kept.entry(naming.directory().to_owned()).or_insert_with(|| match survival {
                Survival::Nothing => 0,
                Survival::Everything => count,
                Survival::Some => random.below(count + 1),
            });
            if *left > 0 {
                *left -= 1;
                naming.apply(&mut self.names);
            }
        }
        let is_reachable = |name: &str| {
            let mut above = name;
            while let Some((directory, _)) = above.rsplit_once('/') {
                if self.names.get(directory) != Some(&Entry::Directory) {
                    return false;
                }
                above = directory;
            }
            true
        };
        let names = self.names.iter().filter(|(name, _)| is_reachable(name));
        names
            .map(|(name, entry)| match entry {
                Entry::Directory => (name.clone(), None),
                Entry::File(file) => (name.clone(), Some(self.files[*file].synced.clone())),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: u64, bytes: &[u8]) -> Change {
        Change::Write { file: 7, at, bytes: bytes.to_vec() }
    }

    fn disk(changes: &[Change]) -> Disk {
        let mut disk = Disk::new(1);
        changes.iter().for_each(|change| disk.apply(change));
        disk
    }

    fn create(name: &str) -> Change {
        Change::Create { name: name.to_owned(), file: 7 }
    }

    fn root() -> Change {
        Change::SyncedDirectory { name: String::new() }
    }

    #[test]
    fn synced_bytes_survive_a_power_cut_and_unsynced_bytes_may_be_lost() {
        let changes = [create("a"), root(), write(0, b"one"), Change::Synced { file: 7 }, write(3, b"two")];
        let left = |survival| disk(&changes).cut(survival)["a"].clone().expect("a file");
        assert_eq!(left(Survival::Nothing), b"one");
        assert_eq!(left(Survival::Everything), b"onetwo");
    }

    #[test]
    fn a_name_survives_a_power_cut_if_its_directory_was_synced() {
        let changes = [create("a"), write(0, b"one"), Change::Synced { file: 7 }];
        assert!(disk(&changes).cut(Survival::Nothing).is_empty());
        let renamed = Change::Rename { from: "a".to_owned(), to: "b".to_owned() };
        let changes = [create("a"), root(), renamed, Change::Remove { name: "b".to_owned() }];
        assert!(disk(&changes).cut(Survival::Nothing).contains_key("a"));
        assert!(disk(&changes).cut(Survival::Everything).is_empty());
        let below = [Change::MakeDirectory { name: "d".to_owned() }, create("d/a")];
        let synced = Change::SyncedDirectory { name: "d".to_owned() };
        assert!(disk(&[&below[..], std::slice::from_ref(&synced)].concat()).cut(Survival::Nothing).is_empty());
        assert_eq!(disk(&[&below[..], &[synced, root()]].concat()).cut(Survival::Nothing).len(), 2);
    }

    #[test]
    fn a_failed_sync_loses_unsynced_writes() {
        let lost = (0..40).filter(|seed| {
            let mut disk = Disk::new(*seed);
            let changes =
                [create("a"), root(), write(0, b"x"), Change::SyncFailed { file: 7 }, Change::Synced { file: 7 }];
            changes.iter().for_each(|change| disk.apply(change));
            disk.cut(Survival::Everything)["a"].as_deref() == Some(b"")
        });
        assert!((1..40).contains(&lost.count()), "a failed sync loses some writes for good");
    }

    #[test]
    fn an_unsynced_write_is_lost_kept_or_torn() {
        let changes = [create("a"), root(), Change::Resize { file: 7, length: 1_024 }, Change::Synced { file: 7 }];
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut disk = Disk::new(seed);
            changes.iter().chain([&write(0, &[1; 1_024])]).for_each(|change| disk.apply(change));
            let content = disk.cut(Survival::Some)["a"].clone().expect("a file");
            seen.insert((content[0], content[511], content[512], content[1_023]));
        }
        assert_eq!(seen.len(), 4, "no sector, both sectors, and each single sector: {seen:?}");
    }
}
