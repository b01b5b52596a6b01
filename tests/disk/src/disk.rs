//! What a disk holds, and what is left of it when the power goes.
//!
//! The rules are those of POSIX, not of one file system. The bytes of a file survive once the file was synced, and its name once the directory was synced. Until then each
//! write survives, is lost, or is torn between two sectors, independently of the others. Changes of names survive in their order: the first few do, the rest are lost.

use std::collections::BTreeMap;
use std::path::Path;

use crate::random::Random;
use crate::record::Change;

/// A disk writes so many bytes at once or not at all.
const SECTOR: usize = 512;

/// Which of the unsynced changes survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None.
    Nothing,
    /// All: nothing was lost but the program.
    Everything,
    /// By chance.
    Some,
}

/// Names with the bytes of the file, or `None` for a directory.
pub type Contents = BTreeMap<String, Option<Vec<u8>>>;

/// Puts these names into an empty directory.
///
/// # Errors
/// Whatever the system says.
pub fn write(contents: &Contents, directory: &Path) -> std::io::Result<()> {
    // A directory stands before what is in it.
    contents.iter().try_for_each(|(name, content)| match content {
        None => std::fs::create_dir(directory.join(name)),
        Some(bytes) => std::fs::write(directory.join(name), bytes),
    })
}

/// What a name stands for.
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
            Self::Write { at, bytes } => put(content, *at, bytes),
            Self::Resize(length) => content.resize(*length, 0),
        }
    }

    /// Writes some of the sectors, by chance.
    fn tear(&self, content: &mut Vec<u8>, random: &mut Random) {
        let Self::Write { at, bytes } = self else { return self.apply(content) };
        let mut from = 0;
        while from < bytes.len() {
            let to = bytes.len().min(from + SECTOR - (at + from) % SECTOR);
            if random.one_in(2) {
                put(content, at + from, &bytes[from..to]);
            }
            from = to;
        }
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

#[derive(Clone, Debug, Default)]
struct File {
    synced: Vec<u8>,
    since: Vec<Bytes>,
}

impl File {
    fn sync(&mut self) {
        for bytes in self.since.drain(..) {
            bytes.apply(&mut self.synced);
        }
    }

    /// Decides by chance which of the unsynced writes survive.
    fn gamble(&mut self, random: &mut Random) {
        for bytes in self.since.drain(..) {
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

/// A disk while a program works on it.
#[derive(Clone, Debug)]
pub struct Disk {
    files: Vec<File>,
    /// The file that has this number in the file system now.
    numbers: BTreeMap<u64, usize>,
    names: BTreeMap<String, Entry>,
    renamed: Vec<Naming>,
    random: Random,
}

impl Disk {
    /// An empty one; the seed decides what chance decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            files: Vec::new(),
            numbers: BTreeMap::new(),
            names: BTreeMap::new(),
            renamed: Vec::new(),
            random: Random::new(seed),
        }
    }

    /// One that holds what is in a directory, all of it safe.
    ///
    /// # Errors
    /// It cannot be read.
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

    /// A new file with this number.
    fn file(&mut self, number: u64) -> usize {
        self.files.push(File::default());
        self.numbers.insert(number, self.files.len() - 1);
        self.files.len() - 1
    }

    /// The file with this number. A file whose creation was not recorded gets no name, so no cut contains it.
    fn open(&mut self, number: u64) -> &mut File {
        let index = self.numbers.get(&number).copied().unwrap_or_else(|| self.file(number));
        &mut self.files[index]
    }

    /// Lets a change happen.
    pub fn apply(&mut self, change: &Change) {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        match change {
            Change::Create { name, file } => {
                let file = self.file(*file);
                self.renamed.push(Naming::Add(name.clone(), Entry::File(file)));
            }
            Change::MakeDirectory { name } => self.renamed.push(Naming::Add(name.clone(), Entry::Directory)),
            Change::Write { file, at, bytes } => {
                self.open(*file).since.push(Bytes::Write { at: place(*at), bytes: bytes.clone() });
            }
            Change::Resize { file, length } => self.open(*file).since.push(Bytes::Resize(place(*length))),
            Change::Remove { name } => self.renamed.push(Naming::Remove(name.clone())),
            Change::Rename { from, to } => self.renamed.push(Naming::Rename(from.clone(), to.clone())),
            Change::Synced { file } => self.open(*file).sync(),
            Change::SyncFailed { file } => {
                let mut random = self.random.clone();
                self.open(*file).gamble(&mut random);
                self.random = random;
            }
            Change::SyncedDirectory { name } => {
                let (of_it, others) = self.renamed.drain(..).partition(|naming| naming.directory() == name);
                self.renamed = others;
                let of_it: Vec<Naming> = of_it;
                of_it.iter().for_each(|naming| naming.apply(&mut self.names));
            }
        }
    }

    /// What the disk holds if the power fails now.
    #[must_use]
    pub fn cut(mut self, survival: Survival) -> Contents {
        let mut random = self.random.clone();
        for file in &mut self.files {
            match survival {
                Survival::Nothing => file.since.clear(),
                Survival::Everything => file.sync(),
                Survival::Some => file.gamble(&mut random),
            }
        }
        // How many more changes of names survive in each directory.
        let mut kept: BTreeMap<String, u64> = BTreeMap::new();
        let count = self.renamed.len() as u64;
        for naming in &self.renamed {
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
        let is_there = |name: &str| {
            let mut above = name;
            while let Some((directory, _)) = above.rsplit_once('/') {
                if self.names.get(directory) != Some(&Entry::Directory) {
                    return false;
                }
                above = directory;
            }
            true
        };
        let names = self.names.iter().filter(|(name, _)| is_there(name));
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
    fn what_was_synced_lasts_and_nothing_else() {
        let changes = [create("a"), root(), write(0, b"one"), Change::Synced { file: 7 }, write(3, b"two")];
        let left = |survival| disk(&changes).cut(survival)["a"].clone().expect("a file");
        assert_eq!(left(Survival::Nothing), b"one");
        assert_eq!(left(Survival::Everything), b"onetwo");
    }

    #[test]
    fn a_name_lasts_when_its_directory_was_synced() {
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
    fn a_sync_that_failed_forgets() {
        let lost = (0..40).filter(|seed| {
            let mut disk = Disk::new(*seed);
            let changes =
                [create("a"), root(), write(0, b"x"), Change::SyncFailed { file: 7 }, Change::Synced { file: 7 }];
            changes.iter().for_each(|change| disk.apply(change));
            disk.cut(Survival::Everything)["a"].as_deref() == Some(b"")
        });
        assert!((1..40).contains(&lost.count()), "some are lost, and a later sync does not bring them back");
    }

    #[test]
    fn chance_loses_keeps_and_tears() {
        let changes = [create("a"), root(), Change::Resize { file: 7, length: 1_024 }, Change::Synced { file: 7 }];
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut disk = Disk::new(seed);
            changes.iter().chain([&write(0, &[1; 1_024])]).for_each(|change| disk.apply(change));
            let content = disk.cut(Survival::Some)["a"].clone().expect("a file");
            seen.insert((content[0], content[511], content[512], content[1_023]));
        }
        assert_eq!(seen.len(), 4, "none, both, and each of the two sectors: {seen:?}");
    }
}
