//! Which files a store has open: the main file, and the two that SQLite keeps beside it. Somebody may remove or replace them while they are in use, and then
//! what is written goes nowhere.

use std::path::{Path, PathBuf};

use crate::files::{aside_name, beside};

/// Device and inode.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// An open file can't be moved or removed here.
#[cfg(not(unix))]
fn identity(_path: &Path) -> Option<Identity> {
    None
}

/// A file that is open, as far as it is known.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    identity: Option<Identity>,
}

impl Known {
    fn new(path: PathBuf) -> Self {
        Self { path, identity: None }
    }

    fn is_other(&self) -> bool {
        identity(&self.path) != self.identity
    }
}

/// The files of one store.
#[derive(Debug)]
pub(super) struct Files {
    main: Known,
    /// The journal of SQLite (`-wal`), and what processes share of it (`-shm`).
    beside: [Known; 2],
}

impl Files {
    /// Of the store with this main file; none of them is open yet.
    pub(super) fn new(main: &Path) -> Self {
        let beside = ["-wal", "-shm"].map(|ending| Known::new(beside(main, ending)));
        Self { main: Known::new(main.to_owned()), beside }
    }

    /// They have just been opened, or are about to be.
    pub(super) fn note(&mut self) {
        self.main.identity = identity(&self.main.path);
        for known in &mut self.beside {
            known.identity = identity(&known.path);
        }
    }

    /// SQLite makes the files beside the main one when it needs them.
    pub(super) fn note_beside(&mut self) {
        for known in self.beside.iter_mut().filter(|known| known.identity.is_none()) {
            known.identity = identity(&known.path);
        }
    }

    /// The main file is not the one that was opened.
    pub(super) fn is_moved(&self) -> bool {
        self.main.is_other()
    }

    /// The file beside that is not there any more, or is another one.
    pub(super) fn lost_beside(&self) -> Option<String> {
        let lost = self.beside.iter().find(|known| known.identity.is_some() && known.is_other())?;
        Some(lost.path.display().to_string())
    }

    /// Renames what others have put in the place of these files: it must not be taken for the store's. Nothing is deleted.
    pub(super) fn put_aside_beside(&mut self) {
        for known in &self.beside {
            if known.identity.is_some() && known.is_other() && known.path.exists() {
                let aside = aside_name(&known.path, "foreign");
                match std::fs::rename(&known.path, &aside) {
                    Ok(()) => {
                        tracing::warn!("{} is not the store's own; it is {} now", known.path.display(), aside.display())
                    }
                    Err(error) => {
                        tracing::warn!("{} is not the store's own, and can't be renamed: {error}", known.path.display())
                    }
                }
            }
        }
    }
}
