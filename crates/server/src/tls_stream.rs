//! A TCP stream with TLS, after its handshake.
//!
//! ```text
//! try_write ─► records (buffer of the thread) ─► socket        the rest of a record that the socket did not take: `output`
//! try_read  ◄─ records (buffer of the thread) ◄─ socket        an incomplete record: `partial`; plain bytes that did not fit: `plain`
//! ```
//!
//! An idle connection holds no buffer: rustls' unbuffered connection encrypts and decrypts in buffers that all connections of a thread share. Any thread may
//! write, only the connection's task reads; a lock orders them, and is never held across an await.
//!
//! Never here: the handshake (`tls_accept`), a frame, a queue.

mod buffers;

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::platform;
use super::socket;
use crate::limits;
use buffers::{RecentWrites, Rest};

thread_local! {
    /// Encrypted input of all connections of the thread, decrypted in place.
    static INPUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; wsmb_protocol::limits::READ_BUFFER].into_boxed_slice());
    /// Encrypted output of all connections of the thread.
    static OUTPUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; limits::TLS_OUTPUT].into_boxed_slice());
}

/// A TCP stream with TLS.
pub(super) struct TlsStream {
    stream: TcpStream,
    state: Mutex<TlsState>,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The state of TLS on one connection. The handshake uses it before there is a [`TlsStream`].
pub(super) struct TlsState {
    connection: UnbufferedServerConnection,
    /// Encrypted input that is not a complete record yet.
    partial: Vec<u8>,
    /// Decrypted input for the next reads.
    plain: Rest,
    /// Encrypted output that the socket has not taken.
    output: Rest,
    /// The last byte of the caller's last write is encrypted in `output`, but not reported as taken: so the caller comes again when the socket takes more.
    owes_byte: bool,
    writes: RecentWrites,
    end: End,
    /// The peer has announced its end (`close_notify`).
    is_peer_closed: bool,
    /// The peer has violated the protocol. rustls must not be called any more: it would panic if it had to send a second fatal alert.
    has_failed: bool,
}

/// The end of our direction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    /// The announcement is in `output`; a FIN follows it.
    Queued,
    Sent,
}

/// The result of [`TlsState::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The handshake needs more input.
    Handshake,
    /// The handshake is complete.
    Traffic,
}

impl TlsState {
    pub(super) fn new(connection: UnbufferedServerConnection) -> Self {
        Self {
            connection,
            partial: Vec::new(),
            plain: Rest::default(),
            output: Rest::default(),
            owes_byte: false,
            writes: RecentWrites::default(),
            end: End::No,
            is_peer_closed: false,
            has_failed: false,
        }
    }

    /// The certificate of the client, if it has shown one: rustls has verified it.
    pub(super) fn client_certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates().and_then(|chain| chain.first()).map(|first| first.as_ref())
    }

    /// Handles encrypted input, and passes the decrypted bytes to `deliver`. Returns how many bytes of `input` are used up; the others must be given again, first.
    ///
    /// # Errors
    /// The peer violated the protocol. Then the output holds an alert for it.
    fn process(
        &mut self,
        input: &mut [u8],
        mut deliver: impl FnMut(&[u8]),
    ) -> (usize, Result<Progress, rustls::Error>) {
        let mut used = 0;
        // Bounded: each pass uses up input or output, except for the last one.
        loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut input[used..]);
            let mut progress = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                deliver(record.payload);
                            }
                            Err(error) => progress = Some(Err(error)),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let length = encode(&mut data, &mut self.output);
                    self.writes.add(0, length);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_peer_closed = true,
                Ok(ConnectionState::BlockedHandshake) => progress = Some(Ok(Progress::Handshake)),
                // Early data is not accepted, so there is none.
                Ok(_) => progress = Some(Ok(Progress::Traffic)),
                Err(error) => {
                    self.fail();
                    progress = Some(Err(error));
                }
            }
            used += discard;
            if let Some(progress) = progress {
                return (used, progress);
            }
        }
    }

    /// The connection has failed: takes the alert out, if there is one.
    fn fail(&mut self) {
        self.has_failed = true;
        if self.connection.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut alert)) = self.connection.process_tls_records(&mut []).state
        {
            let length = encode(&mut alert, &mut self.output);
            self.writes.add(0, length);
        }
    }

    /// Handles encrypted input. Fills `buffer` with decrypted bytes, and keeps those that do not fit. Returns how many bytes of `buffer` are filled.
    ///
    /// # Errors
    /// As for [`Self::process`].
    fn receive(&mut self, input: &mut [u8], buffer: &mut [u8]) -> Result<usize, rustls::Error> {
        let mut filled = 0;
        let mut left = Vec::new();
        let (used, result) = self.process(input, |plain| {
            let (now, later) = plain.split_at(plain.len().min(buffer.len() - filled));
            buffer[filled..filled + now.len()].copy_from_slice(now);
            filled += now.len();
            left.extend_from_slice(later);
        });
        // At rest both are empty, and hold no memory.
        self.partial = input[used..].to_vec();
        self.plain.extend(&left);
        result.map(|_| filled)
    }

    /// Handles input of the handshake, and removes it from `input` as far as it is used up. Decrypted bytes behind the handshake are kept.
    ///
    /// # Errors
    /// As for [`Self::process`].
    pub(super) fn shake(&mut self, input: &mut Vec<u8>) -> Result<Progress, rustls::Error> {
        let mut plain = Vec::new();
        let (used, result) = self.process(input, |bytes| plain.extend_from_slice(bytes));
        input.drain(..used);
        self.plain.extend(&plain);
        if result == Ok(Progress::Traffic) {
            self.partial = std::mem::take(input);
            self.partial.shrink_to_fit();
        }
        result
    }

    /// Takes the output of the handshake.
    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output).into_vec()
    }

    /// Encrypts with `write`, after messages of the handshake that are due: those go to `output`.
    ///
    /// # Errors
    /// The connection has failed or ended.
    fn encrypt<R>(&mut self, write: impl FnOnce(WriteTraffic<'_, ServerConnectionData>) -> R) -> io::Result<R> {
        // Bounded: each pass but the last takes out a message, or reports the peer's end.
        while !self.has_failed {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.partial);
            match state {
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    let result = write(traffic);
                    self.partial.drain(..discard);
                    return Ok(result);
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let length = encode(&mut data, &mut self.output);
                    self.writes.add(0, length);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_peer_closed = true,
                _ => break,
            }
            self.partial.drain(..discard);
        }
        Err(io::ErrorKind::BrokenPipe.into())
    }

    /// Writes the kept output.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: some is left.
    fn write_output(&mut self, stream: &TcpStream) -> io::Result<()> {
        while !self.output.is_empty() {
            let count = stream.try_write(self.output.bytes())?;
            self.output.advance(count);
        }
        Ok(())
    }

    /// Encrypts and writes the start of `bytes`. Returns how many bytes were taken.
    fn write(&mut self, stream: &TcpStream, bytes: &[u8], output: &mut [u8]) -> io::Result<usize> {
        self.write_output(stream)?;
        let owed = usize::from(std::mem::take(&mut self.owes_byte));
        let part = &bytes[owed.min(bytes.len())..bytes.len().min(owed + limits::TLS_WRITE)];
        if part.is_empty() {
            return Ok(owed);
        }
        let length = self.encrypt(|mut traffic| traffic.encrypt(part, output))?.map_err(io::Error::other)?;
        self.writes.add(part.len(), length);
        // Before this output, if a message of the handshake was due.
        let count = if self.output.is_empty() {
            match stream.try_write(&output[..length]) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            }
        } else {
            0
        };
        if count < length {
            self.output.extend(&output[count..length]);
            self.owes_byte = true;
        }
        Ok(owed + part.len() - usize::from(self.owes_byte))
    }

    /// Writes the announcement of the end, and then the FIN.
    fn write_end(&mut self, stream: &TcpStream) -> io::Result<()> {
        match self.write_output(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => {
                self.end = End::Sent;
                result.and_then(|()| SockRef::from(stream).shutdown(Shutdown::Write))
            }
        }
    }
}

impl TlsStream {
    /// A connection whose handshake is complete.
    pub(super) fn new(stream: TcpStream, state: TlsState) -> Self {
        Self { stream, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, TlsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// As [`super::transport::Transport::poll_read_ready`]. Also completes an end that the socket did not take.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.state();
            while state.end == End::Queued && self.stream.poll_write_ready(cx).is_ready() {
                // After an error the end counts as sent; the reader sees the error too.
                let _ = state.write_end(&self.stream);
            }
            if !state.plain.is_empty() || state.is_peer_closed {
                return Poll::Ready(());
            }
        }
        self.stream.poll_read_ready(cx).map(|_| ())
    }

    /// As [`super::transport::Transport::try_read`].
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        if !state.plain.is_empty() {
            let count = state.plain.bytes().len().min(buffer.len());
            buffer[..count].copy_from_slice(&state.plain.bytes()[..count]);
            state.plain.advance(count);
            return Ok(count);
        }
        if state.has_failed {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if state.is_peer_closed {
            return Ok(0);
        }
        INPUT.with_borrow_mut(|input| {
            let kept = state.partial.len();
            if kept >= input.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an incomplete message is too long"));
            }
            input[..kept].copy_from_slice(&state.partial);
            let room = (input.len() - kept).min(buffer.len());
            let end = kept + socket::try_read(&self.stream, &mut input[kept..kept + room])?;
            if end == kept {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let received = state.receive(&mut input[..end], buffer);
            // Usually there is none. What the socket does not take goes out before the next write.
            let _ = state.write_output(&self.stream);
            match received {
                Ok(0) if !state.is_peer_closed => Err(io::ErrorKind::WouldBlock.into()),
                Ok(count) => Ok(count),
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        })
    }

    /// As [`super::transport::Transport::try_write`]. Encrypts up to [`limits::TLS_WRITE`] bytes. If the socket does not take the whole result, the last byte counts as
    /// not taken.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        OUTPUT.with_borrow_mut(|output| self.state().write(&self.stream, bytes, output))
    }

    /// The end is a reset: it is not announced, because bytes may be missing before it.
    pub(super) fn abort(&self) {
        self.state().end = End::Sent;
    }

    /// As [`super::transport::Transport::finish`]. What the socket does not take is sent by [`Self::poll_read_ready`].
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.end != End::No {
            return Ok(());
        }
        state.end = End::Queued;
        let mut announcement = [0; limits::TLS_ANNOUNCEMENT];
        // An error means that the connection has failed; then the FIN comes alone.
        let encrypted = state.encrypt(|mut traffic| traffic.queue_close_notify(&mut announcement));
        let length = encrypted.map_or(0, |length| length.unwrap_or(0));
        state.output.extend(&announcement[..length]);
        state.writes.add(0, length);
        state.write_end(&self.stream)
    }

    /// As [`super::transport::Transport::unacknowledged`].
    pub(super) fn unacknowledged(&self) -> Option<u64> {
        let state = self.state();
        let in_kernel = platform::unacknowledged(&self.stream)?;
        let fin = u64::from(state.end == End::Sent).min(in_kernel);
        let encrypted = in_kernel - fin + state.output.bytes().len() as u64;
        let plain = state.writes.plain_in_last(encrypted) - u64::from(state.owes_byte);
        let has_unacknowledged_end = state.end != End::No && encrypted + fin > 0;
        Some(plain + u64::from(has_unacknowledged_end))
    }

    pub(super) fn held(&self) -> usize {
        let state = self.state();
        state.partial.len() + state.plain.bytes().len()
    }
}

/// Announces the end, if that was not done: a client would take a FIN alone for an attack.
impl Drop for TlsStream {
    fn drop(&mut self) {
        // An error means that the peer has gone.
        let _ = self.finish();
    }
}

/// Appends a message of the handshake to `output`. Returns its length.
fn encode<Data>(message: &mut EncodeTlsData<'_, Data>, output: &mut Rest) -> usize {
    let mut bytes = Vec::new();
    // The first attempt only asks for the length.
    for _ in 0..2 {
        match message.encode(&mut bytes) {
            Ok(length) => bytes.truncate(length),
            Err(EncodeError::InsufficientSize(error)) => bytes.resize(error.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => break,
        }
    }
    output.extend(&bytes);
    bytes.len()
}

#[cfg(test)]
mod tests;
