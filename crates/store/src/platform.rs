//! The code of this crate that depends on the operating system: the meaning of its errors, rights on files, the identity of files, locks, and free
//! space.
//!
//! Each item has the same signature on every system, with a fallback where the system has no such function. Each error of the system has its own
//! sentence, because each has a different remedy: a failing disk is not a full disk. Never here: a decision of a store.

use std::fs::{DirBuilder, File, OpenOptions};
use std::path::{Path, PathBuf};

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

/// Explains an error number; `None` for numbers that file operations do not return, and on other systems than Unix.
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

/// The error number for a lack of memory.
#[cfg(unix)]
pub(super) const OUT_OF_MEMORY: i32 = libc::ENOMEM;

/// `ERROR_NOT_ENOUGH_MEMORY`.
#[cfg(not(unix))]
pub(super) const OUT_OF_MEMORY: i32 = 8;

/// Whether SQLite failed to extend a file because the disk is full. `errno`: 0 if unknown.
pub(super) fn is_full(errno: i32) -> bool {
    #[cfg(unix)]
    return errno == libc::ENOSPC || errno == 0;
    #[cfg(not(unix))]
    {
        // The numbers of other systems are not told apart.
        let _ = errno;
        true
    }
}

/// Makes a new file accessible to its owner only (mode 0600). Does nothing on systems without such a mode.
pub(super) fn make_file_private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

/// Makes new directories accessible to their owner only (mode 0700). Does nothing on systems without such a mode.
pub(super) fn make_directories_private(builder: &mut DirBuilder) {
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
    #[cfg(not(unix))]
    let _ = builder;
}

/// Makes the name of a new or renamed file or directory durable, so that a power cut cannot undo the change. Does nothing on systems that cannot open
/// a directory.
pub(super) fn sync_directory(path: &Path) {
    if cfg!(unix)
        && let Some(directory) = path.parent()
    {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
    }
}

/// The canonical path, by which the store is locked. On other systems than Unix an absolute path, because not every program accepts the canonical
/// form.
pub(super) fn canonical(path: &Path) -> std::io::Result<PathBuf> {
    if cfg!(unix) { path.canonicalize() } else { std::path::absolute(path) }
}

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// Identifies the file that has this name now. `None` if there is none, and on systems where an open file cannot be moved or deleted.
#[cfg(unix)]
pub(super) fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
pub(super) fn identity(_path: &Path) -> Option<Identity> {
    None
}

/// The space of a disk, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) total: u64,
    /// What a process without special rights may still use.
    pub(super) free: u64,
}

/// Measures the disk of a file; `None` if the system does not tell. Other systems than Unix refuse new rows when the disk is full.
#[cfg(unix)]
pub(super) fn space(file: &Path) -> Option<Space> {
    let found = rustix::fs::statvfs(file).ok()?;
    Some(Space { total: found.f_blocks * found.f_frsize, free: found.f_bavail * found.f_frsize })
}

#[cfg(not(unix))]
pub(super) fn space(_file: &Path) -> Option<Space> {
    None
}

/// Whether the store's file itself can be locked. On other systems than Linux the lock would conflict with SQLite's locks.
pub(super) const CAN_LOCK_STORE: bool = cfg!(target_os = "linux");

/// The process that holds a lock of a whole file (`flock`), according to the system's list of locks; `None` if no process does, or if the list
/// does not say.
#[cfg(target_os = "linux")]
pub(super) fn lock_holder(file: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    /// How often the list is read when a lock is not found. The kernel returns the list page by page; if other locks are taken or released between
    /// two pages, an entry may be missing.
    const LIST_READS: usize = 3;
    let file = std::fs::metadata(file).ok()?;
    let wanted = format!("{:02x}:{:02x}:{}", libc::major(file.dev()), libc::minor(file.dev()), file.ino());
    (0..LIST_READS).find_map(|_| process_with_lock(&wanted))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn lock_holder(_file: &Path) -> Option<String> {
    None
}

/// The process that holds a `flock` on the file with this number ("08:01:123456"), according to the system's list of locks.
#[cfg(target_os = "linux")]
fn process_with_lock(wanted: &str) -> Option<String> {
    use std::io::Read as _;
    let mut list = Vec::with_capacity(64 * 1024);
    File::open("/proc/locks").and_then(|mut locks| locks.read_to_end(&mut list)).ok()?;
    // Example: "1: FLOCK  ADVISORY  WRITE 812 08:01:123456 0 EOF". A waiting lock has "->" as the second word.
    let list = String::from_utf8_lossy(&list);
    let mut locks = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let process = locks.find_map(|words| match words[..] {
        [_, "FLOCK", _, "WRITE", process, file, ..] if file == wanted => Some(process.to_owned()),
        _ => None,
    })?;
    // The list shows the process id 0 for a process in another container.
    Some(if process == "0" { "a process in another container".to_owned() } else { format!("process {process}") })
}
