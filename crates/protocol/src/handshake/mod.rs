//! Request and reply heads: HTTP/1.1 as far as the WebSocket handshake needs it (RFC 6455 section 4, RFC 9112).
//!
//! The server half reads what clients send, however oddly the old ones spell it, and writes what the strictest of them
//! accepts (SPEC section 3). The client half does the reverse. Heads only: no body is ever read here, and nothing is
//! decided about who may connect.

mod bad_request;
mod client;
mod missed;
mod query;
mod server;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1::{Digest as _, Sha1};

pub use bad_request::BadRequest;
pub use client::{BadReply, client_request, parse_reply};
pub use missed::{Missed, SETTINGS};
pub use query::percent_decode;
pub use server::{Page, Request, Upgrade, parse_request, response, upgrade_reply, without_body};

/// The subprotocol that makes a connection *modern* (SPEC section 3).
pub const SUBPROTOCOL: &str = "wsmb.v1";

/// User and password of an `Authorization` header's value (RFC 7617, UTF-8); `None` if it is no such thing.
///
/// The first colon ends the user: the password may contain more.
#[must_use]
pub fn basic_credentials(authorization: &str) -> Option<(String, String)> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let (scheme, encoded) = authorization.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(LENIENT.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
fn accept_value(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// Whether a header that lists tokens names this one, in any case.
fn lists(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name).any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
}

/// The values of every header of this name, as text; bytes that are no text can't match anything.
fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| std::str::from_utf8(header.value).unwrap_or("\u{fffd}").trim())
}
