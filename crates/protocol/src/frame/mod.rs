//! WebSocket frames (RFC 6455 section 5) for servers and clients.
//!
//! [`Decoder`] takes input from a socket in pieces of any size, and returns complete messages and control frames. The `encode` functions make complete frames.
//! There are no extensions: a reserved bit is a violation.
//!
//! The decoder never sizes a buffer by the length in a header, never holds memory while no frame or message is unfinished, and never answers a frame: the
//! caller must send pongs and close frames.

mod decode;
mod encode;

#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

pub use decode::Decoder;
pub(super) use encode::push_header;
pub use encode::{encode, encode_close, encode_into, encode_masked_into, is_data, payload_start, unmasked_len};

use crate::limits;
use wsmb_core::message::{Frame, Kind};

/// The longest payload of a control frame, in bytes (RFC 6455 section 5.5).
pub const CONTROL_PAYLOAD: usize = 125;

/// The longest frame header, in bytes: two bytes, a 64-bit length, and a mask (RFC 6455 section 5.2).
pub(crate) const HEADER: usize = 14;

/// The side of the decoder. A server demands masked frames, a client refuses them (RFC 6455 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This side accepted the connection.
    Server,
    /// This side made the connection.
    Client,
}

/// The kind of a frame to encode. Messages are never sent in fragments: the PHP client fails on a split header, and the ESP32 library ignores fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A text message.
    Text,
    /// A binary message.
    Binary,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
    /// A close frame.
    Close,
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// A complete item from the peer. It is borrowed from the read buffer if it arrived in one piece.
#[derive(Clone, Debug)]
pub enum Incoming<'a> {
    /// A complete message, with its fragments joined.
    Message {
        /// The kind of the message. The payload of [`Kind::Text`] is valid UTF-8.
        kind: Kind,
        /// The message as an unmasked frame that can be forwarded. A server writes a new header with the shortest length. [`payload_start`] returns where the
        /// payload begins. A message that arrived in several pieces is [`Frame::Shared`].
        frame: Frame<'a>,
    },
    /// A ping with its payload, which the pong must repeat.
    Ping(Cow<'a, [u8]>),
    /// A pong.
    Pong(Cow<'a, [u8]>),
    /// A close frame. All data after it must be ignored (RFC 6455 section 5.5.1), so the caller must break.
    Close {
        /// The close code, always a valid one; `None` if the frame was empty.
        code: Option<u16>,
        /// The reason of the peer in words.
        reason: String,
    },
}

/// A violation of the protocol by the peer. The connection must end: the frame boundaries are lost, or cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// RSV1, RSV2 or RSV3 is set, and no extension was agreed.
    ReservedBits,
    /// The opcode is reserved in RFC 6455.
    ReservedOpcode(u8),
    /// A client has sent an unmasked frame.
    Unmasked,
    /// A server has sent a masked frame.
    Masked,
    /// A control frame without FIN.
    FragmentedControl,
    /// A control frame of more than [`CONTROL_PAYLOAD`] bytes.
    LongControl,
    /// The most significant bit of a 64-bit length is set.
    LengthOutOfRange,
    /// A continuation frame without a message to continue.
    UnexpectedContinuation,
    /// A new message before the end of a fragmented message.
    ExpectedContinuation,
    /// A close frame with a payload of one byte: half a close code.
    HalfCloseCode,
    /// A close code that is not allowed in a frame (RFC 6455 section 7.4).
    BadCloseCode(u16),
    /// A text message or a close reason that is not UTF-8.
    BadUtf8,
    /// A message that is larger than this limit in bytes.
    MessageTooLarge(usize),
    /// A message in more than [`limits::FRAGMENTS`] fragments that are smaller than [`limits::FRAGMENT_BYTES`].
    TooManyFragments,
}

impl ProtocolError {
    /// Returns the close code for the answer: 1002, 1007 or 1009 (RFC 6455 section 7.4.1).
    #[must_use]
    pub fn close_code(&self) -> u16 {
        match self {
            Self::BadUtf8 => 1007,
            Self::MessageTooLarge(_) | Self::TooManyFragments => 1009,
            _ => 1002,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBits => f.write_str("a reserved bit is set, and no extension was agreed"),
            Self::ReservedOpcode(opcode) => write!(f, "opcode {opcode} is reserved"),
            Self::Unmasked => f.write_str("a frame from a client must be masked"),
            Self::Masked => f.write_str("a frame from a server must not be masked"),
            Self::FragmentedControl => f.write_str("a control frame must not be fragmented"),
            Self::LongControl => write!(f, "a control frame carries at most {CONTROL_PAYLOAD} bytes"),
            Self::LengthOutOfRange => f.write_str("the most significant bit of a 64-bit length must be 0"),
            Self::UnexpectedContinuation => f.write_str("a continuation frame without a message to continue"),
            Self::ExpectedContinuation => f.write_str("a new message before the fragmented one was finished"),
            Self::HalfCloseCode => f.write_str("a close frame with half a close code"),
            Self::BadCloseCode(code) => write!(f, "{code} may not be used as a close code"),
            Self::BadUtf8 => f.write_str("text that is not UTF-8"),
            Self::MessageTooLarge(limit) => write!(f, "a message is larger than {limit} bytes"),
            Self::TooManyFragments => {
                let (most, size) = (limits::FRAGMENTS, limits::FRAGMENT_BYTES);
                write!(f, "a message in more than {most} fragments of less than {size} bytes")
            }
        }
    }
}

impl std::error::Error for ProtocolError {}
