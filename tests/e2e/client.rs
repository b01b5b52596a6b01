//! A well-behaved modern client of both dialects: offers `wsmb.v1`, answers pings while it reads, and shows the trace of its connection when it fails.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE};
use crate::raw::{Frame, Got, Head, Raw, opcode};

/// A modern connection.
pub struct Client {
    raw: Raw,
    /// Frames that were read while the client waited for another frame.
    waiting: VecDeque<Frame>,
    syncs: u32,
    answers_pings: bool,
    /// Whether a ping was answered and nothing was delivered after it.
    answered: bool,
    /// The payload of a ping that a silent client has not answered, if nothing was delivered after it.
    asked: Option<Vec<u8>>,
}

/// One delivery to an envelope receiver.
#[derive(serde::Deserialize)]
struct Delivery<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Client {
    /// An envelope connection whose connect reply has been read.
    #[track_caller]
    pub fn envelope(broker: &Broker) -> Self {
        Self::envelope_with(broker, &Head::new("/").modern())
    }

    /// An envelope connection with this head.
    #[track_caller]
    pub fn envelope_with(broker: &Broker, head: &Head) -> Self {
        let mut client = Self::over(Raw::upgrade(broker, head));
        let reply = client.next_json();
        assert_eq!(reply["command"], "connect", "the first frame is {reply}\n{}", client.raw.trace());
        assert_eq!(reply["response_code"], "00", "the first frame is {reply}\n{}", client.raw.trace());
        client
    }

    /// An envelope connection that receives a channel.
    #[track_caller]
    pub fn receiver(broker: &Broker, channel: &str) -> Self {
        let mut client = Self::envelope(broker);
        client.subscribe(channel);
        client
    }

    #[track_caller]
    pub fn topic(broker: &Broker, channel: &str) -> Self {
        let mut client = Self::over(Raw::upgrade(broker, &Head::new(&format!("/ws?topic={channel}")).modern()));
        client.sync();
        client
    }

    /// A client on an upgraded connection.
    pub fn over(raw: Raw) -> Self {
        Self { raw, waiting: VecDeque::new(), syncs: 0, answers_pings: true, answered: false, asked: None }
    }

    /// Stops answering pings, so that the client confirms nothing.
    pub fn silent(mut self) -> Self {
        self.answers_pings = false;
        self
    }

    /// The connection.
    pub fn raw(&mut self) -> &mut Raw {
        &mut self.raw
    }

    #[allow(dead_code)] // For tests/proxies.
    pub fn into_raw(self) -> Raw {
        self.raw
    }

    /// The trace of the connection, for a message.
    pub fn trace(&self) -> String {
        self.raw.trace()
    }

    #[track_caller]
    pub fn command(&mut self, command: &Value) {
        self.raw.send_text(&command.to_string());
    }

    /// Subscribes to a channel, and returns when the broker has processed the command.
    #[track_caller]
    pub fn subscribe(&mut self, channel: &str) {
        self.command(&json!({"command": "receive-message", "channel": channel, "data": []}));
        self.sync();
    }

    /// Subscribes to a channel with further members, and returns when the broker has processed the command.
    #[track_caller]
    pub fn subscribe_with(&mut self, channel: &str, members: &Value) {
        let mut command = json!({"command": "receive-message", "channel": channel});
        merge(&mut command, members);
        self.command(&command);
        self.sync();
    }

    /// Sends one message without asking for a reply.
    #[track_caller]
    pub fn publish(&mut self, channel: &str, message: &Value) {
        self.command(&json!({"command": "send-message", "channel": channel, "data": [message]}));
    }

    /// Sends one message with further members (`id` among them) and returns the reply.
    #[track_caller]
    pub fn request(&mut self, channel: &str, message: &Value, members: &Value) -> Value {
        let mut command = json!({"command": "send-message", "channel": channel, "data": [message]});
        merge(&mut command, members);
        self.command(&command);
        self.next_reply()
    }

    /// Sends one message with an id; fails unless it is accepted. Returns the reply.
    #[track_caller]
    pub fn publish_safely(&mut self, channel: &str, message: &Value, id: &str) -> Value {
        let reply = self.request(channel, message, &json!({"id": id}));
        assert_eq!(reply["response_code"], "00", "{reply}\n{}", self.raw.trace());
        assert_eq!(reply["id"], id, "{reply}\n{}", self.raw.trace());
        reply
    }

    /// Sends a ping and waits for its pong: the broker has processed all earlier frames.
    #[track_caller]
    pub fn sync(&mut self) {
        self.syncs += 1;
        let payload = format!("sync {}", self.syncs);
        self.raw.send_frame(opcode::PING, payload.as_bytes());
        loop {
            let frame = self.read(Instant::now() + PATIENCE);
            if frame.opcode == opcode::PONG && frame.payload == payload.as_bytes() {
                return;
            }
            self.waiting.push_back(frame);
        }
    }

    /// The next frame from the socket that is not a ping.
    #[track_caller]
    fn read(&mut self, deadline: Instant) -> Frame {
        match self.try_read(deadline) {
            Got::Frame(frame) => frame,
            other => panic!("expected a frame, got {other:?}\n{}", self.raw.trace()),
        }
    }

    fn try_read(&mut self, deadline: Instant) -> Got {
        loop {
            match self.raw.next_by(deadline) {
                Got::Frame(frame) if frame.opcode == opcode::PING => {
                    if self.answers_pings {
                        self.raw.send_frame(opcode::PONG, &frame.payload);
                        self.answered = true;
                    } else {
                        self.asked = Some(frame.payload);
                    }
                }
                other => {
                    let delivered = |frame: &Frame| matches!(frame.opcode, opcode::TEXT | opcode::BINARY);
                    if matches!(&other, Got::Frame(frame) if delivered(frame)) {
                        (self.answered, self.asked) = (false, None);
                    }
                    return other;
                }
            }
        }
    }

    /// The next frame for which `wanted` is true; other frames are kept for later.
    #[track_caller]
    fn next_where(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(index) = self.waiting.iter().position(&wanted)
            && let Some(frame) = self.waiting.remove(index)
        {
            return frame;
        }
        loop {
            let frame = self.read(Instant::now() + PATIENCE);
            if wanted(&frame) {
                return frame;
            }
            self.waiting.push_back(frame);
        }
    }

    #[track_caller]
    pub fn next_frame(&mut self) -> Frame {
        self.next_where(|_| true)
    }

    /// The next frame, which must be text.
    #[track_caller]
    pub fn next_text(&mut self) -> String {
        let frame = self.next_frame();
        assert_eq!(frame.opcode, opcode::TEXT, "expected text, got {frame:?}\n{}", self.raw.trace());
        frame.text().to_string()
    }

    /// The next frame, which must be JSON.
    #[track_caller]
    pub fn next_json(&mut self) -> Value {
        let text = self.next_text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON: {text}: {error}\n{}", self.raw.trace()))
    }

    /// The next answer to a command; deliveries are kept for later.
    #[track_caller]
    pub fn next_reply(&mut self) -> Value {
        let frame = self.next_where(is_reply);
        serde_json::from_slice(&frame.payload).unwrap_or_else(|error| panic!("{error}: {frame:?}"))
    }

    /// The next delivery; replies are kept for later.
    #[track_caller]
    pub fn next_delivery(&mut self) -> Value {
        let frame = self.next_where(|frame| frame.opcode == opcode::TEXT && !is_reply(frame));
        serde_json::from_slice(&frame.payload)
            .unwrap_or_else(|error| panic!("no JSON: {frame:?}: {error}\n{}", self.raw.trace()))
    }

    /// The exact texts of the next `count` messages. Fails if the last frame contains more messages.
    #[track_caller]
    pub fn messages(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            let frame = self.next_where(|frame| frame.opcode == opcode::TEXT && !is_reply(frame));
            all.extend(messages_of(frame.text()));
        }
        assert_eq!(all.len(), count, "more messages than expected: {all:?}\n{}", self.raw.trace());
        all
    }

    /// The next `count` messages, which must be numbers.
    #[track_caller]
    pub fn numbers(&mut self, count: usize) -> Vec<u64> {
        let texts = self.messages(count);
        texts
            .iter()
            .map(|text| text.parse().unwrap_or_else(|_| panic!("no number: {text}\n{}", self.raw.trace())))
            .collect()
    }

    /// The messages that [`Self::sync`] has read; reads nothing itself.
    pub fn take_messages(&mut self) -> Vec<String> {
        self.waiting.drain(..).flat_map(|frame| messages_of(frame.text())).collect()
    }

    /// Whether [`Self::sync`] has read a message; fails if it has read several.
    #[track_caller]
    pub fn take_delivered(&mut self) -> bool {
        let messages = self.take_messages();
        assert!(messages.len() <= 1, "several messages for one: {messages:?}\n{}", self.raw.trace());
        !messages.is_empty()
    }

    /// Fails if a frame other than a ping arrives within `time`.
    #[track_caller]
    pub fn expect_nothing(&mut self, time: Duration) {
        assert!(self.waiting.is_empty(), "expected nothing, got {:?}\n{}", self.waiting, self.raw.trace());
        match self.try_read(Instant::now() + time) {
            Got::Silence => {}
            other => panic!("expected nothing, got {other:?}\n{}", self.raw.trace()),
        }
    }

    /// Fails if the broker has sent a frame other than a pong when it has processed all earlier frames.
    #[track_caller]
    pub fn expect_nothing_yet(&mut self) {
        self.sync();
        assert!(self.waiting.is_empty(), "expected nothing, got {:?}\n{}", self.waiting, self.raw.trace());
    }

    /// Confirms all deliveries, and returns when the broker has processed the confirmation. Waits for the broker's ping, unless a ping after the
    /// last delivery was answered already.
    #[track_caller]
    pub fn confirm(&mut self) {
        if self.answered {
            return self.sync();
        }
        if let Some(payload) = self.asked.take() {
            self.raw.send_frame(opcode::PONG, &payload);
            return self.sync();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.raw.next_by(deadline) {
                Got::Frame(frame) if frame.opcode == opcode::PING => {
                    self.raw.send_frame(opcode::PONG, &frame.payload);
                    return self.sync();
                }
                Got::Frame(frame) => self.waiting.push_back(frame),
                other => panic!("expected a ping, got {other:?}\n{}", self.raw.trace()),
            }
        }
    }

    /// Reads up to the close frame and returns its code; other frames are dropped.
    #[track_caller]
    pub fn closed(&mut self) -> u16 {
        loop {
            match self.try_read(Instant::now() + PATIENCE) {
                Got::Frame(frame) if frame.opcode == opcode::CLOSE => {
                    return frame
                        .close_code()
                        .unwrap_or_else(|| panic!("a close frame without code\n{}", self.raw.trace()));
                }
                Got::Frame(_) => {}
                other => panic!("expected a close frame, got {other:?}\n{}", self.raw.trace()),
            }
        }
    }

    /// Closes the connection with the closing handshake of RFC 6455.
    #[track_caller]
    pub fn leave(mut self) {
        self.raw.send_frame(opcode::CLOSE, &1000u16.to_be_bytes());
        let code = self.closed();
        assert_eq!(code, 1000, "{}", self.raw.trace());
        self.raw.rest();
    }

    /// Ends the connection with RST.
    pub fn vanish(self) {
        self.raw.reset();
    }
}

/// Puts the members of `more` into `object`.
fn merge(object: &mut Value, more: &Value) {
    for (name, value) in more.as_object().expect("an object") {
        object[name] = value.clone();
    }
}

fn is_reply(frame: &Frame) -> bool {
    frame.opcode == opcode::TEXT
        && serde_json::from_slice::<Value>(&frame.payload).is_ok_and(|value| value.get("response_code").is_some())
}

/// The exact texts of the messages in one delivery to an envelope receiver.
#[track_caller]
pub fn messages_of(delivery: &str) -> Vec<String> {
    let parsed: Delivery =
        serde_json::from_str(delivery).unwrap_or_else(|error| panic!("no delivery: {delivery}: {error}"));
    match serde_json::from_str::<Vec<&RawValue>>(parsed.data.get()) {
        Ok(list) => list.into_iter().map(|message| message.get().to_string()).collect(),
        Err(_) => vec![parsed.data.get().to_string()],
    }
}

#[test]
fn messages_of_a_delivery_are_verbatim() {
    assert_eq!(messages_of(r#"{"data":[ {"a" : 1}, 2.50 ],"x":1}"#), [r#"{"a" : 1}"#, "2.50"]);
    assert_eq!(messages_of(r#"{"data": {"a" : 1} }"#), [r#"{"a" : 1}"#]);
    assert!(messages_of(r#"{"data":[]}"#).is_empty());
}
