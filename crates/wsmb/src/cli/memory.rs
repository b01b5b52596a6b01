//! The memory that the broker may use: `server.memory_budget`, or a part of the machine's memory.

use wsmb_config::{Server, limits};

/// The least and the most that the broker takes by itself.
const AUTO: std::ops::RangeInclusive<usize> = 64 << 20..=1 << 30;

/// What the broker takes of a machine whose memory it cannot learn.
const UNKNOWN: usize = 256 << 20;

/// Returns the bytes that the broker may use.
pub(crate) fn budget(server: &Server) -> usize {
    let least = limits::MEMORY_MESSAGES.saturating_mul(server.max_message);
    server.memory_budget.unwrap_or_else(|| share(system::memory(), system::group_limit()).max(least))
}

/// Returns a quarter of the machine's memory, or half of what the control group allows, if that is less than the machine has. `None`: unknown.
fn share(machine: Option<u64>, group: Option<u64>) -> usize {
    let group = group.filter(|limit| machine.is_none_or(|machine| *limit < machine));
    let share = group.map(|limit| limit / 2).or(machine.map(|bytes| bytes / 4));
    let share = share.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(UNKNOWN);
    share.clamp(*AUTO.start(), *AUTO.end())
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::path::{Path, PathBuf};

    use procfs::process::Process;
    use procfs::{Current as _, Meminfo};

    /// The machine's memory in bytes.
    pub(super) fn memory() -> Option<u64> {
        Meminfo::current().ok().map(|info| info.mem_total)
    }

    /// The least limit of memory of the control groups that contain this process, in bytes. (Documentation of the kernel: cgroup-v2, "memory.max";
    /// cgroup-v1, "memory.limit_in_bytes".)
    pub(super) fn group_limit() -> Option<u64> {
        let groups = Process::myself().and_then(|process| process.cgroups()).ok()?;
        let limits = groups.into_iter().filter_map(|group| {
            let (root, file) = match group.hierarchy {
                0 => ("/sys/fs/cgroup", "memory.max"),
                _ if group.controllers.iter().any(|name| name == "memory") => {
                    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
                }
                _ => return None,
            };
            least_limit(Path::new(root), &group.pathname, file)
        });
        limits.min()
    }

    /// Returns the least limit of a group and of the groups above it. In a container the path of the group may not exist, but its root does.
    fn least_limit(root: &Path, group: &str, file: &str) -> Option<u64> {
        let group: PathBuf = root.join(group.trim_start_matches('/'));
        let directories = group.ancestors().take_while(|directory| directory.starts_with(root));
        directories.filter_map(|directory| fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()).min()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_least_limit_of_all_groups_above_counts() {
            let root = tempfile::tempdir().unwrap();
            let inner = root.path().join("a/b");
            fs::create_dir_all(&inner).unwrap();
            assert_eq!(least_limit(root.path(), "/a/b", "memory.max"), None);
            fs::write(inner.join("memory.max"), "max\n").unwrap();
            assert_eq!(least_limit(root.path(), "/a/b", "memory.max"), None, "no limit");
            fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
            fs::write(root.path().join("memory.max"), "3000\n").unwrap();
            assert_eq!(least_limit(root.path(), "/a/b", "memory.max"), Some(1000));
            assert_eq!(least_limit(root.path(), "/not/here", "memory.max"), Some(3000));
        }

        #[test]
        fn this_machine_has_memory() {
            assert!(memory().is_some_and(|bytes| bytes > 64 << 20), "{:?}", memory());
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn memory() -> Option<u64> {
        None
    }

    pub(super) fn group_limit() -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_a_quarter_of_the_machine_or_half_of_the_group() {
        const GIB: u64 = 1 << 30;
        assert_eq!(share(Some(2 * GIB), None), 512 << 20);
        assert_eq!(share(Some(2 * GIB), Some(GIB / 2)), 256 << 20);
        assert_eq!(share(Some(2 * GIB), Some(u64::MAX)), 512 << 20, "no limit");
        assert_eq!(share(Some(GIB / 8), None), 64 << 20, "a small machine");
        assert_eq!(share(Some(64 * GIB), Some(32 * GIB)), 1 << 30, "a large machine");
        assert_eq!(share(None, None), UNKNOWN);
    }
}
