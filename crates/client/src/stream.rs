//! The byte stream of a connection: TCP, with TLS or without.
//!
//! Never here: a frame, the upgrade.

use std::io;
use std::path::Path;
use std::pin::Pin;
#[cfg(feature = "tls")]
use std::task::ready;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;

use super::error::Error;
use super::url::Url;

/// A connected stream.
pub(super) enum Stream {
    Plain(TcpStream),
    /// `owes_byte`: the last byte of the last write is encrypted, but was not reported as written.
    #[cfg(feature = "tls")]
    Tls {
        stream: Box<TlsStream<TcpStream>>,
        owes_byte: bool,
    },
}

impl Stream {
    /// Connects, and performs the TLS handshake if the address begins with `wss://`. `ca`: as [`super::Options::ca`].
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Tls`], [`Error::Certificate`], [`Error::Lost`].
    pub(super) async fn connect(url: &Url, ca: Option<&Path>) -> Result<Self, Error> {
        let address = url.authority();
        let stream = match TcpStream::connect((url.host(), url.port())).await {
            Ok(stream) => stream,
            Err(source) => return Err(Error::Unreachable { address, source }),
        };
        // Each write contains all queued frames already. Nagle's algorithm would only add latency.
        stream.set_nodelay(true).map_err(|source| Error::Lost { address, source: Some(source) })?;
        if url.is_tls() { Self::secure(stream, url, ca).await } else { Ok(Self::Plain(stream)) }
    }

    #[cfg(feature = "tls")]
    async fn secure(stream: TcpStream, url: &Url, ca: Option<&Path>) -> Result<Self, Error> {
        let config = super::tls::config(url, ca)?;
        let name = super::tls::server_name(url)?;
        match tokio_rustls::TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => Ok(Self::Tls { stream: Box::new(stream), owes_byte: false }),
            Err(error) => Err(super::tls::error(url.authority(), error)),
        }
    }

    /// [`Url::parse`] accepts no such address in this build.
    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_async, reason = "the other build waits")]
    async fn secure(_: TcpStream, url: &Url, _: Option<&Path>) -> Result<Self, Error> {
        Err(Error::Lost { address: url.authority(), source: None })
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            #[cfg(feature = "tls")]
            Self::Tls { stream, .. } => stream.get_ref().0,
        }
    }

    /// Writes all bytes.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            #[cfg(feature = "tls")]
            Self::Tls { stream, .. } => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Reads once, and appends to `buffer`. 0: the server has ended the connection.
    pub(super) async fn read_buf(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            #[cfg(feature = "tls")]
            Self::Tls { stream, .. } => stream.read_buf(buffer).await,
        }
    }

    /// Reads once.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(feature = "tls")]
            Self::Tls { stream, .. } => Pin::new(stream).poll_read(context, buffer),
        }
    }

    /// Writes once. If the socket does not take all encrypted bytes, the last byte counts as not written, so that the caller comes again.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(feature = "tls")]
            Self::Tls { stream, owes_byte } => {
                let mut stream = Pin::new(stream);
                if *owes_byte {
                    ready!(stream.poll_flush(context))?;
                    *owes_byte = false;
                    return Poll::Ready(Ok(1));
                }
                let count = ready!(stream.as_mut().poll_write(context, bytes))?;
                if let Poll::Ready(flushed) = stream.poll_flush(context) {
                    return Poll::Ready(flushed.map(|()| count));
                }
                *owes_byte = count > 0;
                if count > 1 { Poll::Ready(Ok(count - 1)) } else { Poll::Pending }
            }
        }
    }

    /// Makes the close of the connection a reset.
    pub(super) fn abort(&self) {
        // If the system refuses the option, the drop ends the TCP connection without a reset.
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }
}
