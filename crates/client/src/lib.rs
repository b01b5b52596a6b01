//! The client: a WebSocket client of the broker for applications. The command line uses it too.
//!
//! One connection over plain TCP, on our own frames and handshake. Memory is bounded: one read buffer, the messages of one read, and
//! what the caller queued; a caller that does not take messages stops the reading, and TCP stops the broker.
//!
//! ```text
//! send_text, send_binary ─► frames ─► socket
//! next ◄── messages ◄── frames ◄── socket
//! ```
//!
//! Never here: the server, the command line, or a line on the terminal.
//! It never reconnects by itself (a [`Backoff`] helps the caller who wants to), never retries, and never prints.
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
mod url;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

pub use self::backoff::Backoff;
pub use self::credentials::Credentials;
pub use self::error::Error;
pub use self::url::{BadUrl, Url};
use wsmb_core::message::{Frame, Kind};
use wsmb_protocol::frame::{Decoder, Incoming, Opcode, Role, encode_masked_into, payload_start};
use wsmb_protocol::handshake;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who asks; `None`: what the address says, and if it names nobody, nobody.
    pub credentials: Option<Credentials>,
    /// From the first packet to the end of the handshake.
    pub connect_timeout: Duration,
    /// After so long a silence the client pings; after twice that it takes the connection for dead. `None`: it waits for ever.
    pub keepalive: Option<Duration>,
    /// The largest message that is taken, in bytes; a larger one ends the connection (1009).
    pub max_message: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            credentials: None,
            connect_timeout: limits::CLIENT_CONNECT,
            keepalive: Some(limits::CLIENT_KEEPALIVE),
            max_message: limits::CLIENT_MESSAGE,
        }
    }
}

/// One message of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whether it came as text or as bytes.
    pub kind: Kind,
    /// What it carries; valid UTF-8 if it came as text.
    pub payload: Bytes,
}

impl Message {
    /// Its text; `None` if it is not UTF-8.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.payload).ok()
    }
}

/// One connection to a broker, ready for use.
///
/// Nothing of it is lost if a future of it is dropped: [`Client::next`] may stand in a `select!`.
pub struct Client {
    stream: TcpStream,
    address: String,
    decoder: Decoder,
    input: Box<[u8]>,
    received: VecDeque<Message>,
    output: Vec<u8>,
    written: usize,
    masks: Masks,
    /// How the connection ended; told to the caller when everything received before has been taken.
    end: Option<Error>,
    /// A close frame has been queued: nothing may follow it.
    closing: bool,
    /// The broker's close frame is answered by [`Self::close`], not at once.
    late_goodbye: bool,
    /// The code of a close frame of the broker that is not answered yet.
    unanswered_close: Option<u16>,
    keepalive: Option<Duration>,
    heard: Instant,
    pinged: bool,
}

impl Client {
    /// Connects, and offers the subprotocol `wsmb.v1`. The address decides the dialect: `?topic=NAME` speaks topic, else envelope.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::TimedOut`], [`Error::Refused`], [`Error::Lost`].
    pub async fn connect(url: &Url, options: &Options) -> Result<Self, Error> {
        let after = options.connect_timeout;
        match tokio::time::timeout(after, Self::handshake(url, options)).await {
            Ok(result) => result,
            Err(_) => Err(Error::TimedOut { address: url.authority(), after }),
        }
    }

    async fn handshake(url: &Url, options: &Options) -> Result<Self, Error> {
        let address = url.authority();
        let mut stream = match TcpStream::connect((url.host(), url.port())).await {
            Ok(stream) => stream,
            Err(source) => return Err(Error::Unreachable { address, source }),
        };
        let lost = |source| Error::Lost { address: address.clone(), source };
        // Every write is a whole burst already; waiting for more would only add latency.
        stream.set_nodelay(true).map_err(|error| lost(Some(error)))?;
        let named = url.user().map(|user| Credentials::new(user, url.password().unwrap_or_default()));
        let credentials = options.credentials.as_ref().or(named.as_ref());
        let authorization = credentials.map(Credentials::header);
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
            masks: Masks::new()?,
            end: None,
            closing: false,
            late_goodbye: false,
            unanswered_close: None,
            keepalive: options.keepalive,
            heard: Instant::now(),
            pinged: false,
        };
        client.take(&mut head[head_length..])?;
        Ok(client)
    }

    /// Sends one text message: it has been given to the system when this returns.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send_text(&mut self, text: &str) -> Result<(), Error> {
        self.queue(Opcode::Text, text.as_bytes())?;
        self.flush().await
    }

    /// Sends one binary message: it has been given to the system when this returns.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send_binary(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.queue(Opcode::Binary, bytes)?;
        self.flush().await
    }

    /// Queues one text message, to be written by the next [`Self::next`] or [`Self::flush`]: many small ones then share one write.
    /// The caller bounds what is queued; [`Self::queued`] tells how much it is.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn queue_text(&mut self, text: &str) -> Result<(), Error> {
        self.queue(Opcode::Text, text.as_bytes())
    }

    /// Bytes that are queued and not yet given to the system.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes what is queued. Meanwhile it reads, so that two full sockets never wait for each other.
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

    /// The next message of the broker. Pings are answered meanwhile, and what is queued is written.
    ///
    /// # Errors
    /// The connection has ended: [`Error::Closed`], [`Error::Lost`], [`Error::Silent`], [`Error::Protocol`].
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            let Some(keepalive) = self.keepalive else { return poll_fn(|context| self.poll_next(context)).await };
            let patience = if self.pinged { keepalive.saturating_mul(2) } else { keepalive };
            let deadline = self.heard + patience;
            match tokio::time::timeout_at(deadline, poll_fn(|context| self.poll_next(context))).await {
                Ok(result) => return result,
                Err(_) if self.heard + patience > deadline => {}
                Err(_) if self.pinged => {
                    return Err(Error::Silent { address: self.address.clone(), after: patience });
                }
                Err(_) => {
                    self.pinged = true;
                    self.queue(Opcode::Ping, b"wsmb")?;
                }
            }
        }
    }

    /// From now on a close frame of the broker is answered only by [`Self::close`]. In between, [`Self::queue_text`] and
    /// [`Self::write_some`] still work: a broker that goes down takes acknowledgements for as long as it waits for the answer.
    pub fn answer_close_late(&mut self) {
        self.late_goodbye = true;
    }

    /// Writes what the system takes of the queue without waiting, for a connection that the broker has ended already.
    pub fn write_some(&mut self) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        while self.queued() > 0 && self.poll_write(&mut context).is_ready() {}
    }

    /// Ends the connection in an orderly way: everything queued is written, then a close frame, and what still comes is read and
    /// dropped until the broker has answered it. The broker has then processed everything that was sent.
    ///
    /// # Errors
    /// The connection broke before, or the broker did not answer within [`limits::CLIENT_CLOSE`].
    pub async fn close(mut self) -> Result<(), Error> {
        if let Some(code) = self.unanswered_close {
            self.queue(Opcode::Close, &code.to_be_bytes())?;
            let written = poll_fn(|context| {
                while self.queued() > 0 {
                    ready!(self.poll_write(context));
                }
                Poll::Ready(())
            });
            // If it cannot be written, the broker has gone, and there is nobody to say goodbye to.
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

    /// Drops the connection as a pulled cable or a crash would: no close frame, and a reset instead of an orderly end of the TCP
    /// connection, so that the broker cannot take it for one.
    pub fn abort(self) {
        // If the system refuses the option, the drop below is an ordinary end: the best that can be had.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
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
            // A write that fails is no reason to stop: what the broker said before is still to be read, and why it went.
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

    /// Writes some of the queue. Ready means that there was progress (a failure is progress too: the queue is empty then).
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match ready!(Pin::new(&mut self.stream).poll_write(context, &self.output[self.written..])) {
            Ok(count) if count > 0 => self.written += count,
            // The reader finds out what happened.
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

    /// Reads once. Ready means that there was progress: messages, control frames, or the end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut input = std::mem::take(&mut self.input);
        let mut buffer = ReadBuf::new(&mut input);
        let result = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
        let count = buffer.filled().len();
        let progress = match result {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if count > 0 => {
                self.heard = Instant::now();
                self.pinged = false;
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

    /// Decodes what was read: messages into the queue, pings into answers.
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
                // RFC 6455 section 5.5.3: of several pings, only the last needs an answer.
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
                Some(code) if self.late_goodbye => self.unanswered_close = Some(code),
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

    /// Why the connection ended; later calls get the short answer.
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

/// The `Sec-WebSocket-Key` of one handshake: 16 random bytes.
pub fn new_key() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Error::NoRandomness)?;
    Ok(BASE64.encode(bytes))
}

/// Masks that no one can foretell (RFC 6455 section 5.3), some at a time: one system call for 64 frames.
struct Masks {
    pool: [u8; 256],
    used: usize,
}

impl Masks {
    fn new() -> Result<Self, Error> {
        let mut pool = [0; 256];
        getrandom::fill(&mut pool).map_err(Error::NoRandomness)?;
        Ok(Self { pool, used: 0 })
    }

    fn next(&mut self) -> Result<[u8; 4], Error> {
        if self.used == self.pool.len() {
            *self = Self::new()?;
        }
        let mask = [0, 1, 2, 3].map(|offset| self.pool[self.used + offset]);
        self.used += 4;
        Ok(mask)
    }
}

#[cfg(test)]
mod tests;
