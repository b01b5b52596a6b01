//! Request and reply heads: the parts of HTTP/1.1 that the WebSocket handshake needs (RFC 6455 section 4, RFC 9112).
//!
//! `server` parses the requests of all clients, including the unusual ones of old clients, and writes replies that the strictest client accepts (SPEC section
//! 3). `client` writes requests and parses replies. The server side never reads a body, and never decides who may connect.

mod bad_request;
mod broken_upgrade;
mod client;
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
pub use broken_upgrade::{BrokenUpgrade, PROXY_SETTINGS};
pub use client::{BadReply, client_request, parse_reply};
pub use query::{pairs, percent_decode, ticket};
pub use server::{Page, Request, Upgrade, parse_request, read_request, response, upgrade_reply, without_body};

/// The subprotocol that makes a connection *modern* (SPEC section 3).
pub const SUBPROTOCOL: &str = "wsmb.v1";

/// The beginning of a subprotocol that carries a token in base64url, without padding (RFC 4648 section 5). Never sent back.
pub const TOKEN_SUBPROTOCOL: &str = "wsmb.token.";

/// Returns the user and the password in the value of an `Authorization` header (RFC 7617, UTF-8); `None` if it is not valid Basic authentication.
///
/// The first colon ends the user name; the password may contain colons.
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

/// Returns the token in the value of an `Authorization` header (RFC 6750 section 2.1); `None` if the scheme is not `Bearer`.
#[must_use]
pub fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns the `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
fn accept_value(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// Whether a header with a list of tokens contains this token; upper and lower case are the same.
fn lists(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name).any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
}

/// Returns the value of each header of this name as text. A value that is not UTF-8 becomes U+FFFD, which matches no token.
fn values<'a>(headers: &'a [httparse::Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| std::str::from_utf8(header.value).unwrap_or("\u{fffd}").trim())
}
