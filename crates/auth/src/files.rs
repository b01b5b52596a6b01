//! The list of users in force: read from htpasswd files and the configuration's own entries, and read again when a file changes.
//!
//! A new file that cannot be used leaves the old list in force and says so. All functions that touch files block: call them off the
//! event loop.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::hash::Hash;
use super::htpasswd::{self, Entry};
use crate::limits;

/// Users and their hashes; never changes.
#[derive(Debug, Default)]
pub struct Users {
    hashes: HashMap<Arc<str>, Hash>,
    /// One hash of each format and number of rounds: whoever fails has waited for one of each.
    classes: Vec<Hash>,
    /// The effort of all hashing so far.
    #[cfg(test)]
    spent: std::sync::atomic::AtomicU64,
}

impl Users {
    /// Of two entries for one user the first counts.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut users = Self::default();
        for Entry { user, hash } in entries {
            users.hashes.entry(user.into()).or_insert(hash);
        }
        let mut classes: Vec<&Hash> = users.hashes.values().collect();
        // Of the same class any will do; by the text, so that the choice hangs on nothing else.
        classes.sort_by_key(|hash| (hash.effort(), hash.format().to_string(), hash.secret_text()));
        classes.dedup_by_key(|hash| hash.format());
        users.classes = classes.into_iter().cloned().collect();
        users
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether nobody can come in with a password.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// How many have a hash of a weak format.
    #[must_use]
    pub fn weak(&self) -> usize {
        self.hashes.values().filter(|hash| hash.format().is_weak()).count()
    }

    /// The name of a user of this list, shared: thousands of connections may be the same user's.
    #[must_use]
    pub fn name(&self, user: &str) -> Option<Arc<str>> {
        self.hashes.get_key_value(user).map(|(name, _)| Arc::clone(name))
    }

    /// All of them, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hashes.keys().map(|name| &**name)
    }

    pub(super) fn hash_of(&self, user: &str) -> Option<&Hash> {
        self.hashes.get(user)
    }

    /// Whether `password` is that of `user`. Blocks for the time that the format takes. A failure takes one verification of each format in the list (with each number of
    /// rounds), whether the user exists or not.
    #[must_use]
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        let own = self.hashes.get(user);
        if own.is_some_and(|hash| self.fits(hash, password)) {
            return true;
        }
        for class in &self.classes {
            if own.is_none_or(|hash| hash.format() != class.format()) {
                // The outcome is of no interest, only the time it takes; `black_box` keeps it from being optimised away.
                std::hint::black_box(self.fits(class, password));
            }
        }
        false
    }

    /// Whether `user` has the same password here and in `other`, or is in neither.
    #[must_use]
    pub fn has_same(&self, other: &Self, user: &str) -> bool {
        std::ptr::eq(self, other) || self.hashes.get(user) == other.hashes.get(user)
    }

    /// The users of this list who are not in `new`, or have another password there.
    #[must_use]
    pub fn revoked_by(&self, new: &Self) -> HashSet<Arc<str>> {
        self.hashes.keys().filter(|user| !self.has_same(new, user)).cloned().collect()
    }

    /// A method only so that tests can count the effort.
    fn fits(&self, hash: &Hash, password: &[u8]) -> bool {
        #[cfg(test)]
        self.spent.fetch_add(hash.effort(), std::sync::atomic::Ordering::Relaxed);
        hash.verify(password)
    }

    #[cfg(test)]
    pub(super) fn spent(&self) -> u64 {
        self.spent.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    /// Inode and time of the last change of the inode (seconds, nanoseconds); zeros where there is no such thing.
    identity: (u64, i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt as _;
            (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let identity = (0, 0, 0);
        Self { modified: metadata.modified().ok(), length: metadata.len(), identity }
    }
}

/// Whether the list of users has changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// It has not.
    None,
    /// A file has changed just now and is perhaps not whole yet. To be asked again after [`limits::HTPASSWD_SETTLED`].
    Settling,
    /// It has; this one is in force now.
    New(Arc<Users>),
}

/// One htpasswd file and what was last read from it.
#[derive(Debug)]
struct File {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// The stamp of a change that was seen and not read yet.
    seen: Option<Option<Stamp>>,
    entries: Vec<Entry>,
    warnings: Vec<String>,
}

/// Where the users come from.
#[derive(Debug, Default)]
pub struct Credentials {
    files: Vec<File>,
    inline: Vec<Entry>,
    inline_warnings: Vec<String>,
}

impl Credentials {
    /// Reads every file of `paths`, then the `inline` entries (`user:hash`). What is wrong with them is in [`Self::warnings`]; a file
    /// that cannot be read counts as empty until it can.
    #[must_use]
    pub fn load(paths: &[PathBuf], inline: &[String]) -> Self {
        let mut credentials = Self::default();
        credentials.set_sources(paths, inline);
        for file in &mut credentials.files {
            file.load();
        }
        credentials
    }

    /// What is wrong with the files and entries in force, each one sentence that names its place.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let files = self.files.iter().flat_map(|file| &file.warnings);
        files.chain(&self.inline_warnings).cloned().collect()
    }

    /// The list in force. A user who is in two files has the password of the first; files come before inline entries.
    #[must_use]
    pub fn users(&self) -> Arc<Users> {
        let files = self.files.iter().flat_map(|file| &file.entries);
        Arc::new(Users::new(files.chain(&self.inline).cloned()))
    }

    /// How many entries of a weak format each file has; files without any are left out.
    #[must_use]
    pub fn weak_entries(&self) -> Vec<(&Path, usize)> {
        let count = |entries: &[Entry]| entries.iter().filter(|entry| entry.hash.format().is_weak()).count();
        let files = self.files.iter().map(|file| (file.path.as_path(), count(&file.entries)));
        files.filter(|(_, weak)| *weak > 0).collect()
    }

    /// The doubts that `wsmb check` and the start tell about: warnings, weak formats, nobody at all (unless `anonymous` connections are
    /// taken).
    #[must_use]
    pub fn doubts(&self, anonymous: bool) -> Vec<String> {
        let mut doubts = self.warnings();
        for (path, weak) in self.weak_entries() {
            doubts.push(format!(
                "{}: {weak} password(s) with a weak hash ({{SHA}} or $apr1$); set them anew with `wsmb passwd`",
                path.display()
            ));
        }
        let weak = self.inline.iter().filter(|entry| entry.hash.format().is_weak()).count();
        if weak > 0 {
            doubts.push(format!("auth.users: {weak} password(s) with a weak hash ({{SHA}} or $apr1$)"));
        }
        if !anonymous && self.files.iter().all(|file| file.entries.is_empty()) && self.inline.is_empty() {
            doubts.push("there are no users, so nobody can connect; add one with `wsmb passwd`".to_owned());
        }
        doubts
    }

    /// Reads again the files that have changed, each once it has been the same in two calls: an editor may empty it and then write. Meant to be called every few seconds: it asks for
    /// the metadata of each file and usually nothing more.
    pub fn reload_if_changed(&mut self) -> Change {
        let (mut changed, mut settling) = (false, false);
        for file in &mut self.files {
            let current = file.current_stamp();
            if current == file.stamp {
                file.seen = None;
            } else if file.seen == Some(current) {
                changed |= file.reload(false);
            } else {
                file.seen = Some(current);
                settling = true;
            }
        }
        match (changed, settling) {
            (true, _) => Change::New(self.users()),
            (false, true) => Change::Settling,
            (false, false) => Change::None,
        }
    }

    /// Reads every file again, with these sources from now on (SIGHUP). A file that cannot be read keeps what it had.
    pub fn reload(&mut self, paths: &[PathBuf], inline: &[String]) -> Arc<Users> {
        self.set_sources(paths, inline);
        for warning in &self.inline_warnings {
            tracing::warn!("{warning}");
        }
        for file in &mut self.files {
            file.reload(true);
        }
        self.users()
    }

    fn set_sources(&mut self, paths: &[PathBuf], inline: &[String]) {
        let mut old = std::mem::take(&mut self.files);
        self.files = paths
            .iter()
            .map(|path| match old.iter().position(|file| file.path == *path) {
                Some(at) => old.swap_remove(at),
                None => File { path: path.clone(), stamp: None, seen: None, entries: vec![], warnings: vec![] },
            })
            .collect();
        self.inline.clear();
        self.inline_warnings.clear();
        for (number, line) in (1..).zip(inline) {
            match htpasswd::parse_line(line.as_bytes()) {
                Ok(entry) => self.inline.push(entry),
                Err(bad) => self.inline_warnings.push(format!("auth.users, entry {number}: {bad}")),
            }
        }
    }
}

impl File {
    fn current_stamp(&self) -> Option<Stamp> {
        fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata))
    }

    /// Reads the file; if it cannot be used, the old entries stay. Whether they have been replaced.
    fn load(&mut self) -> bool {
        // Before reading: a change while it is read then shows as one more change.
        self.stamp = self.current_stamp();
        self.seen = None;
        let name = self.path.display().to_string();
        let parsed = match read(&self.path) {
            Err(error) => {
                // It may be readable in a moment although nothing about it changes: the process had no descriptors left, say.
                self.stamp = None;
                Err(format!("{name}: cannot be read: {error}"))
            }
            Ok(bytes) => match htpasswd::parse(&bytes, &name) {
                Err(too_large) => Err(format!("{name}: is not used: {too_large}")),
                Ok(_) if htpasswd::is_blank(&bytes) && !self.entries.is_empty() => Err(format!(
                    "{name}: is not used: it is empty; if nobody is to come in any more, let it say so in a comment (# no users)"
                )),
                Ok(parsed) if parsed.entries.is_empty() && parsed.refused > 0 => {
                    Err(format!("{name}: is not used: none of its lines is a user; first: {}", parsed.warnings[0]))
                }
                Ok(parsed) => Ok(parsed),
            },
        };
        match parsed {
            Ok(parsed) => {
                self.entries = parsed.entries;
                self.warnings = parsed.warnings;
                true
            }
            Err(warning) => {
                self.warnings = vec![warning];
                false
            }
        }
    }

    /// Like [`Self::load`], and logs how it went; one that can't be read again and again only if somebody has asked (`is_asked`).
    fn reload(&mut self, is_asked: bool) -> bool {
        let before = std::mem::take(&mut self.warnings);
        let loaded = self.load();
        if !loaded && !is_asked && self.warnings == before {
            return false;
        }
        for warning in &self.warnings {
            tracing::warn!("{warning}");
        }
        let users = self.entries.len();
        if loaded {
            tracing::info!(file = %self.path.display(), users, "password file read");
        } else {
            tracing::warn!(file = %self.path.display(), users, "the old list of this password file stays in force");
        }
        loaded
    }
}

/// The whole file, or as much of it as shows that it is too large.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limits::HTPASSWD_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
