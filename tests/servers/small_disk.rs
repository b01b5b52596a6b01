//! A file system so small that a test can fill it, or a limit of file sizes where mounting is not permitted.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Account;

/// A mounted file system in memory; unmounted when dropped.
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Creates the directory `place` and mounts a file system on it; `None` if mounting is not permitted.
    #[track_caller]
    pub fn mount(place: &Path, bytes: u64, account: &Account) -> Option<Self> {
        std::fs::create_dir(place).expect("a directory");
        account.own(place);
        let options = format!("size={bytes},mode=0700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "wsmb-test"]).arg(place).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            std::fs::remove_dir(place).expect("the new directory");
            return None;
        }
        account.own(place);
        Some(Self { place: place.to_path_buf() })
    }

    /// Fills the remaining space.
    #[track_caller]
    pub fn fill(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).expect("a file");
        let full = loop {
            if let Err(error) = ballast.write_all(&[0xA5; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    }

    /// Frees the space that [`Self::fill`] has taken.
    #[track_caller]
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("the file that fills the disk");
    }

    fn ballast(&self) -> PathBuf {
        self.place.join("wsmb-ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy unmount, because the server may still have open files on it.
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}

/// Limits the size of the files that a process writes; `None` removes the limit.
#[track_caller]
pub fn limit_files(pid: u32, bytes: Option<u64>) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    let limit = libc::rlimit { rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY), rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `prlimit` reads one structure and writes nothing.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
    // The process may have ended in the meantime.
    let error = std::io::Error::last_os_error();
    assert!(result == 0 || error.raw_os_error() == Some(libc::ESRCH), "a limit for the server: {error}");
}
