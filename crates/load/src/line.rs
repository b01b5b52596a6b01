//! One connection without its socket: what comes in is cut into frames and given to the session, what is owed goes out.

use std::sync::Arc;

use super::Error;
use super::inbound::{Frame, Inbound};
use super::wire::{Heard, Session, frame};
use wsmb_protocol::frame::Opcode;

/// See the module's description.
pub(super) struct Line<S> {
    pub(super) session: S,
    inbound: Inbound,
    /// What is to be written.
    pub(super) out: Vec<u8>,
    /// A frame with data has come since the last ping: perhaps a delivery that is not confirmed.
    pub(super) unconfirmed: bool,
    /// `host:port`.
    address: Arc<str>,
}

impl<S: Session> Line<S> {
    pub(super) fn new(session: S, address: Arc<str>) -> Self {
        Self { session, inbound: Inbound::default(), out: Vec::new(), unconfirmed: false, address }
    }

    /// Takes what was read, and tells what is in it. Pings are answered.
    ///
    /// # Errors
    /// The first one of `heard`, or: the server broke a protocol, refused something, or ended the connection.
    pub(super) fn take(
        &mut self,
        input: &[u8],
        mut heard: impl FnMut(Heard<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Self { session, inbound, out, unconfirmed, .. } = self;
        inbound.feed(input, |item| {
            match item {
                Frame::Data(payload) => {
                    *unconfirmed = true;
                    let mut first = Ok(());
                    let taken = session.take(payload, out, |item| {
                        if first.is_ok() {
                            first = heard(item);
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

    /// The other side has ended the connection, or it broke.
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

/// What is wrong with a header.
impl From<&'static str> for Error {
    fn from(wrong: &'static str) -> Self {
        Self::NotUnderstood(wrong.to_owned())
    }
}
