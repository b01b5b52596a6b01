//! A history, prepared for the rules: messages with all their receipts, connections, and the injected faults.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde_json::Value;

use crate::torture::plan::Channel;
use crate::torture::record::{self, Event, Kind};

/// The client's name and the number of its connection.
pub type ConnectionId = (String, u64);

/// One receipt of a message. All times are in microseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub t: u64,
    pub conn: ConnectionId,
    pub channel: String,
    /// The name of a manual delivery.
    pub delivery: Option<String>,
    /// Whether the delivery has the mark of a possible redelivery.
    pub marked: bool,
    pub hash: Option<u64>,
    /// When the receiver confirmed the message, by pong or by acknowledgement.
    pub confirmed: Option<u64>,
    /// When the receiver returned or rejected the message.
    pub returned: Option<u64>,
    /// Whether the receiver rejected the message, which must then never be delivered on this channel again.
    pub rejected: bool,
}

/// One attempt to send a message.
#[derive(Clone, Debug)]
pub struct SendAttempt {
    pub t: u64,
    pub conn: ConnectionId,
    pub route: String,
}

/// An answer to a sender.
#[derive(Clone, Debug)]
pub struct Answer {
    pub t: u64,
    pub code: String,
}

/// A message with all its events.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub channel: String,
    pub number: u64,
    pub has_id: bool,
    pub ttl: u64,
    pub delay: u64,
    pub hash: Option<u64>,
    pub sends: Vec<SendAttempt>,
    pub answers: Vec<Answer>,
    /// Ordered by time.
    pub receipts: Vec<Receipt>,
}

/// A connection of a receiver.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    pub channel: String,
    /// The name of the [`crate::torture::plan::ReceiverKind`].
    pub kind: String,
    pub route: String,
    pub opened: u64,
    pub ended: Option<(u64, String)>,
    pub confirms: Vec<u64>,
    pub pauses: Vec<(u64, u64)>,
    /// Whether the receiver works on each message for a while, so that many messages may be unread.
    pub slow: bool,
    /// The number of received messages.
    pub receipts: u64,
}

impl Connection {
    /// Whether there is no proxy in front of the broker.
    pub fn is_direct(&self) -> bool {
        self.route == "direct"
    }

    /// Whether the receiver may note a message long after the broker has sent it.
    pub fn reads_late(&self) -> bool {
        self.reads_slowly() || !self.is_direct()
    }

    /// Whether the receiver is slow or has paused.
    pub fn reads_slowly(&self) -> bool {
        self.slow || !self.pauses.is_empty()
    }

    /// Whether the client did not offer `wsmb.v1`.
    pub fn is_legacy(&self) -> bool {
        ["legacy", "legacy-topic", "one-shot"].contains(&self.kind.as_str())
    }
}

/// A period of time, in microseconds of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

impl Span {
    /// Whether the two periods overlap.
    pub fn overlaps(self, from: u64, to: u64) -> bool {
        self.from <= to && from <= self.to
    }
}

/// The injected faults.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub kills: Vec<u64>,
    /// From SIGTERM to the end of the process.
    pub terms: Vec<Span>,
    pub starts: Vec<u64>,
    pub frozen: Vec<Span>,
    /// Faults of the faulty proxy, and restarts of the others, each with the route's name.
    pub proxies: Vec<(String, Span)>,
    /// Failures of the disk or the database server.
    pub store_outages: Vec<Span>,
    /// When the wall clock was stepped, and its difference from the real clock after the step, in seconds.
    pub clocks: Vec<(u64, i64)>,
}

/// The events of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub channels: BTreeMap<String, Channel>,
    pub messages: BTreeMap<String, Message>,
    /// The connections of receivers.
    pub connections: BTreeMap<ConnectionId, Connection>,
    /// When a sender without ids closed a connection on which TCP had acknowledged all messages.
    pub gone: BTreeMap<ConnectionId, u64>,
    /// When a topic publisher disconnected, with its channel, which it also received.
    pub publishers: Vec<(String, u64)>,
    pub faults: Faults,
    pub wrongs: Vec<(String, Event)>,
    /// Receipts of messages that no client sent, with their keys.
    pub unknown: Vec<(String, Receipt)>,
    /// Channels and keys of the messages that waited in the store at the end.
    pub waiting: BTreeSet<(String, String)>,
    /// The time of the last event.
    pub end: u64,
    /// The receipts of each manual delivery: key of the message, index in [`Message::receipts`].
    deliveries: HashMap<(ConnectionId, String), Vec<(String, usize)>>,
    events: Vec<(String, Event)>,
}

impl History {
    /// Reads the files of a run.
    ///
    /// # Errors
    /// A file cannot be read or parsed.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(directory.join("channels.json"))
            .map_err(|error| format!("channels.json: {error}"))?;
        let channels: Vec<Channel> = serde_json::from_str(&text).map_err(|error| format!("channels.json: {error}"))?;
        let mut events = Vec::new();
        let entries = std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let Some(client) = name.strip_suffix(".jsonl") else { continue };
            // Notes of another writer about a client are in a separate file, `client+writer.jsonl`.
            let client = client.split('+').next().unwrap_or(client).to_owned();
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
            let lines = record::parse(&text).map_err(|error| format!("{name}: {error}"))?;
            events.extend(lines.into_iter().map(|event| (client.clone(), event)));
        }
        Ok(Self::new(channels, events))
    }

    /// Builds a history from events.
    pub fn new(channels: Vec<Channel>, mut events: Vec<(String, Event)>) -> Self {
        events.sort_by_key(|(_, event)| event.t);
        let channels = channels.into_iter().map(|channel| (channel.name.clone(), channel)).collect();
        let mut history = Self { channels, ..Self::default() };
        for (client, event) in &events {
            history.add(client, event);
        }
        history.end = events.last().map_or(0, |(_, event)| event.t);
        let Faults { frozen, terms, store_outages, .. } = &mut history.faults;
        for span in frozen.iter_mut().chain(terms).chain(store_outages) {
            span.to = span.to.min(history.end);
        }
        for connection in history.connections.values_mut() {
            for pause in &mut connection.pauses {
                pause.1 = pause.1.min(history.end);
            }
        }
        history.match_confirmations();
        history.events = events;
        history
    }

    fn add(&mut self, client: &str, event: &Event) {
        let conn = (client.to_owned(), event.conn.unwrap_or_default());
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        match event.e {
            Kind::Send => self.sent(conn, event),
            Kind::Answer => {
                let answer = Answer { t: event.t, code: text(&event.code) };
                self.messages.entry(text(&event.m)).or_default().answers.push(answer);
            }
            Kind::Gone => {
                if let Some(channel) = &event.ch {
                    self.publishers.push((channel.clone(), event.t));
                }
                self.gone.insert(conn, event.t);
            }
            Kind::Open => {
                let connection = self.connections.entry(conn).or_default();
                connection.channel = text(&event.ch);
                connection.kind = text(&event.what);
                connection.route = text(&event.how);
                connection.opened = event.t;
            }
            Kind::End => {
                if let Some(channel) = &event.ch {
                    self.publishers.push((channel.clone(), event.t));
                }
                if let Some(connection) = self.connections.get_mut(&conn) {
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
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.confirms.push(event.t);
                }
            }
            Kind::Got => self.got(conn, event),
            Kind::Ack | Kind::Nack | Kind::Reject => self.manual_answer(&conn, event),
            Kind::Act => self.act(event),
            Kind::Wrong => self.wrongs.push((client.to_owned(), event.clone())),
            Kind::Note if event.what.as_deref() == Some("waiting") => {
                if let Some(key) = key_of(&text(&event.how)) {
                    self.waiting.insert((text(&event.ch), key));
                }
            }
            Kind::Note if event.what.as_deref() == Some("killed") => self.script_killed(client, event.t),
            Kind::Note if event.what.as_deref() == Some("slow") => {
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.slow = true;
                }
            }
            Kind::Extend | Kind::Note => {}
        }
    }

    fn sent(&mut self, conn: ConnectionId, event: &Event) {
        let key = event.m.clone().unwrap_or_default();
        let message = self.messages.entry(key.clone()).or_default();
        message.number = key.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
        message.channel = event.ch.clone().unwrap_or_default();
        message.has_id = event.id.unwrap_or_default();
        message.ttl = event.ttl.unwrap_or_default();
        message.delay = event.delay.unwrap_or_default();
        message.hash = event.h;
        message.sends.push(SendAttempt { t: event.t, conn, route: event.how.clone().unwrap_or_default() });
    }

    fn got(&mut self, conn: ConnectionId, event: &Event) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.receipts += 1;
        }
        let receipt = Receipt {
            t: event.t,
            conn,
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
                    let delivery = (receipt.conn.clone(), name.clone());
                    self.deliveries.entry(delivery).or_default().push((key, message.receipts.len()));
                }
                message.receipts.push(receipt);
            }
            None => self.unknown.push((key, receipt)),
        }
    }

    fn manual_answer(&mut self, conn: &ConnectionId, event: &Event) {
        let delivery = (conn.clone(), event.d.clone().unwrap_or_default());
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

    /// Changes the event's open connection, or all open connections of the client if the event has no connection number.
    fn each_open(&mut self, client: &str, event: &Event, change: impl Fn(&mut Connection, u64)) {
        for ((name, number), connection) in &mut self.connections {
            let is_meant = event.conn.is_none_or(|conn| conn == *number);
            if name == client && is_meant && connection.ended.is_none() {
                change(connection, event.t);
            }
        }
    }

    /// Ends the connections of a killed script.
    fn script_killed(&mut self, client: &str, t: u64) {
        let event = Event { t, ..Event::default() };
        self.each_open(client, &event, |connection, t| connection.ended = Some((t, "killed".to_owned())));
    }

    fn act(&mut self, event: &Event) {
        let (what, how) = (event.what.as_deref().unwrap_or_default(), event.how.as_deref().unwrap_or_default());
        let (t, faults) = (event.t, &mut self.faults);
        let open = Span { from: t, to: u64::MAX };
        let close = |spans: &mut Vec<Span>| {
            if let Some(span) = spans.last_mut() {
                span.to = span.to.min(t);
            }
        };
        match (what, how) {
            ("kill", _) => faults.kills.push(t),
            ("term", _) => faults.terms.push(open),
            ("ended", _) => close(&mut faults.terms),
            ("start", _) => faults.starts.push(t),
            ("frozen", _) => faults.frozen.push(open),
            ("unfrozen", _) => close(&mut faults.frozen),
            ("database-down" | "disk-down", _) => faults.store_outages.push(open),
            ("database-up" | "disk-up", _) => close(&mut faults.store_outages),
            ("clock", offset) => faults.clocks.push((t, offset.parse().unwrap_or_default())),
            ("proxy", "pass") => {
                if let Some((_, span)) = faults.proxies.last_mut() {
                    span.to = span.to.min(t);
                }
            }
            ("proxy", "stall" | "forget") => faults.proxies.push(("liar".to_owned(), open)),
            ("proxy", _) => faults.proxies.push(("liar".to_owned(), Span { from: t, to: t })),
            ("nginx" | "haproxy" | "haproxy-tcp", _) => faults.proxies.push((what.to_owned(), Span { from: t, to: t })),
            _ => {}
        }
    }

    /// Finds the pong that confirmed each receipt. A confirmation that was written after the end of the broker's process does not count.
    fn match_confirmations(&mut self) {
        for receipt in self.messages.values_mut().flat_map(|message| &mut message.receipts) {
            let Some(connection) = self.connections.get(&receipt.conn) else { continue };
            if receipt.delivery.is_none() {
                receipt.confirmed = connection.confirms.iter().copied().find(|confirm| *confirm >= receipt.t);
            }
            let stops = self.faults.terms.iter().map(|span| span.to);
            let over = self.faults.kills.iter().copied().chain(stops).filter(|t| *t > connection.opened).min();
            receipt.confirmed = receipt.confirmed.filter(|confirmed| over.is_none_or(|over| *confirmed < over));
        }
    }

    /// Formats the events of a message and of its connections, and the actions of the nemesis in the same time.
    pub fn events_of(&self, key: &str) -> String {
        let Some(message) = self.messages.get(key) else { return String::new() };
        let begin = self.events.first().map_or(0, |(_, event)| event.t);
        let receivers: BTreeSet<&ConnectionId> = message.receipts.iter().map(|receipt| &receipt.conn).collect();
        // Only the pongs that confirmed the message are listed.
        let confirmed: BTreeSet<(&ConnectionId, u64)> =
            message.receipts.iter().filter_map(|receipt| Some((&receipt.conn, receipt.confirmed?))).collect();
        let first = message.sends.first().map_or(0, |send| send.t);
        let last = message.receipts.last().map_or(self.end, |receipt| receipt.t) + 2_000_000;
        let mut text = String::new();
        for (client, event) in &self.events {
            let about = event.m.as_deref() == Some(key);
            let conn = (client.clone(), event.conn.unwrap_or_default());
            let around = (first..=last).contains(&event.t)
                && (event.e == Kind::Act
                    || event.e == Kind::Gone && message.sends.iter().any(|send| send.conn == conn));
            let confirms = event.d.is_some() && message.receipts.iter().any(|receipt| receipt.delivery == event.d);
            let connection = matches!(event.e, Kind::Open | Kind::End | Kind::Pause | Kind::Resume);
            let there = receivers.contains(&conn)
                && (connection || confirms || event.e == Kind::Confirm && confirmed.contains(&(&conn, event.t)));
            if (about || around || there) && event.what.as_deref() != Some("deed") {
                let line = serde_json::to_string(event).unwrap_or_default();
                text += &format!("  {:>10.6} {client} {line}\n", event.t.saturating_sub(begin) as f64 / 1e6);
            }
        }
        text
    }

    /// Returns the numbers of messages, receipts, connections and faults, in one line.
    pub fn summary(&self) -> String {
        let accepted =
            self.messages.values().filter(|message| message.answers.iter().any(|answer| answer.code == "00"));
        format!(
            "{} messages, {} answered with 00, {} receipts on {} connections, {} kills, {} stops",
            self.messages.len(),
            accepted.count(),
            self.messages.values().map(|message| message.receipts.len()).sum::<usize>(),
            self.connections.len(),
            self.faults.kills.len(),
            self.faults.terms.len()
        )
    }
}

/// Returns the key of the message in a line of `wsmb queue export`.
fn key_of(line: &str) -> Option<String> {
    let value: Value = serde_json::from_str(line).ok()?;
    Some(value.get("message")?.get("m")?.as_str()?.to_owned())
}
