//! ReceivedMessage deliveries, and the memory of finished messages.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::limits;
use wsmb_client::frames::Delivery;
use wsmb_core::message::Timestamp;

/// One delivery.
#[derive(Clone, Debug)]
pub(super) struct ReceivedDelivery {
    /// The name of the delivery, for the acknowledgement. `None`: the channel keeps no messages, so no acknowledgement is needed.
    pub delivery: Option<String>,
    /// The number of the connection on which the delivery arrived.
    pub generation: u64,
    pub channel: String,
    pub redelivered: bool,
    pub attempt: u32,
    /// The time of the arrival, by the clock of this computer.
    pub at: Timestamp,
    pub messages: Vec<ReceivedMessage>,
}

/// One message of a delivery.
#[derive(Clone, Debug)]
pub(super) struct ReceivedMessage {
    /// The id of the message: the same at each of its deliveries.
    pub id: String,
    /// The JSON text of the message.
    pub json: String,
}

impl ReceivedDelivery {
    /// Converts a delivery frame. `serial` is part of the id of a message without a number: the broker delivers such a message only once.
    pub(super) fn new(delivery: &Delivery<'_>, generation: u64, at: Timestamp, serial: u64) -> Self {
        let channel = delivery.channel.to_string();
        let received = |(index, message): (u64, &str)| {
            let id = match delivery.message_id {
                Some(first) => format!("{}-{}", first.saturating_add(index), fingerprint(&channel, message)),
                None => format!("live-{}-{}", at.0, serial.saturating_add(index)),
            };
            ReceivedMessage { id, json: message.to_owned() }
        };
        let messages = delivery.messages.iter().map(|message| message.get());
        Self {
            delivery: delivery.delivery.as_deref().map(str::to_owned),
            generation,
            redelivered: delivery.redelivered,
            attempt: delivery.attempt,
            at,
            messages: (0..).zip(messages).map(received).collect(),
            channel,
        }
    }

    /// Splits the delivery after `count` messages. Returns the rest.
    pub(super) fn split_off(&mut self, count: u64) -> Self {
        let messages = self.messages.split_off(usize::try_from(count).unwrap_or(usize::MAX).min(self.messages.len()));
        Self { messages, delivery: self.delivery.clone(), channel: self.channel.clone(), ..*self }
    }

    /// Returns the number of messages.
    pub(super) fn count(&self) -> u64 {
        self.messages.len() as u64
    }
}

/// Returns a short hash of channel and text. After a restart the broker may reuse the number of a settled message; the hash tells the two messages apart.
///
/// A store without Unicode returns characters beyond ASCII as escapes (`\u00e9`). So such a character and its escape have the same hash.
fn fingerprint(channel: &str, json: &str) -> String {
    let mut ascii = String::with_capacity(channel.len() + 1 + json.len());
    ascii.push_str(channel);
    ascii.push('\0');
    for character in json.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` cannot fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    hex::encode(&Sha256::digest(ascii)[..4])
}

/// How a message was finished. A finished message is not processed again, even if its acknowledgement was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Completion {
    Done,
    Rejected(String),
}

/// The last [`limits::EXEC_REMEMBERED`] messages that this program has finished. If an acknowledgement is lost with its connection, the broker delivers
/// the message again, marked as redelivered. The program then acknowledges the message without processing it again.
#[derive(Debug, Default)]
pub(super) struct FinishedMessages {
    known: HashMap<String, Completion>,
    order: VecDeque<String>,
}

impl FinishedMessages {
    /// Returns how a message was finished. A delivery without the redelivery mark is a new message with a reused id, so the old entry is removed.
    pub(super) fn recall(&mut self, id: &str, redelivered: bool) -> Option<Completion> {
        if !redelivered && self.known.remove(id).is_some() {
            self.order.retain(|known| known != id);
        }
        self.known.get(id).cloned()
    }

    /// Adds a finished message, and removes the oldest entries above the limit. Returns whether the message is new.
    pub(super) fn remember(&mut self, id: String, past: Completion) -> bool {
        let is_new = self.known.insert(id.clone(), past).is_none();
        if is_new {
            self.order.push_back(id);
        }
        while self.order.len() > limits::EXEC_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_split_delivery_keeps_its_order_and_properties() {
        let received = |id: &str| ReceivedMessage { id: id.to_owned(), json: String::new() };
        let ids = |item: &ReceivedDelivery| item.messages.iter().map(|message| message.id.clone()).collect::<Vec<_>>();
        let mut item = ReceivedDelivery {
            delivery: None,
            generation: 3,
            channel: "sms".to_owned(),
            redelivered: false,
            attempt: 1,
            at: Timestamp(7),
            messages: ["a", "b", "c"].map(received).to_vec(),
        };
        let rest = item.split_off(1);
        assert_eq!((ids(&item), ids(&rest)), (vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()]));
        assert_eq!((rest.generation, rest.channel.as_str(), rest.at), (3, "sms", Timestamp(7)));
        assert_eq!(item.split_off(9).count(), 0);
    }

    #[test]
    fn the_fingerprint_ignores_unicode_escapes_and_depends_on_channel_and_text() {
        assert_eq!(fingerprint("sms", r#"{"a":"é😀"}"#), fingerprint("sms", r#"{"a":"\u00e9\ud83d\ude00"}"#));
        assert_ne!(fingerprint("sms", "1"), fingerprint("sms", "2"));
        assert_ne!(fingerprint("sms", "1"), fingerprint("dead", "1"));
    }

    #[test]
    fn finished_messages_are_remembered_for_redeliveries_within_the_limit() {
        let mut memory = FinishedMessages::default();
        memory.remember("a".to_owned(), Completion::Done);
        assert_eq!(memory.recall("a", true), Some(Completion::Done));
        memory.remember("a".to_owned(), Completion::Rejected("x".to_owned()));
        assert_eq!(memory.recall("a", true), Some(Completion::Rejected("x".to_owned())));
        assert_eq!(memory.recall("a", false), None, "a new message: the broker has reused the number");
        assert_eq!(memory.recall("a", true), None);
        for number in 0..=limits::EXEC_REMEMBERED {
            memory.remember(number.to_string(), Completion::Done);
        }
        assert_eq!((memory.recall("0", true), memory.recall("1", true)), (None, Some(Completion::Done)));
        assert_eq!(memory.known.len(), memory.order.len());
    }
}
