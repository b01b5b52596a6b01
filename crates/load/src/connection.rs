//! One connection: opened step by step with a bounded wait for each, then driven by the engine without ever waiting.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::line::Line;
use super::payload::Payload;
use super::process::Process;
use super::wire::{Heard, Seat, Session, Wire, frame};
use crate::limits;
use wsmb_client::{Credentials, Url};
use wsmb_protocol::frame::Opcode;
use wsmb_protocol::handshake;

/// Where the broker is, and who asks.
#[derive(Clone, Debug)]
pub struct Target {
    url: Url,
    address: SocketAddr,
    authority: Arc<str>,
    credentials: Option<Credentials>,
    /// The server runs on this system.
    is_local: bool,
}

impl Target {
    /// Finds the broker's address. `credentials`: who asks; else who is named in the address, if anybody.
    ///
    /// # Errors
    /// The host's name cannot be resolved, or nobody listens there.
    pub fn new(url: Url, credentials: Option<Credentials>) -> Result<Self, Error> {
        let unreachable = |source| Error::from(wsmb_client::Error::Unreachable { address: url.authority(), source });
        let addresses: Vec<SocketAddr> = (url.host(), url.port()).to_socket_addrs().map_err(unreachable)?.collect();
        let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
        // Of several, the first that answers: every connection goes to the same.
        for address in addresses {
            match TcpStream::connect_timeout(&address, wsmb_client::limits::CLIENT_CONNECT) {
                Ok(stream) => {
                    // Who talks to himself has one address.
                    let own = stream.local_addr().is_ok_and(|own| own.ip() == address.ip());
                    let is_local = own || address.ip().is_loopback();
                    let named = url.user().map(|user| Credentials::new(user, url.password().unwrap_or_default()));
                    let (authority, credentials) = (url.authority().into(), credentials.or(named));
                    return Ok(Self { url, address, authority, credentials, is_local });
                }
                Err(error) => failure = error,
            }
        }
        Err(unreachable(failure))
    }

    /// The server's process; or why it cannot be seen, in a sentence.
    pub(super) fn process(&self) -> Result<Process, String> {
        if self.is_local {
            Process::listening_on(self.address)
        } else {
            Err(format!("{} is not on this system", self.authority))
        }
    }
}

/// A connection that waits for what it reads.
pub(super) struct Opening<S> {
    pub(super) stream: TcpStream,
    pub(super) line: Line<S>,
    /// What the answer to the handshake has to match; `None` once it has come.
    asked: Option<Asked>,
}

/// Of a handshake's request.
struct Asked {
    key: String,
    subprotocol: Option<&'static str>,
    user: Option<String>,
}

impl<S: Session> Opening<S> {
    /// Connects and asks for a WebSocket. Nothing is waited for yet: a server that takes its time may be asked by many at once.
    ///
    /// # Errors
    /// There is no connection.
    pub(super) fn begin<W: Wire<Session = S>>(
        target: &Target,
        wire: &W,
        seat: &Seat,
        payload: &Payload,
    ) -> Result<Self, Error> {
        let stream = TcpStream::connect_timeout(&target.address, wsmb_client::limits::CLIENT_CONNECT)
            .map_err(|error| no_more(target, error))?;
        let line = Line::new(wire.session(seat, payload), target.authority.clone());
        let mut opening = Self { stream, line, asked: None };
        let setting = |error| opening.line.lost(Some(error));
        opening.stream.set_nodelay(true).map_err(setting)?;
        opening.stream.set_read_timeout(Some(wsmb_client::limits::CLIENT_CONNECT)).map_err(setting)?;
        opening.stream.set_write_timeout(Some(wsmb_client::limits::CLIENT_CONNECT)).map_err(setting)?;
        let asks = wire.handshake(seat);
        let mut path = target.url.target().to_owned();
        if let Some(parameter) = &asks.parameter {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(parameter);
        }
        let (key, subprotocol) = (wsmb_client::new_key()?, asks.subprotocol);
        let authorization = target.credentials.as_ref().map(Credentials::header);
        let request = handshake::client_request(&target.authority, &path, &key, subprotocol, authorization.as_deref());
        opening.line.out.extend_from_slice(&request);
        opening.write()?;
        let user = target.credentials.as_ref().map(|credentials| credentials.user.clone());
        opening.asked = Some(Asked { key, subprotocol, user });
        Ok(opening)
    }

    /// Waits for the answer to the handshake, and writes what the session begins with.
    ///
    /// # Errors
    /// The server refuses, or the connection broke.
    pub(super) fn shake_hands(&mut self) -> Result<(), Error> {
        let Some(Asked { key, subprotocol, user }) = self.asked.take() else { return Ok(()) };
        let mut head = Vec::with_capacity(wsmb_protocol::limits::UPGRADE_REPLY);
        let mut buffer = [0; wsmb_protocol::limits::UPGRADE_REPLY];
        let length = loop {
            let count = self.read(&mut buffer)?;
            head.extend_from_slice(&buffer[..count]);
            match handshake::parse_reply(&head, &key, subprotocol) {
                Ok(Some(length)) => break length,
                Ok(None) if head.len() > wsmb_protocol::limits::REQUEST_HEAD => return Err(self.line.lost(None)),
                Ok(None) => {}
                Err(reply) => {
                    let address = self.line.address().to_owned();
                    return Err(wsmb_client::Error::Refused { address, user, reply }.into());
                }
            }
        };
        // What is behind the head is the beginning of the session; no delivery comes before anything was asked for.
        self.line.take(&head[length..], |_| Ok(()))?;
        let Line { session, out, .. } = &mut self.line;
        session.open(out);
        self.write()
    }

    /// Waits until the session is ready, and tells what comes meanwhile.
    ///
    /// # Errors
    /// The connection broke, or nothing came for [`wsmb_client::limits::CLIENT_CONNECT`].
    pub(super) fn settle(&mut self, mut heard: impl FnMut(Heard<'_>) -> Result<(), Error>) -> Result<(), Error> {
        let deadline = Instant::now() + wsmb_client::limits::CLIENT_CONNECT;
        let mut buffer = vec![0; wsmb_protocol::limits::READ_BUFFER];
        while !self.line.session.is_ready() {
            if Instant::now() >= deadline {
                return Err(stalled("a connection was not ready", wsmb_client::limits::CLIENT_CONNECT));
            }
            self.hear(&mut buffer, &mut heard)?;
        }
        Ok(())
    }

    /// Reads once, waiting for something to come, and answers what is to be answered.
    ///
    /// # Errors
    /// The connection broke, or nothing came for the socket's time-out.
    pub(super) fn hear(
        &mut self,
        buffer: &mut [u8],
        heard: impl FnMut(Heard<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let count = self.read(buffer)?;
        self.line.take(&buffer[..count], heard)?;
        self.write()
    }

    /// Writes what is to be written.
    pub(super) fn write(&mut self) -> Result<(), Error> {
        let result = self.stream.write_all(&self.line.out);
        self.line.out.clear();
        result.map_err(|error| self.line.lost(Some(error)))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(self.line.lost(None)),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(stalled(
                        "the broker said nothing on a connection",
                        wsmb_client::limits::CLIENT_CONNECT,
                    ));
                }
                Err(error) => return Err(self.line.lost(Some(error))),
            }
        }
    }

    /// Says goodbye, and waits for the answer for a while: an orderly end confirms what was received.
    pub(super) fn leave(mut self) {
        frame(&mut self.line.out, Opcode::Close, &1000_u16.to_be_bytes());
        let mut buffer = [0; wsmb_protocol::limits::UPGRADE_REPLY];
        let deadline = Instant::now() + limits::LEAVE;
        // What still comes does not matter, nor how the connection ends.
        let mut goes_on = self.stream.set_read_timeout(Some(limits::LEAVE)).is_ok() && self.write().is_ok();
        while goes_on && Instant::now() < deadline {
            goes_on = matches!(self.stream.read(&mut buffer), Ok(count) if count > 0);
        }
    }

    /// The same connection for the engine: it waits for nothing any more.
    pub(super) fn into_connection(self) -> Result<Connection<S>, Error> {
        let Self { stream, line, .. } = self;
        match stream.set_nonblocking(true) {
            Ok(()) => {
                Ok(Connection { stream: mio::net::TcpStream::from_std(stream), line, written: 0, blocked: false })
            }
            Err(error) => Err(line.lost(Some(error))),
        }
    }
}

fn stalled(what: &str, after: Duration) -> Error {
    Error::Stalled { what: what.to_owned(), after }
}

/// Why there is no further connection.
fn no_more(target: &Target, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => Error::System(
            "this system has no free port left for another connection to the same address; open fewer, or wait until \
             those of the last run have expired"
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

/// A connection that never waits.
pub(super) struct Connection<S> {
    pub(super) stream: mio::net::TcpStream,
    pub(super) line: Line<S>,
    written: usize,
    /// The socket takes no more; the system tells when it does.
    pub(super) blocked: bool,
}

impl<S: Session> Connection<S> {
    /// Reads once. Whether there may be more.
    ///
    /// # Errors
    /// As [`Line::take`]; or the connection broke.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        heard: impl FnMut(Heard<'_>) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(self.line.lost(None)),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(self.line.lost(Some(error))),
        };
        self.line.take(&buffer[..count], heard)?;
        if self.queued() > 0 {
            self.flush()?;
        }
        // A short read has emptied the socket; where that is not so, the system has to be asked again.
        Ok(count == buffer.len() || cfg!(windows))
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        while self.queued() > 0 && !self.blocked {
            match self.stream.write(&self.line.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // If the server has said why it went, the reader finds it.
                Err(error) => return self.why(error),
            }
        }
        if self.queued() == 0 {
            self.line.out.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Bytes that are to be written.
    pub(super) fn queued(&self) -> usize {
        self.line.out.len() - self.written
    }

    /// A write has failed: the reason that the server gave, if it gave one, else the system's.
    fn why(&mut self, error: io::Error) -> Result<(), Error> {
        let mut buffer = vec![0; limits::READ];
        for _ in 0..limits::BURSTS {
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 => self.line.take(&buffer[..count], |_| Ok(()))?,
                _ => break,
            }
        }
        Err(self.line.lost(Some(error)))
    }
}
