//! WebSocket frames (RFC 6455 section 5), server and client side.
//!
//! [`Decoder`] takes what was read from a socket, in pieces of any size, and hands out whole messages and control frames;
//! the `encode` functions make whole frames. No extensions: a reserved bit is a violation.
//!
//! The decoder never sizes a buffer from a length that a peer merely claims, never holds memory while nothing is
//! unfinished, and never answers anything itself: pongs and close frames are its caller's business.

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

/// The longest frame header: two bytes, a 64-bit length, a mask (RFC 6455 section 5.2).
pub(crate) const HEADER: usize = 14;

/// Which side *we* are. A server demands masked frames, a client refuses them (RFC 6455 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We accepted the connection.
    Server,
    /// We made the connection.
    Client,
}

/// What kind of frame to encode. Messages are never sent in fragments: the PHP client dies on a split header, the ESP32
/// library ignores fragments.
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

/// One whole item from the peer, borrowed from the read buffer where it lies whole.
#[derive(Clone, Debug)]
pub enum Incoming<'a> {
    /// A whole message, its fragments joined.
    Message {
        /// If it is [`Kind::Text`], the payload is valid UTF-8.
        kind: Kind,
        /// The payload, unmasked, behind an unmasked header, which a server writes anew with the shortest length: the frame that
        /// forwards it. [`payload_start`] says where the payload begins. A message that lay in several pieces is shared.
        frame: Frame<'a>,
    },
    /// A ping and what its pong must carry.
    Ping(Cow<'a, [u8]>),
    /// A pong.
    Pong(Cow<'a, [u8]>),
    /// A close frame. Nothing that follows it means anything (RFC 6455 section 5.5.1): break.
    Close {
        /// The peer's reason as a number, one that may travel; `None` if the frame was empty.
        code: Option<u16>,
        /// The peer's reason in words.
        reason: String,
    },
}

/// How a peer broke the protocol. The connection can't go on: frame boundaries are lost, or may not be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// RSV1, RSV2 or RSV3 is set, and no extension was agreed.
    ReservedBits,
    /// An opcode that RFC 6455 gives no meaning.
    ReservedOpcode(u8),
    /// A client must mask, and this one did not.
    Unmasked,
    /// A server must not mask, and this one did.
    Masked,
    /// A control frame without FIN.
    FragmentedControl,
    /// A control frame of more than [`CONTROL_PAYLOAD`] bytes.
    LongControl,
    /// A 64-bit length whose most significant bit is set.
    LengthOutOfRange,
    /// A continuation frame, and no message to continue.
    UnexpectedContinuation,
    /// A new message before the fragmented one was finished.
    ExpectedContinuation,
    /// A close frame whose payload is one byte: half a code.
    HalfCloseCode,
    /// A close code that may not travel (RFC 6455 section 7.4).
    BadCloseCode(u16),
    /// A text message, or a close reason, that is not UTF-8.
    BadUtf8,
    /// A message above the limit, in bytes, which this is.
    MessageTooLarge(usize),
    /// A message in more than [`limits::FRAGMENTS`] fragments that are smaller than [`limits::FRAGMENT_BYTES`].
    TooManyFragments,
}

impl ProtocolError {
    /// What the close frame that answers it says: 1002, 1007 or 1009 (RFC 6455 section 7.4.1).
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
