//! Frames of the envelope dialect: parses the frames of the broker, and writes the commands of the client.
//!
//! A live delivery is the unchanged frame of another client. It may contain a member twice, and unknown members of any type. So the parser checks only the
//! members that it uses; of two members with the same name the last one counts, as for the broker.

mod answers;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub use self::answers::Answer;

/// A frame from the broker.
#[derive(Debug)]
pub enum Frame<'a> {
    /// One or more messages of a channel.
    Delivery(Delivery<'a>),
    /// The connect reply, the answer to a command, or a refusal.
    Reply(Reply<'a>),
}

/// One or more messages of a channel.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// The channel.
    pub channel: Cow<'a, str>,
    /// The name of the delivery, for the acknowledgement; `None` if no acknowledgement is needed.
    pub delivery: Option<Cow<'a, str>>,
    /// The broker's number of the first message; the same at each delivery. `None` if no acknowledgement is needed.
    pub message_id: Option<u64>,
    /// Whether the messages may have been delivered before.
    pub redelivered: bool,
    /// The number of this delivery of the message, as far as the broker knows: 1 for the first.
    pub attempt: u32,
    /// The exact JSON text of each message.
    pub messages: Vec<&'a RawValue>,
}

/// The connect reply, the answer to a command, or a refusal.
#[derive(Debug)]
pub struct Reply<'a> {
    /// The command that this reply answers.
    pub command: Option<Cow<'a, str>>,
    /// The response code; `"00"` means accepted.
    pub code: Cow<'a, str>,
    /// The response text.
    pub text: Cow<'a, str>,
    /// The sender's id of the publication.
    pub id: Option<Cow<'a, str>>,
    /// The number of receivers to which the broker has sent the publication at once.
    pub receivers: u64,
    /// Whether the publication is in the store.
    pub stored: bool,
    /// Whether a publication with this id was accepted before.
    pub duplicate: bool,
    /// The data of a connect reply.
    pub data: Option<&'a RawValue>,
}

impl Reply<'_> {
    /// Whether the broker has accepted the command.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.code == "00"
    }

    /// Returns the broker's time in a connect reply or an answer to `ping`, as ISO 8601 text.
    #[must_use]
    pub fn time_stamp(&self) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Entry {
            time_stamp: String,
        }
        let entries: Vec<Entry> = serde_json::from_str(self.data?.get()).ok()?;
        entries.into_iter().next().map(|entry| entry.time_stamp)
    }
}

/// Parses a frame from the broker.
///
/// # Errors
/// The frame is not a JSON object, or is neither a delivery nor a reply.
pub fn parse(payload: &[u8]) -> Result<Frame<'_>, NotUnderstood> {
    let raw: Raw<'_> = serde_json::from_slice(payload).map_err(|_| NotUnderstood)?;
    let command = text(raw.command);
    if let (Some("send-message"), Some(channel), Some(data)) = (command.as_deref(), text(raw.channel), raw.data) {
        return Ok(Frame::Delivery(Delivery {
            channel,
            delivery: text(raw.delivery),
            message_id: text(raw.message_id).and_then(|text| text.parse().ok()),
            redelivered: is_true(raw.redelivered),
            attempt: raw.attempt.and_then(|value| value.get().parse().ok()).unwrap_or(1),
            messages: messages(data)?,
        }));
    }
    Ok(Frame::Reply(Reply {
        command,
        code: text(raw.response_code).ok_or(NotUnderstood)?,
        text: text(raw.response_text).unwrap_or_default(),
        id: text(raw.id),
        receivers: raw.receivers.and_then(|value| value.get().parse().ok()).unwrap_or(0),
        stored: is_true(raw.stored),
        duplicate: is_true(raw.duplicate),
        data: raw.data,
    }))
}

/// A frame that is neither a delivery nor a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUnderstood;

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server sent an unknown frame; check whether the address is that of a wsmb broker")
    }
}

impl std::error::Error for NotUnderstood {}

fn text(value: Option<&RawValue>) -> Option<Cow<'_, str>> {
    value.and_then(|value| serde_json::from_str::<Text<'_>>(value.get()).ok()).map(|text| text.0)
}

fn is_true(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| value.get() == "true")
}

fn messages(data: &RawValue) -> Result<Vec<&RawValue>, NotUnderstood> {
    if data.get().starts_with('[') {
        serde_json::from_str(data.get()).map_err(|_| NotUnderstood)
    } else {
        Ok(vec![data])
    }
}

/// A string. It is borrowed if it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members that the client uses, as unparsed JSON text.
#[derive(Default)]
struct Raw<'a> {
    command: Option<&'a RawValue>,
    channel: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    delivery: Option<&'a RawValue>,
    message_id: Option<&'a RawValue>,
    redelivered: Option<&'a RawValue>,
    attempt: Option<&'a RawValue>,
    response_code: Option<&'a RawValue>,
    response_text: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    receivers: Option<&'a RawValue>,
    stored: Option<&'a RawValue>,
    duplicate: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<'a>(std::marker::PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
            type Value = Raw<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw<'a>, A::Error> {
                let mut raw = Raw::default();
                // The number of members so far, and the number of members that the broker has added.
                let (mut position, mut marks) = (0_usize, 0);
                while let Some(Text(key)) = map.next_key()? {
                    let value: &'a RawValue = map.next_value()?;
                    match key.as_ref() {
                        "command" => raw.command = Some(value),
                        "channel" => raw.channel = Some(value),
                        "data" => raw.data = Some(value),
                        // The broker writes these four members first. At a later position they come from the sender, and a
                        // sender must not choose which delivery its receiver acknowledges.
                        "delivery" if position == 0 => raw.delivery = Some(value),
                        "message_id" if marks == 1 && position == 1 => raw.message_id = Some(value),
                        "redelivered" if marks > 0 && position == marks => raw.redelivered = Some(value),
                        "attempt" if marks > 0 && position == marks => raw.attempt = Some(value),
                        "response_code" => raw.response_code = Some(value),
                        "response_text" => raw.response_text = Some(value),
                        "id" => raw.id = Some(value),
                        "receivers" => raw.receivers = Some(value),
                        "stored" => raw.stored = Some(value),
                        "duplicate" => raw.duplicate = Some(value),
                        _ => {}
                    }
                    let ours = [raw.delivery, raw.message_id, raw.redelivered, raw.attempt];
                    marks = ours.iter().flatten().count();
                    position = position.saturating_add(1);
                }
                Ok(raw)
            }
        }

        deserializer.deserialize_map(Members(std::marker::PhantomData))
    }
}

/// A `send-message` command with one message.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SendMessage<'a> {
    command: &'static str,
    /// The channel to send to.
    channel: &'a str,
    /// The idempotency key. It also requests a reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number_of_receiver: Option<u32>,
    data: [&'a RawValue; 1],
}

impl<'a> SendMessage<'a> {
    /// Makes a command with a channel and a message, without options.
    #[must_use]
    pub fn new(channel: &'a str, message: &'a RawValue) -> Self {
        let command = "send-message";
        Self { command, channel, id: None, ttl: None, delay: None, number_of_receiver: None, data: [message] }
    }

    /// Sets the id: the broker then answers the command, and does not deliver a repetition within its `dedup_window`.
    #[must_use]
    pub fn id(mut self, id: &'a str) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the time to live; zero = the message never expires.
    #[must_use]
    pub fn ttl(mut self, ttl: Option<Duration>) -> Self {
        self.ttl = ttl.and_then(seconds);
        self
    }

    /// Sets the delay: the broker delivers the message after this time.
    #[must_use]
    pub fn delay(mut self, delay: Option<Duration>) -> Self {
        self.delay = delay.and_then(seconds);
        self
    }

    /// Sets the number of receivers that get the message; 0 = all.
    #[must_use]
    pub fn receivers(mut self, receivers: Option<u32>) -> Self {
        self.number_of_receiver = receivers;
        self
    }

    /// Returns the command as JSON text, the payload of a frame.
    #[must_use]
    pub fn to_json(&self) -> String {
        // invariant: every member is a string, a number or valid JSON, so the serialization cannot fail
        serde_json::to_string(self).expect("plain values")
    }
}

/// Returns a number of seconds: an integer if it is whole, else a decimal number.
fn seconds(duration: Duration) -> Option<serde_json::Number> {
    if duration.subsec_nanos() == 0 {
        Some(duration.as_secs().into())
    } else {
        serde_json::Number::from_f64(duration.as_secs_f64())
    }
}

/// A `receive-message` command with manual acknowledgement.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ReceiveMessage<'a> {
    command: &'static str,
    channel: Vec<&'a str>,
    ack: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefetch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<&'static str>,
    data: [(); 0],
}

impl<'a> ReceiveMessage<'a> {
    /// Makes a command with these channels, without options.
    #[must_use]
    pub fn new(channels: impl IntoIterator<Item = &'a str>) -> Self {
        let channel = channels.into_iter().collect();
        let (command, ack) = ("receive-message", "manual");
        Self { command, channel, ack, prefetch: None, receiver: None, group: None, order: None, data: [] }
    }

    /// Sets the number of deliveries that may be unacknowledged.
    #[must_use]
    pub fn prefetch(mut self, prefetch: Option<u32>) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Sets the name of the receiver: a newer connection with this name replaces this one.
    #[must_use]
    pub fn receiver(mut self, receiver: Option<&'a str>) -> Self {
        self.receiver = receiver;
        self
    }

    /// Sets the group: one receiver of a group gets each message.
    #[must_use]
    pub fn group(mut self, group: Option<&'a str>) -> Self {
        self.group = group;
        self
    }

    /// Sets whether the channels take turns. Otherwise messages of an earlier channel come first.
    #[must_use]
    pub fn fair(mut self, fair: bool) -> Self {
        self.order = fair.then_some("fair");
        self
    }

    /// Returns the command as JSON text, the payload of a frame.
    #[must_use]
    pub fn to_json(&self) -> String {
        // invariant: every member is a string, a number or a list of strings, so the serialization cannot fail
        serde_json::to_string(self).expect("plain values")
    }
}

/// Returns `text` unchanged if it is JSON, else as a JSON string.
#[must_use]
pub fn message_of(text: &str) -> Box<RawValue> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(json) => json.to_owned(),
        Err(_) => string(text),
    }
}

/// Returns `text` as a JSON string.
#[must_use]
pub fn string(text: &str) -> Box<RawValue> {
    // invariant: the serialization of a string cannot fail
    serde_json::value::to_raw_value(text).expect("a string")
}

#[cfg(test)]
mod tests;
