//! The bytes of one connection: reading, writing, readiness, the end, and the peer's acknowledgements.
//!
//! All other modules work with [`Transport`] and not with sockets. Today every transport is a TCP stream without encryption; another kind (TLS, a
//! Unix socket) belongs here. Bytes are counted as they are on the wire.
//!
//! Never here: a frame, a queue, a decision about when a connection ends.

use std::io::{self, Read};
use std::net::Shutdown;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::platform;

/// The byte stream of one connection. Any thread may write; only the connection's own task waits for readiness.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
}

impl Transport {
    /// Takes an accepted socket.
    ///
    /// # Errors
    /// The peer has gone.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Whether there may be input. If not, the task is woken when there is.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_read_ready(cx).map(|_| ())
    }

    /// Whether the socket may take more. If not, the task is woken when it does.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_write_ready(cx).map(|_| ())
    }

    /// Waits until there may be input.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Reads once. A read that does not fill the buffer has emptied the socket, so readiness is awaited again without asking the
    /// kernel a second time (as tokio itself does, where readiness is edge-triggered).
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: there is no input.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = None;
        let result = self.stream.try_io(Interest::READABLE, || {
            let got = (&*SockRef::from(&self.stream)).read(buffer)?;
            count = Some(got);
            let emptied = platform::SHORT_READ_EMPTIES && got > 0 && got < buffer.len();
            if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match count {
            Some(count) => Ok(count),
            None => result.map(|()| 0),
        }
    }

    /// Reads once and appends to `buffer`, at most its spare capacity.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: there is no input.
    pub(super) fn try_read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.stream.try_read_buf(buffer)
    }

    /// Writes once. Returns how many bytes the socket has taken.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: the socket is full.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    /// Writes all bytes, and waits while the socket is full.
    ///
    /// # Errors
    /// The peer has gone.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a FIN. No bytes may be written after it.
    ///
    /// # Errors
    /// The peer has gone; the reader sees that too.
    pub(super) fn finish(&self) -> io::Result<()> {
        SockRef::from(&self.stream).shutdown(Shutdown::Write)
    }

    /// Makes the close of the connection a reset, so that the kernel does not keep unsent bytes for minutes.
    pub(super) fn abort(&self) {
        // An error means that the connection has gone, and its bytes with it.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Bytes that the peer's TCP has not acknowledged, including 1 for a FIN; `None` where the system does not report them.
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        platform::unacknowledged(&self.stream)
    }
}
