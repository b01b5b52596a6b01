//! Processes and ports, with the code of the tests that start servers.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a process may take to start, to answer or to end.
pub const PATIENCE: Duration = Duration::from_secs(30);

#[allow(dead_code)] // The tests use functions that are not used here.
#[path = "../../tests/servers/process.rs"]
mod test_support;

pub use test_support::*;

/// Locks a mutex, even if another thread panicked while it held the lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets the kernel send RST when the socket is closed.
pub fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = std::mem::size_of::<libc::linger>() as libc::socklen_t;
    let value = (&raw const linger).cast();
    // SAFETY: the descriptor is open, and the structure lives during the call.
    unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, size) };
}
