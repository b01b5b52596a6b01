//! The envelope dialect (SPEC section 4): JSON commands from clients, JSON answers to them.
//!
//! [`Parser`] reads a command once and strictly; what it returns is valid. It never builds a tree of the JSON, never copies a
//! message (each is a slice of the one frame that forwards it), and repeats nothing of a client's text in an answer but the
//! command and the id, both bounded.

#[cfg(test)]
mod differential_tests;
mod field;
mod parse;
mod read;
mod reply;
#[cfg(test)]
mod tests;
mod time;
mod words;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub use parse::Parser;
pub use reply::{accepted, connect_reply, refusal};
pub use time::iso8601;

use wsmb_core::message::{Answer, ChannelName, DeliveryName, GroupName, Order, Publication};

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Answer with a connect reply. Everything else in the object is ignored.
    Ping,
    /// Receive these channels, and no others any more.
    Receive {
        /// One or more, none twice; at most [`wsmb_core::limits::SUBSCRIPTIONS`].
        channels: Vec<ChannelName>,
        /// How it will confirm.
        ack: Ack,
        /// Unconfirmed deliveries allowed, if the client says: 1 to [`wsmb_core::limits::MAX_PREFETCH`].
        prefetch: Option<u32>,
        /// The receiver's own name: 1 to [`wsmb_core::limits::NAME_BYTES`] bytes.
        receiver: Option<String>,
        /// Its group on each of these channels: 1 to [`wsmb_core::limits::NAME_BYTES`] bytes.
        group: Option<GroupName>,
        /// Which of its channels goes first.
        order: Order,
    },
    /// Send one publication.
    Send(Send<'a>),
    /// A receiver with manual acknowledgement answers a delivery.
    Acknowledge {
        /// The name that the delivery carried.
        delivery: DeliveryName,
        /// What it says about it.
        answer: Answer,
    },
}

/// A `send-message`.
#[derive(Clone, Debug)]
pub struct Send<'a> {
    /// Its frame is the client's object, byte for byte, in a text frame; its messages are slices of that. It may have no
    /// messages (`"data":[]`).
    pub publication: Publication<'a>,
    /// To how many receivers it goes, 0 = all; `None` = as the channel is configured.
    pub receivers: Option<u32>,
    /// The sender's name for it, 1 to [`wsmb_core::limits::NAME_BYTES`] bytes: asks for an answer.
    pub id: Option<Cow<'a, str>>,
    /// Its time to live, at most 100 years.
    pub ttl: Option<Duration>,
    /// How long it must wait first, at most 100 years.
    pub delay: Option<Duration>,
}

/// How a receiver confirms what it has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// By what every client does: answering pings, ending in an orderly way.
    Automatic,
    /// By `ack` and `nack`.
    Manual,
}

/// The answer codes of SPEC section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// `00`.
    Accepted,
    /// `01`: credentials; or a `ping` while the store can't be reached.
    Rejected,
    /// `02`: not JSON, not an object, a missing or wrong-typed field, a bad channel name.
    Malformed,
    /// `03`: the user may not send to, or receive from, this channel.
    Forbidden,
    /// `04`: a message, or a publication, above its limit.
    TooLarge,
    /// `05`: the store can't take the message now; it was not accepted.
    Unavailable,
    /// `06`: the channel's backlog or the broker's budget is full; it was not accepted.
    Full,
    /// `07`.
    UnknownCommand,
    /// `08`: waited for, and its time to live ran out.
    Expired,
}

impl Code {
    /// The two digits on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "00",
            Self::Rejected => "01",
            Self::Malformed => "02",
            Self::Forbidden => "03",
            Self::TooLarge => "04",
            Self::Unavailable => "05",
            Self::Full => "06",
            Self::UnknownCommand => "07",
            Self::Expired => "08",
        }
    }

    /// What `response_text` begins with.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Rejected => "Rejected",
            Self::Malformed => "Malformed",
            Self::Forbidden => "Forbidden",
            Self::TooLarge => "Too large",
            Self::Unavailable => "Unavailable",
            Self::Full => "Full",
            Self::UnknownCommand => "Unknown command",
            Self::Expired => "Expired",
        }
    }
}

/// A frame that is no command that could be carried out: answer it with [`refusal`], whose arguments these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The command, if it could be read and is at most [`wsmb_core::limits::NAME_BYTES`] long.
    pub command: Option<String>,
    /// The id, if it could be read and is a valid one.
    pub id: Option<String>,
    /// [`Code::Malformed`], [`Code::TooLarge`] or [`Code::UnknownCommand`].
    pub code: Code,
    /// What is wrong with which field, in plain words.
    pub text: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.text(), self.text)
    }
}

impl std::error::Error for Malformed {}

/// What a frame with this payload says. For tests: it lives as long as they run.
#[cfg(test)]
pub(crate) fn parse(payload: &[u8]) -> Result<Command<'static>, Malformed> {
    use crate::frame::{Opcode, encode};
    use wsmb_core::message::{Frame, Kind};

    let frame = Box::leak(Box::new(Frame::Shared(encode(Opcode::Binary, payload))));
    Box::leak(Box::<Parser>::default()).parse(Kind::Binary, frame)
}
