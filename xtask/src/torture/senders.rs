//! Senders. A sure one repeats a message with the same id until it is answered; a loose one and a publisher send and leave, as scripts do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::clients::{Client, Stage};
use super::plan::{Sender, Style};
use super::random::{Random, hash};
use super::record::{Event, Kind};
use super::socket::{BINARY, Ending, Got, Socket, TEXT};

/// How long a sure sender waits for an answer before it tries on another connection.
const ANSWER: Duration = Duration::from_secs(4);

/// A publication that has no answer yet.
struct Open {
    /// Its messages: their numbers and texts. The first one's key is its id.
    messages: Vec<(u64, String)>,
    ttl: u64,
    delay: u64,
    sent: Option<Instant>,
}

/// One sender's life.
pub struct Sending<'a> {
    client: &'a Client<'a>,
    plan: &'a Sender,
    random: Random,
    conn: u64,
    next: u64,
}

impl<'a> Sending<'a> {
    /// A sender that has not begun.
    pub fn new(client: &'a Client<'a>, plan: &'a Sender, seed: u64) -> Self {
        Self { client, plan, random: Random::new(seed, &plan.name), conn: 0, next: 0 }
    }

    /// Sends until the run settles.
    pub fn run(&mut self) {
        match self.plan.style {
            Style::Sure => self.sure(),
            Style::Loose | Style::Publisher => self.loose(),
        }
    }

    fn connect(&mut self, modern: bool) -> Option<Socket> {
        let target = match self.plan.style {
            Style::Publisher => format!("/ws?topic={}", self.plan.channel),
            Style::Sure | Style::Loose => "/".to_owned(),
        };
        self.conn += 1;
        match Socket::connect(self.client.address(self.plan.route), &target, modern) {
            Ok(socket) => Some(socket),
            Err(_) => {
                self.client.rest(self.random.millis(20, 150));
                None
            }
        }
    }

    fn message(&mut self) -> Open {
        let many = if self.plan.style == Style::Publisher { 0 } else { 1 };
        let count = self.random.weighted(&[(8, 1), (many, 2), (many, 5)]);
        let messages = (0..count).map(|_| self.text()).collect();
        // A message of some seconds may expire; one of ten minutes must not.
        let ttl = if self.plan.ttl { self.random.weighted(&[(3, 0), (1, 1_500), (1, 600_000)]) } else { 0 };
        let delay = if self.plan.delay { self.random.weighted(&[(4, 0), (1, 1_200)]) } else { 0 };
        Open { messages, ttl, delay, sent: None }
    }

    fn text(&mut self) -> (u64, String) {
        self.next += 1;
        let pad = "x".repeat(self.random.weighted(&[(8, 40), (2, 400), (1, 9_000)]));
        (self.next, format!("{{\"m\":\"{}\",\"pad\":\"{pad}\"}}", self.key(self.next)))
    }

    fn key(&self, number: u64) -> String {
        format!("{}-{number}", self.plan.name)
    }

    fn note_send(&self, open: &Open) {
        for (number, text) in &open.messages {
            let mut event = Event::now(Kind::Send).on(self.conn).of(&self.key(*number)).in_channel(&self.plan.channel);
            event.h = Some(hash(text.as_bytes()));
            event.id = (self.plan.style == Style::Sure).then_some(true);
            event.ttl = (open.ttl > 0).then_some(open.ttl);
            event.delay = (open.delay > 0).then_some(open.delay);
            self.client.note(&event.how(self.plan.route.name()));
        }
    }

    fn command(&self, open: &Open) -> String {
        let texts: Vec<&str> = open.messages.iter().map(|(_, text)| text.as_str()).collect();
        let mut text = format!(
            "{{\"command\":\"send-message\",\"channel\":\"{}\",\"data\":[{}]",
            self.plan.channel,
            texts.join(",")
        );
        if self.plan.style == Style::Sure {
            text += &format!(",\"id\":\"{}\"", self.key(open.messages[0].0));
        }
        if open.ttl > 0 {
            text += &format!(",\"ttl\":{}", open.ttl as f64 / 1e3);
        }
        if open.delay > 0 {
            text += &format!(",\"delay\":{}", open.delay as f64 / 1e3);
        }
        text + "}"
    }

    /// Ids, a window, and every message again until it is answered.
    fn sure(&mut self) {
        let mut open: BTreeMap<u64, Open> = BTreeMap::new();
        let modern = self.random.percent(50);
        while self.client.stage() == Stage::Running || !open.is_empty() && self.client.stage() < Stage::Over {
            let Some(mut socket) = self.connect(modern) else { continue };
            let life = self.random.between(20, 200);
            let window = self.random.between(1, 9);
            for message in open.values_mut() {
                message.sent = None;
            }
            let ending = self.talk(&mut socket, &mut open, life, window);
            if let Some(ending) = ending {
                self.client.note(&Event::now(Kind::End).on(self.conn).what(ending.name()));
                socket.end(ending);
            }
        }
        for number in open.keys() {
            let text = "no answer, although everything has been in order for a long time";
            self.client.note(&Event::now(Kind::Wrong).of(&self.key(*number)).what(text));
        }
    }

    /// One connection's life; how it shall end, or `None` if the other side has ended it.
    fn talk(&mut self, socket: &mut Socket, open: &mut BTreeMap<u64, Open>, life: u64, window: u64) -> Option<Ending> {
        let mut fresh = 0;
        loop {
            let running = self.client.stage() == Stage::Running;
            if !running && open.is_empty() || fresh >= life {
                return Some(self.random.pick(&[Ending::Fin, Ending::Close, Ending::Reset]));
            }
            if self.client.stage() == Stage::Over {
                return Some(Ending::Fin);
            }
            if running && (open.len() as u64) < window && self.random.percent(60) {
                let message = self.message();
                open.insert(message.messages[0].0, message);
                fresh += 1;
            }
            for message in open.values_mut().filter(|message| message.sent.is_none()) {
                self.note_send(message);
                message.sent = Some(Instant::now());
                if socket.send(BINARY, self.command(message).as_bytes()).is_err() {
                    return None;
                }
            }
            if open.values().any(|message| message.sent.is_some_and(|sent| sent.elapsed() > ANSWER)) {
                return Some(Ending::Reset);
            }
            match socket.next(self.random.millis(1, 40)) {
                Got::Frame(TEXT, payload) => self.answer(&payload, open),
                Got::Frame(opcode, payload) => self.client.control(socket, opcode, &payload),
                Got::Silence => {}
                Got::End => return None,
            }
        }
    }

    fn answer(&mut self, payload: &[u8], open: &mut BTreeMap<u64, Open>) {
        let Ok(value) = serde_json::from_slice::<Value>(payload) else { return };
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (id, code) = (text("id"), text("response_code"));
        let Some(number) = id.rsplit('-').next().and_then(|number| number.parse().ok()) else { return };
        for (part, _) in open.get(&number).into_iter().flat_map(|publication| &publication.messages) {
            let mut event = Event::now(Kind::Answer).on(self.conn).of(&self.key(*part)).what(text("response_text"));
            event.code = Some(code.clone());
            event.duplicate = value.get("duplicate").and_then(Value::as_bool);
            self.client.note(&event);
        }
        match code.as_str() {
            // Not accepted, or not known to be: the same again, later.
            "05" | "06" | "09" => {
                if let Some(message) = open.get_mut(&number) {
                    message.sent = None;
                }
                self.client.rest(self.random.millis(20, 100));
            }
            _ => drop(open.remove(&number)),
        }
    }

    /// Sends some messages on each connection and leaves.
    fn loose(&mut self) {
        while self.client.stage() == Stage::Running {
            let modern = self.plan.style == Style::Publisher && self.random.percent(30);
            let Some(mut socket) = self.connect(modern) else { continue };
            let count = self.random.weighted(&[(4, 1), (2, 5), (1, 30)]);
            let mut whole = true;
            for _ in 0..count {
                let message = self.message();
                self.note_send(&message);
                let payload = match self.plan.style {
                    Style::Publisher => message.messages[0].1.clone(),
                    Style::Sure | Style::Loose => self.command(&message),
                };
                whole = socket.send(TEXT, payload.as_bytes()).is_ok();
                if !whole {
                    break;
                }
            }
            let ending = self.random.pick(&[Ending::Fin, Ending::Close, Ending::Reset]);
            whole &= socket.has_arrived();
            socket.end(ending);
            let mut event = Event::now(if whole { Kind::Gone } else { Kind::End }).on(self.conn).what(ending.name());
            // A topic connection is a receiver of its channel, too.
            event.ch = (self.plan.style == Style::Publisher).then(|| self.plan.channel.clone());
            self.client.note(&event);
            self.client.rest(self.random.millis(5, 200));
        }
    }
}
