//! NATS over WebSocket: as much of its client protocol as a measurement needs. No I/O.
//!
//! Without confirmation it is plain NATS: PUB, and MSG to whoever has subscribed. With it, JetStream, which is plain NATS with subjects that
//! mean something: a stream with a file takes the channel, answers each PUB that names a subject for the answer, hands each message to a consumer, and
//! removes it when that has acknowledged it (a work queue, which is what a kept channel is).

use wsmb_load::{ConnectionPlan, Handshake, Payload, Publication, Session, SessionEvent, Wire, frame};
use wsmb_protocol::frame::Opcode;

use crate::packets::Packets;

/// What every client of a measurement is. `no_responders`: a request that nobody hears is answered at once, by nothing but headers.
const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"1\",\"protocol\":1,\
                       \"headers\":true,\"no_responders\":true}\r\n";

/// Subscriptions of one connection: its channels, answers to requests, answers to sends.
const CHANNEL: &[u8] = b"1";
const REQUESTS: &[u8] = b"2";
const SENDS: &[u8] = b"3";

/// Deliveries that a consumer may have without acknowledging them: more than any window.
const UNACKNOWLEDGED: u32 = 100_000;

/// The longest line of the protocol that is waited for: an INFO has a few hundred bytes, a JetStream error fewer.
const LINE: usize = 64 * 1024;

/// Servers of NATS; for sends that are answered for, with JetStream.
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
        /// A connection may have any number of subscriptions; as many as the other protocols have.
        const SUBSCRIPTIONS: u32 = 100;
        SUBSCRIPTIONS
    }
}

/// A subject that only this connection uses.
fn inbox(plan: &ConnectionPlan, purpose: &str) -> String {
    format!("_INBOX.{}.{}.{purpose}", plan.channels.run(), plan.index)
}

/// Connects and subscribes; the PONG says that all of it is in force.
pub fn plain(plan: &ConnectionPlan) -> String {
    let mut step = CONNECT.to_owned();
    if plan.receives {
        for index in plan.channel_numbers.clone() {
            // A subscription's number is the server's business; deliveries are told by it from everything else.
            step += &format!("SUB {} 1{index}\r\n", plan.channels.name(index));
        }
    }
    step + "PING\r\n"
}

/// What a connection says, step by step: each is answered before the next. Whoever comes first makes the stream; to make it again is no error.
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

/// One connection to a server of NATS.
#[derive(Debug)]
pub struct NatsSession {
    /// What is still to be said, the next last.
    steps: Vec<String>,
    is_ready: bool,
    packets: Packets,
    /// What one frame has to be answered with.
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
            match packet.said {
                Said::Message { to: REQUESTS, payload, .. } => {
                    granted(payload)?;
                    answered = true;
                }
                Said::Message { to: SENDS, payload, .. } => {
                    granted(payload)?;
                    on_event(SessionEvent::Confirmation);
                }
                Said::Message { to, reply, payload } if to.starts_with(CHANNEL) => {
                    if let Some(reply) = reply {
                        replies.extend_from_slice(b"PUB ");
                        replies.extend_from_slice(reply);
                        replies.extend_from_slice(b" 0\r\n\r\n");
                    }
                    on_event(SessionEvent::Delivery(payload));
                }
                Said::Message { .. } => return Err("a message for a subscription that nobody has".to_owned()),
                Said::Ping => replies.extend_from_slice(b"PONG\r\n"),
                Said::Pong => answered = true,
                Said::Nothing => {}
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
    /// Says what is next, if anything is.
    fn step(&mut self, out: &mut Vec<u8>) {
        match self.steps.pop() {
            Some(step) => frame(out, Opcode::Binary, step.as_bytes()),
            None => self.is_ready = true,
        }
    }
}

/// What JetStream has answered: an error is a sentence in it.
fn granted(answer: &[u8]) -> Result<(), String> {
    // Of an answer to a send, this is all that is looked at.
    if answer.starts_with(b"{\"stream\":") {
        return Ok(());
    }
    if answer.is_empty() {
        return Err("nobody answers for this: the server has no JetStream, or no stream takes the channel".to_owned());
    }
    let json: serde_json::Value = serde_json::from_slice(answer).map_err(|error| format!("JetStream: {error}"))?;
    match json.get("error") {
        Some(error) => Err(format!("JetStream: {error}")),
        None => Ok(()),
    }
}

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// MSG, or HMSG without its headers.
    Message {
        /// The subscription.
        to: &'a [u8],
        /// Where an acknowledgement goes.
        reply: Option<&'a [u8]>,
        /// The message.
        payload: &'a [u8],
    },
    /// It wants a PONG.
    Ping,
    /// All that was said before the PING is in force.
    Pong,
    /// INFO, +OK: nothing that matters here.
    Nothing,
}

/// Something that the server says, and its length.
pub struct Packet<'a> {
    /// What it says.
    pub said: Said<'a>,
    /// Bytes of it.
    pub length: usize,
}

/// Reads the packet at the front of `bytes`; `None` if it is not whole.
///
/// # Errors
/// The server refuses something, or says something that is not in its protocol.
#[inline]
pub fn read(bytes: &[u8]) -> Result<Option<Packet<'_>>, String> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > LINE { Err("a line that has no end".to_owned()) } else { Ok(None) };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let plain = |said| Ok(Some(Packet { said, length: end + 1 }));
    if let Some(arguments) = line.strip_prefix(b"MSG ") {
        return message(arguments, false, bytes, end + 1);
    }
    if let Some(arguments) = line.strip_prefix(b"HMSG ") {
        return message(arguments, true, bytes, end + 1);
    }
    match line {
        b"PING" => plain(Said::Ping),
        b"PONG" => plain(Said::Pong),
        b"+OK" => plain(Said::Nothing),
        _ if line.starts_with(b"INFO ") => plain(Said::Nothing),
        _ if line.starts_with(b"-ERR ") => Err(String::from_utf8_lossy(&line[5..]).into_owned()),
        _ => Err(format!("not in the protocol of NATS: {}", String::from_utf8_lossy(line))),
    }
}

/// `subject sid [reply] [bytes of headers] bytes`, then as many bytes and a line break.
#[inline]
fn message<'a>(line: &'a [u8], headers: bool, bytes: &'a [u8], start: usize) -> Result<Option<Packet<'a>>, String> {
    let broken = || format!("a message whose first line is {}", String::from_utf8_lossy(line));
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
        Some(b"\r\n") => Ok(Some(Packet {
            said: Said::Message { to, reply, payload: &bytes[start + header..end] },
            length: end + 2,
        })),
        Some(_) => Err(broken()),
    }
}

/// A length in decimal digits, of no message that is too long.
#[inline]
fn number(digits: &[u8]) -> Option<usize> {
    /// Digits of the longest message that is believed: under a gigabyte.
    const DIGITS: usize = 9;
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number * 10 + usize::from(digit - b'0')),
        _ => None,
    })
}
