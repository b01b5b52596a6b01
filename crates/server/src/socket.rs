//! A read that knows when the socket is empty, which tokio's sockets do not have.

use std::io::{self, Read};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::platform;

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
        if platform::SHORT_READ_EMPTIES && got > 0 && got < buffer.len() {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(())
        }
    });
    match count {
        Some(count) => Ok(count),
        None => result.map(|()| 0),
    }
}
