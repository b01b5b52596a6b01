//! Reading a command: one pass over the JSON finds where each field that matters lies, then the command takes what it needs.
//!
//! `serde_json` checks the grammar and hands out the text of each field (`RawValue`), without recursion. The elements of a
//! `data` list are found in the same pass.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::field::{self, Wrong};
use super::{Ack, Code, Command, Malformed, Send};
use crate::limits;
use crate::message::{ChannelName, Dialect, Frame, Kind, Publication};
use crate::protocol::frame::{Opcode, encode, payload_start};
use crate::protocol::json;

/// White space in JSON (RFC 8259 section 2).
const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Reads one frame of an envelope client; `payload` is the frame's, text and binary alike.
///
/// # Errors
/// It is no command that could be carried out. Nothing of it has been.
pub fn parse(payload: &[u8]) -> Result<Command, Malformed> {
    let mut fields = Fields::default();
    let result = read(payload, &mut fields).and_then(|text| fields.command(text));
    result.map_err(|Problem(code, text)| Malformed {
        command: fields.command_name(),
        id: fields.id().ok().flatten(),
        code,
        text,
    })
}

/// The names of the members of the object that `text` is, in order; none if it is no object.
pub(in crate::protocol) fn top_level_keys(text: &str) -> Vec<String> {
    struct Keys;
    impl<'a> Visitor<'a> for Keys {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut keys = Vec::new();
            while let Some((key, IgnoredAny)) = map.next_entry()? {
                keys.push(key);
            }
            Ok(keys)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Keys).unwrap_or_default()
}

struct Problem(Code, String);

fn malformed(wrong: Wrong) -> Problem {
    Problem(Code::Malformed, wrong)
}

/// The JSON text of each field that was found; of two with one name, the last.
#[derive(Default)]
struct Fields<'a> {
    command: Option<&'a str>,
    channel: Option<&'a str>,
    number_of_receiver: Option<&'a str>,
    data: Option<Data<'a>>,
    id: Option<&'a str>,
    ttl: Option<&'a str>,
    delay: Option<&'a str>,
    ack: Option<&'a str>,
    prefetch: Option<&'a str>,
    receiver: Option<&'a str>,
    delivery: Option<&'a str>,
}

/// The JSON texts of the messages in `data`.
#[derive(Default)]
struct Data<'a> {
    messages: SmallVec<[&'a str; 2]>,
    too_many: bool,
}

/// Finds the fields. What has been found stays in `fields` when it fails, so that the answer can name it.
fn read<'a>(payload: &'a [u8], fields: &mut Fields<'a>) -> Result<&'a str, Problem> {
    let problem = |text: &str| Err(malformed(text.to_owned()));
    if payload.starts_with(b"\xef\xbb\xbf") {
        return problem("the frame begins with a byte order mark; JSON must not");
    }
    let Ok(text) = std::str::from_utf8(payload) else {
        return problem("the frame is not UTF-8");
    };
    if !json::nests_within(payload, limits::JSON_DEPTH) {
        return Err(malformed(format!("the frame nests objects and lists more than {} deep", limits::JSON_DEPTH)));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let start = text.trim_start_matches(WHITE_SPACE);
    let read = if start.starts_with('{') {
        Reader { text, fields }.deserialize(&mut json)
    } else {
        json.deserialize_ignored_any(IgnoredAny).map(|IgnoredAny| ())
    };
    match read.and_then(|()| json.end()) {
        Err(_) if start.is_empty() => problem("the frame is empty; a command is a JSON object"),
        Err(error) => Err(malformed(format!("the frame is not JSON: {error}"))),
        Ok(()) if !start.starts_with('{') => {
            Err(malformed(format!("the frame is {}; a command is a JSON object", field::kind(start))))
        }
        Ok(()) => Ok(text),
    }
}

impl Fields<'_> {
    fn command(&self, text: &str) -> Result<Command, Problem> {
        let json = self.command.ok_or_else(|| malformed("'command' is missing".to_owned()))?;
        let Some(command) = field::string(json) else {
            return Err(malformed(format!("'command' must be a string, not {}", field::kind(json))));
        };
        match &*command {
            "send-message" => self.send(text).map(Command::Send),
            "receive-message" => self.receive().map_err(malformed),
            "ping" => Ok(Command::Ping),
            "ack" => self.acknowledge(true).map_err(malformed),
            "nack" => self.acknowledge(false).map_err(malformed),
            _ => {
                let known = "the commands are send-message, receive-message, ping, ack and nack";
                Err(Problem(Code::UnknownCommand, known.to_owned()))
            }
        }
    }

    /// The command's name for an answer; none if it is too long to be repeated.
    fn command_name(&self) -> Option<String> {
        let name = field::string(self.command?)?;
        (name.len() <= limits::NAME_BYTES).then(|| name.into_owned())
    }

    fn id(&self) -> Result<Option<String>, Wrong> {
        self.id.map(|json| field::short_name("id", json)).transpose()
    }

    fn acknowledge(&self, done: bool) -> Result<Command, Wrong> {
        let json = self.delivery.ok_or("'delivery' is missing")?;
        Ok(Command::Acknowledge { delivery: field::delivery(json)?, done })
    }

    fn receive(&self) -> Result<Command, Wrong> {
        let json = self.channel.ok_or("'channel' is missing")?;
        let channels = if json.starts_with('[') { channel_list(json)? } else { vec![field::channel(json)?] };
        Ok(Command::Receive {
            channels,
            ack: self.ack.map_or(Ok(Ack::Automatic), field::ack)?,
            prefetch: self.prefetch.map_or(Ok(limits::PREFETCH), field::prefetch)?,
            receiver: self.receiver.map(|json| field::short_name("receiver", json)).transpose()?,
        })
    }

    fn send(&self, text: &str) -> Result<Send, Problem> {
        let channel = self.channel.ok_or_else(|| malformed("'channel' is missing".to_owned()))?;
        let channel = field::channel(channel).map_err(malformed)?;
        let id = self.id().map_err(malformed)?;
        let ttl = self.ttl.map(|json| field::duration("ttl", json)).transpose().map_err(malformed)?;
        let delay = self.delay.map(|json| field::duration("delay", json)).transpose().map_err(malformed)?;
        let data = self.data.as_ref().ok_or_else(|| malformed("'data' is missing".to_owned()))?;
        if data.too_many {
            let text = format!("'data' has more than {} messages", limits::PUBLICATION_MESSAGES);
            return Err(Problem(Code::TooLarge, text));
        }
        let frame = encode(Opcode::Text, text.as_bytes());
        let start = payload_start(&frame);
        let within = |json: &&str| {
            let span = range_within(text, json);
            start + span.start..start + span.end
        };
        let messages = data.messages.iter().map(within).collect();
        let publication = Publication {
            channel: Cow::Owned(channel),
            dialect: Dialect::Envelope,
            kind: Kind::Text,
            frame: Frame::Shared(frame),
            messages,
        };
        Ok(Send { publication, receivers: self.number_of_receiver.and_then(field::receivers), id, ttl, delay })
    }
}

/// The channels of a list, each once. The list itself is bounded, repetitions included: it is searched for each.
fn channel_list(json: &str) -> Result<Vec<ChannelName>, Wrong> {
    let mut texts = Elements { found: Data::default(), limit: limits::SUBSCRIPTIONS };
    let list = serde_json::Deserializer::from_str(json).deserialize_seq(&mut texts);
    if list.is_err() || texts.found.messages.is_empty() {
        return Err("'channel' is an empty list; name at least one channel".to_owned());
    }
    if texts.found.too_many {
        return Err(format!("'channel' lists more than {} channels", limits::SUBSCRIPTIONS));
    }
    let mut channels = Vec::with_capacity(texts.found.messages.len());
    for json in texts.found.messages {
        let channel = field::channel(json)?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    Ok(channels)
}

/// Where `part`, a slice of `whole`, lies in it. Empty if it is none.
fn range_within(whole: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    match start.checked_add(part.len()) {
        Some(end) if end <= whole.len() => start..end,
        _ => 0..0,
    }
}

/// Reads the object, field by field.
struct Reader<'f, 'a> {
    text: &'a str,
    fields: &'f mut Fields<'a>,
}

impl<'a> DeserializeSeed<'a> for Reader<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Reader<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let fields = self.fields;
        while let Some(key) = map.next_key::<Key<'a>>()? {
            let slot = match key.field {
                Field::Command => &mut fields.command,
                Field::Channel => &mut fields.channel,
                Field::NumberOfReceiver => &mut fields.number_of_receiver,
                Field::Id => &mut fields.id,
                Field::Ttl => &mut fields.ttl,
                Field::Delay => &mut fields.delay,
                Field::Ack => &mut fields.ack,
                Field::Prefetch => &mut fields.prefetch,
                Field::Receiver => &mut fields.receiver,
                Field::Delivery => &mut fields.delivery,
                Field::Data => {
                    let is_list = key.borrowed.is_some_and(|name| list_follows(self.text, name));
                    fields.data = Some(map.next_value_seed(DataSeed { is_list })?);
                    continue;
                }
                Field::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *slot = Some(map.next_value::<&'a RawValue>()?.get());
        }
        Ok(())
    }
}

/// Whether the value of the member whose name is `name`, a slice of `text`, begins as a list does. Saves reading `data`
/// twice: once to find its end, once for its elements.
fn list_follows(text: &str, name: &str) -> bool {
    let after = text.get(range_within(text, name).end..).and_then(|text| text.strip_prefix('"'));
    let value = after.and_then(|text| text.trim_start_matches(WHITE_SPACE).strip_prefix(':'));
    value.is_some_and(|text| text.trim_start_matches(WHITE_SPACE).starts_with('['))
}

struct DataSeed {
    /// Known to be a list; else it may still be one.
    is_list: bool,
}

impl<'a> DeserializeSeed<'a> for DataSeed {
    type Value = Data<'a>;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Data<'a>, D::Error> {
        let mut elements = Elements { found: Data::default(), limit: limits::PUBLICATION_MESSAGES };
        if self.is_list {
            json.deserialize_seq(&mut elements)?;
            return Ok(elements.found);
        }
        let text = <&'a RawValue as serde::Deserialize>::deserialize(json)?.get();
        if text.starts_with('[') {
            serde_json::Deserializer::from_str(text).deserialize_seq(&mut elements).map_err(D::Error::custom)?;
        } else {
            elements.found.messages.push(text);
        }
        Ok(elements.found)
    }
}

/// Collects the texts of a list's elements, up to a limit; reads on to the end.
struct Elements<'a> {
    found: Data<'a>,
    limit: usize,
}

impl<'a> Visitor<'a> for &mut Elements<'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element::<&'a RawValue>()? {
            if self.found.messages.len() == self.limit {
                self.found.too_many = true;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
            self.found.messages.push(element.get());
        }
        Ok(())
    }
}

enum Field {
    Command,
    Channel,
    NumberOfReceiver,
    Data,
    Id,
    Ttl,
    Delay,
    Ack,
    Prefetch,
    Receiver,
    Delivery,
    Unknown,
}

/// A member's name.
struct Key<'a> {
    field: Field,
    /// It lies in the input as it is: no escapes.
    borrowed: Option<&'a str>,
}

impl Field {
    fn named(name: &str) -> Self {
        match name {
            "command" => Self::Command,
            "channel" => Self::Channel,
            "number_of_receiver" => Self::NumberOfReceiver,
            "data" => Self::Data,
            "id" => Self::Id,
            "ttl" => Self::Ttl,
            "delay" => Self::Delay,
            "ack" => Self::Ack,
            "prefetch" => Self::Prefetch,
            "receiver" => Self::Receiver,
            "delivery" => Self::Delivery,
            _ => Self::Unknown,
        }
    }
}

impl<'a> serde::Deserialize<'a> for Key<'a> {
    fn deserialize<D: Deserializer<'a>>(json: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'a> Visitor<'a> for Name {
            type Value = Key<'a>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, name: &'a str) -> Result<Key<'a>, E> {
                Ok(Key { field: Field::named(name), borrowed: Some(name) })
            }

            fn visit_str<E>(self, name: &str) -> Result<Key<'a>, E> {
                Ok(Key { field: Field::named(name), borrowed: None })
            }
        }
        json.deserialize_str(Name)
    }
}
