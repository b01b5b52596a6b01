//! The requests of one HTTP connection, one after another.
//!
//! A client may open a WebSocket on a connection that has served requests: a proxy keeps connections open and uses them for any client. Then the
//! connection is taken back from hyper and goes to the handshake. The peer of a socket that is idle between two requests may be evicted.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioTimer;

use super::answer;
use super::asked::Asked;
use super::body::Body;
use super::io::HttpIo;
use super::response::Problem;
use super::router::is_reserved;
use crate::handshakes::Slot;
use crate::hub::Hub;
use crate::limits;
use crate::transport::Transport;
use wsmb_protocol::handshake::{self, BadRequest};
use wsmb_protocol::proxy::Header;

/// A connection that is taken back, with the request for a WebSocket that has arrived on it.
pub(crate) struct Kept {
    pub(crate) transport: Transport,
    pub(crate) request: handshake::Request,
    /// The bytes after the request.
    pub(crate) rest: Vec<u8>,
}

/// What is known of a connection before its first request.
pub(crate) struct Origin {
    /// The peer of the TCP connection.
    pub(crate) peer: SocketAddr,
    /// The PROXY header.
    pub(crate) header: Option<Header>,
    /// The user that a client certificate names.
    pub(crate) certified: Option<Arc<str>>,
}

/// A connection, for all its requests.
struct Connection<'a> {
    hub: &'a Arc<Hub>,
    origin: Origin,
    slot: &'a Slot,
    /// The request for a WebSocket.
    upgrade: Mutex<Option<handshake::Request>>,
    /// A request was answered.
    has_answered: AtomicBool,
}

/// Serves the requests of a connection until it ends or becomes a WebSocket. `before`: the bytes that were read already.
pub(crate) async fn serve(
    hub: &Arc<Hub>,
    transport: Transport,
    before: Vec<u8>,
    origin: Origin,
    slot: &Slot,
) -> Option<Kept> {
    let connection = Connection { hub, origin, slot, upgrade: Mutex::default(), has_answered: AtomicBool::new(false) };
    let before = Bytes::from(before);
    let io = HttpIo { transport, before: before.clone() };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_IDLE)
        .max_buf_size(limits::HTTP_BUFFER)
        .max_headers(wsmb_protocol::limits::REQUEST_HEADERS)
        .title_case_headers(true)
        // A client may close its sending half right behind its message. A receiver that does has gone.
        .half_close(!before.starts_with(b"GET "))
        .serve_connection(io, service_fn(|request| connection.respond(request)));
    let mut served = Box::pin(served);
    let mut stopping = pin!(hub.stop.begun());
    let (mut is_stopping, mut is_closing) = (false, false);
    std::future::poll_fn(|cx| {
        is_stopping = is_stopping || stopping.as_mut().poll(cx).is_ready();
        // An error is the client's: it has gone, or its request is no HTTP, which hyper has answered.
        let mut is_over = served.as_mut().poll(cx).is_ready();
        // A client that connects during a stop gets an answer.
        if is_stopping && !is_over && !is_closing && connection.has_answered.load(Ordering::Relaxed) {
            is_closing = true;
            served.as_mut().graceful_shutdown();
            is_over = served.as_mut().poll(cx).is_ready();
        }
        if is_over || connection.has_upgrade() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let request = connection.take_upgrade()?;
    let parts = std::pin::Pin::into_inner(served);
    let parts = parts.into_parts();
    let rest = [parts.read_buf.as_ref(), parts.io.before.as_ref()].concat();
    Some(Kept { transport: parts.io.transport, request, rest })
}

impl Connection<'_> {
    fn has_upgrade(&self) -> bool {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take_upgrade(&self) -> Option<handshake::Request> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let read = read_head(&request).and_then(|head| Ok((handshake::ticket(&head.query)?, head)));
        let (ticket, head) = match read {
            Ok(read) => read,
            Err(bad) => {
                self.hub.proxies.note_bad_request(self.origin.peer, bad);
                return Ok(Problem::from(bad).into());
            }
        };
        if head.upgrade.is_some() && !is_reserved(&head.path) {
            *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(head);
            // `serve` drops this future.
            return std::future::pending().await;
        }
        if !self.slot.protect() {
            // The connection is being evicted.
            return std::future::pending().await;
        }
        let client =
            self.hub.proxies.client(self.origin.peer, self.origin.header, &head.forwarding, &self.hub.access().trusted);
        let (parts, body) = request.into_parts();
        let asked = Asked {
            method: parts.method,
            head,
            headers: parts.headers,
            client,
            ticket,
            certified: self.origin.certified.clone(),
            body,
        };
        let response = answer::answer(self.hub, asked).await;
        if !response.body().is_stream() {
            self.slot.expose(client.address.ip());
        }
        self.has_answered.store(true, Ordering::Relaxed);
        Ok(response)
    }
}

/// Reads a head as the handshake reads it, so that both have the same rules about origins, proxies and credentials.
fn read_head(request: &Request<Incoming>) -> Result<handshake::Request, BadRequest> {
    let headers: Vec<httparse::Header<'_>> = request
        .headers()
        .iter()
        .map(|(name, value)| httparse::Header { name: name.as_str(), value: value.as_bytes() })
        .collect();
    let version = u8::from(request.version() != Version::HTTP_10);
    handshake::read_request(request.method().as_str(), &request.uri().to_string(), version, &headers)
}
