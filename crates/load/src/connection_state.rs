//! The protocol state of one connection, without its socket: splits the input into frames, passes them to the session, and queues the
//! replies. It must never do I/O.

use std::sync::Arc;

use super::Error;
use super::inbound::{Frame, Inbound};
use super::wire::{Session, SessionEvent, frame};
use wsmb_protocol::frame::Opcode;

/// The protocol state of one connection.
pub(super) struct ConnectionState<S> {
    pub(super) session: S,
    inbound: Inbound,
    /// The bytes to write.
    pub(super) out: Vec<u8>,
    /// Whether a data frame has arrived since the last ping, so that a delivery may be unconfirmed.
    pub(super) unconfirmed: bool,
    /// `host:port`.
    address: Arc<str>,
}

impl<S: Session> ConnectionState<S> {
    pub(super) fn new(session: S, address: Arc<str>) -> Self {
        Self { session, inbound: Inbound::default(), out: Vec::new(), unconfirmed: false, address }
    }

    /// Passes the events in the input to `on_event`, and queues replies to pings.
    ///
    /// # Errors
    /// The first error of `on_event`; or the server violated the protocol, refused a request, or ended the connection.
    pub(super) fn handle_input(
        &mut self,
        input: &[u8],
        mut on_event: impl FnMut(SessionEvent<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Self { session, inbound, out, unconfirmed, .. } = self;
        inbound.feed(input, |item| {
            match item {
                Frame::Data(payload) => {
                    *unconfirmed = true;
                    let mut first = Ok(());
                    let taken = session.handle_payload(payload, out, |item| {
                        if first.is_ok() {
                            first = on_event(item);
                        }
                    });
                    first?;
                    taken.map_err(Error::Refused)?;
                }
                Frame::Ping(payload) => {
                    *unconfirmed = false;
                    frame(out, Opcode::Pong, payload);
                }
                Frame::Pong => {}
                Frame::Close(payload) => return Err(closed(payload).into()),
            }
            Ok(())
        })
    }

    /// `host:port` of the server.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The error for a connection that broke or was ended by the server.
    pub(super) fn lost(&self, source: Option<std::io::Error>) -> Error {
        wsmb_client::Error::Lost { address: self.address.to_string(), source }.into()
    }
}

fn closed(payload: &[u8]) -> wsmb_client::Error {
    match payload.split_first_chunk() {
        Some((code, reason)) => wsmb_client::Error::Closed {
            code: Some(u16::from_be_bytes(*code)),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
        None => wsmb_client::Error::Closed { code: None, reason: String::new() },
    }
}

/// Converts the problem of a frame header.
impl From<&'static str> for Error {
    fn from(wrong: &'static str) -> Self {
        Self::NotUnderstood(wrong.to_owned())
    }
}
