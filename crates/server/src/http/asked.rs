//! A request whose body has not been read.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;

use super::response::Problem;
use crate::access::Credentials;
use crate::hub::Hub;
use crate::limits;
use crate::proxies::Client;
use wsmb_protocol::envelope::Code;
use wsmb_protocol::handshake;

/// A request whose body has not been read.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) head: handshake::Request,
    pub(super) headers: HeaderMap,
    pub(super) client: Client,
    /// The ticket in the query.
    pub(super) ticket: Option<String>,
    /// The user that a client certificate names.
    pub(super) certified: Option<Arc<str>>,
    pub(super) body: Incoming,
}

impl Asked {
    pub(super) fn credentials(&self) -> Credentials<'_> {
        Credentials {
            authorization: self.head.authorization.as_deref(),
            token: None,
            ticket: self.ticket.as_deref(),
            certified: self.certified.as_ref(),
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// The body is larger than `most` bytes, does not arrive in time, or nearly all memory is used.
    pub(super) async fn into_body(self, hub: &Hub, most: usize) -> Result<Bytes, Problem> {
        let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
        timeout(limits::HTTP_BODY, read_body(self.body, hub, most)).await.unwrap_or_else(|_| Err(late()))
    }
}

async fn read_body(mut body: Incoming, hub: &Hub, most: usize) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::of(Code::TooLarge, format!("the body is larger than {most} bytes (server.max_message)"));
    if usize::try_from(body.size_hint().lower()).is_ok_and(|length| length > most) {
        return Err(too_large());
    }
    let mut read = BytesMut::new();
    loop {
        if hub.memory.is_nearly_used() {
            let detail = "the broker is short of memory (server.memory_budget); try again later";
            return Err(Problem::of(Code::Unavailable, detail).header(RETRY_AFTER, "1"));
        }
        // The memory is looked at again while nothing arrives, so that many slow bodies do not hold it.
        let Ok(frame) = timeout(limits::MEMORY_TRIM_EVERY, body.frame()).await else { continue };
        let Some(frame) = frame else { return Ok(read.freeze()) };
        let frame = frame.map_err(|_| Problem::malformed("the body ended too early"))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > most {
            return Err(too_large());
        }
        read.extend_from_slice(&data);
    }
}
