//! The code of this crate that depends on the operating system: signals, processes, pipes, rights on files, the shell, memory, local time.
//!
//! Each item has the same signature on every system, with a fallback where the system has no such function. Never here: a decision of a subcommand.

use std::borrow::Cow;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::{Child, Command};

pub(crate) use self::memory::{memory, memory_limit};
pub(crate) use self::signals::Signals;

/// The signals that stop a command.
#[cfg(unix)]
mod signals {
    use std::io;

    use tokio::signal::unix::{Signal, SignalKind, signal};

    pub(crate) struct Signals {
        interrupt: Signal,
        terminate: Signal,
        hang_up: Option<Signal>,
    }

    impl Signals {
        /// Installs the handlers. `hang_up`: also for SIGHUP (a closed terminal), unless the process ignores it.
        ///
        /// # Errors
        /// The system refuses a handler.
        pub(crate) fn new(hang_up: bool) -> io::Result<Self> {
            // `nohup` starts programs with SIGHUP ignored.
            let hang_up = hang_up && !wsmb_server::is_hang_up_ignored();
            let hang_up = hang_up.then(|| signal(SignalKind::hangup())).transpose()?;
            let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            Ok(Self { interrupt, terminate, hang_up })
        }

        /// Waits for the next signal.
        pub(crate) async fn next(&mut self) {
            let hung_up = async {
                match &mut self.hang_up {
                    Some(signal) => drop(signal.recv().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
                () = hung_up => {}
            }
        }
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
mod signals {
    pub(crate) struct Signals;

    impl Signals {
        pub(crate) fn new(_hang_up: bool) -> std::io::Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn next(&mut self) {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Returns the shell with a command, in a process group of its own where the system has process groups.
#[cfg(unix)]
pub(crate) fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec the closure makes only one system call, which touches no memory.
    unsafe {
        shell.pre_exec(|| {
            // If this program is killed, the broker delivers the message to another receiver, so the command should not continue. If the system
            // refuses the call, only this precaution is missing.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    shell
}

#[cfg(windows)]
pub(crate) fn shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.arg("/C").raw_arg(command);
    shell
}

/// The process group of a command: the command, and each process that it has started and that has not left the group. On other systems than Unix: the
/// command alone.
pub(crate) struct ProcessGroup {
    #[cfg(unix)]
    number: Option<libc::pid_t>,
}

#[cfg(unix)]
impl ProcessGroup {
    /// The group of a command that [`shell`] has started.
    pub(crate) fn of(child: &Child) -> Self {
        Self { number: child.id().and_then(|id| id.try_into().ok()) }
    }

    /// Asks the group to end (SIGTERM), where the system has such a request; else ends the command.
    pub(crate) fn terminate(&self, _child: &mut Child) {
        self.signal(libc::SIGTERM);
    }

    /// Ends the group (SIGKILL).
    pub(crate) fn kill(&self, _child: &mut Child) {
        self.signal(libc::SIGKILL);
    }

    /// Whether a process of the group is left. False on other systems than Unix.
    pub(crate) fn is_alive(&self) -> bool {
        self.signal(0)
    }

    /// Sends a signal to the group. Returns whether the group has a process. A group keeps its number as long as it has a process.
    fn signal(&self, signal: libc::c_int) -> bool {
        // SAFETY: `kill` accesses no memory of this process.
        self.number.is_some_and(|number| unsafe { libc::kill(-number, signal) } == 0)
    }
}

#[cfg(not(unix))]
#[allow(clippy::unused_self)] // The signatures are the same on every system.
impl ProcessGroup {
    pub(crate) fn of(_child: &Child) -> Self {
        Self {}
    }

    pub(crate) fn terminate(&self, child: &mut Child) {
        self.kill(child);
    }

    pub(crate) fn kill(&self, child: &mut Child) {
        // The process may have ended already.
        let _ = child.start_kill();
    }

    pub(crate) fn is_alive(&self) -> bool {
        false
    }
}

/// The number of the signal that has ended a process. `None` if it has exited, and on systems without signals.
pub(crate) fn signal_of(status: ExitStatus) -> Option<i32> {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status);
    #[cfg(not(unix))]
    {
        let _ = status;
        None
    }
}

/// Whether standard output is a pipe. False where the system does not tell.
pub(crate) fn stdout_is_pipe() -> bool {
    #[cfg(unix)]
    // SAFETY: all-zero is a valid `stat`, and the call only writes into it.
    unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::fstat(libc::STDOUT_FILENO, &raw mut found) == 0 && found.st_mode & libc::S_IFMT == libc::S_IFIFO
    }
    #[cfg(not(unix))]
    false
}

/// The number of bytes in the pipe of standard output that are not read yet. `None` where the system does not tell.
pub(crate) fn unread_bytes() -> Option<i32> {
    #[cfg(unix)]
    {
        let mut count: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int.
        let told = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::FIONREAD, &raw mut count) };
        (told == 0).then_some(count)
    }
    #[cfg(not(unix))]
    None
}

/// Whether the other end of the pipe of standard output is closed now, or becomes closed within this time. Blocks. False, at once, where the system
/// does not tell.
pub(crate) fn has_no_reader(patience: Duration) -> bool {
    #[cfg(unix)]
    {
        let mut end = libc::pollfd { fd: libc::STDOUT_FILENO, events: 0, revents: 0 };
        let millis = patience.as_millis().try_into().unwrap_or(-1);
        // SAFETY: poll gets one `pollfd`, and writes into it.
        unsafe { libc::poll(&raw mut end, 1, millis) > 0 && end.revents & (libc::POLLERR | libc::POLLHUP) != 0 }
    }
    #[cfg(not(unix))]
    {
        let _ = patience;
        false
    }
}

/// The name of this computer, as far as the system or the environment tells it.
#[cfg(feature = "tls")]
pub(crate) fn host_name() -> Option<String> {
    #[cfg(target_os = "linux")]
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    #[cfg(not(target_os = "linux"))]
    let name = ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok());
    name
}

/// Sets the mode of a new file.
#[cfg(feature = "tls")]
pub(crate) fn set_mode(options: &mut OpenOptions, mode: u32) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, mode);
    #[cfg(not(unix))]
    let _ = (options, mode);
}

/// Makes a new file accessible to its owner only (mode 0600). Does nothing on systems without such a mode.
pub(crate) fn make_file_private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

/// Makes new directories accessible to their owner only (mode 0700). Does nothing on systems without such a mode.
pub(crate) fn make_directories_private(builder: &mut DirBuilder) {
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
    #[cfg(not(unix))]
    let _ = builder;
}

/// Whether others than the owner have a right to the file. False where the system has no such rights.
pub(crate) fn is_readable_by_others(file: &File) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        false
    }
}

/// Returns the error with which the system would refuse to create a file in the directory. `None` where only an attempt can tell.
#[cfg(unix)]
pub(crate) fn access_error(directory: &Path) -> Option<io::Error> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path is a valid C string for the whole call, which only reads it.
    let answer = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS) };
    (answer != 0).then(io::Error::last_os_error)
}

#[cfg(not(unix))]
pub(crate) fn access_error(_directory: &Path) -> Option<io::Error> {
    None
}

/// Returns this user's directory for configuration files, as the XDG base directory specification says (on Windows: `APPDATA`).
pub(crate) fn configuration_directory() -> Option<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        directory("APPDATA")
    } else {
        directory("XDG_CONFIG_HOME").or_else(|| directory("HOME").map(|home| home.join(".config")))
    }
}

/// The file name of this program.
pub(crate) const PROGRAM: &str = if cfg!(windows) { "wsmb.exe" } else { "wsmb" };

/// Returns a text in quotes, as the shell reads it.
pub(crate) fn quoted(text: &str) -> String {
    if cfg!(windows) {
        format!("\"{}\"", text.replace('"', "\\\""))
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Returns the beginning of a command line that sets variables of the environment. The values must need no quotes.
pub(crate) fn with_variables(variables: &[(&str, &str)]) -> String {
    let set = |(name, value): &(&str, &str)| {
        if cfg!(windows) { format!("set {name}={value}& ") } else { format!("{name}={value} ") }
    };
    variables.iter().map(set).collect()
}

/// Returns the name of a variable in the form in which two names are compared: on Windows `User` and `USER` are the same variable.
pub(crate) fn variable_key(name: &str) -> Cow<'_, str> {
    if cfg!(windows) { name.to_ascii_uppercase().into() } else { name.into() }
}

/// Returns the seconds since midnight by the local clock (`TZ`, else the time zone of the system).
pub(crate) fn local_second() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = libc::time_t::try_from(now).unwrap_or(libc::time_t::MAX);
    // SAFETY: all-zero is a valid `tm`. The call only reads `now` and writes `local`.
    let local = unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        #[cfg(unix)]
        libc::localtime_r(&raw const now, &raw mut local);
        #[cfg(windows)]
        libc::localtime_s(&raw mut local, &raw const now);
        local
    };
    u32::try_from(local.tm_hour * 3_600 + local.tm_min * 60 + local.tm_sec).unwrap_or(0)
}

#[cfg(target_os = "linux")]
mod memory {
    use std::fs;
    use std::path::{Path, PathBuf};

    use procfs::process::Process;
    use procfs::{Current as _, Meminfo};

    /// The machine's memory in bytes. `None` where the system does not report it.
    pub(crate) fn memory() -> Option<u64> {
        Meminfo::current().ok().map(|info| info.mem_total)
    }

    /// The least limit of memory of the control groups that contain this process, in bytes. (Documentation of the kernel: cgroup-v2, "memory.max";
    /// cgroup-v1, "memory.limit_in_bytes".) `None` if there is no limit.
    pub(crate) fn memory_limit() -> Option<u64> {
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
mod memory {
    pub(crate) fn memory() -> Option<u64> {
        None
    }

    pub(crate) fn memory_limit() -> Option<u64> {
        None
    }
}
