//! The server's half: reading a request head, writing the reply.

use super::bad_request::BadRequest;
use super::missed::Missed;
use super::{SUBPROTOCOL, accept_value, lists, query, values};
use crate::limits;
use crate::origin;
use crate::proxy::{Forwarding, header};
use wsmb_core::message::ChannelName;

/// A request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As it stands: `GET`.
    pub method: String,
    /// The path, still percent-encoded, without the query: `/ws`.
    pub path: String,
    /// What follows the `?`, still percent-encoded; empty if there is none.
    pub query: String,
    /// The value of the `Authorization` header. See [`super::basic_credentials`].
    pub authorization: Option<String>,
    /// The request asks for a WebSocket: a `GET` of HTTP/1.1 with `Upgrade: websocket` and `Connection: upgrade`.
    pub upgrade: Option<Upgrade>,
    /// It was meant to ask for a WebSocket, as something else in it shows; never beside `upgrade`.
    pub missed: Option<Missed>,
    /// What proxies have noted.
    pub forwarding: Forwarding,
    /// The web page that sends it, if it is one that has to be asked for.
    pub page: Option<Page>,
}

/// What a request says about the web page that sends it. All of it is as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The values of `Origin` that a web page can have (see [`origin::is_of_web`]); at least one.
    pub origins: Vec<String>,
    /// `Host`, if it is given once.
    pub host: Option<String>,
    /// `X-Forwarded-Host`, a list.
    pub forwarded_host: Option<String>,
}

/// What a request for a WebSocket asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// `Sec-WebSocket-Key`, as it stands. That it encodes 16 bytes is not checked: it proves nothing, and clients in the
    /// field send all sorts.
    pub key: String,
    /// The client offers [`SUBPROTOCOL`].
    pub modern: bool,
    /// `?topic=` or `?channel=`: the connection speaks the topic dialect on this channel.
    pub topic: Option<ChannelName>,
    /// `?receiver=`: the receiver's own name.
    pub receiver: Option<String>,
}

/// Reads the request head at the start of `bytes`; the number is its length. `None`: it is not all there yet.
///
/// # Errors
/// It never will be a request that can be served. A query that is wrong matters only to an upgrade.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, BadRequest> {
    if header::is_header(bytes) {
        return Err(BadRequest::ProxyHeader);
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
    // A complete head has all three.
    let (method, target) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
    let version = head.version.unwrap_or_default();
    let headers = &*head.headers;
    let (path, query) = split_target(target);
    let missed = if method == "GET" { Missed::find(headers, version) } else { None };
    let is_upgrade = method == "GET" && missed.is_none() && lists(headers, "Upgrade", "websocket");
    let upgrade = if is_upgrade { Some(upgrade(headers, query)?) } else { None };
    let mut authorization = values(headers, "Authorization");
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        authorization: authorization.next().map(str::to_owned),
        upgrade,
        missed,
        forwarding: Forwarding::of(headers.iter().map(|header| (header.name, header.value))),
        page: page(headers),
    };
    if authorization.next().is_some() {
        return Err(BadRequest::AuthorizationTwice);
    }
    Ok(Some((request, len)))
}

/// The page that sends a request. A program that is no browser sends no origin, or one of a scheme of its own.
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

/// Path and query of a request target, in origin form (`/path?query`) or absolute form (`http://host/path?query`).
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
    let wishes = query::parse(query)?;
    // Subprotocols, unlike the other tokens, are compared exactly (RFC 6455 section 11.3.4).
    let modern = values(headers, "Sec-WebSocket-Protocol")
        .any(|offered| offered.split(',').any(|protocol| protocol.trim() == SUBPROTOCOL));
    Ok(Upgrade { key: key.to_owned(), modern, topic: wishes.topic, receiver: wishes.receiver })
}

/// The reply that makes the connection a WebSocket. Below 1,024 bytes ([`limits::UPGRADE_REPLY`]), spelt as the strictest of
/// the old clients demands.
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

/// A whole reply that ends the connection. Header names and values are the broker's own: they contain no line breaks.
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

/// The same answer to `HEAD`: its head, which tells the length that the body would have.
#[must_use]
pub fn without_body(mut response: Vec<u8>) -> Vec<u8> {
    if let Some(end) = response.windows(4).position(|window| window == b"\r\n\r\n") {
        response.truncate(end + 4);
    }
    response
}

/// The reason phrase: PHP and Java refuse a reply without one.
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
