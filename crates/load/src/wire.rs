//! What the engine has to know of a protocol that is spoken over WebSocket: a [`Wire`], and one [`Session`] of it on each connection.
//!
//! Bytes in, bytes out: an implementation does no I/O and knows no clock. Frames and masks are the engine's; an implementation says what they carry.

use std::ops::Range;

use super::payload::Payload;
use wsmb_protocol::frame::{Opcode, encode_masked_into};

/// The mask of every frame that is sent. A fixed one, so that a frame is encoded once and a number in it changed by XOR; not zero, which a
/// server may treat as a special case. Nobody stands between who could be misled by a mask that can be foretold.
pub(super) const MASK: [u8; 4] = [0x9d, 0x47, 0xc2, 0x1b];

/// Appends one masked frame. For what a [`Session`] says when it opens, and for its answers.
pub fn frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    encode_masked_into(out, opcode, payload, MASK);
}

/// The channels of a run: a common beginning, something that no other run has, and a number of a fixed width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    prefix: String,
    run: String,
}

impl Channels {
    /// Digits of a channel's number.
    pub const DIGITS: usize = 6;

    /// Channels whose names begin with `prefix` and `run`.
    #[must_use]
    pub fn new(prefix: impl Into<String>, run: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), run: run.into() }
    }

    /// The name of one of them: `PREFIX-RUN-000042`. Its number is below a million.
    #[must_use]
    pub fn name(&self, index: u32) -> String {
        format!("{}-{}-{index:06}", self.prefix, self.run)
    }

    /// A few letters and digits that no other run has: for whatever else must be unique.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }
}

/// What one connection is there for.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The channels of the run.
    pub channels: Channels,
    /// The connection's own number in the run.
    pub index: u32,
    /// The numbers of the channels that this connection uses. A sender's are consecutive and it sends to them in turn; a receiver has at most
    /// [`Wire::receiver_channels`].
    pub uses: Range<u32>,
    /// It receives them; else it sends to them.
    pub receives: bool,
    /// Every send is answered for, and the receiver confirms what it gets (at least once); else neither (at most once).
    pub confirmed: bool,
}

impl Seat {
    /// The name of its first channel.
    #[must_use]
    pub fn channel(&self) -> String {
        self.channels.name(self.uses.start)
    }
}

/// What a connection asks for when it opens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// What is added to the path and query of the address, a parameter such as `topic=x`, already percent-encoded; `None`: nothing.
    pub parameter: Option<String>,
    /// The subprotocol that is offered; `None`: none.
    pub subprotocol: Option<&'static str>,
}

/// What a session has heard from the server.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A message: its payload, exactly as it was sent.
    Delivery(&'a [u8]),
    /// The server answers for one send of this connection.
    Answer,
}

/// A protocol. One for a run.
pub trait Wire {
    /// What it keeps for one connection.
    type Session: Session;

    /// Its name in the report, `topic` or `mqtt` for instance.
    fn name(&self) -> &'static str;

    /// What a connection in this seat asks for when it opens.
    fn handshake(&self, seat: &Seat) -> Handshake;

    /// The session of a connection in this seat. `payload`: what will travel, all messages are of its size.
    fn session(&self, seat: &Seat, payload: &Payload) -> Self::Session;

    /// One send to the first channel of a sender's seat; the engine changes its parts for those that follow.
    fn publication(&self, seat: &Seat, payload: &Payload) -> Publication;

    /// Whether sends can be answered for ([`Seat::confirmed`]), and a message sent while nobody receives is kept.
    fn confirms(&self) -> bool;

    /// The most channels that one connection can send to or receive from; 1 where the address names the channel.
    fn receiver_channels(&self) -> u32;
}

/// One connection's side of a protocol.
pub trait Session {
    /// Appends the frames that follow the handshake (see [`frame`]).
    fn open(&mut self, out: &mut Vec<u8>);

    /// Whether the server has taken everything that [`Self::open`] asked for: what is sent from now on reaches a receiver.
    fn is_ready(&self) -> bool;

    /// Takes the payload of one data frame and tells what is in it, in order. Several packets may lie in one frame, and one may lie in several.
    /// Appends the frames that the server is owed (acknowledgements, answers to a protocol's own pings) to `out`.
    ///
    /// # Errors
    /// The server refused something, or broke the protocol: a sentence.
    fn take(&mut self, payload: &[u8], out: &mut Vec<u8>, heard: impl FnMut(Heard<'_>)) -> Result<(), String>;
}

/// A part of a publication that differs from send to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Payload::DIGITS`] digits: the number of the message.
    Number,
    /// [`Channels::DIGITS`] digits: the number of the channel.
    Channel,
    /// Two bytes, big-endian, from 1 to 65,535: the number of the message, as far as it goes (MQTT's packet identifier).
    PacketId,
}

/// One send, as a frame's payload that is made once, and the places in it that change.
#[derive(Clone, Debug)]
pub struct Publication {
    pub(super) opcode: Opcode,
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Vec<(usize, Part)>,
}

impl Publication {
    /// An empty one. `opcode`: text or binary.
    #[must_use]
    pub fn new(opcode: Opcode) -> Self {
        Self { opcode, bytes: Vec::new(), parts: Vec::new() }
    }

    /// Its size, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Appends bytes that are the same in every send.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends the message itself.
    #[must_use]
    pub fn payload(mut self, payload: &Payload) -> Self {
        self.parts.push((self.bytes.len() + payload.number_at(), Part::Number));
        self.bytes.extend_from_slice(payload.bytes());
        self
    }

    /// Appends the name of the seat's first channel.
    #[must_use]
    pub fn channel(mut self, seat: &Seat) -> Self {
        self.bytes.extend_from_slice(seat.channel().as_bytes());
        self.parts.push((self.bytes.len() - Channels::DIGITS, Part::Channel));
        self
    }

    /// Appends the number of the message, [`Payload::DIGITS`] digits of it.
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
