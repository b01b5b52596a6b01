//! A transport as hyper reads and writes it, with the bytes that were read before.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::transport::Transport;

/// Bytes of one read. A larger body needs several.
const READ: usize = 8 << 10;

/// The transport of an HTTP connection.
#[derive(Debug)]
pub(super) struct HttpIo {
    pub(super) transport: Transport,
    /// Bytes that were read before, and come first.
    pub(super) before: Bytes,
}

impl Read for HttpIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut out: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.before.is_empty() {
            let count = self.before.len().min(out.remaining());
            out.put_slice(&self.before[..count]);
            self.before.advance(count);
            return Poll::Ready(Ok(()));
        }
        let mut buffer = [0; READ];
        let buffer = &mut buffer[..READ.min(out.remaining())];
        loop {
            ready!(self.transport.poll_read_ready(cx));
            match self.transport.try_read(buffer) {
                Ok(count) => {
                    out.put_slice(&buffer[..count]);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Write for HttpIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.transport.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.transport.poll_write_ready(cx)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.transport.finish())
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
