//! A minimal WebSocket handshake. Checks only what the relay needs.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest, Sha1};

/// The longest accepted request head in bytes.
pub const HEAD: usize = 8 * 1024;

/// The GUID that a server appends to the client's key (RFC 6455 section 1.3).
const SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A complete upgrade request.
pub struct Request {
    /// Path and query. Connections with the same target are a group.
    pub target: String,
    pub reply: String,
    /// Bytes of the request head. Frames follow.
    pub length: usize,
}

/// Parses a request head. Returns `None` if the head is incomplete.
///
/// # Errors
/// The head is too long or not an upgrade request.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, ()> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if bytes.len() > HEAD { Err(()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(drop)?;
    let mut lines = head.split("\r\n");
    let target = lines.next().and_then(|line| line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")).ok_or(())?;
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let header = |wanted: &str| {
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let key = header("Sec-WebSocket-Key").ok_or(())?;
    let accept = BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(SALT).finalize());
    let mut reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n"
    );
    // A client that offers subprotocols may require that the server selects one. The relay selects the first.
    if let Some(first) = header("Sec-WebSocket-Protocol").and_then(|offered| offered.split(',').next()) {
        reply.push_str("Sec-WebSocket-Protocol: ");
        reply.push_str(first.trim());
        reply.push_str("\r\n");
    }
    reply.push_str("\r\n");
    Ok(Some(Request { target: target.to_string(), reply, length: end + 4 }))
}
