//! Reads the users from htpasswd files and from the configuration, and reads a file again when it has changed.
//!
//! If a changed file cannot be used, its old users stay in force and a warning is logged. All functions that read files block: they must
//! never run on the event loop.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::hash::Hash;
use super::htpasswd::{self, Entry};
use crate::{limits, platform};

/// The users and their hashes. Immutable.
#[derive(Debug, Default)]
pub struct Users {
    hashes: HashMap<Arc<str>, Hash>,
    /// One hash of each format and number of rounds. A failed login verifies one of each.
    one_per_format: Vec<Hash>,
    /// The effort of all verifications so far.
    #[cfg(test)]
    effort_spent: std::sync::atomic::AtomicU64,
}

impl Users {
    /// Collects the entries. If a user has two entries, the first one is used.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut users = Self::default();
        for Entry { user, hash } in entries {
            users.hashes.entry(user.into()).or_insert(hash);
        }
        let mut classes: Vec<&Hash> = users.hashes.values().collect();
        // Which hash of a format is kept does not matter. Sorting by the text makes the choice deterministic.
        classes.sort_by_key(|hash| (hash.effort(), hash.format().to_string(), hash.secret_text()));
        classes.dedup_by_key(|hash| hash.format());
        users.one_per_format = classes.into_iter().cloned().collect();
        users
    }

    /// The number of users.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are no users.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The number of users whose hash has a weak format.
    #[must_use]
    pub fn weak(&self) -> usize {
        self.hashes.values().filter(|hash| hash.format().is_weak()).count()
    }

    /// Returns the name of `user` as a shared string (thousands of connections may use one name), or `None` if there is no such user.
    #[must_use]
    pub fn name(&self, user: &str) -> Option<Arc<str>> {
        self.hashes.get_key_value(user).map(|(name, _)| Arc::clone(name))
    }

    /// All user names, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hashes.keys().map(|name| &**name)
    }

    pub(super) fn hash_of(&self, user: &str) -> Option<&Hash> {
        self.hashes.get(user)
    }

    /// Whether `password` is the password of `user`. Blocks: up to seconds with expensive formats. A failed check verifies one hash of each
    /// format and number of rounds in the list, whether the user exists or not, so that its duration does not show whether the user exists.
    #[must_use]
    pub fn verify(&self, user: &str, password: &[u8]) -> bool {
        let stored = self.hashes.get(user);
        if stored.is_some_and(|hash| self.verify_hash(hash, password)) {
            return true;
        }
        for class in &self.one_per_format {
            if stored.is_none_or(|hash| hash.format() != class.format()) {
                // Only the duration matters here. `black_box` prevents the compiler from removing the call.
                std::hint::black_box(self.verify_hash(class, password));
            }
        }
        false
    }

    /// Whether `user` has the same hash in both lists, or is in neither.
    #[must_use]
    pub fn has_same(&self, other: &Self, user: &str) -> bool {
        std::ptr::eq(self, other) || self.hashes.get(user) == other.hashes.get(user)
    }

    /// Returns the users of this list who are not in `new` or have another hash there.
    #[must_use]
    pub fn revoked_by(&self, new: &Self) -> HashSet<Arc<str>> {
        self.hashes.keys().filter(|user| !self.has_same(new, user)).cloned().collect()
    }

    /// Verifies one hash, and counts the effort for tests.
    fn verify_hash(&self, hash: &Hash, password: &[u8]) -> bool {
        #[cfg(test)]
        self.effort_spent.fetch_add(hash.effort(), std::sync::atomic::Ordering::Relaxed);
        hash.verify(password)
    }

    #[cfg(test)]
    pub(super) fn effort_spent(&self) -> u64 {
        self.effort_spent.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Identifies one version of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileVersion {
    modified: Option<SystemTime>,
    length: u64,
    /// The inode number, and the time of its last change (seconds, nanoseconds). Zeros on systems without inodes.
    identity: (u64, i64, i64),
}

impl FileVersion {
    /// Returns the version of the file with this metadata.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let identity = platform::identity(metadata);
        Self { modified: metadata.modified().ok(), length: metadata.len(), identity }
    }
}

/// What [`Credentials::reload_if_changed`] found.
#[derive(Clone, Debug)]
pub enum Change {
    /// No file has changed.
    None,
    /// A file has just changed and may be incomplete. Call again after [`limits::HTPASSWD_STABLE`].
    Unstable,
    /// A file has changed; this list is now in force.
    New(Arc<Users>),
}

/// One htpasswd file and the entries last read from it.
#[derive(Debug)]
struct File {
    path: PathBuf,
    version: Option<FileVersion>,
    /// The version of a change that was seen but not read yet. The inner `None`: the file was missing.
    unread: Option<Option<FileVersion>>,
    entries: Vec<Entry>,
    warnings: Vec<String>,
}

/// The sources of the users: htpasswd files and inline entries of the configuration.
#[derive(Debug, Default)]
pub struct Credentials {
    files: Vec<File>,
    inline: Vec<Entry>,
    inline_warnings: Vec<String>,
}

impl Credentials {
    /// Reads every file of `paths`, then the `inline` entries (`user:hash`). Invalid lines are reported by [`Self::warnings`]. A file that
    /// cannot be read counts as empty until it can be read.
    #[must_use]
    pub fn load(paths: &[PathBuf], inline: &[String]) -> Self {
        let mut credentials = Self::default();
        credentials.set_sources(paths, inline);
        for file in &mut credentials.files {
            file.load();
        }
        credentials
    }

    /// The invalid lines and unusable files; one sentence each, with the file or entry.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let files = self.files.iter().flat_map(|file| &file.warnings);
        files.chain(&self.inline_warnings).cloned().collect()
    }

    /// Returns the list in force. If a user is in two files, the first file takes precedence. Files take precedence over inline entries.
    #[must_use]
    pub fn users(&self) -> Arc<Users> {
        let files = self.files.iter().flat_map(|file| &file.entries);
        Arc::new(Users::new(files.chain(&self.inline).cloned()))
    }

    /// The number of entries of a weak format in each file. Files without such entries are omitted.
    #[must_use]
    pub fn weak_entries(&self) -> Vec<(&Path, usize)> {
        let count = |entries: &[Entry]| entries.iter().filter(|entry| entry.hash.format().is_weak()).count();
        let files = self.files.iter().map(|file| (file.path.as_path(), count(&file.entries)));
        files.filter(|(_, weak)| *weak > 0).collect()
    }

    /// The warnings that `wsmb check` prints and `wsmb serve` logs: [`Self::warnings`], weak formats, and that there are no users (unless
    /// `anonymous` connections are accepted).
    #[must_use]
    pub fn all_warnings(&self, anonymous: bool) -> Vec<String> {
        let mut warnings = self.warnings();
        for (path, weak) in self.weak_entries() {
            warnings.push(format!(
                "{}: {weak} password(s) with a weak hash ({{SHA}} or $apr1$); set new ones with `wsmb passwd`",
                path.display()
            ));
        }
        let weak = self.inline.iter().filter(|entry| entry.hash.format().is_weak()).count();
        if weak > 0 {
            warnings.push(format!("auth.users: {weak} password(s) with a weak hash ({{SHA}} or $apr1$)"));
        }
        if !anonymous && self.files.iter().all(|file| file.entries.is_empty()) && self.inline.is_empty() {
            warnings.push("there are no users, so nobody can connect; add one with `wsmb passwd`".to_owned());
        }
        warnings
    }

    /// Reads the changed files again, each once two calls in a row have found the same version: an editor may truncate a file before it
    /// writes it. Call this every few seconds: it reads the metadata of each file and usually nothing else.
    pub fn reload_if_changed(&mut self) -> Change {
        let (mut changed, mut unstable) = (false, false);
        for file in &mut self.files {
            let current = file.current_version();
            if current == file.version {
                file.unread = None;
            } else if file.unread == Some(current) {
                changed |= file.reload(false);
            } else {
                file.unread = Some(current);
                unstable = true;
            }
        }
        match (changed, unstable) {
            (true, _) => Change::New(self.users()),
            (false, true) => Change::Unstable,
            (false, false) => Change::None,
        }
    }

    /// Reads every file again, with new sources (SIGHUP). A file that cannot be read keeps its entries.
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
                None => File { path: path.clone(), version: None, unread: None, entries: vec![], warnings: vec![] },
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
    fn current_version(&self) -> Option<FileVersion> {
        fs::metadata(&self.path).ok().map(|metadata| FileVersion::of(&metadata))
    }

    /// Reads the file and returns whether its entries were replaced. If the file cannot be used, the old entries stay.
    fn load(&mut self) -> bool {
        // Taken before reading, so that a change during the reading is found by the next check.
        self.version = self.current_version();
        self.unread = None;
        let name = self.path.display().to_string();
        let parsed = match read(&self.path) {
            Err(error) => {
                // Forces another attempt: the file may become readable without a change, for example when the process has free descriptors again.
                self.version = None;
                Err(format!("{name}: cannot be read: {error}"))
            }
            Ok(bytes) => match htpasswd::parse(&bytes, &name) {
                Err(too_large) => Err(format!("{name}: is not used: {too_large}")),
                Ok(_) if htpasswd::is_blank(&bytes) && !self.entries.is_empty() => Err(format!(
                    "{name}: is not used: it is empty; to remove all users, write a comment into it (# no users)"
                )),
                Ok(parsed) if parsed.entries.is_empty() && parsed.refused > 0 => {
                    Err(format!("{name}: is not used: it has no valid line; first error: {}", parsed.warnings[0]))
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

    /// Calls [`Self::load`] and logs the result. A repeated failure with the same warnings is logged only if `is_requested` (SIGHUP).
    fn reload(&mut self, is_requested: bool) -> bool {
        let before = std::mem::take(&mut self.warnings);
        let loaded = self.load();
        if !loaded && !is_requested && self.warnings == before {
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

/// Reads the whole file. Stops one byte after the limit, so that the caller sees that the file is too large.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(limits::HTPASSWD_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
