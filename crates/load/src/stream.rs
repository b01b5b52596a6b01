//! The byte stream of a connection: TCP, with TLS or without. Blocking or not, as its socket is.

use std::io::{self, Read, Write};

#[cfg(feature = "tls")]
use rustls::{ClientConnection, StreamOwned};

use super::platform;

/// A stream over a socket of the standard library or of mio.
pub(super) enum Stream<S: Read + Write> {
    Plain(S),
    #[cfg(feature = "tls")]
    Tls(Box<StreamOwned<ClientConnection, S>>),
}

impl<S: Read + Write> Stream<S> {
    pub(super) fn tcp(&self) -> &S {
        match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub(super) fn tcp_mut(&mut self) -> &mut S {
        match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// Whether a read that does not fill its buffer has emptied the socket. With TLS a read returns one record, and TLS may hold others.
    pub(super) fn is_empty_after_short_read(&self) -> bool {
        match self {
            Self::Plain(_) => platform::SHORT_READ_EMPTIES,
            #[cfg(feature = "tls")]
            Self::Tls(_) => false,
        }
    }

    /// Replaces the socket by another object for the same socket.
    pub(super) fn map<T: Read + Write>(self, convert: impl FnOnce(S) -> T) -> Stream<T> {
        match self {
            Self::Plain(stream) => Stream::Plain(convert(stream)),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => {
                let StreamOwned { conn, sock } = *stream;
                Stream::Tls(Box::new(StreamOwned::new(conn, convert(sock))))
            }
        }
    }
}

impl<S: Read + Write> Read for Stream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => match stream.read(buffer) {
                // The end without an announcement: no message can be cut off, because the frames are counted.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
                result => result,
            },
        }
    }
}

impl<S: Read + Write> Write for Stream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    /// Writes what TLS holds.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.flush(),
        }
    }
}
