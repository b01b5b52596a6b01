//! Senders. A reliable sender repeats a publication with the same id until it is answered; other senders send some messages and disconnect.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::clients::{Client, Shared, Stage};
use super::plan::{Sender, SenderKind};
use super::random::{Random, hash};
use super::record::{Event, Kind};
use super::socket::{BINARY, Ending, PING, PONG, Received, Socket, TEXT};

/// How long a reliable sender waits for an answer before it reconnects.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// A publication without an answer.
struct Publication {
    /// The numbers and texts of the messages. The key of the first message is the publication's id.
    messages: Vec<(u64, String)>,
    /// Milliseconds; 0 = none.
    ttl: u64,
    /// Milliseconds; 0 = none.
    delay: u64,
    /// When the publication was sent on the current connection.
    sent: Option<Instant>,
}

/// The state of a sender's thread.
pub struct SenderRun<'a> {
    client: Client<'a>,
    plan: &'a Sender,
    random: Random,
    conn: u64,
    /// The number of the last message.
    last: u64,
}

impl<'a> SenderRun<'a> {
    /// Creates a sender with its history file in `directory`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn new(shared: &'a Shared, directory: &Path, plan: &'a Sender, seed: u64) -> Result<Self, String> {
        let client = Client::new(shared, directory, &plan.name)?;
        Ok(Self { client, plan, random: Random::new(seed, &plan.name), conn: 0, last: 0 })
    }

    /// Sends until the stage [`Stage::Running`] is over. A reliable sender then waits for its last answers.
    pub fn run(&mut self) {
        match self.plan.kind {
            SenderKind::Reliable => self.reliable(),
            SenderKind::Unconfirmed | SenderKind::Publisher => self.unconfirmed(),
        }
    }

    fn connect(&mut self, modern: bool) -> Option<Socket> {
        let target = match self.plan.kind {
            SenderKind::Publisher => format!("/ws?topic={}", self.plan.channel),
            SenderKind::Reliable | SenderKind::Unconfirmed => "/".to_owned(),
        };
        self.conn += 1;
        match Socket::connect(self.client.address(self.plan.route), &target, modern) {
            Ok(socket) => Some(socket),
            Err(_) => {
                self.client.sleep(self.random.millis(20, 150));
                None
            }
        }
    }

    fn publication(&mut self) -> Publication {
        let many = if self.plan.kind == SenderKind::Publisher { 0 } else { 1 };
        let count = self.random.weighted(&[(8, 1), (many, 2), (many, 5)]);
        let messages = (0..count).map(|_| self.text()).collect();
        // A message with a short `ttl` may expire; a message with ten minutes must not.
        let ttl = if self.plan.ttl { self.random.weighted(&[(3, 0), (1, 1_500), (1, 600_000)]) } else { 0 };
        let delay = if self.plan.delay { self.random.weighted(&[(4, 0), (1, 1_200)]) } else { 0 };
        Publication { messages, ttl, delay, sent: None }
    }

    fn text(&mut self) -> (u64, String) {
        self.last += 1;
        let pad = "x".repeat(self.random.weighted(&[(8, 40), (2, 400), (1, 9_000)]));
        (self.last, format!("{{\"m\":\"{}\",\"pad\":\"{pad}\"}}", self.key(self.last)))
    }

    fn key(&self, number: u64) -> String {
        format!("{}-{number}", self.plan.name)
    }

    fn note_send(&self, publication: &Publication) {
        for (number, text) in &publication.messages {
            let mut event = Event::now(Kind::Send).on(self.conn).of(&self.key(*number)).in_channel(&self.plan.channel);
            event.h = Some(hash(text.as_bytes()));
            event.id = (self.plan.kind == SenderKind::Reliable).then_some(true);
            event.ttl = (publication.ttl > 0).then_some(publication.ttl);
            event.delay = (publication.delay > 0).then_some(publication.delay);
            self.client.note(&event.how(self.plan.route.name()));
        }
    }

    fn command(&self, publication: &Publication) -> String {
        let texts: Vec<&str> = publication.messages.iter().map(|(_, text)| text.as_str()).collect();
        let mut text = format!(
            "{{\"command\":\"send-message\",\"channel\":\"{}\",\"data\":[{}]",
            self.plan.channel,
            texts.join(",")
        );
        if self.plan.kind == SenderKind::Reliable {
            text += &format!(",\"id\":\"{}\"", self.key(publication.messages[0].0));
        }
        if publication.ttl > 0 {
            text += &format!(",\"ttl\":{}", publication.ttl as f64 / 1e3);
        }
        if publication.delay > 0 {
            text += &format!(",\"delay\":{}", publication.delay as f64 / 1e3);
        }
        text + "}"
    }

    /// Sends publications with ids, up to a window, and repeats each until it is answered.
    fn reliable(&mut self) {
        let mut pending: BTreeMap<u64, Publication> = BTreeMap::new();
        let modern = self.random.percent(50);
        while self.client.stage() == Stage::Running || !pending.is_empty() && self.client.stage() < Stage::Over {
            let Some(mut socket) = self.connect(modern) else { continue };
            let count = self.random.between(20, 200);
            let window = self.random.between(1, 9);
            for publication in pending.values_mut() {
                publication.sent = None;
            }
            let ending = self.exchange(&mut socket, &mut pending, count, window);
            if let Some(ending) = ending {
                self.client.note(&Event::now(Kind::End).on(self.conn).what(ending.name()));
                socket.end(ending);
            }
        }
        for number in pending.keys() {
            let text = "no answer until the end of the run";
            self.client.note(&Event::now(Kind::Wrong).of(&self.key(*number)).what(text));
        }
    }

    /// Sends up to `count` new publications on one connection, and repeats the pending ones. Returns how to end the connection, or `None` if the
    /// broker has ended it.
    fn exchange(
        &mut self,
        socket: &mut Socket,
        pending: &mut BTreeMap<u64, Publication>,
        count: u64,
        window: u64,
    ) -> Option<Ending> {
        let mut started = 0;
        loop {
            let running = self.client.stage() == Stage::Running;
            if !running && pending.is_empty() || started >= count {
                return Some(self.random.pick(&[Ending::Fin, Ending::Close, Ending::Reset]));
            }
            if self.client.stage() == Stage::Over {
                return Some(Ending::Fin);
            }
            if running && (pending.len() as u64) < window && self.random.percent(60) {
                let publication = self.publication();
                pending.insert(publication.messages[0].0, publication);
                started += 1;
            }
            for publication in pending.values_mut().filter(|publication| publication.sent.is_none()) {
                self.note_send(publication);
                publication.sent = Some(Instant::now());
                if socket.send(BINARY, self.command(publication).as_bytes()).is_err() {
                    return None;
                }
            }
            if pending.values().any(|entry| entry.sent.is_some_and(|sent| sent.elapsed() > ANSWER_TIMEOUT)) {
                return Some(Ending::Reset);
            }
            match socket.next(self.random.millis(1, 40)) {
                Received::Frame(TEXT, payload) => self.answer(&payload, pending),
                Received::Frame(PING, payload) => drop(socket.send(PONG, &payload)),
                Received::Frame(..) | Received::Timeout => {}
                Received::End => return None,
            }
        }
    }

    fn answer(&mut self, payload: &[u8], pending: &mut BTreeMap<u64, Publication>) {
        let Ok(value) = serde_json::from_slice::<Value>(payload) else { return };
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (id, code) = (text("id"), text("response_code"));
        let Some(number) = id.rsplit('-').next().and_then(|number| number.parse().ok()) else { return };
        for (part, _) in pending.get(&number).into_iter().flat_map(|publication| &publication.messages) {
            let mut event = Event::now(Kind::Answer).on(self.conn).of(&self.key(*part)).what(text("response_text"));
            event.code = Some(code.clone());
            event.duplicate = value.get("duplicate").and_then(Value::as_bool);
            self.client.note(&event);
        }
        match code.as_str() {
            // Not accepted, or not known to be accepted: repeat later.
            "05" | "06" | "09" => {
                if let Some(publication) = pending.get_mut(&number) {
                    publication.sent = None;
                }
                self.client.sleep(self.random.millis(20, 100));
            }
            _ => drop(pending.remove(&number)),
        }
    }

    /// Sends some messages on each connection, without waiting for answers.
    fn unconfirmed(&mut self) {
        while self.client.stage() == Stage::Running {
            let modern = self.plan.kind == SenderKind::Publisher && self.random.percent(30);
            let Some(mut socket) = self.connect(modern) else { continue };
            let count = self.random.weighted(&[(4, 1), (2, 5), (1, 30)]);
            let mut is_sent = true;
            for _ in 0..count {
                let publication = self.publication();
                self.note_send(&publication);
                let payload = match self.plan.kind {
                    SenderKind::Publisher => publication.messages[0].1.clone(),
                    SenderKind::Reliable | SenderKind::Unconfirmed => self.command(&publication),
                };
                is_sent = socket.send(TEXT, payload.as_bytes()).is_ok();
                if !is_sent {
                    break;
                }
            }
            let ending = self.random.pick(&[Ending::Fin, Ending::Close, Ending::Reset]);
            is_sent &= socket.is_acknowledged();
            socket.end(ending);
            let mut event = Event::now(if is_sent { Kind::Gone } else { Kind::End }).on(self.conn).what(ending.name());
            // A topic connection also receives its channel.
            event.ch = (self.plan.kind == SenderKind::Publisher).then(|| self.plan.channel.clone());
            self.client.note(&event);
            self.client.sleep(self.random.millis(5, 200));
        }
    }
}
