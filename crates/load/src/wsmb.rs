//! This broker's two dialects, as the engine drives them.

use std::fmt::Write as _;

use super::payload::Payload;
use super::wire::{Handshake, Heard, Publication, Seat, Session, Wire, frame};
use wsmb_client::frames::{self, Frame};
use wsmb_core::message::Dialect;
use wsmb_protocol::frame::Opcode;
use wsmb_protocol::handshake::SUBPROTOCOL;

/// What every answer to a send that was accepted begins with.
const ACCEPTED: &[u8] = br#"{"command":"send-message","response_code":"00""#;

/// What a connect reply begins with, and where its code stands.
const CONNECT: &[u8] = br#"{"command":"connect","response_code":""#;

/// What a `send-message` begins with, up to the channel's name.
const HEAD: &[u8] = br#"{"command":"send-message","channel":""#;

/// What stands before the messages of a delivery.
const DATA: &[u8] = br#","data":["#;

/// The member that a receiver with manual acknowledgement gets first.
const DELIVERY: &[u8] = br#"{"delivery":""#;

/// A broker of this program, in one of its dialects.
#[derive(Clone, Copy, Debug)]
pub struct Wsmb {
    /// How the connections frame messages.
    pub dialect: Dialect,
    /// Receivers acknowledge each delivery with a command, not by pongs; in the envelope dialect only, and only where sends are confirmed.
    pub manual: bool,
}

impl Wire for Wsmb {
    type Session = WsmbSession;

    fn name(&self) -> &'static str {
        match self.dialect {
            Dialect::Topic => "topic",
            Dialect::Envelope => "envelope",
        }
    }

    fn handshake(&self, seat: &Seat) -> Handshake {
        let parameter = match self.dialect {
            Dialect::Topic => Some(format!("topic={}", percent_encode(&seat.channel()))),
            Dialect::Envelope => None,
        };
        Handshake { parameter, subprotocol: Some(SUBPROTOCOL) }
    }

    fn session(&self, seat: &Seat, payload: &Payload) -> WsmbSession {
        match self.dialect {
            Dialect::Topic => WsmbSession(Speech::Topic),
            Dialect::Envelope => WsmbSession(Speech::Envelope(Envelope {
                asks: if seat.receives { receive(seat, self.manual) } else { Vec::new() },
                replies: 0,
                data_at: HEAD.len() + seat.channel().len() + 1,
                size: payload.size(),
            })),
        }
    }

    fn publication(&self, seat: &Seat, payload: &Payload) -> Publication {
        let publication = Publication::new(Opcode::Text);
        if self.dialect == Dialect::Topic {
            return publication.payload(payload);
        }
        let publication = publication.bytes(HEAD).channel(seat).bytes(b"\"").bytes(DATA).payload(payload);
        if !seat.confirmed {
            return publication.bytes(b"]}");
        }
        let id = format!(r#"],"id":"{}-"#, seat.channels.run());
        publication.bytes(id.as_bytes()).number().bytes(br#""}"#)
    }

    fn confirms(&self) -> bool {
        self.dialect == Dialect::Envelope
    }

    fn receiver_channels(&self) -> u32 {
        match self.dialect {
            Dialect::Topic => 1,
            // A hundred.
            Dialect::Envelope => u32::try_from(wsmb_core::limits::SUBSCRIPTIONS).unwrap_or(1),
        }
    }
}

/// The commands with which a receiver begins: a `ping` behind the subscription is answered when that is in force.
fn receive(seat: &Seat, manual: bool) -> Vec<u8> {
    let names: Vec<String> = seat.uses.clone().map(|index| json(&seat.channels.name(index))).collect();
    let mut command = format!(r#"{{"command":"receive-message","channel":[{}]"#, names.join(","));
    if manual && seat.confirmed {
        // Writing to a `String` can't fail.
        let _ = write!(command, r#","ack":"manual","prefetch":{}"#, wsmb_core::limits::MAX_PREFETCH);
    }
    if names.len() > 1 {
        // No channel goes before another one, and the window is the usual one.
        command.push_str(r#","order":"fair""#);
    }
    command.push('}');
    let mut asks = Vec::new();
    frame(&mut asks, Opcode::Text, command.as_bytes());
    frame(&mut asks, Opcode::Text, br#"{"command":"ping"}"#);
    asks
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// RFC 3986: everything but letters, digits and four marks.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` can't fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// One connection to a broker of this program.
#[derive(Debug)]
pub struct WsmbSession(Speech);

#[derive(Debug)]
enum Speech {
    Topic,
    Envelope(Envelope),
}

/// What an envelope connection remembers.
#[derive(Debug)]
struct Envelope {
    /// The frames to begin with; empty for a sender.
    asks: Vec<u8>,
    /// Connect replies that have come: the first is the greeting.
    replies: u32,
    /// Where [`DATA`] stands in a delivery without a mark: all channels have names of one length.
    data_at: usize,
    /// Bytes of a message.
    size: usize,
}

impl Session for WsmbSession {
    fn open(&mut self, out: &mut Vec<u8>) {
        if let Speech::Envelope(envelope) = &self.0 {
            out.extend_from_slice(&envelope.asks);
        }
    }

    fn is_ready(&self) -> bool {
        match &self.0 {
            // The broker declares a connection to its core before it answers the handshake.
            Speech::Topic => true,
            Speech::Envelope(envelope) => envelope.replies > u32::from(!envelope.asks.is_empty()),
        }
    }

    #[inline]
    fn take(&mut self, payload: &[u8], out: &mut Vec<u8>, mut heard: impl FnMut(Heard<'_>)) -> Result<(), String> {
        match &mut self.0 {
            Speech::Topic => {
                heard(Heard::Delivery(payload));
                Ok(())
            }
            Speech::Envelope(envelope) => envelope.take(payload, out, heard),
        }
    }
}

impl Envelope {
    fn take(&mut self, payload: &[u8], out: &mut Vec<u8>, mut heard: impl FnMut(Heard<'_>)) -> Result<(), String> {
        if let Some(messages) = payload.get(self.data_at..).and_then(|rest| rest.strip_prefix(DATA)) {
            return self.split(messages, heard);
        }
        if payload.starts_with(ACCEPTED) {
            heard(Heard::Answer);
            return Ok(());
        }
        if let Some(code) = payload.strip_prefix(CONNECT) {
            self.replies += 1;
            return match code {
                [b'0', b'0', ..] => Ok(()),
                _ => Err("the broker cannot use its store; its log says why".to_owned()),
            };
        }
        let Some(at) = payload.windows(DATA.len()).position(|window| window == DATA) else {
            return Err(match frames::parse(payload) {
                Ok(Frame::Reply(reply)) => format!("the broker refused: {} {}", reply.code, reply.text),
                _ => frames::NotUnderstood.to_string(),
            });
        };
        if let Some(marked) = payload.strip_prefix(DELIVERY) {
            let length = marked.iter().take_while(|byte| **byte != b'"').count();
            let answer = [br#"{"command":"ack","delivery":""#, &marked[..length], br#""}"#].concat();
            frame(out, Opcode::Text, &answer);
        }
        self.split(&payload[at + DATA.len()..], heard)
    }

    /// Messages of the same size, one behind the other, with a comma between and a bracket behind.
    #[inline]
    fn split(&self, mut messages: &[u8], mut heard: impl FnMut(Heard<'_>)) -> Result<(), String> {
        loop {
            match messages.split_at_checked(self.size) {
                Some((message, [b',', rest @ ..])) => {
                    heard(Heard::Delivery(message));
                    messages = rest;
                }
                Some((message, [b']', ..])) => {
                    heard(Heard::Delivery(message));
                    return Ok(());
                }
                _ => {
                    return Err(
                        "the broker sent a delivery whose messages are not of the size that was sent".to_owned()
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Channels;
    use super::*;

    const WIRE: Wsmb = Wsmb { dialect: Dialect::Envelope, manual: false };

    fn seat(receives: bool, confirmed: bool) -> Seat {
        Seat { channels: Channels::new("a b", "r"), index: 0, uses: 0..2, receives, confirmed }
    }

    /// What a session makes of one frame: deliveries, answers, what it writes.
    fn heard(session: &mut WsmbSession, payload: &str) -> Result<(Vec<String>, u32, Vec<u8>), String> {
        let (mut deliveries, mut answers, mut out) = (Vec::new(), 0, Vec::new());
        session.take(payload.as_bytes(), &mut out, |item| match item {
            Heard::Delivery(message) => deliveries.push(String::from_utf8(message.to_vec()).unwrap()),
            Heard::Answer => answers += 1,
        })?;
        Ok((deliveries, answers, out))
    }

    #[test]
    fn a_publication_is_a_command_of_the_broker() {
        let payload = Payload::new(30);
        for (confirmed, id) in [(false, None), (true, Some("r-1000000000"))] {
            let publication = WIRE.publication(&seat(false, confirmed), &payload);
            let json: serde_json::Value = serde_json::from_slice(&publication.bytes).unwrap();
            assert_eq!(json["channel"], "a b-r-000000");
            assert_eq!(json["data"][0]["n"], 1_000_000_000);
            assert_eq!(json["id"].as_str(), id);
        }
        let topic = Wsmb { dialect: Dialect::Topic, ..WIRE };
        assert_eq!(topic.publication(&seat(false, false), &payload).bytes, payload.bytes());
        assert_eq!(topic.handshake(&seat(true, false)).parameter.unwrap(), "topic=a%20b-r-000000");
    }

    #[test]
    fn a_receiver_is_ready_when_the_broker_has_answered_behind_its_subscription() {
        let reply =
            r#"{"command":"connect","response_code":"00","response_text":"Accepted","data":[{"time_stamp":"x"}]}"#;
        let payload = Payload::new(30);
        let mut receiver = WIRE.session(&seat(true, false), &payload);
        let mut sender = WIRE.session(&seat(false, false), &payload);
        for ready in [(false, true), (true, true)] {
            heard(&mut receiver, reply).unwrap();
            heard(&mut sender, reply).unwrap();
            assert_eq!((receiver.is_ready(), sender.is_ready()), ready);
        }
        assert!(heard(&mut sender, &reply.replace("00", "01")).is_err());
    }

    #[test]
    fn deliveries_are_found_live_kept_and_marked() {
        let payload = Payload::new(30);
        let message = String::from_utf8(payload.bytes().to_vec()).unwrap();
        let mut session = WIRE.session(&seat(true, true), &payload);
        let live = format!(r#"{{"command":"send-message","channel":"a b-r-000000","data":[{message}],"id":"r-1"}}"#);
        assert_eq!(heard(&mut session, &live).unwrap(), (vec![message.clone()], 0, Vec::new()));
        let kept = format!(r#"{{"command":"send-message","channel":"a b-r-000001","data":[{message},{message}]}}"#);
        assert_eq!(heard(&mut session, &kept).unwrap().0, [message.clone(), message.clone()]);
        let marked = live.replacen('{', r#"{"delivery":"1f-17","#, 1);
        let (deliveries, _, out) = heard(&mut session, &marked).unwrap();
        assert_eq!(deliveries, [message]);
        let mut expected = Vec::new();
        frame(&mut expected, Opcode::Text, br#"{"command":"ack","delivery":"1f-17"}"#);
        assert_eq!(out, expected);
        assert!(heard(&mut session, &live.replace("pad", "long-pad")).is_err());
    }

    #[test]
    fn an_answer_is_an_answer_and_a_refusal_fails() {
        let mut session = WIRE.session(&seat(false, true), &Payload::new(30));
        let accepted = r#"{"command":"send-message","response_code":"00","response_text":"Accepted","id":"r-1","receivers":1,"stored":false}"#;
        assert_eq!(heard(&mut session, accepted).unwrap().1, 1);
        let refused = r#"{"command":"send-message","response_code":"05","response_text":"Unavailable","id":"r-1"}"#;
        assert_eq!(heard(&mut session, refused).unwrap_err(), "the broker refused: 05 Unavailable");
    }
}
