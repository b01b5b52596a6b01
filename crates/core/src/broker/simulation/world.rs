//! The simulated world around the broker: clients, the store and the time. The seed chooses what happens next.

mod callers;
mod clients;
mod effects;
mod ends;
mod failures;
mod fanout;
mod preference;
mod restart;
mod senders;
mod shares;
mod truth;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wildmatch::WildMatch;

use super::Random;
use super::model::{DeliveryView, Model};
use super::record::MessageRecord;
use super::store::SimStore;
use crate::broker::{
    AckMode, Acknowledge, Bounds, Broker, CallerId, ClientKind, Content, Effect, Effects, EndReason, Event, Note,
    Outcome, Publish, ReceiverKey, Refusal, Reply, ReplyTo, Restored, Settings, StoreEffect, StoreEvent, Subscribe,
};
use crate::limits;
use crate::message::{
    AcceptedId, Answer, ChannelName, ConnectionId, Dialect, Frame, GroupName, Kind, MessageId, Nack, Order,
    Publication, PublicationId, Spans, Timestamp, Why,
};
use crate::policy::{ChannelPolicy, Dispatch, Policies};

const CHANNELS: [&str; 10] = ["all", "one", "two", "three", "drop", "live", "turn", "short", "late", "dead"];

/// Whether expired messages of this channel become dead letters. (`three` has dead letters for messages that were given up only.)
pub(super) fn has_expired_dead_letters(channel: &str) -> bool {
    channel == "late"
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).expect("a valid name")
}

fn settings(random: &mut Random) -> Settings {
    let kept = |receivers| ChannelPolicy { receivers, ..ChannelPolicy::default() };
    let mut millis = |choices: [u64; 3]| Duration::from_millis(choices[random.below(3) as usize]);
    let (slow, hurried) = (millis([400, 1_500, 300_000]), [millis([0, 300, 800]), millis([0, 300, 800])]);
    let dead = ChannelPolicy { dead_letter: Some(name("dead")), ..kept(1) };
    let named = vec![
        ("one", ChannelPolicy { ack_timeout: slow, confirm_within: hurried[0], ..kept(1) }),
        ("two", ChannelPolicy { dispatch: Dispatch::Rotate, confirm_within: hurried[1], ..kept(2) }),
        ("three", ChannelPolicy { ack_timeout: slow, max_deliveries: 3, ..dead.clone() }),
        ("drop", ChannelPolicy { max_deliveries: 2, ..kept(1) }),
        ("live", ChannelPolicy { keep: false, ..kept(0) }),
        ("turn", ChannelPolicy { keep: false, dispatch: Dispatch::Rotate, ..kept(1) }),
        ("short", ChannelPolicy { ttl: Duration::from_millis(700), max_backlog: 8, ..kept(1) }),
        (
            "late",
            ChannelPolicy { ttl: Duration::from_millis(900), ack_timeout: slow, dead_letter_expired: true, ..dead },
        ),
        ("dead", kept(1)),
    ];
    Settings {
        policies: Policies {
            named: named.into_iter().map(|(pattern, policy)| (WildMatch::new(pattern), policy)).collect(),
            default: ChannelPolicy::default(),
        },
        batch: 1 + random.below(4) as usize,
        delay: Duration::from_millis(if random.chance(20) { 30 } else { 0 }),
        write_delay: Duration::from_millis(if random.chance(20) { 0 } else { 500 }),
        confirm_timeout: Duration::from_millis([500, 2_000, 300_000][random.below(3) as usize]),
        dedup_window: Duration::from_secs(100_000),
        memory_budget: crate::limits::MEMORY_BUDGET,
        bounds: Bounds::TIGHT,
    }
}

fn number(message: &[u8]) -> u64 {
    std::str::from_utf8(message).ok().and_then(|text| text.parse().ok()).expect("messages are numbers")
}

/// Returns a publication's channel and the numbers of its messages.
fn carried(publication: &Publication<'_>) -> (ChannelName, Vec<u64>) {
    (ChannelName::clone(&publication.channel), publication.bodies().map(number).collect())
}

/// Returns the channel and the numbers of the messages of a delivery. `live`: the publication of the current event.
fn content_of(content: &Content, live: Option<&Publication<'_>>) -> (ChannelName, Vec<u64>) {
    match content {
        Content::Live => carried(live.expect("an event that carries a publication")),
        Content::Due(publication) => carried(publication),
        Content::Backlog(backlog) => {
            (backlog.channel.clone(), backlog.messages.iter().map(|message| number(&message.bytes)).collect())
        }
    }
}

#[derive(Debug)]
struct Client {
    manual: bool,
    group: Option<&'static str>,
    channels: BTreeSet<String>,
    /// The same channels in the order of the client's request, and the meaning of this order.
    list: Vec<String>,
    order: Order,
    /// The channel that delivered to the client last.
    served: Option<String>,
    last: u64,
    /// The client's unconfirmed deliveries; true if the delivery is manual.
    unanswered: BTreeMap<u64, bool>,
    /// Deliveries that were taken from the client because it was too slow.
    revoked: Vec<u64>,
    /// The last delivery that the pong to the outstanding ping will confirm.
    ping: Option<u64>,
    prefetch: Option<u32>,
    kind: ClientKind,
    /// The connection goes through a proxy: TCP acknowledgements are the proxy's.
    proxied: bool,
    /// The client has confirmed something, or confirms manually.
    proven: bool,
    /// The channels to which the client has sent.
    sent: BTreeSet<String>,
    /// The number of messages and replies that were ever queued for the client.
    frames: usize,
    /// The number of kept messages that were ever delivered to the client.
    kept: usize,
    /// The channel of the first delivery of a kept message.
    first: Option<String>,
    /// The time at which the client last confirmed anything, or got the first of the unconfirmed deliveries.
    since: Timestamp,
}

/// Counts of situations that must occur in some seed.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Messages that were confirmed.
    pub confirmed: u64,
    /// Receivers that confirmed their only delivery by leaving.
    pub by_leaving: u64,
    /// Receivers that left in the same way, and must not have confirmed anything.
    pub left: u64,
    /// Receivers that were ended because they confirmed nothing.
    pub unconfirmed: u64,
    /// Deliveries of dead letters that have expired.
    pub late: u64,
    /// Expired rows that the store has returned instead of removing them.
    pub spared: u64,
    /// Deliveries to receivers of which another channel might have gone first.
    pub preferred: u64,
    /// Publications and subscriptions that were refused, because their user held too much or nothing was left.
    pub refused: u64,
    /// Publications that were accepted although at least 90 % of a bound were used.
    pub shared: u64,
    /// Callers that were told each outcome, in the order of [`Outcome`].
    pub outcomes: [u64; 5],
    /// Publications that were refused, because too much waited for the store.
    pub waiting: u64,
}

/// A publication with an id: its sender waits for the answer, or has it.
#[derive(Debug, Clone)]
struct Request {
    channel: String,
    numbers: Vec<u64>,
    /// The number of outstanding answers, by connection.
    owed: BTreeMap<ConnectionId, u32>,
    accepted: bool,
    refused: bool,
    /// An answer said that it is in the store.
    stored: bool,
    /// The id is in the file of ids.
    saved: bool,
    user: &'static str,
    sent: Timestamp,
    ttl: Option<Duration>,
    /// The time of acceptance.
    at: Timestamp,
}

#[derive(Debug)]
pub(super) struct World {
    random: Random,
    now: Timestamp,
    settings: Settings,
    /// Until then receivers may pause after a backlog frame for a `delay` that has been changed since.
    paused_until: Timestamp,
    broker: Broker,
    store: SimStore,
    model: Model,
    clients: BTreeMap<ConnectionId, Client>,
    ended: BTreeSet<ConnectionId>,
    requests: BTreeMap<String, Request>,
    /// The messages of the publication without an id for whose answer a connection waits.
    unnamed_senders: BTreeMap<ConnectionId, Vec<u64>>,
    callers: BTreeMap<u64, callers::Waiting>,
    last_caller: u64,
    /// The time at which each channel was last purged.
    purges: BTreeMap<String, Timestamp>,
    /// Connections that have closed their sending side and wait for answers.
    listening: BTreeSet<ConnectionId>,
    last_connection: u64,
    last_number: u64,
    pub(super) tally: Tally,
    missing_allowed: u64,
    /// The messages of the last publication.
    sending: Vec<u64>,
    /// The id of that publication.
    sending_id: Option<PublicationId>,
    /// The running publication asks for room.
    asked: Option<shares::Ask>,
    /// The connection whose last subscription was refused.
    too_many_channels: Option<ConnectionId>,
    /// Users send many delayed messages.
    hoards: bool,
    /// The last id that the store held when the broker started.
    restored_up_to: MessageId,
    /// The number of messages that the broker has reported as dropped.
    dropped: u64,
    /// The number of messages that earlier brokers have dropped.
    dropped_before: u64,
    /// The number of answers that were refused, because the delivery did not wait for one.
    unknown: u64,
    effects: Effects,
    /// The number of events so far.
    turn: u64,
    /// The pages that are being read, and the times of their requests.
    loads: BTreeMap<String, Timestamp>,
    failed_loads: BTreeSet<String>,
    /// The file of ids. It survives a crash.
    file: Vec<AcceptedId>,
    /// The time at which the file was last written.
    saved: Timestamp,
    /// The broker's bound on remembered ids.
    id_bound: Option<usize>,
    /// Each id that was ever sent: its user, and the time at which its sender was told `00`.
    ids: BTreeMap<String, (&'static str, Option<Timestamp>)>,
    /// The part of the memory budget that is used outside the broker, in per cent.
    memory: usize,
    /// The channels whose next page was not read when the turn began, because memory was short.
    starved: BTreeSet<String>,
    /// The broker carries out an orderly stop.
    stopping: bool,
    /// Print all events and effects, because one seed is replayed.
    trace: bool,
}

impl Client {
    /// Returns the most unconfirmed deliveries that the client may have. `limited`: the channel has a receiver limit, so that no receiver
    /// is outrun.
    fn window(&self, limited: bool) -> usize {
        let legacy = self.kind != ClientKind::Modern && !self.manual;
        let most = match self.prefetch {
            Some(prefetch) => prefetch,
            None if legacy && !self.proven => 1,
            None if self.manual => limits::PREFETCH,
            None => limits::MAX_PREFETCH,
        };
        if limited { most as usize } else { Bounds::TIGHT.fanout_deliveries.max(most as usize) }
    }

    /// Whether the client's window certainly has room. A silent client's has not.
    fn has_room(&self) -> bool {
        let most = self.prefetch.unwrap_or(limits::PREFETCH) as usize;
        self.unanswered.is_empty() || (self.manual && !self.has_automatic() && self.unanswered.len() < most)
    }

    /// Whether a pong would confirm anything.
    fn has_automatic(&self) -> bool {
        self.unanswered.values().any(|manual| !manual)
    }

    /// Whether the server takes an orderly end of the client for that of a one-shot reader.
    fn looks_like_one_shot(&self) -> bool {
        self.kind != ClientKind::Modern && !self.proxied && self.frames == 1 && self.last == 1
    }

    /// Whether such an end must confirm the client's only delivery.
    fn earns_by_leaving(&self) -> bool {
        let sent = match (&self.first, self.sent.len()) {
            (Some(first), 1) => self.sent.contains(first),
            (_, 0) => false,
            // The broker remembers one channel only, and then takes every channel for one to which the client has sent.
            _ => true,
        };
        let only = self.unanswered.len() == 1 && self.kept == 1 && self.has_automatic();
        self.looks_like_one_shot() && only && !sent
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut settings = settings(&mut random);
        let hoards = random.chance(30);
        if hoards {
            settings.bounds.channels = 10;
            settings.memory_budget = 40 * limits::ENTRY_BYTES;
        }
        if seed.is_multiple_of(5) {
            settings.bounds.store_queue = 10 * limits::ENTRY_BYTES;
        }
        let store = SimStore::default();
        let id_bound = random.chance(50).then_some(restart::FEW_IDS);
        Self {
            broker: Broker::new(settings.clone(), Restored { id_bound, ..store.restored() }),
            file: Vec::new(),
            saved: Timestamp(1_000_000),
            id_bound,
            ids: BTreeMap::new(),
            memory: 0,
            starved: BTreeSet::new(),
            stopping: false,
            settings,
            paused_until: Timestamp(0),
            store,
            random,
            now: Timestamp(1_000_000),
            model: Model::default(),
            clients: BTreeMap::new(),
            ended: BTreeSet::new(),
            requests: BTreeMap::new(),
            unnamed_senders: BTreeMap::new(),
            callers: BTreeMap::new(),
            last_caller: 0,
            purges: BTreeMap::new(),
            listening: BTreeSet::new(),
            last_connection: 0,
            last_number: 0,
            tally: Tally::default(),
            missing_allowed: 0,
            sending: Vec::new(),
            sending_id: None,
            asked: None,
            too_many_channels: None,
            hoards,
            restored_up_to: MessageId(0),
            dropped: 0,
            dropped_before: 0,
            unknown: 0,
            effects: Effects::default(),
            turn: 0,
            loads: BTreeMap::new(),
            failed_loads: BTreeSet::new(),
            trace: std::env::var_os("WSMB_SEED").is_some(),
        }
    }

    pub fn step(&mut self) {
        if self.random.chance(4) {
            self.memory = [0, 0, 60, 80, 95][self.random.below(5) as usize];
        }
        match self.random.below(100) {
            0..8 => self.connect(),
            8..20 => self.subscribe(),
            20..48 => self.publish(),
            48..50 => self.repeat(),
            50..62 => self.pong(),
            62..72 => self.acknowledge(),
            72..76 => self.disconnect(),
            76..84 => self.work(),
            84..90 => self.store_event(),
            90..96 => self.pass_time(),
            96 => {
                self.store.failing = self.random.chance(30);
                self.store.loses_answers = self.random.chance(30);
            }
            97 => self.purge(),
            98 if self.random.chance(30) => self.crash(),
            98 if self.random.chance(30) => self.reconfigure(),
            98 if self.random.chance(30) => self.stop(),
            99 if self.random.chance(40) => self.set_clock(),
            99 if self.random.chance(40) => self.hang_up(),
            99 => self.lose_an_answer(),
            _ => self.pass_time(),
        }
    }

    /// Checks the rules that must hold after every step.
    pub fn check(&self) {
        self.broker.audit();
        self.broker.audit_expiries(self.now);
        for (id, client) in &self.clients {
            let silent = self.now.since(client.since);
            let waits = !client.has_automatic() || silent <= self.settings.confirm_timeout;
            assert!(waits, "{id:?} is connected and has confirmed nothing for {silent:?}");
        }
        self.check_owners();
        self.check_late();
        self.check_owed();
        self.check_waiting();
        self.check_callers();
    }

    /// One round of the store's thread. Ids are saved before rows are removed, as in the server.
    fn work(&mut self) {
        if self.store.removes_something() {
            self.save_ids();
        }
        self.store.work();
        for row in self.store.hidden_rows.iter().filter_map(|id| self.store.rows.get(id)) {
            // The message may be refused and yet be delivered, if the broker crashes before the row is removed.
            if let Some(record) = self.model.messages.get_mut(&number(&row.payload.bytes)) {
                record.delayed = true;
            }
        }
        for row in self.store.kept() {
            let record = self.model.messages.get(&number(&row.payload.bytes));
            assert!(
                record.is_none_or(|record| !record.confirmed),
                "{row:?} is confirmed, and no operation removes its row"
            );
        }
    }

    fn store_event(&mut self) {
        if let Some(event) = self.store.events.pop_front() {
            if let Event::Store(StoreEvent::Swept { spared, .. }) = &event {
                self.tally.spared += spared.len() as u64;
            }
            if let Event::Store(StoreEvent::WallAdvanced(by)) = &event {
                self.model.advance(by.as_millis() as u64);
            }
            self.note_stored(&event);
            let is_step = matches!(event, Event::Store(StoreEvent::WallAdvanced(_)));
            self.handle(event);
            if is_step {
                // Messages that are due after the step are released at once, before another step of the clock could move them further.
                self.tick_until(self.now);
            }
        }
    }

    fn pass_time(&mut self) {
        let ahead = [1, 20, 120, 600][self.random.below(4) as usize];
        let target = Timestamp(self.now.0 + 1 + self.random.below(ahead));
        self.tick_until(target);
    }

    /// Passes time: the broker gets a tick at every deadline up to `target`, as in the server.
    fn tick_until(&mut self, target: Timestamp) {
        for round in 0.. {
            assert!(round < 100_000, "the broker's deadlines never end");
            let Some(at) = self.broker.next_deadline().filter(|at| *at <= target) else { break };
            self.now = self.now.max(at);
            self.handle(Event::Tick);
        }
        self.now = target;
        self.save_once_a_second();
    }
}
