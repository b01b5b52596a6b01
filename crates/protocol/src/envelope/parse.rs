//! Parses a command: [`read`] finds the fields of the object, then the function for the command converts the fields that it needs.

use std::borrow::Cow;
use std::time::Duration;

use super::field::{self, FieldError, text};
use super::read::{Elements, Fields, elements, read};
use super::{Ack, Code, Command, Malformed, Send};
use crate::frame::{Opcode, encode, payload_start};
use crate::json::Scanner;
use crate::limits;
use wsmb_core::message::{Answer, ChannelName, Dialect, Frame, GroupName, Kind, Nack, Publication};

/// Parses the commands of one connection.
#[derive(Debug, Default)]
pub struct Parser {
    /// The channel of the last `send-message`. The next one mostly has the same channel; then its name is not allocated again. Never a name that was written
    /// with escapes.
    last_channel: Option<ChannelName>,
}

impl Parser {
    /// Makes a parser.
    #[must_use]
    pub const fn new() -> Self {
        Self { last_channel: None }
    }

    /// Parses a frame of an envelope client. Text frames and binary frames have the same meaning. The payload of a text frame must be valid UTF-8: this
    /// function does not check it again.
    ///
    /// # Errors
    /// The frame is not a valid command.
    #[inline]
    pub fn parse<'a>(&'a mut self, kind: Kind, frame: &'a Frame<'a>) -> Result<Command<'a>, Malformed> {
        let mut fields = Fields::default();
        let result = read(kind, frame, payload_start(frame), &mut fields).map_err(malformed);
        result.and_then(|()| self.command(kind, frame, &mut fields)).map_err(|problem| refused(problem, &fields))
    }

    #[inline]
    fn command<'a>(
        &'a mut self,
        kind: Kind,
        frame: &'a Frame<'a>,
        fields: &mut Fields<'a>,
    ) -> Result<Command<'a>, Problem> {
        let json = fields.command.ok_or_else(|| malformed("'command' is missing".to_owned()))?;
        if json == br#""send-message""# {
            return self.send(kind, frame, fields);
        }
        let Some(command) = field::string(text(json)) else {
            return Err(malformed(field::unlike("command", "a string", text(json))));
        };
        match &*command {
            "send-message" => self.send(kind, frame, fields),
            "receive-message" => receive(fields).map_err(malformed),
            "ping" => Ok(Command::Ping),
            "ack" => acknowledge(fields, |_| Ok(Answer::Ack)).map_err(malformed),
            "nack" => acknowledge(fields, nack).map_err(malformed),
            "extend" => acknowledge(fields, |_| Ok(Answer::Extend)).map_err(malformed),
            "refresh" => refresh(fields).map_err(malformed),
            _ => {
                let known = "the commands are send-message, receive-message, ping, ack, nack, extend and refresh";
                Err(Problem(Code::UnknownCommand, known.to_owned()))
            }
        }
    }

    #[inline]
    fn send<'a>(
        &'a mut self,
        kind: Kind,
        frame: &'a Frame<'a>,
        fields: &mut Fields<'a>,
    ) -> Result<Command<'a>, Problem> {
        let json = fields.channel.ok_or_else(|| malformed("'channel' is missing".to_owned()))?;
        let channel = channel(&mut self.last_channel, json).map_err(malformed)?;
        let id = id(fields).map_err(malformed)?;
        let ttl = duration("ttl", fields.ttl)?;
        let delay = duration("delay", fields.delay)?;
        let receivers = fields.number_of_receiver.and_then(|json| field::receivers(text(json)));
        let data = fields.data.take().ok_or_else(|| malformed("'data' is missing".to_owned()))?;
        if data.too_many {
            let text = format!("'data' has more than {} messages", wsmb_core::limits::PUBLICATION_MESSAGES);
            return Err(Problem(Code::TooLarge, text));
        }
        let verbatim = !fields.ambiguous;
        let frame = match kind {
            Kind::Text => frame.clone(),
            // Receivers get a text frame. Its header has the same length.
            Kind::Binary => Frame::Shared(encode(Opcode::Text, frame.get(payload_start(frame)..).unwrap_or_default())),
        };
        let (dialect, kind, messages) = (Dialect::Envelope, Kind::Text, data.spans);
        let publication = Publication { channel, dialect, kind, frame, messages, verbatim };
        Ok(Command::Send(Send { publication, receivers, id, ttl, delay }))
    }
}

/// Returns the channel of a command. `last_channel`: the channel of the command before.
#[inline]
fn channel<'a>(last_channel: &'a mut Option<ChannelName>, json: &[u8]) -> Result<Cow<'a, ChannelName>, FieldError> {
    let known = match (&*last_channel, json) {
        (Some(last_channel), [b'"', name @ .., b'"']) => last_channel.as_str().as_bytes() == name,
        _ => false,
    };
    if !known {
        let channel = field::channel(text(json))?;
        if json.contains(&b'\\') {
            return Ok(Cow::Owned(channel));
        }
        *last_channel = Some(channel);
    }
    match last_channel {
        Some(last_channel) => Ok(Cow::Borrowed(last_channel)),
        None => field::channel(text(json)).map(Cow::Owned),
    }
}

struct Problem(Code, String);

fn malformed(wrong: FieldError) -> Problem {
    Problem(Code::Malformed, wrong)
}

#[cold]
fn refused(Problem(code, text): Problem, fields: &Fields<'_>) -> Malformed {
    let id = id(fields).ok().flatten().map(Cow::into_owned);
    Malformed { command: command_name(fields), id, code, text }
}

/// Returns the name of the command for an answer; `None` if it is too long.
fn command_name(fields: &Fields<'_>) -> Option<String> {
    let name = field::string(text(fields.command?))?;
    (name.len() <= wsmb_core::limits::NAME_BYTES).then(|| name.into_owned())
}

fn id<'a>(fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, FieldError> {
    fields.id.map(|json| field::short_name("id", text(json))).transpose()
}

#[inline]
fn duration(name: &str, json: Option<&[u8]>) -> Result<Option<Duration>, Problem> {
    match json {
        None => Ok(None),
        Some(json) => field::duration(name, text(json)).map(Some).map_err(malformed),
    }
}

fn refresh<'a>(fields: &Fields<'a>) -> Result<Command<'a>, FieldError> {
    let json = fields.token.ok_or("'token' is missing")?;
    // The error must not show the value.
    let token = field::string(text(json)).ok_or("'token' is not a string")?;
    Ok(Command::Refresh { token, id: id(fields)? })
}

fn acknowledge<'a>(
    fields: &Fields<'_>,
    answer: impl FnOnce(&Fields<'_>) -> Result<Answer, FieldError>,
) -> Result<Command<'a>, FieldError> {
    let json = fields.delivery.ok_or("'delivery' is missing")?;
    Ok(Command::Acknowledge { delivery: field::delivery(text(json))?, answer: answer(fields)? })
}

fn nack(fields: &Fields<'_>) -> Result<Answer, FieldError> {
    let retry_after = fields.retry_after.map(|json| field::duration("retry_after", text(json))).transpose()?;
    let reject = fields.reject.map(|json| field::boolean("reject", text(json))).transpose()?.unwrap_or_default();
    if reject && retry_after.is_some() {
        return Err("'retry_after' and 'reject' exclude each other: what is rejected is not tried again".to_owned());
    }
    Ok(Answer::Nack(Nack {
        retry_after: retry_after.map(|time| time.min(wsmb_core::limits::RETRY_AFTER)),
        reject,
        reason: fields.reason.map(|json| field::reason(text(json))).transpose()?.flatten(),
    }))
}

fn receive<'a>(fields: &Fields<'_>) -> Result<Command<'a>, FieldError> {
    let json = fields.channel.ok_or("'channel' is missing")?;
    let channels = if json.starts_with(b"[") { channel_list(json)? } else { vec![field::channel(text(json))?] };
    Ok(Command::Receive {
        channels,
        ack: fields.ack.map_or(Ok(Ack::Automatic), |json| field::ack(text(json)))?,
        prefetch: fields.prefetch.map(|json| field::prefetch(text(json))).transpose()?,
        receiver: fields
            .receiver
            .map(|json| field::short_name("receiver", text(json)).map(Cow::into_owned))
            .transpose()?,
        order: fields.order.map(|json| field::order(text(json))).transpose()?.unwrap_or_default(),
        group: fields.group.map(|json| field::short_name("group", text(json)).map(GroupName::from)).transpose()?,
    })
}

/// Returns the channels of a list without duplicates. The length of the list is limited before duplicates are removed, because each name is compared with all
/// names before it.
fn channel_list(json: &[u8]) -> Result<Vec<ChannelName>, FieldError> {
    let mut found = Elements::default();
    let list = elements(&mut Scanner::new(json, limits::JSON_DEPTH), wsmb_core::limits::SUBSCRIPTIONS, &mut found);
    if list.is_err() {
        return Err("'channel' is not a list of names".to_owned());
    }
    if found.too_many {
        return Err(format!("'channel' lists more than {} channels", wsmb_core::limits::SUBSCRIPTIONS));
    }
    let mut channels = Vec::with_capacity(found.spans.len());
    for span in found.spans {
        let channel = field::channel(text(json.get(span).unwrap_or_default()))?;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }
    Ok(channels)
}
