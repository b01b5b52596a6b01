//! Reading a command: [`read`] finds where each field that matters lies, then the command takes what it needs.

use std::borrow::Cow;

use super::field::{self, Wrong, text};
use super::read::{Elements, Fields, elements, read};
use super::{Ack, Code, Command, Malformed, Send};
use crate::limits;
use crate::message::{ChannelName, Dialect, Kind, Payload, Publication};
use crate::protocol::frame::{Opcode, encode, payload_of};
use crate::protocol::json::Scanner;

/// Reads one frame of an envelope client, text or binary, on its own: see [`Parser::parse`].
///
/// # Errors
/// It is no command that could be carried out. Nothing of it has been.
pub fn parse(payload: &[u8]) -> Result<Command<'_>, Malformed> {
    Parser::default().parse(Kind::Binary, payload)
}

/// Reads commands, one after the other.
#[derive(Debug, Default)]
pub struct Parser {
    /// The channel that was sent to last. Mostly the next one is the same, and then its name is not made anew. None that was written
    /// with escapes.
    recent: Option<ChannelName>,
}

impl Parser {
    /// Reads one frame of an envelope client. Text and binary mean the same; but the payload of a text frame must be UTF-8, which is
    /// not checked again.
    ///
    /// # Errors
    /// It is no command that could be carried out. Nothing of it has been.
    pub fn parse<'a>(&mut self, kind: Kind, payload: &'a [u8]) -> Result<Command<'a>, Malformed> {
        let mut fields = Fields::default();
        let result = read(kind, payload, &mut fields).map_err(malformed);
        result.and_then(|()| self.command(payload, &fields)).map_err(|problem| refused(problem, &fields))
    }

    #[inline]
    fn command<'a>(&mut self, payload: &'a [u8], fields: &Fields<'a>) -> Result<Command<'a>, Problem> {
        let json = fields.command.ok_or_else(|| malformed("'command' is missing".to_owned()))?;
        if json == br#""send-message""# {
            return self.send(payload, fields).map(Command::Send);
        }
        let Some(command) = field::string(text(json)) else {
            return Err(malformed(format!("'command' must be a string, not {}", field::kind(text(json)))));
        };
        match &*command {
            "send-message" => self.send(payload, fields).map(Command::Send),
            "receive-message" => receive(fields).map_err(malformed),
            "ping" => Ok(Command::Ping),
            "ack" => acknowledge(fields, true).map_err(malformed),
            "nack" => acknowledge(fields, false).map_err(malformed),
            _ => {
                let known = "the commands are send-message, receive-message, ping, ack and nack";
                Err(Problem(Code::UnknownCommand, known.to_owned()))
            }
        }
    }

    #[inline]
    fn send<'a>(&mut self, payload: &'a [u8], fields: &Fields<'a>) -> Result<Send<'a>, Problem> {
        let channel = fields.channel.ok_or_else(|| malformed("'channel' is missing".to_owned()))?;
        let channel = self.channel(channel).map_err(malformed)?;
        let id = id(fields).map_err(malformed)?;
        let duration = |name, json: Option<&[u8]>| json.map(|json| field::duration(name, text(json))).transpose();
        let ttl = duration("ttl", fields.ttl).map_err(malformed)?;
        let delay = duration("delay", fields.delay).map_err(malformed)?;
        let data = fields.data.as_ref().ok_or_else(|| malformed("'data' is missing".to_owned()))?;
        if data.too_many {
            let text = format!("'data' has more than {} messages", limits::PUBLICATION_MESSAGES);
            return Err(Problem(Code::TooLarge, text));
        }
        let frame = encode(Opcode::Text, payload);
        let body = payload_of(&frame);
        let messages =
            data.spans.iter().map(|span| Payload { bytes: body.slice(span.clone()), kind: Kind::Text }).collect();
        let publication = Publication { channel, dialect: Dialect::Envelope, frame, messages };
        let receivers = fields.number_of_receiver.and_then(|json| field::receivers(text(json)));
        Ok(Send { publication, receivers, id, ttl, delay })
    }

    #[inline]
    fn channel(&mut self, json: &[u8]) -> Result<ChannelName, Wrong> {
        if let (Some(recent), [b'"', name @ .., b'"']) = (&self.recent, json)
            && recent.as_str().as_bytes() == name
        {
            return Ok(recent.clone());
        }
        let channel = field::channel(text(json))?;
        self.recent = (!json.contains(&b'\\')).then(|| channel.clone());
        Ok(channel)
    }
}

struct Problem(Code, String);

fn malformed(wrong: Wrong) -> Problem {
    Problem(Code::Malformed, wrong)
}

#[cold]
fn refused(Problem(code, text): Problem, fields: &Fields<'_>) -> Malformed {
    let id = id(fields).ok().flatten().map(Cow::into_owned);
    Malformed { command: command_name(fields), id, code, text }
}

/// The command's name for an answer; none if it is too long to be repeated.
fn command_name(fields: &Fields<'_>) -> Option<String> {
    let name = field::string(text(fields.command?))?;
    (name.len() <= limits::NAME_BYTES).then(|| name.into_owned())
}

fn id<'a>(fields: &Fields<'a>) -> Result<Option<Cow<'a, str>>, Wrong> {
    fields.id.map(|json| field::short_name("id", text(json))).transpose()
}

fn acknowledge<'a>(fields: &Fields<'_>, done: bool) -> Result<Command<'a>, Wrong> {
    let json = fields.delivery.ok_or("'delivery' is missing")?;
    Ok(Command::Acknowledge { delivery: field::delivery(text(json))?, done })
}

fn receive<'a>(fields: &Fields<'_>) -> Result<Command<'a>, Wrong> {
    let json = fields.channel.ok_or("'channel' is missing")?;
    let channels = if json.starts_with(b"[") { channel_list(json)? } else { vec![field::channel(text(json))?] };
    Ok(Command::Receive {
        channels,
        ack: fields.ack.map_or(Ok(Ack::Automatic), |json| field::ack(text(json)))?,
        prefetch: fields.prefetch.map_or(Ok(limits::PREFETCH), |json| field::prefetch(text(json)))?,
        receiver: fields
            .receiver
            .map(|json| field::short_name("receiver", text(json)).map(Cow::into_owned))
            .transpose()?,
    })
}

/// The channels of a list, each once. The list itself is bounded, repetitions included: it is searched for each.
fn channel_list(json: &[u8]) -> Result<Vec<ChannelName>, Wrong> {
    let mut found = Elements::default();
    let list = elements(&mut Scanner::new(json, limits::JSON_DEPTH), limits::SUBSCRIPTIONS, &mut found);
    if list.is_err() || found.spans.is_empty() {
        return Err("'channel' is an empty list; name at least one channel".to_owned());
    }
    if found.too_many {
        return Err(format!("'channel' lists more than {} channels", limits::SUBSCRIPTIONS));
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
