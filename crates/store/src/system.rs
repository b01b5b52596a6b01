//! Explanations of the operating system's errors. Each error has its own sentence, because each has a different remedy: a failing disk is not a full
//! disk.

/// An explained error of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// The symbolic name: `EIO`.
    pub(super) name: &'static str,
    /// The meaning, for an administrator.
    pub(super) meaning: &'static str,
    /// The remedy.
    pub(super) remedy: &'static str,
}

/// Explains an error number; `None` for numbers that file operations do not return.
#[cfg(unix)]
pub(super) fn cause(errno: i32) -> Option<Cause> {
    let [name, meaning, remedy] = match errno {
        libc::EIO => [
            "EIO",
            "the device that holds it fails",
            "save a copy of the file, read the output of `dmesg`, and replace the card or disk",
        ],
        libc::EROFS => [
            "EROFS",
            "its file system is read-only",
            "read the output of `dmesg`, because the system makes a failing device read-only, and mount it writable again",
        ],
        libc::EACCES | libc::EPERM => [
            "EACCES",
            "the broker's user has no right to it",
            "make the broker's user the owner of the file, its directory and the files beside it (`chown`)",
        ],
        libc::EMFILE => [
            "EMFILE",
            "the broker has no file descriptors left",
            "raise its limit (LimitNOFILE in the unit, `ulimit -n`), or lower server.max_connections",
        ],
        libc::ENFILE => [
            "ENFILE",
            "this machine has no file descriptors left",
            "end other programs, or raise the system's fs.file-max",
        ],
        libc::EDQUOT => {
            ["EDQUOT", "the quota of the broker's user is used up", "raise the quota, or remove files of that user"]
        }
        libc::EFBIG => [
            "EFBIG",
            "the file may not grow",
            "raise the limit of file sizes (LimitFSIZE in the unit, `ulimit -f`), or move it to a file system that takes larger files",
        ],
        libc::ENOSPC => ["ENOSPC", "the disk is full", "free space there, or give the store a larger place"],
        libc::ENOENT | libc::ENOTDIR => [
            "ENOENT",
            "its directory does not exist",
            "check the path in store.url, and that the file system is mounted",
        ],
        libc::EEXIST => ["EEXIST", "a file has the name of its directory", "check the path in store.url"],
        libc::EISDIR => ["EISDIR", "its name is that of a directory", "give another path in store.url"],
        libc::ENOMEM => ["ENOMEM", "the system has no memory left", "end other programs, or give the broker more"],
        libc::ESTALE => [
            "ESTALE",
            "the server of the network file system does not know it any more",
            "mount it again, or use a local disk",
        ],
        libc::ENODEV | libc::ENXIO => {
            ["ENODEV", "the device that it is on has gone", "connect the device and mount it again"]
        }
        _ => return None,
    };
    Some(Cause { name, meaning, remedy })
}

#[cfg(not(unix))]
pub(super) fn cause(_errno: i32) -> Option<Cause> {
    None
}

/// Whether the error means that there is no room for new rows, so that removals may still succeed.
pub(super) fn is_lack_of_room(errno: i32) -> bool {
    cause(errno).is_some_and(|cause| ["ENOSPC", "EDQUOT", "EFBIG"].contains(&cause.name))
}
