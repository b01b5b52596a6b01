//! Two things that tokio's sockets do not do: a read that knows when the socket is empty, and the bytes that the peer has not acknowledged.

use std::io::{self, Read};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Reads once. A read that does not fill the buffer has emptied the socket, so readiness is awaited again without asking the kernel a second time (as tokio
/// itself does, where readiness is edge-triggered).
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`]: there is no input.
pub(super) fn try_read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = None;
    let result = stream.try_io(Interest::READABLE, || {
        let got = (&*SockRef::from(stream)).read(buffer)?;
        count = Some(got);
        let emptied = cfg!(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios"));
        if emptied && got > 0 && got < buffer.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match count {
        Some(count) => Ok(count),
        None => result.map(|()| 0),
    }
}

/// Bytes that the peer's TCP has not acknowledged, including 1 for a FIN; `None` where the system does not report them.
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
