//! The deliveries of a receiver as the stream of a response.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use super::mailbox::Next;
use super::receiver::Attached;
use super::subscription::Format;

/// The deliveries of one receiver, as a stream without an end.
pub(super) struct Stream {
    attached: Attached,
    format: Format,
    /// Silence after which a comment keeps the connection alive; zero: never.
    interval: Duration,
    silence: Pin<Box<Sleep>>,
    /// The client was told that its window is full.
    told_full: bool,
    has_begun: bool,
    has_ended: bool,
}

impl Stream {
    /// `format`: not [`Format::Batch`].
    pub(super) fn new(attached: Attached, format: Format, interval: Duration) -> Self {
        let silence = Box::pin(tokio::time::sleep(interval));
        Self { attached, format, interval, silence, told_full: false, has_begun: false, has_ended: false }
    }

    fn comment(&self, text: &str) -> Bytes {
        match self.format {
            Format::Events => Bytes::from(format!(": {text}\n\n")),
            // An empty line is no message.
            Format::Lines | Format::Batch => Bytes::from_static(b"\n"),
        }
    }

    fn write(&mut self, next: Next) -> Option<Bytes> {
        let Next::Lines { lines, is_full } = next else { return None };
        let mut out = BytesMut::with_capacity(lines.iter().map(|line| line.json.len() + 48).sum());
        for line in &lines {
            if self.format == Format::Events {
                if let Some(delivery) = line.delivery {
                    out.extend_from_slice(format!("id: {delivery}\n").as_bytes());
                }
                out.extend_from_slice(b"data: ");
            }
            out.extend_from_slice(&line.json);
            out.extend_from_slice(if self.format == Format::Events { b"\n\n" } else { b"\n" });
        }
        if is_full && !self.told_full && self.format == Format::Events {
            out.extend_from_slice(b": the window is full; acknowledge deliveries to get more\n\n");
        }
        self.told_full = is_full;
        Some(out.freeze())
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            // The client learns at once that it receives, also behind a proxy that waits for the first byte.
            let hello = if self.format == Format::Events { "retry: 1000\n: connected\n\n" } else { "\n" };
            return Poll::Ready(Some(Ok(Bytes::from_static(hello.as_bytes()))));
        }
        match self.attached.poll_next(usize::MAX, cx) {
            Poll::Ready(Next::Aborted) => {
                self.has_ended = true;
                return Poll::Ready(Some(Err(io::Error::other("ended to free memory"))));
            }
            Poll::Ready(next) => {
                self.silence.as_mut().reset(Instant::now() + self.interval);
                let bytes = self.write(next);
                self.has_ended = bytes.is_none();
                return Poll::Ready(bytes.map(Ok));
            }
            Poll::Pending => {}
        }
        if !self.interval.is_zero() && self.silence.as_mut().poll(cx).is_ready() {
            self.silence.as_mut().reset(Instant::now() + self.interval);
            // Registers the new time.
            let _ = self.silence.as_mut().poll(cx);
            return Poll::Ready(Some(Ok(self.comment("still here"))));
        }
        Poll::Pending
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.poll_bytes(cx).map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)))
    }
}
