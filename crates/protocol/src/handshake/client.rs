//! The handshake of a client: writes the request head, and parses the reply.

use std::fmt;

use super::{accept_value, lists, values};
use crate::limits;

/// Returns a request for a WebSocket.
///
/// `host`: the value of the `Host` header. `target`: path and query. `key`: 16 random bytes in base64. `subprotocol`: the offered subprotocol
/// ([`super::SUBPROTOCOL`] for this broker). `authorization`: the value of the `Authorization` header. No argument may contain a line break.
#[must_use]
pub fn client_request(
    host: &str,
    target: &str,
    key: &str,
    subprotocol: Option<&str>,
    authorization: Option<&str>,
) -> Vec<u8> {
    let mut request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
    );
    for (name, value) in [("Sec-WebSocket-Protocol", subprotocol), ("Authorization", authorization)] {
        if let Some(value) = value {
            request.push_str(name);
            request.push_str(": ");
            request.push_str(value);
            request.push_str("\r\n");
        }
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// Why a reply does not open a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadReply {
    /// The reply is not HTTP/1; with the error of `httparse`.
    NotHttp(httparse::Error),
    /// The head is longer than [`limits::REQUEST_HEAD`].
    HeadTooLong,
    /// The server refused the request.
    Refused {
        /// The status; 401 = a wrong user or password.
        status: u16,
        /// The reason phrase.
        reason: String,
        /// The received part of the body as text; at most [`limits::REQUEST_HEAD`] bytes.
        body: String,
    },
    /// The reply has the status 101, but is not valid, for this reason.
    NotWebSocket(&'static str),
}

impl fmt::Display for BadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp(error) => {
                write!(f, "the server's answer is not HTTP/1.1 ({error}); is this the broker's port?")
            }
            Self::HeadTooLong => write!(f, "the server's answer has a head longer than {} bytes", limits::REQUEST_HEAD),
            Self::Refused { status: 401, .. } => f.write_str("the broker refused user or password (401)"),
            Self::Refused { status, reason, body } => {
                write!(f, "the server refused the connection with {status} {reason}")?;
                let body = body.trim();
                if body.is_empty() { Ok(()) } else { write!(f, ": {body}") }
            }
            Self::NotWebSocket(wrong) => write!(f, "the server's answer opens no WebSocket: {wrong}"),
        }
    }
}

impl std::error::Error for BadReply {}

/// Parses the reply to a [`client_request`] with the same `key` and `subprotocol`. Returns the length of its head; frames follow the head. Returns `None` if
/// the reply is incomplete. A refusal is complete with its body, if the announced length is at most [`limits::REQUEST_HEAD`].
///
/// # Errors
/// The reply does not open a WebSocket.
pub fn parse_reply(bytes: &[u8], key: &str, subprotocol: Option<&str>) -> Result<Option<usize>, BadReply> {
    let mut headers = [httparse::EMPTY_HEADER; limits::REQUEST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < limits::REQUEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(BadReply::HeadTooLong),
        Err(error) => return Err(BadReply::NotHttp(error)),
    };
    let headers = &*head.headers;
    let status = head.code.unwrap_or_default();
    if status != 101 {
        let announced = values(headers, "Content-Length").next().and_then(|length| length.parse().ok()).unwrap_or(0);
        let body = &bytes[len..];
        if body.len() < announced && body.len() < limits::REQUEST_HEAD && announced <= limits::REQUEST_HEAD {
            return Ok(None);
        }
        let body = String::from_utf8_lossy(&body[..body.len().min(limits::REQUEST_HEAD)]).into_owned();
        return Err(BadReply::Refused { status, reason: head.reason.unwrap_or_default().to_owned(), body });
    }
    if !lists(headers, "Upgrade", "websocket") || !lists(headers, "Connection", "Upgrade") {
        return Err(BadReply::NotWebSocket("the headers Upgrade and Connection do not say so"));
    }
    if values(headers, "Sec-WebSocket-Accept").next() != Some(accept_value(key).as_str()) {
        return Err(BadReply::NotWebSocket("the header Sec-WebSocket-Accept does not fit the key"));
    }
    if values(headers, "Sec-WebSocket-Protocol").any(|chosen| Some(chosen) != subprotocol) {
        return Err(BadReply::NotWebSocket("the server chose a subprotocol that was not offered"));
    }
    if values(headers, "Sec-WebSocket-Extensions").next().is_some() {
        return Err(BadReply::NotWebSocket("the server chose an extension, and none was offered"));
    }
    Ok(Some(len))
}
