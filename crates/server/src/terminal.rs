//! The terminal on which the broker was started: when it is closed, a broker that was started by hand stops.
//!
//! SIGHUP has two meanings: a service gets it as a request to reload, and a program on a terminal gets it when the terminal is closed. `poll` tells whether
//! the terminal is closed. A broker under `nohup` goes on.

use std::os::fd::RawFd;

/// Those of standard input, output and error that were a terminal at the start; none under `nohup`.
#[derive(Debug)]
pub(super) struct Terminal(Vec<RawFd>);

impl Terminal {
    /// Must be called before a handler for SIGHUP is installed.
    pub(super) fn at_start() -> Self {
        let is_terminal = |descriptor: &RawFd| {
            // SAFETY: isatty accesses no memory of the process.
            unsafe { libc::isatty(*descriptor) == 1 }
        };
        Self(if is_hang_up_ignored() { Vec::new() } else { (0..=2).filter(is_terminal).collect() })
    }

    /// Whether the terminal was closed, or the connection to it was lost.
    pub(super) fn is_gone(&self) -> bool {
        self.0.iter().any(|descriptor| {
            let mut look = libc::pollfd { fd: *descriptor, events: 0, revents: 0 };
            // SAFETY: `look` is one valid pollfd for the whole call, which does not wait.
            unsafe { libc::poll(&raw mut look, 1, 0) == 1 && look.revents & libc::POLLHUP != 0 }
        })
    }
}

/// Whether this process ignores SIGHUP, as under `nohup`: then it must not end with the terminal.
pub fn is_hang_up_ignored() -> bool {
    // SAFETY: a sigaction of zeros is valid, and the call only writes to it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
