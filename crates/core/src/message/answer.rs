//! What a receiver says about a delivery, and what becomes of a message that failed.

use std::fmt;
use std::time::Duration;

use super::{ChannelName, ConnectionId};

/// What a receiver with manual acknowledgement calls a delivery: text that no other delivery ever bears, of this connection or any other, of
/// this run of the broker or (but for a chance of one in billions) any other.
///
/// As text: the connection in hexadecimal digits, `-`, the sequence in decimal digits. Clients take it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryName {
    /// To whom it was delivered.
    pub connection: ConnectionId,
    /// Its number on that connection.
    pub sequence: u64,
}

impl DeliveryName {
    /// The most characters that a name has.
    pub const LONGEST: usize = 16 + 1 + 20;

    /// Reads what [`fmt::Display`] wrote, and nothing else: each name has one spelling.
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

/// What a receiver with manual acknowledgement says about a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The work is done.
    Ack,
    /// The work is not done, and this receiver gives it back.
    Nack(Nack),
    /// The work goes on: the time within which an answer is due begins anew.
    Extend,
}

impl Answer {
    /// The command of the protocol.
    #[must_use]
    pub fn command(&self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Nack(_) => "nack",
            Self::Extend => "extend",
        }
    }
}

/// Why nobody is to get a message any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// It was delivered `max_deliveries` times, and nobody confirmed it.
    MaxDeliveries,
    /// A receiver rejected it.
    Rejected,
    /// Its time to live was over.
    Expired,
}

impl Why {
    /// As it is written in stores and deliveries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxDeliveries => "max_deliveries",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }

    /// Reads back what [`Self::as_str`] gave.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::MaxDeliveries, Self::Rejected, Self::Expired].into_iter().find(|why| why.as_str() == text)
    }
}

/// What is known of a message that is a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Why nobody is to get it any more.
    pub why: Why,
    /// The channel that it was sent to.
    pub channel: ChannelName,
    /// How often it was delivered there.
    pub attempts: u32,
    /// The last reason that a receiver gave for giving it back; at most [`limits::REASON_BYTES`](crate::limits::REASON_BYTES).
    pub reason: Option<Box<str>>,
}

/// How a delivery is given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nack {
    /// Not to be delivered again before this has passed; at most [`limits::RETRY_AFTER`](crate::limits::RETRY_AFTER). `None`: as the broker thinks best.
    pub retry_after: Option<Duration>,
    /// It will never succeed: to the dead letters with it.
    pub reject: bool,
    /// Why, in the receiver's words; at most [`limits::REASON_BYTES`](crate::limits::REASON_BYTES).
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
