//! The open files of a store: the main file, and the two files that SQLite keeps beside it. If another program deletes or replaces an open file,
//! writes to it are lost.

use std::path::{Path, PathBuf};

use crate::files::{aside_name, beside};
use crate::platform::{Identity, identity};

/// A file that is open.
#[derive(Debug)]
struct TrackedFile {
    path: PathBuf,
    identity: Option<Identity>,
}

impl TrackedFile {
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
    main: TrackedFile,
    /// SQLite's write-ahead log (`-wal`), and its index that processes share (`-shm`).
    side_files: [TrackedFile; 2],
}

impl Files {
    /// The files of the store with this main file; none of them is open yet.
    pub(super) fn new(main: &Path) -> Self {
        let side_files = ["-wal", "-shm"].map(|ending| TrackedFile::new(beside(main, ending)));
        Self { main: TrackedFile::new(main.to_owned()), side_files }
    }

    /// Records the identities of the files, which have just been opened or are opened next.
    pub(super) fn track(&mut self) {
        self.main.identity = identity(&self.main.path);
        for known in &mut self.side_files {
            known.identity = identity(&known.path);
        }
    }

    /// Records the identities of side files that SQLite has created since.
    pub(super) fn track_new_side_files(&mut self) {
        for known in self.side_files.iter_mut().filter(|known| known.identity.is_none()) {
            known.identity = identity(&known.path);
        }
    }

    /// Whether the main file has been moved, deleted or replaced since it was opened.
    pub(super) fn is_moved(&self) -> bool {
        self.main.is_other()
    }

    /// The path of a side file that has been deleted or replaced.
    pub(super) fn lost_side_file(&self) -> Option<String> {
        let lost = self.side_files.iter().find(|known| known.identity.is_some() && known.is_other())?;
        Some(lost.path.display().to_string())
    }

    /// Renames files that other programs have put in the place of side files, so that SQLite does not read them. Deletes nothing.
    pub(super) fn rename_foreign_files(&mut self) {
        for known in &self.side_files {
            if known.identity.is_some() && known.is_other() && known.path.exists() {
                let set_aside = aside_name(&known.path, "foreign");
                match std::fs::rename(&known.path, &set_aside) {
                    Ok(()) => {
                        tracing::warn!(
                            "{} does not belong to the store, and was renamed to {}",
                            known.path.display(),
                            set_aside.display()
                        )
                    }
                    Err(error) => {
                        tracing::warn!(
                            "{} does not belong to the store, and can't be renamed: {error}",
                            known.path.display()
                        )
                    }
                }
            }
        }
    }
}
