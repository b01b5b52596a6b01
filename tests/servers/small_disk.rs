//! A file system so small that a test can fill it, or what comes nearest to it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Account;

/// A mounted file system in memory; gone when dropped.
pub struct SmallDisk {
    place: PathBuf,
}

impl SmallDisk {
    /// Mounts one over `place`, a new directory, where mounting is permitted.
    #[track_caller]
    pub fn mount(place: &Path, bytes: u64, account: &Account) -> Option<Self> {
        std::fs::create_dir(place).expect("a directory");
        account.own(place);
        let options = format!("size={bytes},mode=0700");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "wsmb-test"]).arg(place).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            std::fs::remove_dir(place).expect("the directory that was made a moment ago");
            return None;
        }
        account.own(place);
        Some(Self { place: place.to_path_buf() })
    }

    /// Takes all the room that is left.
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

    /// Gives it back.
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
        // Lazily, because the server may not have let go of it yet.
        let _ = Command::new("umount").arg("-l").arg(&self.place).status();
    }
}

/// From now on no file that this process writes gets larger than this; `None`: as large as it likes.
#[track_caller]
pub fn limit_files(pid: u32, bytes: Option<u64>) {
    let pid = libc::pid_t::try_from(pid).expect("a process id");
    let limit = libc::rlimit { rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY), rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `prlimit` reads the one structure and writes nothing.
    let result = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
    // One of a server's many processes may have ended in the meantime.
    let error = std::io::Error::last_os_error();
    assert!(result == 0 || error.raw_os_error() == Some(libc::ESRCH), "a limit for the server: {error}");
}
