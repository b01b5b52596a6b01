//! What the system tells of a TCP connection.

use tokio::net::TcpStream;

/// Bytes that the peer's TCP has not acknowledged, a FIN counted as one; `None` where the system can't tell.
#[cfg(target_os = "linux")]
pub(super) fn unacknowledged(stream: &TcpStream) -> Option<u64> {
    use std::os::fd::AsRawFd;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as `stream` lives, and TIOCOUTQ (tcp(7): SIOCOUTQ) writes one int.
    let failed = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } != 0;
    if failed { None } else { u64::try_from(bytes).ok() }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn unacknowledged(_stream: &TcpStream) -> Option<u64> {
    None
}
