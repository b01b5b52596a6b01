//! The interface between the engine and a protocol over WebSocket: one [`Wire`] for a run, and one [`Session`] for each connection.
//!
//! An implementation must never do I/O or read a clock. The engine handles frames and masks; an implementation defines their content.

use std::ops::Range;

use super::payload::Payload;
use wsmb_protocol::frame::{Opcode, encode_masked_into};

/// The mask of all sent frames. It is fixed, so that a frame is encoded once and its number is changed by XOR. It is not zero, which a
/// server may treat as a special case. RFC 6455 requires unpredictable masks to protect intermediaries, and a benchmark has none.
pub(super) const MASK: [u8; 4] = [0x9d, 0x47, 0xc2, 0x1b];

/// Appends one masked frame. For the first frames of a [`Session`] and its replies.
pub fn frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    encode_masked_into(out, opcode, payload, MASK);
}

/// The channels of a run. Their names have a common prefix, a part unique to the run, and a number of fixed width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    prefix: String,
    run: String,
}

impl Channels {
    /// The digits of a channel number.
    pub const DIGITS: usize = 6;

    /// Creates channels whose names begin with `prefix` and `run`.
    #[must_use]
    pub fn new(prefix: impl Into<String>, run: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), run: run.into() }
    }

    /// Returns the name of a channel: `PREFIX-RUN-000042`. The number must be below a million.
    #[must_use]
    pub fn name(&self, index: u32) -> String {
        format!("{}-{}-{index:06}", self.prefix, self.run)
    }

    /// The letters and digits that are unique to the run, also for other unique names.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }
}

/// The purpose of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionPlan {
    /// The channels of the run.
    pub channels: Channels,
    /// The number of the connection in the run.
    pub index: u32,
    /// The numbers of the channels that the connection uses. A sender sends to them in turn. A receiver has at most
    /// [`Wire::receiver_channels`].
    pub channel_numbers: Range<u32>,
    /// Whether the connection receives the channels; otherwise it sends to them.
    pub receives: bool,
    /// Whether the broker confirms every send and receivers confirm their deliveries (at least once); otherwise neither (at most once).
    pub confirmed: bool,
}

impl ConnectionPlan {
    /// The name of the connection's first channel.
    #[must_use]
    pub fn channel(&self) -> String {
        self.channels.name(self.channel_numbers.start)
    }
}

/// The variable parts of a handshake request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// A query parameter to add to the address, such as `topic=x`, percent-encoded.
    pub parameter: Option<String>,
    /// The subprotocol to offer.
    pub subprotocol: Option<&'static str>,
}

/// An event that a session has received from the server.
#[derive(Debug)]
pub enum SessionEvent<'a> {
    /// A message: its payload, exactly as sent.
    Delivery(&'a [u8]),
    /// The server has confirmed one send of this connection.
    Confirmation,
}

/// A protocol.
pub trait Wire {
    /// The protocol's state of one connection.
    type Session: Session;

    /// The name in the report, such as `topic` or `mqtt`.
    fn name(&self) -> &'static str;

    /// The variable parts of the handshake request of a connection.
    fn handshake(&self, plan: &ConnectionPlan) -> Handshake;

    /// Creates the session of a connection. All messages have the size of `payload`.
    fn session(&self, plan: &ConnectionPlan, payload: &Payload) -> Self::Session;

    /// Returns the first send of a sender. The engine changes the variable parts for further sends.
    fn publication(&self, plan: &ConnectionPlan, payload: &Payload) -> Publication;

    /// Whether the broker can confirm sends ([`ConnectionPlan::confirmed`]) and keeps messages without a receiver.
    fn confirms(&self) -> bool;

    /// The maximum number of channels of one connection; 1 if the address names the channel.
    fn receiver_channels(&self) -> u32;
}

/// The protocol's state of one connection.
pub trait Session {
    /// Appends the first frames after the handshake (see [`frame`]).
    fn open(&mut self, out: &mut Vec<u8>);

    /// Whether the server has processed the frames of [`Self::open`], so that messages sent from now on reach this receiver.
    fn is_ready(&self) -> bool;

    /// Handles the payload of one data frame, and passes its events to `on_event`, in order. One frame may contain several packets, and a
    /// packet may span several frames. Appends the replies to the server (acknowledgements, replies to a protocol's own pings) to `out`.
    ///
    /// # Errors
    /// The server refused a request or violated the protocol: a sentence.
    fn handle_payload(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
        on_event: impl FnMut(SessionEvent<'_>),
    ) -> Result<(), String>;
}

/// A variable part of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Payload::DIGITS`] digits: the number of the message.
    Number,
    /// [`Channels::DIGITS`] digits: the number of the channel.
    Channel,
    /// Two bytes, big-endian, from 1 to 65,535, derived from the number of the message (MQTT packet identifier).
    PacketId,
}

/// The payload of a frame with one send, and the offsets of its variable parts.
#[derive(Clone, Debug)]
pub struct Publication {
    pub(super) opcode: Opcode,
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Vec<(usize, Part)>,
}

impl Publication {
    /// Creates an empty publication. `opcode` is text or binary.
    #[must_use]
    pub fn new(opcode: Opcode) -> Self {
        Self { opcode, bytes: Vec::new(), parts: Vec::new() }
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Appends bytes that are equal in all sends.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends the message.
    #[must_use]
    pub fn payload(mut self, payload: &Payload) -> Self {
        self.parts.push((self.bytes.len() + payload.number_at(), Part::Number));
        self.bytes.extend_from_slice(payload.bytes());
        self
    }

    /// Appends the name of the connection's first channel.
    #[must_use]
    pub fn channel(mut self, plan: &ConnectionPlan) -> Self {
        self.bytes.extend_from_slice(plan.channel().as_bytes());
        self.parts.push((self.bytes.len() - Channels::DIGITS, Part::Channel));
        self
    }

    /// Appends the number of the message ([`Payload::DIGITS`] digits).
    #[must_use]
    pub fn number(mut self) -> Self {
        self.parts.push((self.bytes.len(), Part::Number));
        self.bytes.extend_from_slice(Payload::FIRST.to_string().as_bytes());
        self
    }

    /// Appends a packet identifier.
    #[must_use]
    pub fn packet_id(mut self) -> Self {
        self.parts.push((self.bytes.len(), Part::PacketId));
        self.bytes.extend_from_slice(&1_u16.to_be_bytes());
        self
    }
}
