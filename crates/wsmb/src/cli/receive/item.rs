//! Deliveries as the gateway holds them, and what it remembers of the messages that it has finished.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::limits;
use wsmb_client::frames::Delivery;
use wsmb_core::message::Timestamp;

/// One delivery, taken from its frame.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// What to acknowledge.
    pub delivery: Option<String>,
    /// The connection that it came from.
    pub generation: u64,
    pub channel: String,
    pub redelivered: bool,
    pub attempt: u32,
    /// When it came, by this computer's clock.
    pub at: Timestamp,
    pub messages: Vec<Received>,
}

/// One message of a delivery.
#[derive(Clone, Debug)]
pub(super) struct Received {
    /// What it is called here, the same at each of its deliveries.
    pub id: String,
    /// Its JSON text.
    pub json: String,
}

impl Item {
    /// `serial` names messages that the broker gives no number, because they come only once.
    pub(super) fn new(delivery: &Delivery<'_>, generation: u64, at: Timestamp, serial: u64) -> Self {
        let channel = delivery.channel.to_string();
        let received = |(index, message): (u64, &str)| {
            let id = match delivery.message_id {
                Some(first) => format!("{}-{}", first.saturating_add(index), fingerprint(&channel, message)),
                None => format!("live-{}-{}", at.0, serial.saturating_add(index)),
            };
            Received { id, json: message.to_owned() }
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

    /// Takes out the messages behind the first `count`.
    pub(super) fn split_off(&mut self, count: u64) -> Self {
        let messages = self.messages.split_off(usize::try_from(count).unwrap_or(usize::MAX).min(self.messages.len()));
        Self { messages, delivery: self.delivery.clone(), channel: self.channel.clone(), ..*self }
    }

    /// How many messages it carries.
    pub(super) fn count(&self) -> u64 {
        self.messages.len() as u64
    }
}

/// The broker may use a number again after a restart, if its message was settled; a message with another text is another one all the same. A store that
/// is not Unicode writes what is not ASCII as escapes, so both spellings are one.
fn fingerprint(channel: &str, json: &str) -> String {
    let mut ascii = String::with_capacity(channel.len() + 1 + json.len());
    ascii.push_str(channel);
    ascii.push('\0');
    for character in json.chars() {
        if character.is_ascii() {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a `String` can't fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    hex::encode(&Sha256::digest(ascii)[..4])
}

/// How a message was finished: for good, whatever the broker has heard of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Past {
    Done,
    Rejected(String),
}

/// The messages that this program has finished last. The answer to a delivery may be lost with its connection; the message then comes again,
/// marked, and is answered without doing the work a second time.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: HashMap<String, Past>,
    order: VecDeque<String>,
}

impl Memory {
    /// What is known of a message. One that has never been delivered before is another one, whatever it is called.
    pub(super) fn recall(&mut self, id: &str, redelivered: bool) -> Option<Past> {
        if !redelivered && self.known.remove(id).is_some() {
            self.order.retain(|known| known != id);
        }
        self.known.get(id).cloned()
    }

    /// False: it was known.
    pub(super) fn remember(&mut self, id: String, past: Past) -> bool {
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
    fn messages_that_begin_later_stay_whole_and_in_order() {
        let received = |id: &str| Received { id: id.to_owned(), json: String::new() };
        let ids = |item: &Item| item.messages.iter().map(|message| message.id.clone()).collect::<Vec<_>>();
        let mut item = Item {
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
    fn a_message_has_one_name_however_its_store_spells_it_and_another_text_has_another() {
        assert_eq!(fingerprint("sms", r#"{"a":"é😀"}"#), fingerprint("sms", r#"{"a":"\u00e9\ud83d\ude00"}"#));
        assert_ne!(fingerprint("sms", "1"), fingerprint("sms", "2"));
        assert_ne!(fingerprint("sms", "1"), fingerprint("dead", "1"));
    }

    #[test]
    fn what_is_finished_is_remembered_for_marked_deliveries_only_and_within_bounds() {
        let mut memory = Memory::default();
        memory.remember("a".to_owned(), Past::Done);
        assert_eq!(memory.recall("a", true), Some(Past::Done));
        memory.remember("a".to_owned(), Past::Rejected("x".to_owned()));
        assert_eq!(memory.recall("a", true), Some(Past::Rejected("x".to_owned())));
        assert_eq!(memory.recall("a", false), None, "it is new: the broker has used its number again");
        assert_eq!(memory.recall("a", true), None);
        for number in 0..=limits::EXEC_REMEMBERED {
            memory.remember(number.to_string(), Past::Done);
        }
        assert_eq!((memory.recall("0", true), memory.recall("1", true)), (None, Some(Past::Done)));
        assert_eq!(memory.known.len(), memory.order.len());
    }
}
