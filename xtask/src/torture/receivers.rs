//! Receivers: each lives many short lives, and ends them in every way in which a client can.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::time::{Duration, Instant};

use super::clients::{Client, Stage};
use super::plan::{self, Manner, Receiver};
use super::random::{Random, hash};
use super::record::{Event, Kind};
use super::socket::{BINARY, CLOSE, Ending, Got, PING, PONG, Socket, TEXT};

/// A frame with messages, of an envelope receiver.
#[derive(Deserialize)]
struct Delivery<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    delivery: Option<Value>,
    redelivered: Option<bool>,
    response_code: Option<Value>,
}

/// What a connection does before it ends.
struct Life {
    /// Messages after which it ends.
    messages: u64,
    /// Work on each.
    work: (u64, u64),
    /// Chance in a thousand to freeze at a message.
    freeze: u64,
}

/// One receiver.
pub struct Receiving<'a> {
    client: &'a Client<'a>,
    plan: &'a Receiver,
    random: Random,
    conn: u64,
    /// Messages and frames on this connection.
    got: u64,
    frames: u64,
}

impl<'a> Receiving<'a> {
    /// A receiver that has not begun.
    pub fn new(client: &'a Client<'a>, plan: &'a Receiver, seed: u64) -> Self {
        Self { client, plan, random: Random::new(seed, &plan.name), conn: 0, got: 0, frames: 0 }
    }

    /// Receives until `last` is over.
    pub fn run(&mut self, last: Stage) {
        while self.client.stage() <= last {
            let Some(mut socket) = self.connect() else {
                self.client.rest(self.random.millis(20, 150));
                continue;
            };
            let ending = self.live(&mut socket, last);
            // The end is noted before it is made: nothing that the broker does because of it can be earlier.
            self.client.note(&Event::now(Kind::End).on(self.conn).what(ending.map_or("lost", Ending::name)));
            // Even the answer to the other side's FIN is an orderly end.
            let otherwise = if self.client.ends_in_order() { Ending::Fin } else { Ending::Reset };
            socket.end(ending.unwrap_or(otherwise));
            if !self.plan.calm {
                self.client.rest(self.random.millis(0, self.plan.away));
            }
        }
    }

    fn connect(&mut self) -> Option<Socket> {
        let mut target =
            if self.plan.manner.is_topic() { format!("/ws?topic={}", self.plan.channel) } else { "/".to_owned() };
        if self.plan.named {
            target += if target.contains('?') { "&" } else { "?" };
            target += &format!("receiver={}", self.plan.name);
        }
        self.conn += 1;
        (self.got, self.frames) = (0, 0);
        let address = self.client.address(self.plan.route);
        let mut socket = Socket::connect(address, &target, self.plan.manner.is_modern()).ok()?;
        let open = Event::now(Kind::Open).on(self.conn).in_channel(&self.plan.channel);
        self.client.note(&open.what(self.plan.manner.name()).how(self.plan.route.name()));
        if !self.plan.manner.is_topic() {
            let ack = if self.plan.manner == Manner::Manual { ",\"ack\":\"manual\",\"prefetch\":4" } else { "" };
            let text =
                format!("{{\"command\":\"receive-message\",\"channel\":\"{}\",\"data\":[]{ack}}}", self.plan.channel);
            if socket.text(&text).is_err() {
                self.client.note(&Event::now(Kind::End).on(self.conn).what("lost"));
                return None;
            }
        }
        Some(socket)
    }

    fn life(&mut self) -> Life {
        if self.plan.calm {
            return Life { messages: u64::MAX, work: (0, 0), freeze: 0 };
        }
        let messages = match self.plan.manner {
            Manner::OneShot => 1,
            // It comes for what has waited.
            _ if self.plan.away > 1_000 => self.random.between(1, 60),
            _ => self.random.weighted(&[(1, 1), (2, 10), (3, 60), (2, 300)]),
        };
        let slow = self.random.percent(15);
        Life { messages, work: if slow { (20, 120) } else { (0, 4) }, freeze: 4 }
    }

    /// One connection; how it shall end, or `None` if the other side has ended it.
    fn live(&mut self, socket: &mut Socket, last: Stage) -> Option<Ending> {
        let life = self.life();
        if life.work.0 > 0 {
            self.client.note(&Event::now(Kind::Note).on(self.conn).what("slow"));
        }
        let mut pinged = Instant::now();
        let mut just_got = false;
        loop {
            if self.client.stage() > last && !socket.holds_a_frame() {
                return Some(plan::ending(&mut self.random, just_got, self.client.ends_in_order()));
            }
            match socket.next(Duration::from_millis(50)) {
                Got::Frame(TEXT | BINARY, payload) => {
                    just_got = self.frame(socket, &payload, &life);
                    if self.got >= life.messages && !socket.holds_a_frame() {
                        return Some(plan::ending(&mut self.random, just_got, self.client.ends_in_order()));
                    }
                }
                Got::Frame(PING, payload) => self.pong(socket, &payload),
                Got::Frame(CLOSE, payload) => {
                    self.uninvited_close(&payload);
                    return None;
                }
                Got::Frame(..) => {}
                Got::Silence => just_got = false,
                Got::End => return None,
            }
            if self.plan.manner == Manner::LegacyTopic && pinged.elapsed() > Duration::from_secs(1) {
                pinged = Instant::now();
                let _ = socket.send(PING, b"");
            }
        }
    }

    /// A close frame that a legacy client did not ask for is fatal to it.
    fn uninvited_close(&self, payload: &[u8]) {
        if !self.plan.manner.is_modern() {
            let text = format!("a legacy client got a close frame: {}", payload.escape_ascii());
            self.client.note(&Event::now(Kind::Wrong).on(self.conn).what(text));
        }
    }

    fn pong(&self, socket: &mut Socket, payload: &[u8]) {
        if !self.plan.manner.is_modern() && (payload.is_empty() || payload == b"0") {
            let text = format!("a legacy client got a ping that it cannot answer: {:?}", payload.escape_ascii());
            self.client.note(&Event::now(Kind::Wrong).on(self.conn).what(text));
        }
        let answer = if self.plan.manner == Manner::Legacy { b"" } else { payload };
        if socket.send(PONG, answer).is_ok() && self.plan.manner != Manner::Manual {
            self.client.note(&Event::now(Kind::Confirm).on(self.conn));
        }
    }

    /// One frame with messages: whether it had any.
    fn frame(&mut self, socket: &mut Socket, payload: &[u8], life: &Life) -> bool {
        self.frames += 1;
        if self.plan.manner.is_topic() {
            self.got(payload, None, None);
        } else {
            let Ok(delivery) = serde_json::from_slice::<Delivery>(payload) else {
                let text = format!("no delivery: {}", payload.escape_ascii());
                self.client.note(&Event::now(Kind::Wrong).on(self.conn).what(text));
                return false;
            };
            let (Some(data), None) = (delivery.data, &delivery.response_code) else { return false };
            let messages: Vec<&RawValue> = serde_json::from_str(data.get()).unwrap_or_else(|_| vec![data]);
            let name = delivery.delivery.as_ref().map(|name| name.as_str().unwrap_or_default().to_owned());
            for message in &messages {
                self.got(message.get().as_bytes(), name.as_deref(), delivery.redelivered);
            }
            if let (Manner::Manual, Some(name)) = (self.plan.manner, &name) {
                self.settle(socket, name, delivery.redelivered.unwrap_or_default());
            }
        }
        self.client.rest(self.random.millis(life.work.0, life.work.1));
        if self.random.between(0, 1_000) < life.freeze {
            self.client.note(&Event::now(Kind::Pause).on(self.conn));
            self.client.rest(self.random.millis(500, 5_000));
            self.client.note(&Event::now(Kind::Resume).on(self.conn));
        }
        true
    }

    fn got(&mut self, text: &[u8], delivery: Option<&str>, marked: Option<bool>) {
        self.got += 1;
        self.client.got_something();
        let key =
            serde_json::from_slice::<Value>(text).ok().and_then(|value| Some(value.get("m")?.as_str()?.to_owned()));
        let Some(key) = key else {
            let text = format!("a message that nobody sent: {}", text.escape_ascii());
            self.client.note(&Event::now(Kind::Wrong).on(self.conn).what(text));
            return;
        };
        let mut event = Event::now(Kind::Got).on(self.conn).of(&key).in_channel(&self.plan.channel);
        event.h = Some(hash(text));
        event.frame = Some(self.frames);
        event.d = delivery.map(str::to_owned);
        event.marked = marked;
        self.client.note(&event);
    }

    /// What becomes of a delivery that is acknowledged by hand.
    fn settle(&mut self, socket: &mut Socket, delivery: &str, marked: bool) {
        #[derive(Clone, Copy)]
        enum Choice {
            Ack,
            ExtendAndAck,
            Nack,
            NackForAWhile,
            Reject,
            Forget,
        }
        // Only where there is a channel for dead letters.
        let (fails, rejects) = if self.plan.channel == "tries" { (40, 6) } else { (8, 0) };
        let rejects = if self.client.rejects() { rejects } else { 0 };
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
                self.client.rest(self.random.millis(0, 200));
                self.answer(socket, Kind::Ack, "ack", delivery, "");
            }
            // The more often a message has failed, the longer it is held back: longer than a run lasts.
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
        // Noted before it is written: what the broker does because of it cannot be earlier.
        self.client.note(&event);
        let _ = socket.text(&format!("{{\"command\":\"{command}\",\"delivery\":\"{delivery}\"{more}}}"));
    }
}
