//! One connection. Its opening uses blocking reads with timeouts; afterwards the engine uses it without blocking. It must never block
//! without a timeout.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::connection_state::ConnectionState;
use super::payload::Payload;
use super::platform::Process;
use super::stream::Stream;
use super::wire::{ConnectionPlan, Session, SessionEvent, Wire, frame};
use crate::limits;
use wsmb_client::{Credentials, Url};
use wsmb_protocol::frame::Opcode;
use wsmb_protocol::handshake;

/// The broker's address, and the credentials.
#[derive(Clone, Debug)]
pub struct Target {
    url: Url,
    address: SocketAddr,
    authority: Arc<str>,
    credentials: Option<Credentials>,
    /// Whether the server runs on this system.
    is_local: bool,
    /// For `wss://`.
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Target {
    /// Resolves the broker's address. If `credentials` is `None`, those in the URL are used, if any. `ca`: for `wss://`, a PEM file with the only certificates that
    /// are trusted; `None`: the system's authorities.
    ///
    /// # Errors
    /// The host name cannot be resolved, no address accepts a connection, or the trusted certificates cannot be read.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "there is no wss://"))]
    pub fn new(url: Url, credentials: Option<Credentials>, ca: Option<&Path>) -> Result<Self, Error> {
        #[cfg(feature = "tls")]
        let tls = if url.is_tls() { Some(wsmb_client::tls::config(&url, ca)?) } else { None };
        let unreachable = |source| Error::from(wsmb_client::Error::Unreachable { address: url.authority(), source });
        let addresses: Vec<SocketAddr> = (url.host(), url.port()).to_socket_addrs().map_err(unreachable)?.collect();
        let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
        // The first address that accepts is used for all connections.
        for address in addresses {
            match TcpStream::connect_timeout(&address, wsmb_client::limits::CLIENT_CONNECT) {
                Ok(stream) => {
                    // A connection within one system has the same address at both ends.
                    let same_address = stream.local_addr().is_ok_and(|local| local.ip() == address.ip());
                    let is_local = same_address || address.ip().is_loopback();
                    let from_url = url.user().map(|user| Credentials::new(user, url.password().unwrap_or_default()));
                    let (authority, credentials) = (url.authority().into(), credentials.or(from_url));
                    return Ok(Self {
                        url,
                        address,
                        authority,
                        credentials,
                        is_local,
                        #[cfg(feature = "tls")]
                        tls,
                    });
                }
                Err(error) => failure = error,
            }
        }
        Err(unreachable(failure))
    }

    /// Finds the server's process. The error is a sentence that says why it was not found.
    pub(super) fn process(&self) -> Result<Process, String> {
        if self.is_local {
            Process::listening_on(self.address)
        } else {
            Err(format!("{} is not on this system", self.authority))
        }
    }
}

/// A connection whose reads and writes block.
pub(super) struct BlockingConnection<S> {
    pub(super) stream: Stream<TcpStream>,
    pub(super) state: ConnectionState<S>,
    /// The request that the handshake reply must match; `None` after the reply.
    request: Option<HandshakeRequest>,
}

/// The parts of a handshake request needed to check the reply.
struct HandshakeRequest {
    key: String,
    subprotocol: Option<&'static str>,
    user: Option<String>,
}

impl<S: Session> BlockingConnection<S> {
    /// Connects, with TLS if the address begins with `wss://`, and writes the handshake request. Does not wait for the reply, so that many handshakes can wait for a
    /// slow server at once.
    ///
    /// # Errors
    /// The connection cannot be made, or it broke.
    pub(super) fn connect<W: Wire<Session = S>>(
        target: &Target,
        wire: &W,
        plan: &ConnectionPlan,
        payload: &Payload,
    ) -> Result<Self, Error> {
        let stream = TcpStream::connect_timeout(&target.address, wsmb_client::limits::CLIENT_CONNECT)
            .map_err(|error| connect_error(target, error))?;
        let state = ConnectionState::new(wire.session(plan, payload), target.authority.clone());
        let setting = |error| state.lost(Some(error));
        stream.set_nodelay(true).map_err(setting)?;
        stream.set_read_timeout(Some(wsmb_client::limits::CLIENT_CONNECT)).map_err(setting)?;
        stream.set_write_timeout(Some(wsmb_client::limits::CLIENT_CONNECT)).map_err(setting)?;
        let mut opening = Self { stream: secure(stream, target)?, state, request: None };
        let handshake = wire.handshake(plan);
        let mut path = target.url.target().to_owned();
        if let Some(parameter) = &handshake.parameter {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(parameter);
        }
        let (key, subprotocol) = (wsmb_client::new_key()?, handshake.subprotocol);
        let authorization = target.credentials.as_ref().map(Credentials::header);
        let head = handshake::client_request(&target.authority, &path, &key, subprotocol, authorization.as_deref());
        opening.state.out.extend_from_slice(&head);
        opening.write()?;
        let user = target.credentials.as_ref().map(|credentials| credentials.user.clone());
        opening.request = Some(HandshakeRequest { key, subprotocol, user });
        Ok(opening)
    }

    /// Waits for the handshake reply, and writes the first frames of the session.
    ///
    /// # Errors
    /// The server refused the handshake, sent nothing for [`wsmb_client::limits::CLIENT_CONNECT`], or the connection broke.
    pub(super) fn finish_handshake(&mut self) -> Result<(), Error> {
        let Some(HandshakeRequest { key, subprotocol, user }) = self.request.take() else { return Ok(()) };
        let mut head = Vec::with_capacity(wsmb_protocol::limits::UPGRADE_REPLY);
        let mut buffer = [0; wsmb_protocol::limits::UPGRADE_REPLY];
        let length = loop {
            let count = self.read(&mut buffer)?;
            head.extend_from_slice(&buffer[..count]);
            match handshake::parse_reply(&head, &key, subprotocol) {
                Ok(Some(length)) => break length,
                Ok(None) if head.len() > wsmb_protocol::limits::REQUEST_HEAD => return Err(self.state.lost(None)),
                Ok(None) => {}
                Err(reply) => {
                    let address = self.state.address().to_owned();
                    return Err(wsmb_client::Error::Refused { address, user, reply }.into());
                }
            }
        };
        // Bytes after the head belong to the session. Deliveries cannot come before the subscription.
        self.state.handle_input(&head[length..], |_| Ok(()))?;
        let ConnectionState { session, out, .. } = &mut self.state;
        session.open(out);
        self.write()
    }

    /// Waits until the session is ready, and passes the events to `on_event`.
    ///
    /// # Errors
    /// The connection broke, or the session was not ready within [`wsmb_client::limits::CLIENT_CONNECT`].
    pub(super) fn wait_until_ready(
        &mut self,
        mut on_event: impl FnMut(SessionEvent<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + wsmb_client::limits::CLIENT_CONNECT;
        let mut buffer = vec![0; wsmb_protocol::limits::READ_BUFFER];
        while !self.state.session.is_ready() {
            if Instant::now() >= deadline {
                return Err(stalled("a connection was not ready", wsmb_client::limits::CLIENT_CONNECT));
            }
            self.receive(&mut buffer, &mut on_event)?;
        }
        Ok(())
    }

    /// Reads once (blocking), passes the events to `on_event`, and writes the replies.
    ///
    /// # Errors
    /// The connection broke, or nothing came within the socket's timeout.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        on_event: impl FnMut(SessionEvent<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let count = self.read(buffer)?;
        self.state.handle_input(&buffer[..count], on_event)?;
        self.write()
    }

    /// Writes all queued bytes.
    pub(super) fn write(&mut self) -> Result<(), Error> {
        let result = self.stream.write_all(&self.state.out).and_then(|()| self.stream.flush());
        self.state.out.clear();
        result.map_err(|error| self.state.lost(Some(error)))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(self.state.lost(None)),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(stalled(
                        "the broker sent nothing on a connection",
                        wsmb_client::limits::CLIENT_CONNECT,
                    ));
                }
                Err(error) => return Err(self.state.lost(Some(error))),
            }
        }
    }

    /// Sends a close frame and waits up to [`limits::CLOSE_TIMEOUT`] for the end of the connection: an orderly end confirms the deliveries.
    pub(super) fn close(mut self) {
        frame(&mut self.state.out, Opcode::Close, &1000_u16.to_be_bytes());
        let mut buffer = [0; wsmb_protocol::limits::UPGRADE_REPLY];
        let deadline = Instant::now() + limits::CLOSE_TIMEOUT;
        // Further frames and errors do not matter here.
        let mut is_open =
            self.stream.tcp().set_read_timeout(Some(limits::CLOSE_TIMEOUT)).is_ok() && self.write().is_ok();
        while is_open && Instant::now() < deadline {
            is_open = matches!(self.stream.read(&mut buffer), Ok(count) if count > 0);
        }
    }

    /// Makes the connection non-blocking, for the engine.
    pub(super) fn into_nonblocking(self) -> Result<Connection<S>, Error> {
        let Self { stream, state, .. } = self;
        match stream.tcp().set_nonblocking(true) {
            Ok(()) => {
                let stream = stream.map(mio::net::TcpStream::from_std);
                Ok(Connection { stream, state, written: 0, blocked: false })
            }
            Err(error) => Err(state.lost(Some(error))),
        }
    }
}

/// Performs the TLS handshake, if the address begins with `wss://`. Blocks.
#[cfg(feature = "tls")]
fn secure(mut stream: TcpStream, target: &Target) -> Result<Stream<TcpStream>, Error> {
    let Some(config) = &target.tls else { return Ok(Stream::Plain(stream)) };
    let name = wsmb_client::tls::server_name(&target.url)?;
    let failed = |error| Error::from(wsmb_client::tls::error(target.authority.to_string(), error));
    let mut tls =
        rustls::ClientConnection::new(config.clone(), name).map_err(|error| failed(io::Error::other(error)))?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(failed)?;
    }
    Ok(Stream::Tls(Box::new(rustls::StreamOwned::new(tls, stream))))
}

/// [`Url::parse`] accepts no `wss://` in this build.
#[cfg(not(feature = "tls"))]
#[expect(clippy::unnecessary_wraps, reason = "the other build can fail")]
fn secure(stream: TcpStream, _: &Target) -> Result<Stream<TcpStream>, Error> {
    Ok(Stream::Plain(stream))
}

fn stalled(what: &str, after: Duration) -> Error {
    Error::Stalled { what: what.to_owned(), after }
}

/// The error of a failed connection attempt.
fn connect_error(target: &Target, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => Error::System(
            "this system has no free port left for another connection to the same address; open fewer connections, or wait \
             until the ports of the last run are free again"
                .to_owned(),
        ),
        ErrorKind::TimedOut => wsmb_client::Error::TimedOut {
            address: target.authority.to_string(),
            after: wsmb_client::limits::CLIENT_CONNECT,
        }
        .into(),
        _ => wsmb_client::Error::Unreachable { address: target.authority.to_string(), source }.into(),
    }
}

/// A connection whose reads and writes do not block.
pub(super) struct Connection<S> {
    pub(super) stream: Stream<mio::net::TcpStream>,
    pub(super) state: ConnectionState<S>,
    written: usize,
    /// Whether the socket is full. The event queue reports when it is writable again.
    pub(super) blocked: bool,
}

impl<S: Session> Connection<S> {
    /// Reads once, and returns whether more data may be available.
    ///
    /// # Errors
    /// The errors of [`ConnectionState::handle_input`], or the connection broke.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        on_event: impl FnMut(SessionEvent<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(self.state.lost(None)),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(self.state.lost(Some(error))),
        };
        self.state.handle_input(&buffer[..count], on_event)?;
        if self.queued() > 0 {
            self.flush()?;
        }
        Ok(count == buffer.len() || !self.stream.is_empty_after_short_read())
    }

    /// Writes queued bytes until the socket is full.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        while self.queued() > 0 && !self.blocked {
            match self.stream.write(&self.state.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A close frame of the server explains the error better.
                Err(error) => return self.close_reason(error),
            }
        }
        if self.queued() == 0 {
            self.state.out.clear();
            self.written = 0;
        }
        match self.stream.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
            Err(error) => return self.close_reason(error),
            Ok(()) => {}
        }
        Ok(())
    }

    /// The number of queued bytes.
    pub(super) fn queued(&self) -> usize {
        self.state.out.len() - self.written
    }

    /// Returns the error after a failed write: the reason in the server's close frame if there is one, otherwise the system's error.
    fn close_reason(&mut self, error: io::Error) -> Result<(), Error> {
        let mut buffer = vec![0; limits::READ_BYTES];
        for _ in 0..limits::BURSTS {
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 => self.state.handle_input(&buffer[..count], |_| Ok(()))?,
                _ => break,
            }
        }
        Err(self.state.lost(Some(error)))
    }
}
