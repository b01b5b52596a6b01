//! A WebSocket client of the broker for applications. The command line uses this client, too.
//!
//! A client is one connection over TCP, with TLS (`wss://`) or without. It uses the frames and the handshake of the crate `protocol`. Its memory is bounded: one read buffer, the
//! messages of one read, and the frames that the caller has queued. If the caller takes no messages, the client stops reading, and TCP backpressure stops
//! the broker.
//!
//! ```text
//! send_text, send_binary ─► frames ─► socket
//! next ◄── messages ◄── frames ◄── socket
//! ```
//!
//! Never reconnects by itself (a caller can reconnect with a [`Backoff`]), never retries, and never prints.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use wsmb_client::{Client, Credentials, Options, Url};
//!
//! let options = Options { credentials: Some(Credentials::new("app", "secret")), ..Options::default() };
//! let mut client = Client::connect(&Url::parse("ws://127.0.0.1:8888")?, &options).await?;
//! client.send_text(r#"{"command":"ping","channel":"sms"}"#).await?;
//! println!("{:?}", client.next().await?);
//! # Ok(()) }
//! ```

mod backoff;
mod credentials;
mod error;
pub mod frames;
pub mod limits;
mod random;
mod stream;
#[cfg(feature = "tls")]
pub mod tls;
mod url;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::time::Instant;

pub use self::backoff::Backoff;
pub use self::credentials::{Credentials, Token};
pub use self::error::Error;
use self::random::MaskPool;
pub use self::random::new_key;
use self::stream::Stream;
pub use self::url::{BadUrl, Url};
use wsmb_core::message::{Frame, Kind};
use wsmb_protocol::frame::{Decoder, Incoming, Opcode, Role, encode_masked_into, payload_start};
use wsmb_protocol::handshake;

/// Options of a connection.
#[derive(Clone, Debug)]
pub struct Options {
    /// User and password; `None`: the user and the password in the address, if it has any.
    pub credentials: Option<Credentials>,
    /// A token, instead of user and password.
    pub token: Option<Token>,
    /// A PEM file with the only certificates that are trusted for `wss://`: of authorities, or of the server itself. `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// The timeout from the first packet to the end of the handshake.
    pub connect_timeout: Duration,
    /// The client pings after this time without a frame. After twice this time the connection counts as lost. `None`: no pings and no timeout.
    pub keepalive: Option<Duration>,
    /// The largest accepted message, in bytes. A larger message ends the connection (close code 1009).
    pub max_message: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: None,
            token: None,
            ca: None,
            connect_timeout: limits::CLIENT_CONNECT,
            keepalive: Some(limits::CLIENT_KEEPALIVE),
            max_message: limits::CLIENT_MESSAGE,
        }
    }
}

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whether the frame was a text frame or a binary frame.
    pub kind: Kind,
    /// The payload. The payload of a text frame is valid UTF-8.
    pub payload: Bytes,
}

impl Message {
    /// Returns the payload as text; `None` if it is not UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.payload).ok()
    }
}

/// A connection to a broker.
///
/// All futures are cancellation-safe: [`Client::next`] may be used in a `select!`.
pub struct Client {
    stream: Stream,
    address: String,
    decoder: Decoder,
    input: Box<[u8]>,
    received: VecDeque<Message>,
    output: Vec<u8>,
    written: usize,
    masks: MaskPool,
    /// Why the connection ended. The caller gets this error after all received messages.
    end: Option<Error>,
    /// Whether a close frame is queued. No frame may follow a close frame.
    closing: bool,
    /// Whether only [`Self::close`] answers the broker's close frame.
    is_close_reply_deferred: bool,
    /// The code of the broker's close frame, if it is not answered yet.
    unanswered_close: Option<u16>,
    keepalive: Option<Duration>,
    last_received: Instant,
    is_ping_unanswered: bool,
}

impl Client {
    /// Connects, and offers the subprotocol `wsmb.v1`. An address with `?topic=NAME` selects the topic dialect, any other address the envelope dialect.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::TimedOut`], [`Error::Tls`], [`Error::Certificate`], [`Error::Refused`], [`Error::Lost`].
    pub async fn connect(url: &Url, options: &Options) -> Result<Self, Error> {
        let after = options.connect_timeout;
        match tokio::time::timeout(after, Self::handshake(url, options)).await {
            Ok(result) => result,
            Err(_) => Err(Error::TimedOut { address: url.authority(), after }),
        }
    }

    async fn handshake(url: &Url, options: &Options) -> Result<Self, Error> {
        let address = url.authority();
        let mut stream = Stream::connect(url, options.ca.as_deref()).await?;
        let lost = |source| Error::Lost { address: address.clone(), source };
        let named = url.user().map(|user| Credentials::new(user, url.password().unwrap_or_default()));
        let credentials = options.credentials.as_ref().or(named.as_ref()).filter(|_| options.token.is_none());
        let authorization = options.token.as_ref().map(Token::header).or(credentials.map(Credentials::header));
        let key = new_key()?;
        let offered = Some(handshake::SUBPROTOCOL);
        let request = handshake::client_request(&address, url.target(), &key, offered, authorization.as_deref());
        stream.write_all(&request).await.map_err(|error| lost(Some(error)))?;

        let mut head = Vec::with_capacity(wsmb_protocol::limits::UPGRADE_REPLY);
        let head_length = loop {
            let read = stream.read_buf(&mut head).await.map_err(|error| lost(Some(error)))?;
            match handshake::parse_reply(&head, &key, offered) {
                Ok(Some(length)) => break length,
                Ok(None) if read == 0 || head.len() > wsmb_protocol::limits::REQUEST_HEAD => return Err(lost(None)),
                Ok(None) => {}
                Err(reply) => {
                    let user = credentials.map(|credentials| credentials.user.clone());
                    return Err(Error::Refused { address, user, reply });
                }
            }
        };
        let mut client = Self {
            stream,
            address,
            decoder: Decoder::new(Role::Client, options.max_message),
            input: vec![0; wsmb_protocol::limits::READ_BUFFER].into_boxed_slice(),
            received: VecDeque::new(),
            output: Vec::new(),
            written: 0,
            masks: MaskPool::new()?,
            end: None,
            closing: false,
            is_close_reply_deferred: false,
            unanswered_close: None,
            keepalive: options.keepalive,
            last_received: Instant::now(),
            is_ping_unanswered: false,
        };
        client.take(&mut head[head_length..])?;
        Ok(client)
    }

    /// Sends a text message. Returns when the operating system has taken the message.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send_text(&mut self, text: &str) -> Result<(), Error> {
        self.queue(Opcode::Text, text.as_bytes())?;
        self.flush().await
    }

    /// Sends a binary message. Returns when the operating system has taken the message.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send_binary(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.queue(Opcode::Binary, bytes)?;
        self.flush().await
    }

    /// Queues a text message. The next [`Self::next`] or [`Self::flush`] writes it, so that many small messages share one write. The caller must bound the
    /// queue; [`Self::queued`] returns its size.
    ///
    /// # Errors
    /// The system provides no random numbers.
    pub fn queue_text(&mut self, text: &str) -> Result<(), Error> {
        self.queue(Opcode::Text, text.as_bytes())
    }

    /// Returns the number of queued bytes that the operating system has not taken yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes the queue. Reads at the same time, so that two peers with full sockets never wait for each other.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|context| {
            while self.queued() > 0 {
                if self.end.is_some() {
                    return Poll::Ready(Err(self.ended()));
                }
                if self.poll_write(context).is_ready() {
                    continue;
                }
                if self.received.len() >= limits::CLIENT_RECEIVED {
                    return Poll::Pending;
                }
                ready!(self.poll_read(context));
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Returns the next message from the broker. While it waits, it answers pings and writes the queue.
    ///
    /// # Errors
    /// The connection has ended: [`Error::Closed`], [`Error::Lost`], [`Error::Silent`], [`Error::Protocol`].
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            let Some(keepalive) = self.keepalive else { return poll_fn(|context| self.poll_next(context)).await };
            let timeout = if self.is_ping_unanswered { keepalive.saturating_mul(2) } else { keepalive };
            let deadline = self.last_received + timeout;
            match tokio::time::timeout_at(deadline, poll_fn(|context| self.poll_next(context))).await {
                Ok(result) => return result,
                Err(_) if self.last_received + timeout > deadline => {}
                Err(_) if self.is_ping_unanswered => {
                    return Err(Error::Silent { address: self.address.clone(), after: timeout });
                }
                Err(_) => {
                    self.is_ping_unanswered = true;
                    self.queue(Opcode::Ping, b"wsmb")?;
                }
            }
        }
    }

    /// Makes [`Self::close`] answer a close frame of the broker, instead of [`Self::next`]. In between, [`Self::queue_text`] and [`Self::try_flush`] still
    /// work: a broker that stops accepts acknowledgements as long as it waits for the answer to its close frame.
    pub fn defer_close_reply(&mut self) {
        self.is_close_reply_deferred = true;
    }

    /// Writes as much of the queue as possible without waiting. For a connection on which the broker has sent a close frame.
    pub fn try_flush(&mut self) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        while self.queued() > 0 && self.poll_write(&mut context).is_ready() {}
    }

    /// Ends the connection with a close handshake: writes the queue and a close frame, and discards all further messages until the broker answers. After a
    /// success, the broker has processed everything that was sent.
    ///
    /// # Errors
    /// The connection was lost, or the broker did not answer within [`limits::CLIENT_CLOSE`].
    pub async fn close(mut self) -> Result<(), Error> {
        if let Some(code) = self.unanswered_close {
            self.queue(Opcode::Close, &code.to_be_bytes())?;
            let written = poll_fn(|context| {
                while self.queued() > 0 {
                    ready!(self.poll_write(context));
                }
                Poll::Ready(())
            });
            // If the write fails, the connection has ended already, and no answer is needed.
            let _ = tokio::time::timeout(limits::CLIENT_CLOSE, written).await;
            return Ok(());
        }
        if !self.closing {
            self.queue(Opcode::Close, &1000_u16.to_be_bytes())?;
            self.closing = true;
        }
        let after = limits::CLIENT_CLOSE;
        let ended = async {
            loop {
                if let Err(error) = poll_fn(|context| self.poll_next(context)).await {
                    return error;
                }
            }
        };
        match tokio::time::timeout(after, ended).await {
            Ok(Error::Closed { .. }) => Ok(()),
            Ok(error) => Err(error),
            Err(_) => Err(Error::Silent { address: self.address, after }),
        }
    }

    /// Aborts the connection as a crash would: sends no close frame, and resets the TCP connection. So the broker does not count this as an orderly end.
    pub fn abort(self) {
        self.stream.abort();
    }

    fn queue(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Error> {
        if self.closing {
            return Ok(());
        }
        let mask = self.masks.next()?;
        encode_masked_into(&mut self.output, opcode, payload, mask);
        Ok(())
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        loop {
            // A failed write does not stop the loop: the client must still read the broker's last messages and its close frame.
            while self.queued() > 0 && self.poll_write(context).is_ready() {}
            if let Some(message) = self.received.pop_front() {
                return Poll::Ready(Ok(message));
            }
            if self.end.is_some() {
                return Poll::Ready(Err(self.ended()));
            }
            ready!(self.poll_read(context));
        }
    }

    /// Writes a part of the queue. `Ready` means progress. A failed write empties the queue, which counts as progress.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match ready!(self.stream.poll_write(context, &self.output[self.written..])) {
            Ok(count) if count > 0 => self.written += count,
            // The next read returns the error.
            _ => {
                self.written = self.output.len();
                self.closing = true;
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.output.shrink_to(wsmb_protocol::limits::READ_BUFFER);
            self.written = 0;
        }
        Poll::Ready(())
    }

    /// Reads once. `Ready` means progress: a message, a control frame, or the end of the connection.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut input = std::mem::take(&mut self.input);
        let mut buffer = ReadBuf::new(&mut input);
        let result = self.stream.poll_read(context, &mut buffer);
        let count = buffer.filled().len();
        let progress = match result {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if count > 0 => {
                self.last_received = Instant::now();
                self.is_ping_unanswered = false;
                if let Err(error) = self.take(&mut input[..count]) {
                    self.end.get_or_insert(error);
                }
                Poll::Ready(())
            }
            Poll::Ready(result) => {
                let source = result.err().filter(|error| error.kind() != io::ErrorKind::UnexpectedEof);
                self.end.get_or_insert(Error::Lost { address: self.address.clone(), source });
                Poll::Ready(())
            }
        };
        self.input = input;
        progress
    }

    /// Decodes input: queues the received messages, and queues an answer to a ping or a close frame.
    fn take(&mut self, input: &mut [u8]) -> Result<(), Error> {
        let Self { decoder, received, .. } = self;
        let mut ping = None;
        let mut close = None;
        let fed = decoder.feed(input, |item| match item {
            Incoming::Message { kind, frame } => {
                let start = payload_start(&frame);
                let payload = match frame {
                    Frame::Borrowed(frame) => Bytes::copy_from_slice(&frame[start..]),
                    Frame::Shared(frame) => frame.slice(start..),
                };
                received.push_back(Message { kind, payload });
                ControlFlow::Continue(())
            }
            Incoming::Ping(payload) => {
                // RFC 6455 section 5.5.3: of several pings, only the last one needs an answer.
                ping = Some(payload.to_vec());
                ControlFlow::Continue(())
            }
            Incoming::Pong(_) => ControlFlow::Continue(()),
            Incoming::Close { code, reason } => {
                close = Some((code, reason));
                ControlFlow::Break(())
            }
        });
        if let Some(payload) = ping {
            self.queue(Opcode::Pong, &payload)?;
        }
        if let Some((code, reason)) = close {
            match code {
                Some(code) if self.is_close_reply_deferred => self.unanswered_close = Some(code),
                _ => {
                    let payload = code.map_or_else(Vec::new, |code| code.to_be_bytes().to_vec());
                    self.queue(Opcode::Close, &payload)?;
                    self.closing = true;
                }
            }
            self.end.get_or_insert(Error::Closed { code, reason });
        }
        if let Err(error) = fed {
            self.queue(Opcode::Close, &error.close_code().to_be_bytes())?;
            self.closing = true;
            self.end.get_or_insert(Error::Protocol(error));
        }
        Ok(())
    }

    /// Returns why the connection ended. Later calls return [`Error::Lost`].
    fn ended(&mut self) -> Error {
        let again = Error::Lost { address: self.address.clone(), source: None };
        self.end.replace(again).unwrap_or(Error::Lost { address: self.address.clone(), source: None })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
