//! The TLS handshake of an accepted socket. A PROXY header comes before it.
//!
//! The computation (one signature, one key exchange) runs on a blocking thread, a few at a time, so that the clients of a loop do not wait for it.
//!
//! Never here: the request behind the handshake, a decision about the user.

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::certificates::Certificates;
use super::handshake::{self, Accepted, Secured};
use super::handshakes::Slot;
use super::hub::Hub;
use super::reader::Reader;
use super::tls_stream::{Progress, TlsState, TlsStream};
use super::transport::Transport;
use crate::limits;
use wsmb_protocol::proxy::{self, BadHeader, Header};
use wsmb_tls::Facts;

/// Why there is no encrypted connection.
enum NotSecured {
    /// The client has gone.
    Gone,
    /// The handshake has failed.
    Failed(rustls::Error),
    /// The PROXY header is missing or bad.
    Header(BadHeader),
    /// The client does not speak TLS; the socket, for an answer.
    Plain(Transport),
}

/// The type of a TLS record that begins a handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 0x16;

/// The length of a record's header.
const RECORD_HEADER: usize = 5;

/// Serves an accepted socket up to the session's task, as [`handshake::run`] does, after its TLS handshake.
pub(super) async fn run(
    hub: Arc<Hub>,
    transport: Transport,
    accepted: Accepted,
    certificates: Arc<Certificates>,
    slot: Slot,
) -> Option<Box<Reader>> {
    let peer = accepted.peer;
    let accepted = tokio::select! {
        biased;
        () = slot.evicted() => return None,
        accepted = timeout(limits::HANDSHAKE_TIME, accept(transport, accepted, &certificates)) => accepted.ok()?,
    };
    match accepted {
        Ok((transport, accepted)) => handshake::run(hub, transport, accepted, slot).await,
        Err(NotSecured::Plain(transport)) => {
            certificates.note_plain(peer);
            let answer = handshake::plain(400, "this port speaks TLS: use https:// or wss:// in the address");
            tokio::select! {
                biased;
                () = slot.evicted() => None,
                refused = handshake::refuse(&transport, &answer) => refused,
            }
        }
        Err(NotSecured::Header(bad)) => {
            hub.proxies.note_bad_header(peer, bad);
            None
        }
        Err(NotSecured::Failed(error)) => {
            certificates.note_failed(peer, &error);
            None
        }
        Err(NotSecured::Gone) => None,
    }
}

/// Performs the handshake. A PROXY header comes before it, if the listener expects one.
///
/// # Errors
/// [`NotSecured`].
async fn accept(
    transport: Transport,
    accepted: Accepted,
    certificates: &Certificates,
) -> Result<(Transport, Accepted), NotSecured> {
    let began = Instant::now();
    let Transport::Plain(stream) = transport else { return Err(NotSecured::Gone) };
    let mut input = Vec::new();
    let mut header = None;
    while accepted.proxy_protocol && header.is_none() {
        read(&stream, &mut input).await?;
        header = proxy::header::parse(&input).map_err(NotSecured::Header)?;
        if let Some(Header { length, .. }) = header {
            input.drain(..length);
        }
    }
    while input.is_empty() {
        read(&stream, &mut input).await?;
    }
    if input[0] != HANDSHAKE_RECORD {
        return Err(NotSecured::Plain(Transport::Plain(stream)));
    }
    let state = shake(&stream, certificates, input).await?;
    let user = state.client_certificate().and_then(user_of);
    let secured = Some(Box::new(Secured { header, user, began }));
    let transport = Transport::Tls(Box::new(TlsStream::new(stream, *state)));
    Ok((transport, Accepted { proxy_protocol: false, secured, ..accepted }))
}

async fn read(stream: &TcpStream, input: &mut Vec<u8>) -> Result<(), NotSecured> {
    if input.len() >= limits::TLS_HANDSHAKE_BYTES {
        return Err(NotSecured::Gone);
    }
    loop {
        // Allocated when the socket is readable: a silent socket uses no memory.
        stream.readable().await.map_err(|_| NotSecured::Gone)?;
        input.reserve(1 << 10);
        match stream.try_read_buf(input) {
            Ok(0) => return Err(NotSecured::Gone),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(NotSecured::Gone),
        }
    }
}

async fn shake(
    stream: &TcpStream,
    certificates: &Certificates,
    mut input: Vec<u8>,
) -> Result<Box<TlsState>, NotSecured> {
    let connection = UnbufferedServerConnection::new(certificates.config()).map_err(|_| NotSecured::Gone)?;
    let mut state = Box::new(TlsState::new(connection));
    // Bounded by the time of a handshake, and by the bytes of a message.
    loop {
        while !has_record(&input) {
            read(stream, &mut input).await?;
        }
        let permit = certificates.handshakes.acquire().await.map_err(|_| NotSecured::Gone)?;
        let computed = tokio::task::spawn_blocking(move || {
            let result = state.shake(&mut input);
            (state, input, result)
        });
        let result;
        // An error is a panic, which is logged.
        (state, input, result) = computed.await.map_err(|_| NotSecured::Gone)?;
        drop(permit);
        write_all(stream, &state.take_output()).await?;
        match result {
            Ok(Progress::Traffic) => return Ok(state),
            // More input is needed, even if some is left.
            Ok(Progress::Handshake) if !input.is_empty() => read(stream, &mut input).await?,
            Ok(Progress::Handshake) => {}
            Err(error) => return Err(NotSecured::Failed(error)),
        }
    }
}

/// Whether the input begins with a complete record.
fn has_record(input: &[u8]) -> bool {
    input.len() >= RECORD_HEADER && input.len() - RECORD_HEADER >= usize::from(u16::from_be_bytes([input[3], input[4]]))
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> Result<(), NotSecured> {
    while !bytes.is_empty() {
        stream.writable().await.map_err(|_| NotSecured::Gone)?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(NotSecured::Gone),
        }
    }
    Ok(())
}

/// Returns the user that a client certificate names; `None` if its common name cannot be a user name.
fn user_of(certificate: &[u8]) -> Option<Arc<str>> {
    let name = Facts::of(certificate)?.common_name?;
    let is_user = !name.is_empty()
        && name.len() <= wsmb_core::limits::NAME_BYTES
        && !name.chars().any(|c| c == ':' || c.is_control());
    is_user.then(|| Arc::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_complete_with_its_last_byte() {
        let record = [HANDSHAKE_RECORD, 3, 1, 0, 2, 7, 7];
        for length in 0..record.len() {
            assert!(!has_record(&record[..length]), "{length}");
        }
        assert!(has_record(&record) && has_record(&[&record[..], &[1]].concat()));
    }
}
