//! A history in the form in which the rules ask for it: messages with all their receipts, connections, and what the nemesis did when.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::Value;

use crate::torture::plan::Channel;
use crate::torture::record::{self, Event, Kind};

/// A client's connection: its name and its number there.
pub type Place = (String, u64);

/// Once received.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub t: u64,
    pub place: Place,
    pub channel: String,
    /// By hand: the delivery's name.
    pub delivery: Option<String>,
    pub marked: bool,
    pub hash: Option<u64>,
    /// When the receiver confirmed it, by pong or by hand.
    pub confirmed: Option<u64>,
    /// When it gave it back, or rejected it.
    pub returned: Option<u64>,
    /// It rejected it: it must never come again on this channel.
    pub rejected: bool,
}

/// Once sent.
#[derive(Clone, Debug)]
pub struct Sending {
    pub t: u64,
    pub place: Place,
    pub route: String,
}

/// An answer to a sender.
#[derive(Clone, Debug)]
pub struct Answer {
    pub t: u64,
    pub code: String,
}

/// A message's life.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub channel: String,
    pub sender: String,
    pub number: u64,
    pub has_id: bool,
    pub ttl: u64,
    pub delay: u64,
    pub hash: Option<u64>,
    pub sends: Vec<Sending>,
    pub answers: Vec<Answer>,
    /// In the order in which they were noted.
    pub receipts: Vec<Receipt>,
}

/// A connection that received.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    pub channel: String,
    pub manner: String,
    pub route: String,
    pub opened: u64,
    pub ended: Option<(u64, String)>,
    pub confirms: Vec<u64>,
    pub pauses: Vec<(u64, u64)>,
    /// It takes its time for each message, so that much may lie unread.
    pub slow: bool,
    /// How many messages it got.
    pub receipts: u64,
}

impl Connection {
    /// It reached the broker without a proxy.
    pub fn is_direct(&self) -> bool {
        self.route == "direct"
    }

    /// What it notes may have been sent long before.
    pub fn reads_late(&self) -> bool {
        self.reads_slowly() || !self.is_direct()
    }

    /// The reader itself takes its time.
    pub fn reads_slowly(&self) -> bool {
        self.slow || !self.pauses.is_empty()
    }

    /// It did not offer `wsmb.v1`.
    pub fn is_legacy(&self) -> bool {
        ["legacy", "legacy-topic", "one-shot"].contains(&self.manner.as_str())
    }
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

impl Span {
    /// Whether they have an instant in common.
    pub fn meets(self, from: u64, to: u64) -> bool {
        self.from <= to && from <= self.to
    }
}

/// What the nemesis did.
#[derive(Clone, Debug, Default)]
pub struct Deeds {
    pub kills: Vec<u64>,
    /// From the signal to the end of the process.
    pub terms: Vec<Span>,
    pub starts: Vec<u64>,
    pub frozen: Vec<Span>,
    /// While our proxy misbehaves, or a proxy was ended.
    pub proxies: Vec<(String, Span)>,
    pub storeless: Vec<Span>,
    /// When the wall clock was set, and how far it was off then, in seconds.
    pub clocks: Vec<(u64, i64)>,
}

/// Everything.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub channels: BTreeMap<String, Channel>,
    pub messages: BTreeMap<String, Message>,
    pub connections: BTreeMap<Place, Connection>,
    /// When senders without ids had handed over what they sent on a connection.
    pub gone: BTreeMap<Place, (u64, String)>,
    /// When topic publishers left: they were receivers of the channel, too.
    pub publishers: Vec<(String, u64)>,
    pub deeds: Deeds,
    pub wrongs: Vec<(String, Event)>,
    /// Receipts of messages that nobody sent.
    pub strange: Vec<(String, Receipt)>,
    /// What waited in the store at the end.
    pub waiting: BTreeSet<(String, String)>,
    /// The last instant of all.
    pub end: u64,
    /// Where the receipts of a delivery by hand stand.
    deliveries: HashMap<(Place, String), Vec<(String, usize)>>,
    events: Vec<(String, Event)>,
}

impl History {
    /// Reads the files of a run.
    ///
    /// # Errors
    /// A file cannot be read or understood.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(directory.join("channels.json"))
            .map_err(|error| format!("channels.json: {error}"))?;
        let channels: Vec<Channel> = serde_json::from_str(&text).map_err(|error| format!("channels.json: {error}"))?;
        let mut events = Vec::new();
        let entries = std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let Some(client) = name.strip_suffix(".jsonl") else { continue };
            // What somebody else notes about a client stands in a file of its own: `client+who`.
            let client = client.split('+').next().unwrap_or(client).to_owned();
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
            let lines = record::parse(&text).map_err(|error| format!("{name}: {error}"))?;
            events.extend(lines.into_iter().map(|event| (client.clone(), event)));
        }
        Ok(Self::new(channels, events))
    }

    /// Puts events together.
    pub fn new(channels: Vec<Channel>, mut events: Vec<(String, Event)>) -> Self {
        events.sort_by_key(|(_, event)| event.t);
        let channels = channels.into_iter().map(|channel| (channel.name.clone(), channel)).collect();
        let mut history = Self { channels, ..Self::default() };
        for (client, event) in &events {
            history.add(client, event);
        }
        history.end = events.last().map_or(0, |(_, event)| event.t);
        for span in history.deeds.frozen.iter_mut().chain(&mut history.deeds.terms).chain(&mut history.deeds.storeless)
        {
            span.to = span.to.min(history.end);
        }
        for connection in history.connections.values_mut() {
            for pause in &mut connection.pauses {
                pause.1 = pause.1.min(history.end);
            }
        }
        history.settle();
        history.events = events;
        history
    }

    fn add(&mut self, client: &str, event: &Event) {
        let place = (client.to_owned(), event.conn.unwrap_or_default());
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        match event.e {
            Kind::Send => self.sent(place, event),
            Kind::Answer => {
                let answer = Answer { t: event.t, code: text(&event.code) };
                self.messages.entry(text(&event.m)).or_default().answers.push(answer);
            }
            Kind::Gone => {
                if let Some(channel) = &event.ch {
                    self.publishers.push((channel.clone(), event.t));
                }
                self.gone.insert(place, (event.t, text(&event.what)));
            }
            Kind::Open => {
                let connection = self.connections.entry(place).or_default();
                connection.channel = text(&event.ch);
                connection.manner = text(&event.what);
                connection.route = text(&event.how);
                connection.opened = event.t;
            }
            Kind::End => {
                if let Some(channel) = &event.ch {
                    self.publishers.push((channel.clone(), event.t));
                }
                if let Some(connection) = self.connections.get_mut(&place) {
                    connection.ended = Some((event.t, text(&event.what)));
                }
            }
            Kind::Pause => self.each_open(client, event, |connection, t| connection.pauses.push((t, u64::MAX))),
            Kind::Resume => self.each_open(client, event, |connection, t| {
                if let Some(pause) = connection.pauses.last_mut() {
                    pause.1 = pause.1.min(t);
                }
            }),
            Kind::Confirm => {
                if let Some(connection) = self.connections.get_mut(&place) {
                    connection.confirms.push(event.t);
                }
            }
            Kind::Got => self.got(place, event),
            Kind::Ack | Kind::Nack | Kind::Reject => self.by_hand(&place, event),
            Kind::Act => self.act(event),
            Kind::Wrong => self.wrongs.push((client.to_owned(), event.clone())),
            Kind::Note if event.what.as_deref() == Some("waiting") => {
                if let Some(key) = key_of(&text(&event.how)) {
                    self.waiting.insert((text(&event.ch), key));
                }
            }
            Kind::Note if event.what.as_deref() == Some("killed") => self.script_killed(client, event.t),
            Kind::Note if event.what.as_deref() == Some("slow") => {
                if let Some(connection) = self.connections.get_mut(&place) {
                    connection.slow = true;
                }
            }
            Kind::Extend | Kind::Note => {}
        }
    }

    fn sent(&mut self, place: Place, event: &Event) {
        let key = event.m.clone().unwrap_or_default();
        let message = self.messages.entry(key.clone()).or_default();
        message.sender.clone_from(&place.0);
        message.number = key.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        message.channel = event.ch.clone().unwrap_or_default();
        message.has_id = event.id.unwrap_or_default();
        message.ttl = event.ttl.unwrap_or_default();
        message.delay = event.delay.unwrap_or_default();
        message.hash = event.h;
        message.sends.push(Sending { t: event.t, place, route: event.how.clone().unwrap_or_default() });
    }

    fn got(&mut self, place: Place, event: &Event) {
        if let Some(connection) = self.connections.get_mut(&place) {
            connection.receipts += 1;
        }
        let receipt = Receipt {
            t: event.t,
            place,
            channel: event.ch.clone().unwrap_or_default(),
            delivery: event.d.clone(),
            marked: event.marked.unwrap_or_default(),
            hash: event.h,
            confirmed: None,
            returned: None,
            rejected: false,
        };
        let key = event.m.clone().unwrap_or_default();
        match self.messages.get_mut(&key) {
            Some(message) => {
                if let Some(name) = &receipt.delivery {
                    let place = (receipt.place.clone(), name.clone());
                    self.deliveries.entry(place).or_default().push((key, message.receipts.len()));
                }
                message.receipts.push(receipt);
            }
            None => self.strange.push((key, receipt)),
        }
    }

    fn by_hand(&mut self, place: &Place, event: &Event) {
        let delivery = (place.clone(), event.d.clone().unwrap_or_default());
        for (key, index) in self.deliveries.get(&delivery).into_iter().flatten() {
            let Some(receipt) = self.messages.get_mut(key).and_then(|message| message.receipts.get_mut(*index)) else {
                continue;
            };
            if event.e == Kind::Ack {
                receipt.confirmed = Some(event.t);
            } else {
                receipt.returned = Some(event.t);
                receipt.rejected = event.e == Kind::Reject;
            }
        }
    }

    /// An event about a client without a number is about all of its connections.
    fn each_open(&mut self, client: &str, event: &Event, change: impl Fn(&mut Connection, u64)) {
        for ((name, number), connection) in &mut self.connections {
            let is_meant = event.conn.is_none_or(|conn| conn == *number);
            if name == client && is_meant && connection.ended.is_none() {
                change(connection, event.t);
            }
        }
    }

    /// A client in another process was killed: its connections ended then.
    fn script_killed(&mut self, client: &str, t: u64) {
        let event = Event { t, ..Event::default() };
        self.each_open(client, &event, |connection, t| connection.ended = Some((t, "killed".to_owned())));
    }

    fn act(&mut self, event: &Event) {
        let (what, how) = (event.what.as_deref().unwrap_or_default(), event.how.as_deref().unwrap_or_default());
        let (t, deeds) = (event.t, &mut self.deeds);
        let open = Span { from: t, to: u64::MAX };
        let close = |spans: &mut Vec<Span>| {
            if let Some(span) = spans.last_mut() {
                span.to = span.to.min(t);
            }
        };
        match (what, how) {
            ("kill", _) => deeds.kills.push(t),
            ("term", _) => deeds.terms.push(open),
            ("ended", _) => close(&mut deeds.terms),
            ("start", _) => deeds.starts.push(t),
            ("frozen", _) => deeds.frozen.push(open),
            ("unfrozen", _) => close(&mut deeds.frozen),
            ("database-down" | "disk-down", _) => deeds.storeless.push(open),
            ("database-up" | "disk-up", _) => close(&mut deeds.storeless),
            ("clock", offset) => deeds.clocks.push((t, offset.parse().unwrap_or_default())),
            ("proxy", "pass") => {
                if let Some((_, span)) = deeds.proxies.last_mut() {
                    span.to = span.to.min(t);
                }
            }
            ("proxy", "stall" | "forget") => deeds.proxies.push(("liar".to_owned(), open)),
            ("proxy", _) => deeds.proxies.push(("liar".to_owned(), Span { from: t, to: t })),
            ("nginx" | "haproxy" | "haproxy-tcp", _) => deeds.proxies.push((what.to_owned(), Span { from: t, to: t })),
            _ => {}
        }
    }

    /// Finds for each receipt the pong that confirmed it. What was written to a broker that had ended meanwhile confirms nothing.
    fn settle(&mut self) {
        for receipt in self.messages.values_mut().flat_map(|message| &mut message.receipts) {
            let Some(connection) = self.connections.get(&receipt.place) else { continue };
            if receipt.delivery.is_none() {
                receipt.confirmed = connection.confirms.iter().copied().find(|confirm| *confirm >= receipt.t);
            }
            let stops = self.deeds.terms.iter().map(|span| span.to);
            let over = self.deeds.kills.iter().copied().chain(stops).filter(|t| *t > connection.opened).min();
            receipt.confirmed = receipt.confirmed.filter(|confirmed| over.is_none_or(|over| *confirmed < over));
        }
    }

    /// Everything that is known of a message, and what the nemesis did meanwhile.
    pub fn story(&self, key: &str) -> String {
        let Some(message) = self.messages.get(key) else { return String::new() };
        let begin = self.events.first().map_or(0, |(_, event)| event.t);
        let places: BTreeSet<&Place> = message.receipts.iter().map(|receipt| &receipt.place).collect();
        // Of the pongs those that confirmed it.
        let confirmed: BTreeSet<(&Place, u64)> =
            message.receipts.iter().filter_map(|receipt| Some((&receipt.place, receipt.confirmed?))).collect();
        let first = message.sends.first().map_or(0, |send| send.t);
        let last = message.receipts.last().map_or(self.end, |receipt| receipt.t) + 2_000_000;
        let mut text = String::new();
        for (client, event) in &self.events {
            let about = event.m.as_deref() == Some(key);
            let place = (client.clone(), event.conn.unwrap_or_default());
            let around = (first..=last).contains(&event.t)
                && (event.e == Kind::Act
                    || event.e == Kind::Gone && message.sends.iter().any(|send| send.place == place));
            let confirms = event.d.is_some() && message.receipts.iter().any(|receipt| receipt.delivery == event.d);
            let connection =
                event.e == Kind::Open || event.e == Kind::End || event.e == Kind::Pause || event.e == Kind::Resume;
            let there = places.contains(&place)
                && (connection || confirms || event.e == Kind::Confirm && confirmed.contains(&(&place, event.t)));
            if (about || around || there) && event.what.as_deref() != Some("deed") {
                let line = serde_json::to_string(event).unwrap_or_default();
                text += &format!("  {:>10.6} {client} {line}\n", event.t.saturating_sub(begin) as f64 / 1e6);
            }
        }
        text
    }

    /// How much was tried, in a line.
    pub fn summary(&self) -> String {
        let accepted =
            self.messages.values().filter(|message| message.answers.iter().any(|answer| answer.code == "00"));
        format!(
            "{} messages, {} answered with 00, {} receipts on {} connections, {} kills, {} stops",
            self.messages.len(),
            accepted.count(),
            self.messages.values().map(|message| message.receipts.len()).sum::<usize>(),
            self.connections.len(),
            self.deeds.kills.len(),
            self.deeds.terms.len()
        )
    }
}

/// The key of a message in a line of `wsmb queue export`.
fn key_of(line: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    Some(value.get("message")?.get("m")?.as_str()?.to_owned())
}
