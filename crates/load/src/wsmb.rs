//! This broker's two dialects for the engine. It must never parse a delivery as JSON, so that the generator is not the bottleneck.

use std::fmt::Write as _;

use super::payload::Payload;
use super::wire::{ConnectionPlan, Handshake, Publication, Session, SessionEvent, Wire, frame};
use wsmb_client::frames::{self, Frame};
use wsmb_core::message::Dialect;
use wsmb_protocol::frame::Opcode;
use wsmb_protocol::handshake::SUBPROTOCOL;

/// The start of the reply to an accepted send.
const ACCEPTED: &[u8] = br#"{"command":"send-message","response_code":"00""#;

/// The start of a connect reply. The response code follows.
const CONNECT: &[u8] = br#"{"command":"connect","response_code":""#;

/// The start of a `send-message`, up to the channel name.
const SEND_HEAD: &[u8] = br#"{"command":"send-message","channel":""#;

/// The text before the messages of a delivery.
const DATA: &[u8] = br#","data":["#;

/// The start of a delivery to a receiver with manual acknowledgement.
const DELIVERY: &[u8] = br#"{"delivery":""#;

/// The protocol of this broker, in one of its dialects.
#[derive(Clone, Copy, Debug)]
pub struct Wsmb {
    /// The dialect of all connections.
    pub dialect: Dialect,
    /// Whether receivers acknowledge each delivery with a command instead of pongs. Only in the envelope dialect with confirmed sends.
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

    fn handshake(&self, plan: &ConnectionPlan) -> Handshake {
        let parameter = match self.dialect {
            Dialect::Topic => Some(format!("topic={}", percent_encode(&plan.channel()))),
            Dialect::Envelope => None,
        };
        Handshake { parameter, subprotocol: Some(SUBPROTOCOL) }
    }

    fn session(&self, plan: &ConnectionPlan, payload: &Payload) -> WsmbSession {
        match self.dialect {
            Dialect::Topic => WsmbSession(DialectState::Topic),
            Dialect::Envelope => WsmbSession(DialectState::Envelope(Envelope {
                opening_frames: if plan.receives { receive(plan, self.manual) } else { Vec::new() },
                replies: 0,
                data_at: SEND_HEAD.len() + plan.channel().len() + 1,
                size: payload.size(),
            })),
        }
    }

    fn publication(&self, plan: &ConnectionPlan, payload: &Payload) -> Publication {
        let publication = Publication::new(Opcode::Text);
        if self.dialect == Dialect::Topic {
            return publication.payload(payload);
        }
        let publication = publication.bytes(SEND_HEAD).channel(plan).bytes(b"\"").bytes(DATA).payload(payload);
        if !plan.confirmed {
            return publication.bytes(b"]}");
        }
        let id = format!(r#"],"id":"{}-"#, plan.channels.run());
        publication.bytes(id.as_bytes()).number().bytes(br#""}"#)
    }

    fn confirms(&self) -> bool {
        self.dialect == Dialect::Envelope
    }

    fn receiver_channels(&self) -> u32 {
        match self.dialect {
            Dialect::Topic => 1,
            // 100 channels.
            Dialect::Envelope => u32::try_from(wsmb_core::limits::SUBSCRIPTIONS).unwrap_or(1),
        }
    }
}

/// The first commands of a receiver. The reply to the `ping` after the subscription shows that the subscription is in force.
fn receive(plan: &ConnectionPlan, manual: bool) -> Vec<u8> {
    let names: Vec<String> = plan.channel_numbers.clone().map(|index| json(&plan.channels.name(index))).collect();
    let mut command = format!(r#"{{"command":"receive-message","channel":[{}]"#, names.join(","));
    if manual && plan.confirmed {
        // Writing to a `String` cannot fail.
        let _ = write!(command, r#","ack":"manual","prefetch":{}"#, wsmb_core::limits::MAX_PREFETCH);
    }
    if names.len() > 1 {
        // No channel takes precedence over another, and the default window applies.
        command.push_str(r#","order":"fair""#);
    }
    command.push('}');
    let mut frames = Vec::new();
    frame(&mut frames, Opcode::Text, command.as_bytes());
    frame(&mut frames, Opcode::Text, br#"{"command":"ping"}"#);
    frames
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Percent-encodes everything except the unreserved characters (RFC 3986 section 2.3).
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// One connection to this broker.
#[derive(Debug)]
pub struct WsmbSession(DialectState);

#[derive(Debug)]
enum DialectState {
    Topic,
    Envelope(Envelope),
}

/// The state of an envelope connection.
#[derive(Debug)]
struct Envelope {
    /// The first frames of a receiver; empty for a sender.
    opening_frames: Vec<u8>,
    /// The connect replies received: the greeting, then the reply to the `ping`.
    replies: u32,
    /// The offset of [`DATA`] in a delivery without a delivery name. It is fixed, because all channel names have the same length.
    data_at: usize,
    /// The size of a message, in bytes.
    size: usize,
}

impl Session for WsmbSession {
    fn open(&mut self, out: &mut Vec<u8>) {
        if let DialectState::Envelope(envelope) = &self.0 {
            out.extend_from_slice(&envelope.opening_frames);
        }
    }

    fn is_ready(&self) -> bool {
        match &self.0 {
            // The broker subscribes a topic connection before it replies to the handshake.
            DialectState::Topic => true,
            DialectState::Envelope(envelope) => envelope.replies > u32::from(!envelope.opening_frames.is_empty()),
        }
    }

    #[inline]
    fn handle_payload(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
        mut on_event: impl FnMut(SessionEvent<'_>),
    ) -> Result<(), String> {
        match &mut self.0 {
            DialectState::Topic => {
                on_event(SessionEvent::Delivery(payload));
                Ok(())
            }
            DialectState::Envelope(envelope) => envelope.handle_payload(payload, out, on_event),
        }
    }
}

impl Envelope {
    fn handle_payload(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
        mut on_event: impl FnMut(SessionEvent<'_>),
    ) -> Result<(), String> {
        if let Some(messages) = payload.get(self.data_at..).and_then(|rest| rest.strip_prefix(DATA)) {
            return self.split(messages, on_event);
        }
        if payload.starts_with(ACCEPTED) {
            on_event(SessionEvent::Confirmation);
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
        if let Some(name) = payload.strip_prefix(DELIVERY) {
            let length = name.iter().take_while(|byte| **byte != b'"').count();
            let answer = [br#"{"command":"ack","delivery":""#, &name[..length], br#""}"#].concat();
            frame(out, Opcode::Text, &answer);
        }
        self.split(&payload[at + DATA.len()..], on_event)
    }

    /// Splits messages of the same size, which are separated by commas and followed by a bracket.
    #[inline]
    fn split(&self, mut messages: &[u8], mut on_event: impl FnMut(SessionEvent<'_>)) -> Result<(), String> {
        loop {
            match messages.split_at_checked(self.size) {
                Some((message, [b',', rest @ ..])) => {
                    on_event(SessionEvent::Delivery(message));
                    messages = rest;
                }
                Some((message, [b']', ..])) => {
                    on_event(SessionEvent::Delivery(message));
                    return Ok(());
                }
                _ => {
                    return Err(
                        "the broker sent a delivery with messages of another size than the sent ones".to_owned()
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

    fn plan(receives: bool, confirmed: bool) -> ConnectionPlan {
        ConnectionPlan { channels: Channels::new("a b", "r"), index: 0, channel_numbers: 0..2, receives, confirmed }
    }

    /// Passes one frame to a session. Returns the deliveries, the number of confirmations, and the written bytes.
    fn receive_frame(session: &mut WsmbSession, payload: &str) -> Result<(Vec<String>, u32, Vec<u8>), String> {
        let (mut deliveries, mut answers, mut out) = (Vec::new(), 0, Vec::new());
        session.handle_payload(payload.as_bytes(), &mut out, |item| match item {
            SessionEvent::Delivery(message) => deliveries.push(String::from_utf8(message.to_vec()).unwrap()),
            SessionEvent::Confirmation => answers += 1,
        })?;
        Ok((deliveries, answers, out))
    }

    #[test]
    fn a_publication_is_a_command_of_the_broker() {
        let payload = Payload::new(30);
        for (confirmed, id) in [(false, None), (true, Some("r-1000000000"))] {
            let publication = WIRE.publication(&plan(false, confirmed), &payload);
            let json: serde_json::Value = serde_json::from_slice(&publication.bytes).unwrap();
            assert_eq!(json["channel"], "a b-r-000000");
            assert_eq!(json["data"][0]["n"], 1_000_000_000);
            assert_eq!(json["id"].as_str(), id);
        }
        let topic = Wsmb { dialect: Dialect::Topic, ..WIRE };
        assert_eq!(topic.publication(&plan(false, false), &payload).bytes, payload.bytes());
        assert_eq!(topic.handshake(&plan(true, false)).parameter.unwrap(), "topic=a%20b-r-000000");
    }

    #[test]
    fn a_receiver_is_ready_after_the_reply_to_its_ping() {
        let reply =
            r#"{"command":"connect","response_code":"00","response_text":"Accepted","data":[{"time_stamp":"x"}]}"#;
        let payload = Payload::new(30);
        let mut receiver = WIRE.session(&plan(true, false), &payload);
        let mut sender = WIRE.session(&plan(false, false), &payload);
        for ready in [(false, true), (true, true)] {
            receive_frame(&mut receiver, reply).unwrap();
            receive_frame(&mut sender, reply).unwrap();
            assert_eq!((receiver.is_ready(), sender.is_ready()), ready);
        }
        assert!(receive_frame(&mut sender, &reply.replace("00", "01")).is_err());
    }

    #[test]
    fn live_kept_and_named_deliveries_are_split() {
        let payload = Payload::new(30);
        let message = String::from_utf8(payload.bytes().to_vec()).unwrap();
        let mut session = WIRE.session(&plan(true, true), &payload);
        let live = format!(r#"{{"command":"send-message","channel":"a b-r-000000","data":[{message}],"id":"r-1"}}"#);
        assert_eq!(receive_frame(&mut session, &live).unwrap(), (vec![message.clone()], 0, Vec::new()));
        let kept = format!(r#"{{"command":"send-message","channel":"a b-r-000001","data":[{message},{message}]}}"#);
        assert_eq!(receive_frame(&mut session, &kept).unwrap().0, [message.clone(), message.clone()]);
        let marked = live.replacen('{', r#"{"delivery":"1f-17","#, 1);
        let (deliveries, _, out) = receive_frame(&mut session, &marked).unwrap();
        assert_eq!(deliveries, [message]);
        let mut expected = Vec::new();
        frame(&mut expected, Opcode::Text, br#"{"command":"ack","delivery":"1f-17"}"#);
        assert_eq!(out, expected);
        assert!(receive_frame(&mut session, &live.replace("pad", "long-pad")).is_err());
    }

    #[test]
    fn a_confirmation_is_counted_and_a_refusal_is_an_error() {
        let mut session = WIRE.session(&plan(false, true), &Payload::new(30));
        let accepted = r#"{"command":"send-message","response_code":"00","response_text":"Accepted","id":"r-1","receivers":1,"stored":false}"#;
        assert_eq!(receive_frame(&mut session, accepted).unwrap().1, 1);
        let refused = r#"{"command":"send-message","response_code":"05","response_text":"Unavailable","id":"r-1"}"#;
        assert_eq!(receive_frame(&mut session, refused).unwrap_err(), "the broker refused: 05 Unavailable");
    }
}
