//! Names of deliveries, the answers of receivers to them, and dead letters.

use std::fmt;
use std::time::Duration;

use super::{ChannelName, ConnectionId};

/// The name of a delivery, as a receiver with manual acknowledgement gets it. No two deliveries have the same name, on any connection, and
/// (but for a chance of one in billions) in any run of the broker.
///
/// As text: the connection in hexadecimal digits, `-`, the sequence number in decimal digits. Clients treat the text as opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryName {
    /// The connection that got the delivery.
    pub connection: ConnectionId,
    /// The delivery's sequence number on that connection.
    pub sequence: u64,
}

impl DeliveryName {
    /// The length of the longest name, in characters.
    pub const LONGEST: usize = 16 + 1 + 20;

    /// Parses the text that [`fmt::Display`] writes. Refuses every other spelling, so that each name has one spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (connection, sequence) = text.split_once('-')?;
        let (hex, decimal) = (|byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f'), |byte: u8| byte.is_ascii_digit());
        let canonical = |text: &str, digit: fn(u8) -> bool| {
            text.bytes().all(digit) && !text.is_empty() && (text == "0" || !text.starts_with('0'))
        };
        if !canonical(connection, hex) || !canonical(sequence, decimal) {
            return None;
        }
        let connection = ConnectionId(u64::from_str_radix(connection, 16).ok()?);
        Some(Self { connection, sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for DeliveryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.connection.0, self.sequence)
    }
}

/// The answer of a receiver with manual acknowledgement to a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The receiver has handled the message.
    Ack,
    /// The receiver gives the message back.
    Nack(Nack),
    /// The receiver still works on the message: `ack_timeout` starts anew.
    Extend,
}

impl Answer {
    /// Returns the protocol's command.
    #[must_use]
    pub fn command(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Nack(_) => "nack",
            Self::Extend => "extend",
        }
    }
}

/// The reason why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The message was delivered `max_deliveries` times without confirmation.
    MaxDeliveries,
    /// A receiver rejected the message.
    Rejected,
    /// The message's time to live had passed.
    Expired,
}

impl Why {
    /// Returns the text that stores and deliveries use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxDeliveries => "max_deliveries",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }

    /// Takes a text that [`Self::as_str`] returned.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::MaxDeliveries, Self::Rejected, Self::Expired].into_iter().find(|why| why.as_str() == text)
    }
}

/// Where a dead letter comes from, and why the message was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The reason why the message was given up.
    pub why: Why,
    /// The channel to which the message was sent.
    pub channel: ChannelName,
    /// The number of deliveries on that channel.
    pub attempts: u32,
    /// The reason in the last nack; at most [`REASON_BYTES`](crate::limits::REASON_BYTES).
    pub reason: Option<Box<str>>,
}

/// The parameters of a nack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nack {
    /// The message is not delivered again before this time has passed; at most [`RETRY_AFTER`](crate::limits::RETRY_AFTER). `None`: the broker chooses the
    /// back-off.
    pub retry_after: Option<Duration>,
    /// The message can never be handled: the broker moves it to the dead-letter channel at once.
    pub reject: bool,
    /// The reason in the receiver's words; at most [`REASON_BYTES`](crate::limits::REASON_BYTES).
    pub reason: Option<Box<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_name_has_one_spelling_and_is_read_back() {
        for (connection, sequence) in [(0, 0), (1, 17), (u64::MAX, u64::MAX), (0x1f00_0000_0003, 9)] {
            let name = DeliveryName { connection: ConnectionId(connection), sequence };
            let text = name.to_string();
            assert!(text.len() <= DeliveryName::LONGEST, "{text}");
            assert_eq!(DeliveryName::parse(&text), Some(name));
        }
        for other in ["", "-", "1", "17", "1-", "-1", "01-1", "1-01", "A-1", "+1-1", "1-+1", "1-1-1", "1-1 ", "g-1"] {
            assert_eq!(DeliveryName::parse(other), None, "{other}");
        }
        assert_eq!(DeliveryName::parse("10000000000000000-1"), None, "too large");
        assert_eq!(DeliveryName::parse("1-18446744073709551616"), None, "too large");
    }
}
