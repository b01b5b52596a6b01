//! The envelope dialect (SPEC section 4): JSON commands from clients, JSON answers to them.
//!
//! [`Parser`] reads a command in one pass, and returns only valid commands. It never builds a tree of the JSON, and never copies a message (each message is a
//! slice of the frame that forwards it). An answer never repeats text of a client, except the command and the id, which are bounded.

#[cfg(test)]
mod differential_tests;
mod explain;
mod field;
mod make;
mod parse;
mod read;
mod reply;
#[cfg(test)]
mod tests;
mod time;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

pub use make::publication_of;
pub use parse::Parser;
pub use reply::{accepted, connect_reply, refreshed, refusal};
pub use time::iso8601;

use wsmb_core::message::{Answer, ChannelName, DeliveryName, GroupName, Order, Publication};

/// A command of a client.
#[derive(Clone, Debug)]
pub enum Command<'a> {
    /// Requests a connect reply. All other members of the object are ignored.
    Ping,
    /// Subscribes to these channels, and ends all other subscriptions.
    Receive {
        /// The channels, without duplicates; at most [`wsmb_core::limits::SUBSCRIPTIONS`]. An empty list ends all subscriptions.
        channels: Vec<ChannelName>,
        /// How the receiver acknowledges.
        ack: Ack,
        /// The number of deliveries that may be unacknowledged, if the client sets it: 1 to [`wsmb_core::limits::MAX_PREFETCH`].
        prefetch: Option<u32>,
        /// The name of the receiver: 1 to [`wsmb_core::limits::NAME_BYTES`] bytes.
        receiver: Option<String>,
        /// The group of the receiver on each of these channels: 1 to [`wsmb_core::limits::NAME_BYTES`] bytes.
        group: Option<GroupName>,
        /// Which of the channels takes precedence.
        order: Order,
    },
    /// Sends one publication.
    Send(Send<'a>),
    /// A receiver with manual acknowledgement answers a delivery.
    Acknowledge {
        /// The name of the delivery.
        delivery: DeliveryName,
        /// The answer to the delivery.
        answer: Answer,
    },
    /// Replaces the token with which the client has logged in.
    Refresh {
        /// The new token. Secret.
        token: Cow<'a, str>,
        /// The id of the command, which the answer repeats: 1 to [`wsmb_core::limits::NAME_BYTES`] bytes.
        id: Option<Cow<'a, str>>,
    },
}

/// A `send-message` command.
#[derive(Clone, Debug)]
pub struct Send<'a> {
    /// The publication. Its frame is a text frame with the client's object byte for byte; its messages are slices of this frame. It may have no messages
    /// (`"data":[]`).
    pub publication: Publication<'a>,
    /// The number of receivers that get the publication; 0 = all; `None` = the number in the channel's policy.
    pub receivers: Option<u32>,
    /// The sender's id for the publication: 1 to [`wsmb_core::limits::NAME_BYTES`] bytes. A publication with an id is answered.
    pub id: Option<Cow<'a, str>>,
    /// The time to live, at most 100 years.
    pub ttl: Option<Duration>,
    /// The delay before the delivery, at most 100 years.
    pub delay: Option<Duration>,
}

/// How a receiver acknowledges deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// With pongs, or with an orderly end of the connection.
    Automatic,
    /// With the commands `ack` and `nack`.
    Manual,
}

/// The answer codes of SPEC section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// `00`.
    Accepted,
    /// `01`: the credentials are wrong; or the answer to a `ping` while the store cannot be reached.
    Rejected,
    /// `02`: the frame is not a JSON object, a field is missing or has a wrong type, or a channel name is invalid.
    Malformed,
    /// `03`: the user may not send to this channel, or not receive from it.
    Forbidden,
    /// `04`: a message or a publication is larger than its limit.
    TooLarge,
    /// `05`: the store cannot take the message now; the message was not accepted.
    Unavailable,
    /// `06`: the backlog of the channel or the memory budget of the broker is full; the message was not accepted.
    Full,
    /// `07`.
    UnknownCommand,
    /// `08`: the time to live ended before the message was safe.
    Expired,
    /// `09`: the user has reached its rate; the message was not accepted.
    SlowDown,
}

impl Code {
    /// Returns the two digits of `response_code`.
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
            Self::SlowDown => "09",
        }
    }

    /// Returns the beginning of `response_text`.
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
            Self::SlowDown => "Slow down",
        }
    }
}

/// The error for a frame that is not a valid command. The fields are the arguments of [`refusal`], which makes the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The command, if it could be read and has at most [`wsmb_core::limits::NAME_BYTES`] bytes.
    pub command: Option<String>,
    /// The id, if it could be read and is valid.
    pub id: Option<String>,
    /// [`Code::Malformed`], [`Code::TooLarge`] or [`Code::UnknownCommand`].
    pub code: Code,
    /// The field and what is wrong with it.
    pub text: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.text(), self.text)
    }
}

impl std::error::Error for Malformed {}

/// Parses a frame with this payload. For tests only: leaks the frame.
#[cfg(test)]
pub(crate) fn parse(payload: &[u8]) -> Result<Command<'static>, Malformed> {
    use crate::frame::{Opcode, encode};
    use wsmb_core::message::{Frame, Kind};

    let frame = Box::leak(Box::new(Frame::Shared(encode(Opcode::Binary, payload))));
    Box::leak(Box::<Parser>::default()).parse(Kind::Binary, frame)
}
