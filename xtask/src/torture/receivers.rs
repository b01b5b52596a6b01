//! Receivers. Each opens many short connections and ends them in all ways that clients use.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::path::Path;
use std::time::{Duration, Instant};

use super::clients::{Client, Shared, Stage};
use super::plan::{self, Receiver, ReceiverKind};
use super::random::{Random, hash};
use super::record::{Event, Kind};
use super::socket::{BINARY, CLOSE, Ending, PING, PONG, Received, Socket, TEXT};

/// A frame with messages in the envelope dialect.
#[derive(Deserialize)]
struct Delivery<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    delivery: Option<Value>,
    redelivered: Option<bool>,
    response_code: Option<Value>,
}

/// How a receiver behaves on one connection.
struct Behaviour {
    /// Messages after which the receiver ends the connection.
    messages: u64,
    /// The least and the longest time of processing a frame, in milliseconds.
    work: (u64, u64),
    /// The probability of a pause after a frame, in per mille.
    freeze: u64,
}

/// The state of a receiver's thread.
pub struct ReceiverRun<'a> {
    client: Client<'a>,
    plan: &'a Receiver,
    random: Random,
    conn: u64,
    /// Messages received on this connection.
    received: u64,
    /// Frames with messages on this connection.
    frames: u64,
}

impl<'a> ReceiverRun<'a> {
    /// Creates a receiver with its history file in `directory`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn new(shared: &'a Shared, directory: &Path, plan: &'a Receiver, seed: u64) -> Result<Self, String> {
        let client = Client::new(shared, directory, &plan.name)?;
        Ok(Self { client, plan, random: Random::new(seed, &plan.name), conn: 0, received: 0, frames: 0 })
    }

    /// Receives until the stage `last` is over.
    pub fn run(&mut self, last: Stage) {
        while self.client.stage() <= last {
            let Some(mut socket) = self.connect() else {
                self.client.sleep(self.random.millis(20, 150));
                continue;
            };
            let ending = self.receive(&mut socket, last);
            // Noted before the connection ends, so that the event precedes everything that the broker does because of it.
            self.client.note(&Event::now(Kind::End).on(self.conn).what(ending.map_or("lost", Ending::name)));
            // If the broker has sent FIN, closing the socket is an orderly end, too.
            let otherwise = if self.client.shared.orderly { Ending::Fin } else { Ending::Reset };
            socket.end(ending.unwrap_or(otherwise));
            if !self.plan.calm {
                self.client.sleep(self.random.millis(0, self.plan.away));
            }
        }
    }

    fn connect(&mut self) -> Option<Socket> {
        let mut target =
            if self.plan.kind.is_topic() { format!("/ws?topic={}", self.plan.channel) } else { "/".to_owned() };
        if self.plan.named {
            target += if target.contains('?') { "&" } else { "?" };
            target += &format!("receiver={}", self.plan.name);
        }
        self.conn += 1;
        (self.received, self.frames) = (0, 0);
        let address = self.client.address(self.plan.route);
        let mut socket = Socket::connect(address, &target, self.plan.kind.is_modern()).ok()?;
        let open = Event::now(Kind::Open).on(self.conn).in_channel(&self.plan.channel);
        self.client.note(&open.what(self.plan.kind.name()).how(self.plan.route.name()));
        if !self.plan.kind.is_topic() {
            let ack = if self.plan.kind == ReceiverKind::Manual { ",\"ack\":\"manual\",\"prefetch\":4" } else { "" };
            let text =
                format!("{{\"command\":\"receive-message\",\"channel\":\"{}\",\"data\":[]{ack}}}", self.plan.channel);
            if socket.text(&text).is_err() {
                self.client.note(&Event::now(Kind::End).on(self.conn).what("lost"));
                return None;
            }
        }
        Some(socket)
    }

    fn behaviour(&mut self) -> Behaviour {
        if self.plan.calm {
            return Behaviour { messages: u64::MAX, work: (0, 0), freeze: 0 };
        }
        let messages = match self.plan.kind {
            ReceiverKind::OneShot => 1,
            // Such a receiver takes the messages that have waited and disconnects soon.
            _ if self.plan.away > 1_000 => self.random.between(1, 60),
            _ => self.random.weighted(&[(1, 1), (2, 10), (3, 60), (2, 300)]),
        };
        let slow = self.random.percent(15);
        Behaviour { messages, work: if slow { (20, 120) } else { (0, 4) }, freeze: 4 }
    }

    /// Receives on one connection. Returns how to end the connection, or `None` if the broker has ended it.
    fn receive(&mut self, socket: &mut Socket, last: Stage) -> Option<Ending> {
        let behaviour = self.behaviour();
        if behaviour.work.0 > 0 {
            self.client.note(&Event::now(Kind::Note).on(self.conn).what("slow"));
        }
        let mut pinged = Instant::now();
        let mut just_got = false;
        loop {
            if self.client.stage() > last && !socket.has_frame() {
                return Some(plan::ending(&mut self.random, just_got, self.client.shared.orderly));
            }
            match socket.next(Duration::from_millis(50)) {
                Received::Frame(TEXT | BINARY, payload) => {
                    just_got = self.frame(socket, &payload, &behaviour);
                    if self.received >= behaviour.messages && !socket.has_frame() {
                        return Some(plan::ending(&mut self.random, just_got, self.client.shared.orderly));
                    }
                }
                Received::Frame(PING, payload) => self.pong(socket, &payload),
                Received::Frame(CLOSE, payload) => {
                    // A legacy client cannot handle a close frame.
                    if !self.plan.kind.is_modern() {
                        self.note_wrong(format!("a legacy client got a close frame: {}", payload.escape_ascii()));
                    }
                    return None;
                }
                Received::Frame(..) => {}
                Received::Timeout => just_got = false,
                Received::End => return None,
            }
            if self.plan.kind == ReceiverKind::LegacyTopic && pinged.elapsed() > Duration::from_secs(1) {
                pinged = Instant::now();
                let _ = socket.send(PING, b"");
            }
        }
    }

    /// Notes an event that must not happen.
    fn note_wrong(&self, text: String) {
        self.client.note(&Event::now(Kind::Wrong).on(self.conn).what(text));
    }

    fn pong(&self, socket: &mut Socket, payload: &[u8]) {
        if !self.plan.kind.is_modern() && (payload.is_empty() || payload == b"0") {
            self.note_wrong(format!("a legacy client got a ping that it cannot answer: {:?}", payload.escape_ascii()));
        }
        let answer = if self.plan.kind == ReceiverKind::Legacy { b"" } else { payload };
        if socket.send(PONG, answer).is_ok() && self.plan.kind != ReceiverKind::Manual {
            self.client.note(&Event::now(Kind::Confirm).on(self.conn));
        }
    }

    /// Processes a data frame. Returns whether the frame had messages.
    fn frame(&mut self, socket: &mut Socket, payload: &[u8], behaviour: &Behaviour) -> bool {
        self.frames += 1;
        if self.plan.kind.is_topic() {
            self.got(payload, None, None);
        } else {
            let Ok(delivery) = serde_json::from_slice::<Delivery>(payload) else {
                self.note_wrong(format!("not a delivery: {}", payload.escape_ascii()));
                return false;
            };
            let (Some(data), None) = (delivery.data, &delivery.response_code) else { return false };
            let messages: Vec<&RawValue> = serde_json::from_str(data.get()).unwrap_or_else(|_| vec![data]);
            let name = delivery.delivery.as_ref().map(|name| name.as_str().unwrap_or_default().to_owned());
            for message in &messages {
                self.got(message.get().as_bytes(), name.as_deref(), delivery.redelivered);
            }
            if let (ReceiverKind::Manual, Some(name)) = (self.plan.kind, &name) {
                self.acknowledge(socket, name, delivery.redelivered.unwrap_or_default());
            }
        }
        self.client.sleep(self.random.millis(behaviour.work.0, behaviour.work.1));
        if self.random.between(0, 1_000) < behaviour.freeze {
            self.client.note(&Event::now(Kind::Pause).on(self.conn));
            self.client.sleep(self.random.millis(500, 5_000));
            self.client.note(&Event::now(Kind::Resume).on(self.conn));
        }
        true
    }

    fn got(&mut self, text: &[u8], delivery: Option<&str>, marked: Option<bool>) {
        self.received += 1;
        self.client.mark_received();
        let key =
            serde_json::from_slice::<Value>(text).ok().and_then(|value| Some(value.get("m")?.as_str()?.to_owned()));
        let Some(key) = key else {
            return self.note_wrong(format!("a message without a key: {}", text.escape_ascii()));
        };
        let mut event = Event::now(Kind::Got).on(self.conn).of(&key).in_channel(&self.plan.channel);
        event.h = Some(hash(text));
        event.frame = Some(self.frames);
        event.d = delivery.map(str::to_owned);
        event.marked = marked;
        self.client.note(&event);
    }

    /// Chooses the answer to a manual delivery, and sends it.
    fn acknowledge(&mut self, socket: &mut Socket, delivery: &str, marked: bool) {
        #[derive(Clone, Copy)]
        enum Choice {
            Ack,
            ExtendAndAck,
            Nack,
            NackForAWhile,
            Reject,
            Forget,
        }
        // Rejections need a channel for dead letters.
        let (fails, rejects) = if self.plan.channel == "tries" { (40, 6) } else { (8, 0) };
        let rejects = if self.client.shared.reject { rejects } else { 0 };
        let choice = if self.plan.calm {
            Choice::Ack
        } else {
            self.random.weighted(&[
                (85, Choice::Ack),
                (5, Choice::ExtendAndAck),
                (fails, Choice::Nack),
                (fails / 4, Choice::NackForAWhile),
                (rejects, Choice::Reject),
                (2, Choice::Forget),
            ])
        };
        match choice {
            Choice::Ack => self.answer(socket, Kind::Ack, "ack", delivery, ""),
            Choice::ExtendAndAck => {
                self.answer(socket, Kind::Extend, "extend", delivery, "");
                self.client.sleep(self.random.millis(0, 200));
                self.answer(socket, Kind::Ack, "ack", delivery, "");
            }
            // A redelivered message gets a `retry_after` of one second, because the default delay grows with each failure beyond the length of a run.
            Choice::Nack if !marked => self.answer(socket, Kind::Nack, "nack", delivery, ""),
            Choice::Nack | Choice::NackForAWhile => {
                self.answer(socket, Kind::Nack, "nack", delivery, ",\"retry_after\":1")
            }
            Choice::Reject => self.answer(socket, Kind::Reject, "nack", delivery, ",\"reject\":true"),
            Choice::Forget => {}
        }
    }

    fn answer(&self, socket: &mut Socket, kind: Kind, command: &str, delivery: &str, more: &str) {
        let mut event = Event::now(kind).on(self.conn);
        event.d = Some(delivery.to_owned());
        // Noted before it is sent, so that the event precedes everything that the broker does because of it.
        self.client.note(&event);
        let _ = socket.text(&format!("{{\"command\":\"{command}\",\"delivery\":\"{delivery}\"{more}}}"));
    }
}
