//! Compares the field reader with an oracle that reads the same fields with `serde_json` only: results, positions and error messages must be equal.

use std::ops::Range;

use proptest::prelude::*;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{field, read as scanned};
use crate::json::{self, strategies};
use crate::limits;
use wsmb_core::message::Kind;

const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Compares the fields that the two readers find in a frame, or their error messages.
fn compare(payload: &[u8]) -> Result<(), TestCaseError> {
    /// Bytes before the payload. The reader must ignore them.
    const HEAD: &[u8] = b"[\"";
    let frame = [HEAD, payload].concat();
    let (mut fields, mut expected) = (scanned::Fields::default(), Fields::default());
    let what = scanned::read(Kind::Binary, &frame, HEAD.len(), &mut fields);
    let expected_what = read(payload, &mut expected);
    prop_assert_eq!(&what, &expected_what);
    for (found, wanted) in [(fields.command, expected.command), (fields.id, expected.id)] {
        prop_assert_eq!(found, wanted.map(str::as_bytes), "read before the error, if there is one: {:?}", what);
    }
    if what.is_err() {
        return Ok(());
    }
    for (found, wanted) in [
        (fields.channel, expected.channel),
        (fields.number_of_receiver, expected.number_of_receiver),
        (fields.ttl, expected.ttl),
        (fields.delay, expected.delay),
        (fields.ack, expected.ack),
        (fields.prefetch, expected.prefetch),
        (fields.receiver, expected.receiver),
        (fields.group, expected.group),
        (fields.order, expected.order),
        (fields.delivery, expected.delivery),
    ] {
        prop_assert_eq!(found, wanted.map(str::as_bytes));
    }
    prop_assert_eq!(fields.ambiguous, expected.is_ambiguous());
    let messages = fields.data.map(|data| {
        let texts = data.spans.iter().map(|span| std::str::from_utf8(&frame[span.clone()]).unwrap()).collect();
        (texts, data.too_many)
    });
    let expected: Option<(Vec<&str>, bool)> = expected.data.map(|data| (data.messages.into_vec(), data.too_many));
    prop_assert_eq!(messages, expected);
    Ok(())
}

#[test]
fn every_short_frame_of_significant_bytes() {
    const BYTES: &[u8] = b"{}[]:,\"\\ \n\x0001-.eEtu/\xc3\xbc";
    let mut frames = vec![Vec::new()];
    for _ in 0..4 {
        for frame in &frames {
            compare(frame).unwrap_or_else(|wrong| panic!("{}: {wrong}", String::from_utf8_lossy(frame)));
        }
        let longer = |frame: &Vec<u8>| BYTES.iter().map(|byte| [&frame[..], &[*byte]].concat()).collect::<Vec<_>>();
        frames = frames.iter().flat_map(longer).collect();
    }
}

#[test]
fn every_prefix_of_a_frame_and_every_frame_with_one_changed_byte() {
    let frame = br#" {"command" : "send-message","id":"\u00e4\\","channel":"sms","x":[{"a":-1.5e+10,"b":[true,false,null,0]}, {} ,[]],
        "data":[{"text":"sixteen bytes and some more, \"quoted\"","n":12},"\ud83d\ude00",[ ]],"ttl":60} "#;
    compare(frame).unwrap();
    for at in 0..frame.len() {
        compare(&frame[..at]).unwrap();
        for byte in (0..=u8::MAX).filter(|byte| byte.is_ascii() || byte % 16 == 0) {
            let mut changed = frame.to_vec();
            changed[at] = byte;
            compare(&changed).unwrap_or_else(|wrong| panic!("{byte} at {at}: {wrong}"));
        }
    }
}

#[test]
fn lists_at_their_limit() {
    for count in [wsmb_core::limits::PUBLICATION_MESSAGES, wsmb_core::limits::PUBLICATION_MESSAGES + 1] {
        for (name, end) in [("data", "]}"), ("d\\u0061ta", "]}"), ("data", ",]}"), ("data", "1]}")] {
            compare(format!("{{\"{name}\":[{}{end}", vec!["1"; count].join(",")).as_bytes()).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn both_readers_return_the_same(payload in strategies::texts()) {
        compare(&payload)?;
    }
}

/// The JSON text of each field. Of two fields with the same name the last one counts.
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
    group: Option<&'a str>,
    order: Option<&'a str>,
    delivery: Option<&'a str>,
    /// The names of all members.
    names: Vec<String>,
}

impl Fields<'_> {
    fn is_ambiguous(&self) -> bool {
        let count = |wanted: &str| self.names.iter().filter(|name| *name == wanted).count();
        ["command", "channel", "data"].iter().any(|name| count(name) > 1)
            || ["response_code", "delivery", "message_id", "redelivered", "attempt", "dead_letter"]
                .iter()
                .any(|name| count(name) > 0)
    }
}

/// The JSON texts of the messages in `data`.
#[derive(Default)]
struct Data<'a> {
    messages: SmallVec<[&'a str; 2]>,
    too_many: bool,
}

/// Finds the fields. After an error, `fields` has the fields before it, so that the answer can name them.
fn read<'a>(payload: &'a [u8], fields: &mut Fields<'a>) -> Result<(), String> {
    let problem = |text: &str| Err(text.to_owned());
    if payload.starts_with(b"\xef\xbb\xbf") {
        return problem("the frame begins with a byte order mark; JSON must not");
    }
    let Ok(text) = std::str::from_utf8(payload) else {
        return problem("the frame is not UTF-8");
    };
    if !json::nests_within(payload, limits::JSON_DEPTH) {
        return Err(format!("the frame nests objects and lists more than {} deep", limits::JSON_DEPTH));
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
        Err(error) => Err(format!("the frame is not JSON: {error}")),
        Ok(()) if !start.starts_with('{') => {
            Err(format!("the frame is {}; a command is a JSON object", field::kind(start)))
        }
        Ok(()) => Ok(()),
    }
}

/// Returns the range of `part` in `whole`; an empty range if `part` is not a slice of `whole`.
fn range_within(whole: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    match start.checked_add(part.len()) {
        Some(end) if end <= whole.len() => start..end,
        _ => 0..0,
    }
}

/// Reads the object field by field.
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
            fields.names.push(key.name);
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
                Field::Group => &mut fields.group,
                Field::Order => &mut fields.order,
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

/// Whether the value of the member `name`, a slice of `text`, begins with `[`. So the reader need not read `data` twice (for its end and for its elements).
fn list_follows(text: &str, name: &str) -> bool {
    let after = text.get(range_within(text, name).end..).and_then(|text| text.strip_prefix('"'));
    let value = after.and_then(|text| text.trim_start_matches(WHITE_SPACE).strip_prefix(':'));
    value.is_some_and(|text| text.trim_start_matches(WHITE_SPACE).starts_with('['))
}

struct DataSeed {
    /// Whether the value is known to be a list. If false, it may still be a list.
    is_list: bool,
}

impl<'a> DeserializeSeed<'a> for DataSeed {
    type Value = Data<'a>;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Data<'a>, D::Error> {
        let mut elements = Elements { found: Data::default(), limit: wsmb_core::limits::PUBLICATION_MESSAGES };
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

/// Collects the texts of the elements of a list up to a limit, and reads the list to its end.
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
    Group,
    Order,
    Delivery,
    Unknown,
}

/// The name of a member.
struct Key<'a> {
    field: Field,
    name: String,
    /// The name as a slice of the input, if it has no escapes.
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
            "group" => Self::Group,
            "order" => Self::Order,
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
                Ok(Key { field: Field::named(name), name: name.to_owned(), borrowed: Some(name) })
            }

            fn visit_str<E>(self, name: &str) -> Result<Key<'a>, E> {
                Ok(Key { field: Field::named(name), name: name.to_owned(), borrowed: None })
            }
        }
        json.deserialize_str(Name)
    }
}
