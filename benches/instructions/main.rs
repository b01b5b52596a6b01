//! Fixed scripts that pass messages through the broker without sockets and without a clock, so that their instructions can be counted.
//!
//! `instructions SCRIPT N` runs a script for N messages and prints nothing. `cargo xtask gate` runs each script under callgrind with two numbers of
//! messages and compares the difference with `baseline.txt`. Each run must execute the same instructions: no threads, no clock, no random numbers.
//!
//! The scripts in `growth` show how a cost grows.

mod growth;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use wsmb_core::broker::{
    AckMode, Broker, ClientKind, Content, Effect, Effects, Event, Publish, Reply, ReplyTo, Restored, Settings,
    StoreEffect, StoreEvent, Subscribe,
};
use wsmb_core::message::{
    ChannelName, ConnectionId, Dialect, Kind, Message, MessageId, Order, Publication, PublicationId, Timestamp,
};
use wsmb_core::policy::{ChannelPolicy, Policies};
use wsmb_protocol::delivery;
use wsmb_protocol::envelope::{self, Command};
use wsmb_protocol::frame::{Decoder, Incoming, Opcode, Role, encode_masked_into};
use wsmb_protocol::topic;
use wsmb_store::{Group, StoreSettings};

/// Messages in one read: about as many messages of [`SIZE`] bytes as fit in 64 KiB.
const BURST: u64 = 300;
/// Bytes of a message, as in the other measurements.
const SIZE: usize = 200;
/// Receivers of the script `fanout`.
const RECEIVERS: u64 = 1_000;
/// Rows in one commit.
const ROWS: u64 = 256;

/// The sender. The receivers have the following numbers.
const SENDER: ConnectionId = ConnectionId(1);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (script, count) = match &arguments[..] {
        [_, script, count] => (script.as_str(), count.parse::<u64>().unwrap_or(0)),
        // `cargo bench` and `cargo test --benches` start the program without a script. This must not fail.
        _ => {
            return eprintln!(
                "Usage: instructions topic|envelope|fanout|live|kept|store|leave|ack|busy|due|list N   (see cargo xtask gate)"
            );
        }
    };
    match script {
        "topic" => topic_burst(count),
        "envelope" => envelope_burst(count),
        "fanout" => fan_out(count),
        "live" => live(count),
        "kept" => kept(count),
        "store" => store(count),
        other => assert!(growth::run(other, count), "unknown script {other:?}"),
    }
}

/// A broker with its effects, and the frames for its receivers.
struct Harness {
    broker: Broker,
    effects: Effects,
    now: Timestamp,
    user: Arc<str>,
    /// The delay of publications.
    delay: Option<Duration>,
    out: Vec<u8>,
}

impl Harness {
    fn new(policy: ChannelPolicy, receivers: u64) -> Self {
        Self::with(policy, receivers, AckMode::Automatic, wsmb_core::limits::MAX_PREFETCH)
    }

    fn with(policy: ChannelPolicy, receivers: u64, ack: AckMode, prefetch: u32) -> Self {
        let policies = Policies { named: Vec::new(), default: policy };
        let settings = Settings { policies, ..Settings::default() };
        let broker = Broker::new(settings, Restored::default());
        let mut harness = Self {
            broker,
            effects: Effects::default(),
            now: Timestamp(1_000_000),
            user: "sender".into(),
            delay: None,
            out: Vec::new(),
        };
        for receiver in 0..receivers {
            harness.subscribe(ConnectionId(SENDER.0 + 1 + receiver), vec![channel()], ack, prefetch);
        }
        harness
    }

    fn subscribe(&mut self, connection: ConnectionId, channels: Vec<ChannelName>, ack: AckMode, prefetch: u32) {
        self.handle(Event::Subscribe(Subscribe {
            connection,
            user: "receiver".into(),
            channels,
            ack,
            prefetch: Some(prefetch),
            client: ClientKind::Modern,
            receiver: None,
            group: None,
            order: Order::List,
        }));
    }

    fn handle(&mut self, event: Event<'_>) {
        self.effects.clear();
        self.broker.handle(self.now, event, &mut self.effects);
    }

    /// Publishes, and encodes the frames of the deliveries.
    fn publish(&mut self, publication: &Publication<'_>, id: Option<PublicationId>, dialect: Dialect) {
        let user = self.user.clone();
        let publish = Publish {
            origin: Some(SENDER),
            user: &user,
            reply_to: ReplyTo::Connection(SENDER),
            publication,
            receivers: None,
            id,
            answer: false,
            watch: false,
            ttl: None,
            delay: self.delay,
        };
        self.handle(Event::Publish(&publish));
        for effect in &self.effects.list {
            let (Effect::Deliver { content, .. } | Effect::Broadcast { content, .. }) = effect else { continue };
            if let Content::Live = self.effects.contents[*content as usize] {
                delivery::push_live(&mut self.out, publication, dialect, None);
            }
        }
        if self.out.len() > 1 << 16 {
            self.out.clear();
        }
    }
}

fn channel() -> ChannelName {
    ChannelName::parse("sms").expect("a name")
}

fn unkept() -> ChannelPolicy {
    ChannelPolicy { keep: false, ..ChannelPolicy::default() }
}

fn json() -> String {
    format!(r#"{{"n":1000000001,"pad":"{}"}}"#, "x".repeat(SIZE - 25))
}

fn envelope_json(members: &str) -> String {
    format!(r#"{{"command":"send-message","channel":"sms","data":[{}]{members}}}"#, json())
}

/// Returns [`BURST`] masked frames, as a client sends them.
fn burst(payload: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..BURST {
        encode_masked_into(&mut out, Opcode::Text, payload.as_bytes(), [0x37, 0xfa, 0x21, 0x3d]);
    }
    out
}

/// Topic dialect, one sender, one receiver, a channel without `keep`: decode, route, encode.
fn topic_burst(count: u64) {
    let (mut harness, channel, burst) = (Harness::new(unkept(), 1), channel(), burst(&json()));
    let mut decoder = Decoder::new(Role::Server, wsmb_protocol::limits::MAX_MESSAGE);
    let mut buffer = burst.clone();
    for _ in 0..count / BURST {
        buffer.copy_from_slice(&burst);
        let result = decoder.feed(&mut buffer, |incoming| {
            if let Incoming::Message { kind, frame } = incoming {
                harness.publish(&topic::publication(&channel, kind, frame), None, Dialect::Topic);
            }
            ControlFlow::Continue(())
        });
        assert_eq!(result, Ok(()));
    }
    assert_eq!(harness.broker.counters().deliveries, count / BURST * BURST);
}

/// As [`topic_burst`], on a kept channel: the receiver confirms when it is asked, and nothing is stored.
fn live(count: u64) {
    let (mut harness, channel, burst) = (Harness::new(ChannelPolicy::default(), 1), channel(), burst(&json()));
    let mut decoder = Decoder::new(Role::Server, wsmb_protocol::limits::MAX_MESSAGE);
    let mut buffer = burst.clone();
    for sent in (BURST..=count).step_by(BURST as usize) {
        buffer.copy_from_slice(&burst);
        let mut is_asked = false;
        let result = decoder.feed(&mut buffer, |incoming| {
            if let Incoming::Message { kind, frame } = incoming {
                harness.publish(&topic::publication(&channel, kind, frame), None, Dialect::Topic);
                is_asked |= harness.effects.list.iter().any(|effect| matches!(effect, Effect::Confirm { .. }));
            }
            ControlFlow::Continue(())
        });
        assert_eq!(result, Ok(()));
        if is_asked || sent == count {
            harness.handle(Event::Confirmed { connection: ConnectionId(SENDER.0 + 1), up_to: sent });
        }
    }
    assert_eq!((harness.broker.counters().deliveries, harness.broker.unsettled()), (count, 0));
}

/// As [`topic_burst`], in the envelope dialect.
fn envelope_burst(count: u64) {
    let (mut harness, burst) = (Harness::new(unkept(), 1), burst(&envelope_json("")));
    let mut decoder = Decoder::new(Role::Server, wsmb_protocol::limits::MAX_MESSAGE);
    let mut parser = envelope::Parser::default();
    let mut buffer = burst.clone();
    for _ in 0..count / BURST {
        buffer.copy_from_slice(&burst);
        let result = decoder.feed(&mut buffer, |incoming| {
            if let Incoming::Message { kind, frame } = incoming
                && let Ok(Command::Send(send)) = parser.parse(kind, &frame)
            {
                harness.publish(&send.publication, None, Dialect::Envelope);
            }
            ControlFlow::Continue(())
        });
        assert_eq!(result, Ok(()));
    }
    assert_eq!(harness.broker.counters().deliveries, count / BURST * BURST);
}

/// A kept channel with [`RECEIVERS`] receivers, all of which confirm. `count` is the number of deliveries.
fn fan_out(count: u64) {
    let mut harness = Harness::new(ChannelPolicy::default(), RECEIVERS);
    let channel = channel();
    let publication = topic::publication_of(&channel, Kind::Text, json().as_bytes());
    for sent in 1..=count / RECEIVERS {
        harness.publish(&publication, None, Dialect::Topic);
        for receiver in 0..RECEIVERS {
            harness.handle(Event::Confirmed { connection: ConnectionId(SENDER.0 + 1 + receiver), up_to: sent });
        }
    }
    assert_eq!(harness.broker.counters().deliveries, count / RECEIVERS * RECEIVERS);
    assert_eq!(harness.broker.unsettled(), 0);
}

/// A kept channel; each send has an id, and the receiver confirms after the store has answered.
fn kept(count: u64) {
    let mut harness = Harness::new(ChannelPolicy::default(), 1);
    let mut parser = envelope::Parser::default();
    let (mut accepted, mut buffer) = (0, Vec::new());
    for number in 1..=count {
        buffer.clear();
        let json = envelope_json(&format!(r#","id":"{number}""#));
        encode_masked_into(&mut buffer, Opcode::Text, json.as_bytes(), [0x37, 0xfa, 0x21, 0x3d]);
        let result = Decoder::new(Role::Server, wsmb_protocol::limits::MAX_MESSAGE).feed(&mut buffer, |incoming| {
            if let Incoming::Message { kind, frame } = incoming
                && let Ok(Command::Send(send)) = parser.parse(kind, &frame)
            {
                let id = send.id.as_deref().map(|id| PublicationId::new("", id));
                harness.publish(&send.publication, id, Dialect::Envelope);
            }
            ControlFlow::Continue(())
        });
        assert_eq!(result, Ok(()));
        let appended = harness.effects.list.iter().find_map(|effect| match effect {
            Effect::Store(StoreEffect::Append(messages)) => Some(messages.iter().map(|message| message.id).collect()),
            _ => None,
        });
        if let Some(ids) = appended {
            harness.handle(Event::Store(StoreEvent::Stored(ids)));
            accepted += replies(&harness.effects);
        }
        harness.handle(Event::Confirmed { connection: ConnectionId(SENDER.0 + 1), up_to: number });
        accepted += replies(&harness.effects);
    }
    assert_eq!((accepted, harness.broker.unsettled()), (count, 0));
}

/// Encodes the answers and returns their number.
fn replies(effects: &Effects) -> u64 {
    let answers = effects.list.iter().filter_map(|effect| match effect {
        Effect::Reply { reply: Reply::Accepted { id, receivers, stored, duplicate }, .. } => {
            Some(envelope::accepted(id.as_ref().map_or("", |id| id.id()), *receivers, *stored, *duplicate))
        }
        _ => None,
    });
    answers.filter(|answer| !answer.is_empty()).count() as u64
}

/// Writes rows to SQLite and removes them, [`ROWS`] at a time. `count` is the number of rows.
fn store(count: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite:{}", directory.path().join("wsmb.db").display());
    let mut store = wsmb_store::open(&StoreSettings { url, ..StoreSettings::default() }).expect("a store");
    let payload = wsmb_core::message::Payload::text(json());
    let channel: Cow<'_, ChannelName> = Cow::Owned(channel());
    for group in 0..count / ROWS {
        let ids = group * ROWS + 1..=(group + 1) * ROWS;
        let row = |id| Message {
            id: MessageId(id),
            channel: ChannelName::clone(&channel),
            payload: payload.clone(),
            created: Timestamp(1_000_000),
            expires: Some(Timestamp(1_000_000).after(Duration::from_secs(300))),
            due: None,
            receivers: None,
            publication: None,
            deliveries: 0,
            dead: None,
        };
        let appends = Group { appends: ids.clone().map(row).collect(), ..Group::default() };
        store.commit(&appends).expect("written");
        store.commit(&Group { removals: ids.map(MessageId).collect(), ..Group::default() }).expect("removed");
    }
}
