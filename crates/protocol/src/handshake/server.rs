//! The handshake of the server: parses the request head, and writes the reply.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::bad_request::BadRequest;
use super::broken_upgrade::BrokenUpgrade;
use super::{SUBPROTOCOL, TOKEN_SUBPROTOCOL, accept_value, lists, query, values};
use crate::limits;
use crate::origin;
use crate::proxy::{Forwarding, header};
use wsmb_core::message::ChannelName;

/// A request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, unchanged: `GET`.
    pub method: String,
    /// The percent-encoded path without the query: `/ws`.
    pub path: String,
    /// The percent-encoded query, without the `?`; may be empty.
    pub query: String,
    /// The value of the `Authorization` header. See [`super::basic_credentials`].
    pub authorization: Option<String>,
    /// The request for a WebSocket (in a box, because the handshakes of many clients wait at the same time): a `GET` of HTTP/1.1 with `Upgrade: websocket` and `Connection: upgrade`.
    pub upgrade: Option<Box<Upgrade>>,
    /// What is missing, if a proxy has damaged a request for a WebSocket. Never set if `upgrade` is set.
    pub broken_upgrade: Option<BrokenUpgrade>,
    /// The addresses that proxies have added.
    pub forwarding: Forwarding,
    /// The web page that has sent the request, if the request has an `Origin` that is checked.
    pub page: Option<Page>,
}

/// The headers that identify the web page that has sent a request, unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The values of `Origin` that a web page can have (see [`origin::is_of_web`]); at least one.
    pub origins: Vec<String>,
    /// The value of `Host`, if the request has exactly one.
    pub host: Option<String>,
    /// The values of `X-Forwarded-Host`, joined with commas.
    pub forwarded_host: Option<String>,
}

/// The parameters of a request for a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of `Sec-WebSocket-Key`, unchanged. The parser does not check that the key encodes 16 bytes: the check proves nothing, and some clients send
    /// other keys.
    pub key: String,
    /// Whether the client offers [`SUBPROTOCOL`].
    pub modern: bool,
    /// `?topic=` or `?channel=`: the connection uses the topic dialect on this channel.
    pub topic: Option<ChannelName>,
    /// `?receiver=`: the name of the receiver.
    pub receiver: Option<String>,
    /// The token in a subprotocol ([`super::TOKEN_SUBPROTOCOL`]). Secret.
    pub token: Option<String>,
    /// `?ticket=`. Secret.
    pub ticket: Option<String>,
}

/// Parses the request head at the beginning of `bytes`. Returns the request and the length of its head; `None` if the head is incomplete.
///
/// # Errors
/// The head is invalid. An invalid query is an error only in a request for a WebSocket.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, BadRequest> {
    if header::is_header(bytes) {
        return Err(BadRequest::ProxyHeader);
    }
    // The type of a TLS record that begins a handshake (RFC 8446 section 5.1). No HTTP request begins with this byte.
    if bytes.first() == Some(&0x16) {
        return Err(BadRequest::Tls);
    }
    let mut headers = [httparse::EMPTY_HEADER; limits::REQUEST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let visible = &bytes[..bytes.len().min(limits::REQUEST_HEAD)];
    let len = match head.parse(visible) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < limits::REQUEST_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) if visible.contains(&b'\n') => return Err(BadRequest::HeadTooLong),
        Ok(httparse::Status::Partial) => return Err(BadRequest::LineTooLong),
        Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::TooManyHeaders),
        Err(error) => return Err(BadRequest::NotHttp(error)),
    };
    // A complete head has a method, a path and a version.
    let (method, target) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
    let request = read_request(method, target, head.version.unwrap_or_default(), head.headers)?;
    Ok(Some((request, len)))
}

/// Reads a request head that is parsed already. `target`: the path and the query, or an absolute address; `version`: 0 or 1, for HTTP/1.0 or HTTP/1.1.
///
/// # Errors
/// As [`parse_request`].
pub fn read_request(
    method: &str,
    target: &str,
    version: u8,
    headers: &[httparse::Header<'_>],
) -> Result<Request, BadRequest> {
    let (path, query) = split_target(target);
    let broken_upgrade = if method == "GET" { BrokenUpgrade::find(headers, version) } else { None };
    let is_upgrade = method == "GET" && broken_upgrade.is_none() && lists(headers, "Upgrade", "websocket");
    let upgrade = if is_upgrade { Some(Box::new(upgrade(headers, query)?)) } else { None };
    let mut authorization = values(headers, "Authorization");
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        authorization: authorization.next().map(str::to_owned),
        upgrade,
        broken_upgrade,
        forwarding: Forwarding::of(headers.iter().map(|header| (header.name, header.value))),
        page: page(headers),
    };
    if authorization.next().is_some() {
        return Err(BadRequest::AuthorizationTwice);
    }
    Ok(request)
}

/// Returns the web page that has sent a request. A program that is not a browser sends no origin, or an origin with another scheme.
fn page(headers: &[httparse::Header<'_>]) -> Option<Page> {
    let origins: Vec<String> =
        values(headers, "Origin").filter(|origin| origin::is_of_web(origin)).map(str::to_owned).collect();
    if origins.is_empty() {
        return None;
    }
    let mut hosts = values(headers, "Host").map(str::to_owned);
    let (host, another) = (hosts.next(), hosts.next());
    let forwarded: Vec<&str> = values(headers, "X-Forwarded-Host").collect();
    Some(Page {
        origins,
        host: host.filter(|_| another.is_none()),
        forwarded_host: (!forwarded.is_empty()).then(|| forwarded.join(",")),
    })
}

/// Splits a request target into path and query. The target has origin form (`/path?query`) or absolute form (`http://host/path?query`).
fn split_target(target: &str) -> (&str, &str) {
    let local = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => rest.find(['/', '?']).map_or("/", |at| &rest[at..]),
        _ => target,
    };
    match local.split_once('?') {
        Some(("", query)) => ("/", query),
        Some(split) => split,
        None => (local, ""),
    }
}

fn upgrade(headers: &[httparse::Header<'_>], query: &str) -> Result<Upgrade, BadRequest> {
    if !values(headers, "Sec-WebSocket-Version").any(|version| version == "13") {
        return Err(BadRequest::Version);
    }
    let mut keys = values(headers, "Sec-WebSocket-Key");
    let (Some(key), None) = (keys.next().filter(|key| !key.is_empty()), keys.next()) else {
        return Err(BadRequest::Key);
    };
    // Subprotocols, unlike the other tokens, are compared exactly (RFC 6455 section 11.3.4).
    let offered = values(headers, "Sec-WebSocket-Protocol").flat_map(|offered| offered.split(',')).map(str::trim);
    let (mut modern, mut token) = (false, None);
    for protocol in offered {
        modern |= protocol == SUBPROTOCOL;
        if let Some(encoded) = protocol.strip_prefix(TOKEN_SUBPROTOCOL) {
            let decoded = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|token| String::from_utf8(token).ok());
            if decoded.is_none() || token.is_some() {
                return Err(BadRequest::TokenProtocol);
            }
            token = decoded;
        }
    }
    if token.is_some() && !modern {
        return Err(BadRequest::TokenAlone);
    }
    let query::QueryParameters { topic, receiver, ticket } = query::parse(query)?;
    Ok(Upgrade { key: key.to_owned(), modern, topic, receiver, token, ticket })
}

/// Returns the reply that opens the WebSocket. The reply has at most [`limits::UPGRADE_REPLY`] bytes, and the spelling that the strictest old client demands.
#[must_use]
pub fn upgrade_reply(upgrade: &Upgrade) -> Vec<u8> {
    let accept = accept_value(&upgrade.key);
    let mut reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    );
    if upgrade.modern {
        reply.push_str("Sec-WebSocket-Protocol: ");
        reply.push_str(SUBPROTOCOL);
        reply.push_str("\r\n");
    }
    reply.push_str("\r\n");
    reply.into_bytes()
}

/// Returns a complete HTTP response that ends the connection. The headers come from the broker, and must not contain line breaks.
#[must_use]
pub fn response(status: u16, extra_headers: &[(&str, &str)], content_type: &str, body: &str) -> Vec<u8> {
    let mut reply = format!("HTTP/1.1 {status} {}\r\nConnection: close\r\n", reason(status));
    for (name, value) in extra_headers {
        reply.push_str(name);
        reply.push_str(": ");
        reply.push_str(value);
        reply.push_str("\r\n");
    }
    reply.push_str(&format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    reply.into_bytes()
}

/// Returns the response to a `HEAD` request: the head of `response`, with the length that the body would have.
#[must_use]
pub fn without_body(mut response: Vec<u8>) -> Vec<u8> {
    if let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") {
        response.truncate(end + 4);
    }
    response
}

/// Returns the reason phrase of a status. PHP and Java refuse a reply without a reason phrase.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}
