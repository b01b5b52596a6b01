//! The code of this crate that depends on the operating system: signals, the terminal, clocks, sockets, memory.
//!
//! Each item has the same signature on every system, with a fallback where the system has no such function. Never here: a decision of the
//! server, such as the stop or the reload after a signal (that is `serving`'s).

use std::io;
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};

use crate::limits;

/// The request that a signal stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Stop(&'static str),
    #[cfg_attr(not(unix), allow(dead_code))] // Only Unix has a signal for it.
    Reload,
}

/// The signals of the process.
#[cfg(unix)]
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    terminal: Terminal,
}

#[cfg(unix)]
impl Signals {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminal: Terminal::at_start(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hang_up.recv() => {
                if self.terminal.is_gone() { Signal::Stop("SIGHUP, the terminal was closed") } else { Signal::Reload }
            }
        }
    }
}

/// The signals of the process.
#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Installs the signal handlers.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler, Ctrl-C ends the process.
            std::future::pending::<()>().await;
        }
        Signal::Stop("Ctrl-C")
    }
}

impl Signals {
    /// Waits for a second stop signal. Signals within [`limits::SECOND_SIGNAL`] after the `first` are ignored.
    pub(super) async fn insist(&mut self, first: Instant) {
        while self.next().await == Signal::Reload || first.elapsed() < limits::SECOND_SIGNAL {}
    }
}

/// The terminal on which the broker was started: those of standard input, output and error that were a terminal at the start; none under `nohup`.
///
/// SIGHUP has two meanings: a service gets it as a request to reload, and a program on a terminal gets it when the terminal is closed. `poll`
/// tells whether the terminal is closed: then a broker that was started by hand stops. A broker under `nohup` goes on.
#[cfg(unix)]
#[derive(Debug)]
struct Terminal(Vec<std::os::fd::RawFd>);

#[cfg(unix)]
impl Terminal {
    /// Must be called before a handler for SIGHUP is installed.
    fn at_start() -> Self {
        let is_terminal = |descriptor: &std::os::fd::RawFd| {
            // SAFETY: isatty accesses no memory of the process.
            unsafe { libc::isatty(*descriptor) == 1 }
        };
        Self(if is_hang_up_ignored() { Vec::new() } else { (0..=2).filter(is_terminal).collect() })
    }

    /// Whether the terminal was closed, or the connection to it was lost.
    fn is_gone(&self) -> bool {
        self.0.iter().any(|descriptor| {
            let mut look = libc::pollfd { fd: *descriptor, events: 0, revents: 0 };
            // SAFETY: `look` is one valid pollfd for the whole call, which does not wait.
            unsafe { libc::poll(&raw mut look, 1, 0) == 1 && look.revents & libc::POLLHUP != 0 }
        })
    }
}

/// Whether this process ignores SIGHUP, as under `nohup`: then it must not end with the terminal. False on systems without this signal.
#[must_use]
pub fn is_hang_up_ignored() -> bool {
    #[cfg(unix)]
    // SAFETY: a sigaction of zeros is valid, and the call only writes to it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
    #[cfg(not(unix))]
    false
}

/// Time since an unspecified moment before the start, including the time during which the system was suspended. `None` where the system does not
/// report it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn since_boot() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec`, which outlives the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) } != 0;
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    (!failed).then(|| Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default()))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn since_boot() -> Option<Duration> {
    None
}

/// Whether the kernel reports that a time service has set its clock. True where the system does not report it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn is_clock_synchronised() -> bool {
    static IS_ALLOWED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if !*IS_ALLOWED.get_or_init(may_call_adjtimex) {
        return true;
    }
    // SAFETY: all fields are numbers, for which zero is valid; with `modes` 0 the call changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes one `timex`, which outlives the call.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    answer == -1 || state.status & libc::STA_UNSYNC == 0
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn is_clock_synchronised() -> bool {
    true
}

/// Whether `adjtimex` is allowed: a system call filter (`SystemCallFilter=` of systemd) kills a process for a call that the filter does not list. A child
/// process tries the call.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn may_call_adjtimex() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2")) {
        return true;
    }
    // SAFETY: all fields are numbers, for which zero is valid.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the child makes only two system calls, on its own memory. Other code would not be safe in it, because other threads may hold locks.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::adjtimex(&raw mut state);
            libc::_exit(0);
        }
        let mut end = 0;
        child > 0 && libc::waitpid(child, &raw mut end, 0) == child && libc::WIFEXITED(end)
    }
}

/// Whether a read that does not fill the buffer has emptied the socket, so that the system reports the next input (edge-triggered readiness).
pub(super) const SHORT_READ_EMPTIES: bool =
    cfg!(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios"));

/// Bytes that the peer's TCP has not acknowledged, including 1 for a FIN; `None` where the system does not report them.
#[cfg(target_os = "linux")]
pub(super) fn unacknowledged(stream: &TcpStream) -> Option<u64> {
    use std::os::fd::AsRawFd as _;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as `stream` lives, and TIOCOUTQ (tcp(7): SIOCOUTQ) writes one int.
    let failed = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } != 0;
    if failed { None } else { u64::try_from(bytes).ok() }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn unacknowledged(_stream: &TcpStream) -> Option<u64> {
    None
}

/// Lets the socket use a port whose last connections have just ended. Does nothing on Windows, where the option would let two programs use the
/// same port.
///
/// # Errors
/// The system refuses the option.
pub(super) fn reuse_port_after_restart(socket: &TcpSocket) -> io::Result<()> {
    if cfg!(windows) { Ok(()) } else { socket.set_reuseaddr(true) }
}

/// Whether the system has no sockets of this address family (IPv6 on a machine without it).
pub(super) fn is_unknown_family(cause: &io::Error) -> bool {
    #[cfg(unix)]
    if cause.raw_os_error() == Some(libc::EAFNOSUPPORT) {
        return true;
    }
    cause.kind() == io::ErrorKind::Unsupported
}

/// Whether the process or the system has no file descriptors left. False on systems without them.
pub(super) fn is_out_of_descriptors(cause: &io::Error) -> bool {
    #[cfg(unix)]
    return matches!(cause.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    #[cfg(not(unix))]
    {
        let _ = cause;
        false
    }
}

/// Gives freed memory back to the system, where the allocator has a function for it. Blocks other threads' allocations meanwhile: some milliseconds for
/// 100 MB.
pub(super) fn trim_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function may be called at any time; it changes no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes the allocator keep memory that is freed and needed again at once. Without it, glibc returns the memory at the end of its heap, and every large
/// block, to the system with each burst of messages, and the kernel must clear the same pages again for the next one. Freed memory is returned by
/// [`trim_memory`]. Must be called before there are threads.
pub(super) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function may be called at any time; it only sets numbers in the allocator.
    unsafe {
        // If a value is refused, the allocator keeps its own.
        libc::mallopt(libc::M_TRIM_THRESHOLD, limits::MEMORY_KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, limits::MEMORY_BLOCK);
    }
}
