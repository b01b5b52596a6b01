//! NATS over WebSocket: the part of the client protocol that a measurement needs. No I/O.
//!
//! Unconfirmed sends use core NATS (PUB and MSG). Confirmed sends use JetStream: a stream with file storage stores the channel's messages and answers
//! each PUB that has a reply subject. A consumer delivers each message, and the stream removes it after the acknowledgement (a work queue, like a
//! kept channel).

use wsmb_load::{ConnectionPlan, Handshake, Payload, Publication, Session, SessionEvent, Wire, frame};
use wsmb_protocol::frame::Opcode;

use crate::packets::Packets;

/// The CONNECT of every client. With `no_responders`, a request without a subscriber is answered at once with an empty message.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1,\
                       \"headers\":true,\"no_responders\":true}\r\n";

/// Subscription ids of one connection: channels, answers to requests, answers to sends.
const CHANNEL: &[u8] = b"1";
const REQUESTS: &[u8] = b"2";
const SENDS: &[u8] = b"3";

/// `max_ack_pending` of a consumer: more than any window.
const UNACKNOWLEDGED: u32 = 100_000;

/// The longest accepted protocol line in bytes. An INFO has a few hundred bytes.
const LINE: usize = 64 * 1024;

/// The protocol of NATS servers; confirmed sends need JetStream.
#[derive(Clone, Copy, Debug)]
pub struct Nats;

impl Wire for Nats {
    type Session = NatsSession;

    fn name(&self) -> &'static str {
        "nats"
    }

    fn handshake(&self, _: &ConnectionPlan) -> Handshake {
        Handshake::default()
    }

    fn session(&self, plan: &ConnectionPlan, _: &Payload) -> NatsSession {
        let mut steps = if plan.confirmed { jetstream(plan) } else { vec![plain(plan)] };
        steps.reverse();
        NatsSession { steps, is_ready: false, packets: Packets::default(), replies: Vec::new() }
    }

    fn publication(&self, plan: &ConnectionPlan, payload: &Payload) -> Publication {
        let publication = Publication::new(Opcode::Binary).bytes(b"PUB ").channel(plan);
        let head = match plan.confirmed {
            true => format!(" {} {}\r\n", inbox(plan, "sends"), payload.size()),
            false => format!(" {}\r\n", payload.size()),
        };
        publication.bytes(head.as_bytes()).payload(payload).bytes(b"\r\n")
    }

    fn confirms(&self) -> bool {
        true
    }

    fn receiver_channels(&self) -> u32 {
        /// NATS has no limit. This is the number of the other protocols.
        const SUBSCRIPTIONS: u32 = 100;
        SUBSCRIPTIONS
    }
}

/// Returns a subject that only this connection uses.
fn inbox(plan: &ConnectionPlan, purpose: &str) -> String {
    format!("_INBOX.{}.{}.{purpose}", plan.channels.run(), plan.index)
}

/// Returns CONNECT, the subscriptions, and PING. The PONG confirms that the server has processed them.
pub fn plain(plan: &ConnectionPlan) -> String {
    let mut step = CONNECT.to_owned();
    if plan.receives {
        for index in plan.channel_numbers.clone() {
            // Each subscription needs its own id. The first digit is that of `CHANNEL`.
            step += &format!("SUB {} 1{index}\r\n", plan.channels.name(index));
        }
    }
    step + "PING\r\n"
}

/// Returns the steps of a JetStream connection. Each step is answered before the next is sent. Each connection creates the stream; creating an
/// existing stream is no error.
pub fn jetstream(plan: &ConnectionPlan) -> Vec<String> {
    let stream = format!("{}-{:06}", plan.channels.run(), plan.channel_numbers.start);
    let (requests, sends) = (inbox(plan, "requests"), inbox(plan, "sends"));
    let request = |subject: &str, body: serde_json::Value| {
        let body = body.to_string();
        format!("PUB $JS.API.{subject}.{stream} {requests} {}\r\n{body}\r\n", body.len())
    };
    let subjects: Vec<String> = plan.channel_numbers.clone().map(|index| plan.channels.name(index)).collect();
    let make = request(
        "STREAM.CREATE",
        serde_json::json!({
            "name": stream, "subjects": subjects, "retention": "workqueue", "storage": "file", "num_replicas": 1,
        }),
    );
    let open = format!("{CONNECT}SUB {requests} 2\r\nSUB {sends} 3\r\n{make}");
    if !plan.receives {
        return vec![open];
    }
    let deliveries = inbox(plan, "deliveries");
    let consume = request(
        "CONSUMER.CREATE",
        serde_json::json!({"stream_name": stream, "config": {
            "deliver_subject": deliveries, "deliver_policy": "all", "ack_policy": "explicit",
            "max_ack_pending": UNACKNOWLEDGED, "replay_policy": "instant",
        }}),
    );
    vec![open, format!("SUB {deliveries} 1\r\n{consume}")]
}

/// One connection to a NATS server.
#[derive(Debug)]
pub struct NatsSession {
    /// The remaining steps; the next step is the last element.
    steps: Vec<String>,
    is_ready: bool,
    packets: Packets,
    /// The replies to the packets of one frame.
    replies: Vec<u8>,
}

impl Session for NatsSession {
    fn open(&mut self, out: &mut Vec<u8>) {
        self.step(out);
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn handle_payload(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
        mut on_event: impl FnMut(SessionEvent<'_>),
    ) -> Result<(), String> {
        let Self { packets, replies, .. } = self;
        let mut answered = false;
        packets.take(payload, |bytes| {
            let Some(packet) = read(bytes)? else { return Ok(None) };
            match packet.op {
                Op::Message { to: REQUESTS, payload, .. } => {
                    check_answer(payload)?;
                    answered = true;
                }
                Op::Message { to: SENDS, payload, .. } => {
                    check_answer(payload)?;
                    on_event(SessionEvent::Confirmation);
                }
                Op::Message { to, reply, payload } if to.starts_with(CHANNEL) => {
                    if let Some(reply) = reply {
                        replies.extend_from_slice(b"PUB ");
                        replies.extend_from_slice(reply);
                        replies.extend_from_slice(b" 0\r\n\r\n");
                    }
                    on_event(SessionEvent::Delivery(payload));
                }
                Op::Message { .. } => return Err("a message for an unknown subscription".to_owned()),
                Op::Ping => replies.extend_from_slice(b"PONG\r\n"),
                Op::Pong => answered = true,
                Op::Ignored => {}
            }
            Ok(Some(packet.length))
        })?;
        if !replies.is_empty() {
            frame(out, Opcode::Binary, replies);
            replies.clear();
        }
        if answered {
            self.step(out);
        }
        Ok(())
    }
}

impl NatsSession {
    /// Sends the next step, or becomes ready.
    fn step(&mut self, out: &mut Vec<u8>) {
        match self.steps.pop() {
            Some(step) => frame(out, Opcode::Binary, step.as_bytes()),
            None => self.is_ready = true,
        }
    }
}

/// Checks an answer of JetStream.
///
/// # Errors
/// The answer is an error, or no JetStream has answered.
fn check_answer(answer: &[u8]) -> Result<(), String> {
    // An answer to a send begins like this and is not parsed further.
    if answer.starts_with(b"{\"stream\":") {
        return Ok(());
    }
    if answer.is_empty() {
        return Err("no answer: the server has no JetStream, or no stream for the channel".to_owned());
    }
    let json: serde_json::Value = serde_json::from_slice(answer).map_err(|error| format!("JetStream: {error}"))?;
    match json.get("error") {
        Some(error) => Err(format!("JetStream: {error}")),
        None => Ok(()),
    }
}

/// A protocol message of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// MSG, or HMSG without its headers.
    Message {
        /// The id of the subscription.
        to: &'a [u8],
        /// The subject for an acknowledgement.
        reply: Option<&'a [u8]>,
        payload: &'a [u8],
    },
    Ping,
    /// The server has processed everything before the PING.
    Pong,
    /// INFO or +OK, which are ignored.
    Ignored,
}

/// A protocol message, and its length in bytes.
pub struct Packet<'a> {
    pub op: Op<'a>,
    pub length: usize,
}

/// Parses the packet at the front of `bytes`. Returns `None` if the packet is incomplete.
///
/// # Errors
/// The server has sent -ERR, or the packet is invalid.
#[inline]
pub fn read(bytes: &[u8]) -> Result<Option<Packet<'_>>, String> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > LINE { Err("a line is too long".to_owned()) } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let plain = |op| Ok(Some(Packet { op, length: end + 1 }));
    if let Some(arguments) = line.strip_prefix(b"MSG ") {
        return message(arguments, false, bytes, end + 1);
    }
    if let Some(arguments) = line.strip_prefix(b"HMSG ") {
        return message(arguments, true, bytes, end + 1);
    }
    match line {
        b"PING" => plain(Op::Ping),
        b"PONG" => plain(Op::Pong),
        b"+OK" => plain(Op::Ignored),
        _ if line.starts_with(b"INFO ") => plain(Op::Ignored),
        _ if line.starts_with(b"-ERR ") => Err(String::from_utf8_lossy(&line[5..]).into_owned()),
        _ => Err(format!("not a NATS message: {}", String::from_utf8_lossy(line))),
    }
}

/// Parses `subject sid [reply] [bytes of headers] bytes`, followed by that number of bytes and a line break.
#[inline]
fn message<'a>(line: &'a [u8], headers: bool, bytes: &'a [u8], start: usize) -> Result<Option<Packet<'a>>, String> {
    let broken = || format!("an invalid message: {}", String::from_utf8_lossy(line));
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (Some(_), Some(to)) = (words.next(), words.next()) else { return Err(broken()) };
    let (total, rest) = (words.next_back().and_then(number).ok_or_else(broken)?, words.next_back());
    let (header, reply) = match (headers, rest) {
        (true, Some(header)) => {
            (number(header).filter(|header| *header <= total).ok_or_else(broken)?, words.next_back())
        }
        (true, None) => return Err(broken()),
        (false, reply) => (0, reply),
    };
    let end = start + total;
    match bytes.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => {
            Ok(Some(Packet { op: Op::Message { to, reply, payload: &bytes[start + header..end] }, length: end + 2 }))
        }
        Some(_) => Err(broken()),
    }
}

/// Parses a length in decimal digits.
#[inline]
fn number(digits: &[u8]) -> Option<usize> {
    /// Digits of the longest accepted length: under a gigabyte.
    const DIGITS: usize = 9;
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number * 10 + usize::from(digit - b'0')),
        _ => None,
    })
}
