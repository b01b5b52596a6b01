//! The bytes of one connection: reading, writing, readiness, the end, and the peer's acknowledgements.
//!
//! All other modules work with [`Transport`] and not with sockets. A transport is a TCP stream, with TLS or without (`tls_stream`); another kind (a Unix
//! socket) belongs here. Bytes are counted as the caller sees them, before encryption.
//!
//! Never here: a frame, a queue, a decision about when a connection ends.

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::platform;
use super::socket;
use super::tls_stream::TlsStream;

/// The byte stream of one connection. Any thread may write; only the connection's own task reads and waits for readiness.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    /// In a box, so that a connection without encryption is not larger.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "there is no value of its type"))]
    Tls(Box<TlsStream>),
}

impl Transport {
    /// Takes an accepted socket.
    ///
    /// # Errors
    /// The peer has gone.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Plain(stream))
    }

    fn stream(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => tls.stream(),
        }
    }

    /// Whether there may be input. If not, the task is woken when there is.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(stream) => stream.poll_read_ready(cx).map(|_| ()),
            Self::Tls(tls) => tls.poll_read_ready(cx),
        }
    }

    /// Whether the socket may take more. If not, the task is woken when it does.
    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream().poll_write_ready(cx).map(|_| ())
    }

    /// Waits until there may be input.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub(super) async fn readable(&self) -> io::Result<()> {
        // The future is smaller than those of `TcpStream::readable`.
        poll_fn(|cx| match self {
            Self::Plain(stream) => stream.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_read_ready(cx).map(Ok),
        })
        .await
    }

    /// Reads once. `Ok(0)`: the peer has ended its direction in an orderly way.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: there is no input. [`io::ErrorKind::UnexpectedEof`]: the end of an encrypted connection was not announced, so input may be
    /// missing.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => socket::try_read(stream, buffer),
            Self::Tls(tls) => tls.try_read(buffer),
        }
    }

    /// Reads once and appends to `buffer`, at most its spare capacity.
    ///
    /// # Errors
    /// As for [`Self::try_read`].
    pub(super) fn try_read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_read_buf(buffer),
            Self::Tls(tls) => {
                let before = buffer.len();
                buffer.resize(buffer.capacity(), 0);
                let result = tls.try_read(&mut buffer[before..]);
                buffer.truncate(before + result.as_ref().map_or(0, |count| *count));
                result
            }
        }
    }

    /// Writes once. Returns how many bytes were taken; the caller keeps the others, and gives them again, first.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: the socket is full.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
        }
    }

    /// Writes all bytes, and waits while the socket is full.
    ///
    /// # Errors
    /// The peer has gone.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            poll_fn(|cx| self.stream().poll_write_ready(cx)).await?;
            match self.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends a FIN, after the announcement of the end (`close_notify`) if the connection is encrypted. No bytes may be written after it.
    ///
    /// # Errors
    /// The peer has gone; the reader sees that too.
    pub(super) fn finish(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Tls(tls) => tls.finish(),
        }
    }

    /// Makes the close of the connection a reset, so that the kernel does not keep unsent bytes for minutes.
    pub(super) fn abort(&self) {
        if let Self::Tls(tls) = self {
            tls.abort();
        }
        // An error means that the connection has gone, and its bytes with it.
        let _ = SockRef::from(self.stream()).set_linger(Some(Duration::ZERO));
    }

    /// How many of the bytes that `try_write` has taken may not have been acknowledged by the peer's TCP, including 1 for a FIN; `None` where the system does not
    /// report it. Never too few: of an encrypted write that is acknowledged in part, all bytes count.
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        match self {
            Self::Plain(stream) => platform::unacknowledged(stream),
            Self::Tls(tls) => tls.unacknowledged(),
        }
    }

    /// The bytes of input that the transport itself holds: a part of an encrypted record, or a record that was read in part.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => tls.held(),
        }
    }
}
