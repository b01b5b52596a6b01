//! The code of this crate that depends on the operating system: owners and modes of files.
//!
//! Each function has the same signature on every system, and does nothing where the system has no such concept. Never here: the text of a
//! password file.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// The inode number, and the time of its last change (seconds, nanoseconds). Zeros on systems without inodes.
#[cfg(unix)]
pub(crate) fn identity(metadata: &Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
pub(crate) fn identity(_metadata: &Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

/// Whether users other than the owner may read or change the file. False if the file does not exist.
pub(crate) fn is_readable_by_others(file: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

/// Makes new directories accessible to their owner only (mode 0700).
pub(crate) fn make_directories_private(builder: &mut DirBuilder) {
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
    #[cfg(not(unix))]
    let _ = builder;
}

/// Makes a new file accessible to its owner only (mode 0600).
pub(crate) fn make_file_private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

/// Makes a rename of `file` durable, where that needs a separate request to the system.
///
/// # Errors
/// The directory cannot be written.
pub(crate) fn sync_directory_of(file: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(directory_of(file))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

#[cfg(unix)]
fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What the caller must report about the owner of a written file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An existing file kept its owner, group and mode; a new one has the owner it should have.
    Nothing,
    /// The owner changed to the user of this process, because only root may give a file to another user.
    OwnerLost {
        /// The numbers (uid, gid) of the previous owner and group.
        owner: (u32, u32),
    },
    /// Root created a new file in a directory of root, so only root can read it.
    RootOnly,
}

/// Gives the new file the owner, group and mode that `target` has or should have. Must run before the text is written.
///
/// # Errors
/// The owner or mode of a file cannot be read, or the mode cannot be set.
#[cfg(unix)]
pub(crate) fn copy_owner_and_mode(file: &File, target: &Path) -> io::Result<Notice> {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};

    let own = file.metadata()?;
    let is_root = own.uid() == 0;
    let old = fs::metadata(target).ok();
    let model = match &old {
        Some(old) => Some(old.clone()),
        // Only root can give a file to another user.
        None if is_root => Some(fs::metadata(directory_of(target))?),
        None => None,
    };
    let mut notice = Notice::Nothing;
    if let Some(model) = &model {
        let owner = (model.uid(), model.gid());
        let given = owner == (own.uid(), own.gid()) || fchown(file, Some(owner.0), Some(owner.1)).is_ok();
        if !given {
            // The group may be a group of this process's user.
            let _ = fchown(file, None, Some(owner.1));
            notice = Notice::OwnerLost { owner };
        } else if old.is_none() && owner.0 == 0 {
            notice = Notice::RootOnly;
        }
    }
    // After the owner: changing the owner may clear bits of the mode.
    if let Some(old) = old {
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
    }
    Ok(notice)
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps)] // The signature is the same on every system.
pub(crate) fn copy_owner_and_mode(_file: &File, _target: &Path) -> io::Result<Notice> {
    Ok(Notice::Nothing)
}
