//! What the operating system's errors mean to people: each by its own sentence, because each has another cure. A card that is dying is not full.

/// What the system said about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    /// As the system's manuals call it: `EIO`.
    pub(super) name: &'static str,
    /// What it means.
    pub(super) meaning: &'static str,
    /// What to do.
    pub(super) cure: &'static str,
}

/// What an error number means, if it is one that files give.
#[cfg(unix)]
pub(super) fn cause(errno: i32) -> Option<Cause> {
    let [name, meaning, cure] = match errno {
        libc::EIO => [
            "EIO",
            "the device that it is on fails",
            "save a copy of the file, see what `dmesg` says, and replace the card or disk",
        ],
        libc::EROFS => [
            "EROFS",
            "its file system is read-only",
            "see what `dmesg` says, because the system does that to a device that fails, and mount it writable again",
        ],
        libc::EACCES | libc::EPERM => [
            "EACCES",
            "the broker's user has no right to it",
            "give the broker's user the file, its directory and the files beside it (`chown`)",
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
        libc::ENOENT | libc::ENOTDIR => {
            ["ENOENT", "its directory is not there", "check the path in store.url, and that the file system is mounted"]
        }
        libc::EEXIST => ["EEXIST", "a file stands where its directory must be", "check the path in store.url"],
        libc::EISDIR => ["EISDIR", "there is a directory of that name", "give another path in store.url"],
        libc::ENOMEM => ["ENOMEM", "the system has no memory left", "end other programs, or give the broker more"],
        libc::ESTALE => [
            "ESTALE",
            "the server of the network file system has lost it",
            "mount it anew; a local disk is the better place",
        ],
        libc::ENODEV | libc::ENXIO => {
            ["ENODEV", "the device that it is on has gone", "connect the device and mount it again"]
        }
        _ => return None,
    };
    Some(Cause { name, meaning, cure })
}

#[cfg(not(unix))]
pub(super) fn cause(_errno: i32) -> Option<Cause> {
    None
}

/// Whether new rows find no room, while old ones may still be let go.
pub(super) fn is_lack_of_room(errno: i32) -> bool {
    cause(errno).is_some_and(|cause| ["ENOSPC", "EDQUOT", "EFBIG"].contains(&cause.name))
}
