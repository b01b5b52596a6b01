//! The terminal that the broker was started on: closing it ends a broker that somebody runs by hand.
//!
//! SIGHUP has two meanings. A service gets it as the wish to read the configuration again. A program on a terminal gets it when the terminal is
//! closed. The two are told apart by looking at the terminal: after its end it says so. A program for which `nohup` has switched the
//! signal off goes on.

use std::os::fd::RawFd;

/// Those of standard input, output and error that were a terminal at the start.
#[derive(Debug)]
pub(super) struct Terminal(Vec<RawFd>);

impl Terminal {
    /// Call it before anybody listens for SIGHUP.
    pub(super) fn at_start() -> Self {
        let is_terminal = |descriptor: &RawFd| {
            // SAFETY: isatty has no memory to violate.
            unsafe { libc::isatty(*descriptor) == 1 }
        };
        Self(if is_hang_up_ignored() { Vec::new() } else { (0..=2).filter(is_terminal).collect() })
    }

    /// It was closed, or the connection to it was lost.
    pub(super) fn is_gone(&self) -> bool {
        self.0.iter().any(|descriptor| {
            let mut look = libc::pollfd { fd: *descriptor, events: 0, revents: 0 };
            // SAFETY: `look` is one valid pollfd for the whole call, which does not wait.
            unsafe { libc::poll(&raw mut look, 1, 0) == 1 && look.revents & libc::POLLHUP != 0 }
        })
    }
}

/// Whether this process ignores SIGHUP, as `nohup` does it for the programs that it starts: they are not to end with the terminal.
pub fn is_hang_up_ignored() -> bool {
    // SAFETY: a sigaction of zeros is valid, and the call only writes to it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
