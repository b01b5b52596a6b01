//! The code of this crate that depends on the operating system: rights on files, and the limit of open files.
//!
//! Each function has the same signature on every system, with a fallback where the system has no such concept. Never here: a warning.

use std::path::Path;

/// Whether every user of this system may read the file. False where the system has no such rights.
pub(crate) fn is_world_readable(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o004 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// The number of files that this process may open (`ulimit -n`, the soft limit). `None` on systems without such a limit.
pub(crate) fn open_files() -> Option<u64> {
    #[cfg(unix)]
    return rlimit::Resource::NOFILE.get_soft().ok();
    #[cfg(not(unix))]
    None
}
