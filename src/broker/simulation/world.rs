//! The simulated world around the broker: what happens next is chosen by the seed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use wildmatch::WildMatch;

use super::Random;
use super::model::{Model, Seen, Told};
use super::store::SimStore;
use crate::broker::{
    AckMode, Acknowledge, Broker, Content, Effect, Effects, Event, Publish, ReceiverKey, Reply, Settings, Subscribe,
};
use crate::limits;
use crate::message::{ChannelName, ConnectionId, Dialect, Frame, Kind, Publication, PublicationId, Spans, Timestamp};
use crate::policy::{ChannelPolicy, Dispatch, Policies};

const CHANNELS: [&str; 9] = ["all", "one", "two", "three", "drop", "live", "turn", "short", "dead"];

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).expect("a valid name")
}

fn settings(random: &mut Random) -> Settings {
    let kept = |receivers| ChannelPolicy { receivers, ..ChannelPolicy::default() };
    let named = vec![
        ("one", kept(1)),
        ("two", ChannelPolicy { dispatch: Dispatch::Rotate, ..kept(2) }),
        ("three", ChannelPolicy { max_deliveries: 3, dead_letter: Some(name("dead")), ..kept(1) }),
        ("drop", ChannelPolicy { max_deliveries: 2, ..kept(1) }),
        ("live", ChannelPolicy { keep: false, ..kept(0) }),
        ("turn", ChannelPolicy { keep: false, dispatch: Dispatch::Rotate, ..kept(1) }),
        ("short", ChannelPolicy { ttl: Duration::from_millis(700), max_backlog: 20, ..kept(1) }),
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
        confirm_timeout: Duration::from_secs(300),
        dedup_window: Duration::from_secs(100_000),
    }
}

fn number(message: &[u8]) -> u64 {
    std::str::from_utf8(message).ok().and_then(|text| text.parse().ok()).expect("messages are numbers")
}

/// Where a publication was sent to, and its messages.
fn carried(publication: &Publication<'_>) -> (ChannelName, Vec<u64>) {
    (ChannelName::clone(&publication.channel), publication.bodies().map(number).collect())
}

/// What a delivery carries: its channel and its messages. `live`: the publication of the event.
fn content_of(content: &Content, live: Option<&Publication<'_>>) -> (ChannelName, Vec<u64>) {
    match content {
        Content::Live => carried(live.expect("an event that carries a publication")),
        Content::Due(publication) => carried(publication),
        Content::Backlog { channel, messages } => {
            (channel.clone(), messages.iter().map(|message| number(&message.bytes)).collect())
        }
    }
}

#[derive(Debug)]
struct Client {
    manual: bool,
    channels: BTreeSet<String>,
    last: u64,
    unanswered: BTreeSet<u64>,
    /// A ping is on its way: what its pong will confirm.
    ping: Option<u64>,
    prefetch: u32,
    /// It has sent to a channel that it receives.
    publishes: bool,
}

/// A publication whose sender waits for the answer, or has it.
#[derive(Debug, Clone)]
struct Asked {
    channel: String,
    numbers: Vec<u64>,
    /// Answers that are owed, by connection.
    owed: BTreeMap<ConnectionId, u32>,
    accepted: bool,
    refused: bool,
}

#[derive(Debug)]
pub(super) struct World {
    random: Random,
    now: Timestamp,
    settings: Settings,
    broker: Broker,
    store: SimStore,
    model: Model,
    clients: BTreeMap<ConnectionId, Client>,
    ended: BTreeSet<ConnectionId>,
    asked: BTreeMap<String, Asked>,
    last_connection: u64,
    last_number: u64,
    confirmed: u64,
    missing_allowed: u64,
    effects: Effects,
    /// The way that the last publication took, which the next one may take without being handled.
    route: Option<Route>,
    /// One seed is replayed: tell what happens.
    trace: bool,
}

/// What [`Effect::Broadcast`] promises about further publications.
#[derive(Debug)]
struct Route {
    sender: ConnectionId,
    channel: ChannelName,
    to: Arc<[ConnectionId]>,
    except: Option<ConnectionId>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let settings = settings(&mut random);
        let store = SimStore::default();
        Self {
            broker: Broker::new(settings.clone(), store.restored(true)),
            settings,
            store,
            random,
            now: Timestamp(1_000_000),
            model: Model::default(),
            clients: BTreeMap::new(),
            ended: BTreeSet::new(),
            asked: BTreeMap::new(),
            last_connection: 0,
            last_number: 0,
            confirmed: 0,
            missing_allowed: 0,
            effects: Effects::default(),
            route: None,
            trace: std::env::var_os("WSMB_SEED").is_some(),
        }
    }

    pub fn step(&mut self) {
        match self.random.below(100) {
            0..8 => self.connect(),
            8..20 => self.subscribe(),
            20..48 => self.publish(),
            48..50 => self.repeat(),
            50..62 => self.pong(),
            62..72 => self.acknowledge(),
            72..76 => self.disconnect(),
            76..84 => self.store.work(),
            84..90 => self.store_event(),
            90..96 => self.pass_time(),
            96 => self.store.failing = self.random.chance(30),
            97 => self.purge(),
            98 if self.random.chance(30) => self.crash(),
            _ => self.pass_time(),
        }
    }

    /// What must hold after every step.
    pub fn check(&self) {
        self.broker.audit();
    }

    fn any_client(&mut self) -> Option<ConnectionId> {
        let ids: Vec<_> = self.clients.keys().copied().collect();
        self.random.pick(&ids).copied()
    }

    fn connect(&mut self) {
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        let client = Client {
            manual: false,
            channels: BTreeSet::new(),
            last: 0,
            unanswered: BTreeSet::new(),
            ping: None,
            prefetch: limits::PREFETCH,
            publishes: false,
        };
        self.clients.insert(id, client);
        if self.random.chance(15) {
            let receiver = self.receiver_name();
            self.give(Event::Claim { connection: id, receiver });
        }
    }

    fn receiver_name(&mut self) -> ReceiverKey {
        ReceiverKey { user: Arc::from("u"), id: Arc::from(["x", "y"][self.random.below(2) as usize]) }
    }

    fn subscribe(&mut self) {
        let Some(connection) = self.any_client() else { return };
        let count = self.random.below(3);
        let mut channels: Vec<String> = Vec::new();
        for _ in 0..count {
            let channel = CHANNELS[self.random.below(CHANNELS.len() as u64) as usize].to_owned();
            if !channels.contains(&channel) {
                channels.push(channel);
            }
        }
        let prefetch = [1, 2, 4, limits::PREFETCH, limits::PREFETCH][self.random.below(5) as usize];
        let receiver = self.random.chance(10).then(|| self.receiver_name());
        let Some(client) = self.clients.get_mut(&connection) else { return };
        // A receiver keeps its way of confirming while anything is unconfirmed, as sensible clients do.
        if client.unanswered.is_empty() {
            client.manual = self.random.chance(50);
        }
        client.channels = channels.iter().cloned().collect();
        for told in self.model.messages.values_mut() {
            // Once it has left the channel, its messages are like anybody's.
            told.own &= told.sender != connection || channels.contains(&told.channel);
        }
        client.prefetch = prefetch;
        let ack = if client.manual { AckMode::Manual } else { AckMode::Automatic };
        let channels = channels.iter().map(|channel| name(channel)).collect();
        self.give(Event::Subscribe(Subscribe { connection, channels, ack, prefetch, receiver }));
    }

    fn publish(&mut self) {
        let Some(connection) = self.any_client() else { return };
        let channel = CHANNELS[self.random.below(CHANNELS.len() as u64 - 1) as usize].to_owned();
        let count = if self.random.chance(80) { 1 } else { 1 + self.random.below(3) };
        let numbers: Vec<u64> = (0..count).map(|offset| self.last_number + 1 + offset).collect();
        self.last_number += count;
        let id = self.random.chance(40).then(|| format!("p{}", numbers[0]));
        let ttl = self.random.chance(15).then(|| Duration::from_millis(50 + self.random.below(2_000)));
        let delay = self.random.chance(10).then(|| Duration::from_millis(1 + self.random.below(1_500)));
        let receivers = self.random.chance(15).then(|| self.random.below(3) as u32);
        let policy = self.settings.policies.of(&name(&channel)).clone();
        if let Some(client) = self.clients.get_mut(&connection) {
            client.publishes |= client.channels.contains(&channel);
        }
        let life = ttl.unwrap_or(policy.ttl);
        let own = self.clients.get(&connection).is_some_and(|client| client.channels.contains(&channel));
        for number in &numbers {
            self.model.messages.insert(
                *number,
                Told {
                    channel: channel.clone(),
                    sender: connection,
                    own,
                    as_member: own,
                    limit: receivers.unwrap_or(policy.receivers) as usize,
                    keep: policy.keep,
                    delayed: delay.is_some(),
                    due: delay.map_or(self.now, |delay| self.now.after(delay)),
                    expires: (policy.keep && !life.is_zero()).then(|| self.now.after(life)),
                    accepted: false,
                    refused: false,
                    confirmed: false,
                    purged: false,
                    lost: false,
                    deliveries: 0,
                    holders: BTreeSet::new(),
                },
            );
        }
        if let Some(id) = &id {
            let owed = BTreeMap::from([(connection, 1)]);
            let asked =
                Asked { channel: channel.clone(), numbers: numbers.clone(), owed, accepted: false, refused: false };
            self.asked.insert(id.clone(), asked);
        }
        self.send(connection, &channel, &numbers, id.as_deref(), (receivers, ttl, delay));
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        channel: &str,
        numbers: &[u64],
        id: Option<&str>,
        (receivers, ttl, delay): (Option<u32>, Option<Duration>, Option<Duration>),
    ) {
        let (mut text, mut messages) = (String::new(), Spans::new());
        for number in numbers {
            let start = text.len();
            text.push_str(&number.to_string());
            messages.push(start..text.len());
        }
        let publication = Publication {
            channel: Cow::Owned(name(channel)),
            dialect: Dialect::Envelope,
            kind: Kind::Text,
            frame: Frame::Borrowed(text.as_bytes()),
            messages,
        };
        let publish = Publish {
            connection: Some(connection),
            publication: &publication,
            receivers,
            id: id.map(|id| PublicationId::new("u", id)),
            ttl,
            delay,
        };
        if !self.takes_route(&publish) {
            self.give(Event::Publish(&publish));
        }
    }

    /// Somebody sends again what was accepted or is pending. Nobody may notice but the sender.
    fn repeat(&mut self) {
        let Some(connection) = self.any_client() else { return };
        // A refused id may be used anew, and nobody tells us of a refusal when all who asked are gone.
        let known = |asked: &Asked| !asked.refused && (asked.accepted || asked.owed.values().any(|owed| *owed > 0));
        let ids: Vec<String> = self.asked.iter().filter(|(_, asked)| known(asked)).map(|(id, _)| id.clone()).collect();
        let Some(id) = self.random.pick(&ids).cloned() else { return };
        let Some(asked) = self.asked.get_mut(&id) else { return };
        *asked.owed.entry(connection).or_default() += 1;
        let Asked { channel, numbers, .. } = asked.clone();
        if let Some(client) = self.clients.get_mut(&connection) {
            client.publishes |= client.channels.contains(&channel);
        }
        self.send(connection, &channel, &numbers, Some(&id), (None, None, None));
    }

    fn pong(&mut self) {
        let pinged: Vec<_> =
            self.clients.iter().filter(|(_, client)| client.ping.is_some()).map(|(id, _)| *id).collect();
        let Some(connection) = self.random.pick(&pinged).copied() else { return };
        let Some(up_to) = self.clients.get_mut(&connection).and_then(|client| client.ping.take()) else { return };
        self.confirm(connection, up_to);
        self.give(Event::Confirmed { connection, up_to });
    }

    fn confirm(&mut self, connection: ConnectionId, up_to: u64) {
        let Some(client) = self.clients.get_mut(&connection).filter(|client| !client.manual) else { return };
        client.unanswered.retain(|sequence| *sequence > up_to);
        self.model.confirmed(connection, |sequence| sequence <= up_to);
    }

    fn acknowledge(&mut self) {
        let Some(connection) = self.any_client() else { return };
        let done = self.random.chance(70);
        let Some(client) = self.clients.get_mut(&connection) else { return };
        if !client.manual {
            return;
        }
        let waiting: Vec<u64> = client.unanswered.iter().copied().collect();
        let Some(sequence) = self.random.pick(&waiting).copied() else {
            self.give(Event::Acknowledge(Acknowledge { connection, sequence: 1_000_000, done }));
            return;
        };
        client.unanswered.remove(&sequence);
        if done {
            self.model.confirmed(connection, |other| other == sequence);
        } else {
            self.model.released(connection, |other| other == sequence);
        }
        self.give(Event::Acknowledge(Acknowledge { connection, sequence, done }));
    }

    fn disconnect(&mut self) {
        let Some(connection) = self.any_client() else { return };
        let up_to = match self.clients.get(&connection) {
            Some(client) if self.random.chance(50) => Some(self.random.below(client.last + 1)),
            _ => None,
        };
        if let Some(up_to) = up_to.filter(|_| self.clients.get(&connection).is_some_and(|client| !client.publishes)) {
            self.confirm(connection, up_to);
        }
        self.gone(connection);
        self.give(Event::Disconnected { connection, confirmed_up_to: up_to });
    }

    fn gone(&mut self, connection: ConnectionId) {
        self.clients.remove(&connection);
        self.model.released(connection, |_| true);
        for asked in self.asked.values_mut() {
            asked.owed.remove(&connection);
        }
    }

    fn store_event(&mut self) {
        if let Some(event) = self.store.events.pop_front() {
            self.give(event);
        }
    }

    fn pass_time(&mut self) {
        let ahead = [1, 20, 120, 600][self.random.below(4) as usize];
        let target = Timestamp(self.now.0 + 1 + self.random.below(ahead));
        self.tick_until(target);
    }

    /// Gives a tick at every deadline up to `target`, as the runtime does.
    fn tick_until(&mut self, target: Timestamp) {
        for round in 0.. {
            assert!(round < 100_000, "the broker wants to be woken for ever");
            let Some(at) = self.broker.next_deadline().filter(|at| *at <= target) else { break };
            self.now = self.now.max(at);
            self.give(Event::Tick);
        }
        self.now = target;
    }

    fn purge(&mut self) {
        let channel = CHANNELS[self.random.below(CHANNELS.len() as u64) as usize];
        if !self.random.chance(30) || channel == "dead" || channel == "three" {
            // Dead letters change their channel; the model does not follow them there.
            return;
        }
        for told in self.model.messages.values_mut().filter(|told| told.channel == channel && told.keep) {
            told.purged = true;
        }
        self.give(Event::Purge { channel: name(channel) });
    }

    /// The process dies, or stops in an orderly way; a new one finds what the store has.
    fn crash(&mut self) {
        let connections: Vec<_> = self.clients.keys().copied().collect();
        for connection in connections {
            self.gone(connection);
        }
        self.ended.clear();
        self.store.crash();
        let rows: BTreeSet<u64> =
            self.store.rows.values().filter_map(|row| row.payload.as_text()?.parse::<u64>().ok()).collect();
        for (number, told) in &mut self.model.messages {
            told.holders.clear();
            let dead = told.expires.is_some_and(|at| at <= self.now) || told.confirmed || told.purged;
            if rows.contains(number) {
                // Its removal had not been committed: it may come again, or, if it was purged, for the first time and late.
                told.delayed |= told.purged;
                told.confirmed = false;
                told.purged = false;
                told.refused = false;
            } else if told.keep && !told.accepted && !dead {
                told.lost = true;
            } else if told.keep && told.channel != "drop" {
                assert!(dead || told.refused || told.lost, "message {number} was accepted and is not in the store");
            }
        }
        // Ids are remembered across a crash by the rows that carry them.
        self.asked.retain(|_, asked| asked.accepted && asked.numbers.iter().all(|number| rows.contains(number)));
        self.broker = Broker::new(self.settings.clone(), self.store.restored(false));
    }

    /// Everything heals, a patient receiver takes what is left, and the books are closed.
    pub fn finish(mut self) -> u64 {
        self.store.failing = false;
        while let Some(connection) = self.any_client() {
            self.gone(connection);
            self.give(Event::Disconnected { connection, confirmed_up_to: None });
        }
        self.connect();
        let connection = ConnectionId(self.last_connection);
        let channels = CHANNELS.iter().map(|channel| name(channel)).collect();
        if let Some(client) = self.clients.get_mut(&connection) {
            client.channels = CHANNELS.iter().map(|channel| (*channel).to_owned()).collect();
        }
        let prefetch = limits::PREFETCH;
        self.give(Event::Subscribe(Subscribe {
            connection,
            channels,
            ack: AckMode::Automatic,
            prefetch,
            receiver: None,
        }));
        for _ in 0..400 {
            self.store.work();
            while !self.store.events.is_empty() {
                self.store_event();
            }
            self.pong();
            self.tick_until(Timestamp(self.now.0 + 150));
            self.check();
        }
        assert_eq!(self.broker.unsettled(), 0, "messages are left that nobody can get: {:#?}", self.broker);
        assert!(self.store.rows.is_empty(), "rows are left: {:?}", self.store.rows);
        assert!(self.store.is_idle(), "the store still has something to do");
        self.broker.audit_empty();
        self.close_books();
        self.confirmed
    }

    fn close_books(&mut self) {
        let counters = *self.broker.counters();
        let mut missing = 0;
        for (number, told) in &self.model.messages {
            let over = told.confirmed
                || told.purged
                || told.refused
                || told.lost
                || !told.keep
                || told.expires.is_some_and(|at| at <= self.now)
                || (told.channel == "drop" && told.deliveries >= 2);
            assert!(over || !told.accepted, "message {number} was accepted and never confirmed: {told:?}");
            missing += u64::from(!over);
            self.confirmed += u64::from(told.confirmed);
        }
        let allowed = self.missing_allowed + counters.refused + counters.refused_late;
        assert!(missing <= allowed, "{missing} messages are missing, {allowed} were refused");
        for (id, asked) in &self.asked {
            assert!(asked.owed.values().all(|owed| *owed == 0), "publication {id} was never answered: {asked:?}");
        }
    }

    /// Sends a publication the way of the last one, as the server does, if it goes that way; and sees that the broker would have said
    /// the same.
    fn takes_route(&mut self, publish: &Publish<'_>) -> bool {
        let Some(route) = &self.route else { return false };
        let same = publish.connection == Some(route.sender) && *publish.publication.channel == route.channel;
        if !same || !publish.is_plain() || publish.publication.messages.is_empty() {
            return false;
        }
        let mut effects = Effects::default();
        self.broker.handle(self.now, Event::Publish(publish), &mut effects);
        let [Effect::Broadcast { to, except, .. }] = &effects.list[..] else { panic!("another way: {effects:?}") };
        assert_eq!((to, except), (&route.to, &route.except), "the route has changed");
        for to in to.iter().filter(|to| Some(**to) != *except) {
            self.take(*to, carried(publish.publication), 0, false, false);
        }
        true
    }

    /// Gives an event to the broker and carries out what it wants.
    fn give(&mut self, event: Event<'_>) {
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        if self.trace {
            eprintln!("{} {event:?}", self.now.0);
        }
        let publish = if let Event::Publish(publish) = &event { Some(*publish) } else { None };
        let (live, plain) = (publish.map(|publish| publish.publication), publish.filter(|publish| publish.is_plain()));
        self.route = None;
        self.broker.handle(self.now, event, &mut effects);
        if self.trace {
            effects.list.iter().for_each(|effect| eprintln!("    {effect:?}"));
            effects
                .contents
                .iter()
                .enumerate()
                .for_each(|(index, content)| eprintln!("    content {index}: {content:?}"));
        }
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Deliver { to, content, sequence, manual, redelivered } => {
                    let content = content_of(&effects.contents[content as usize], live);
                    self.take(to, content, sequence, manual, redelivered);
                }
                Effect::Broadcast { to, except, content } => {
                    if let Some(publish) = plain {
                        let channel = ChannelName::clone(&publish.publication.channel);
                        let sender = publish.connection.expect("a client sent it");
                        self.route = Some(Route { sender, channel, to: to.clone(), except });
                    }
                    for to in to.iter().filter(|to| Some(**to) != except) {
                        self.take(*to, content_of(&effects.contents[content as usize], live), 0, false, false);
                    }
                }
                Effect::Confirm { connection } => {
                    let client = self.clients.get_mut(&connection).expect("a confirmation is asked of a live client");
                    assert!(client.ping.is_none(), "asked again before it answered");
                    client.ping = Some(client.last);
                }
                Effect::Reply { to, reply } => self.answered(to, &reply),
                Effect::End { connection, .. } => {
                    assert!(self.clients.contains_key(&connection), "{connection:?} is ended, but gone");
                    self.gone(connection);
                    self.ended.insert(connection);
                }
                Effect::Store(effect) => self.store.ask(effect),
            }
        }
        self.effects = effects;
        // The runtime reports the end of what the broker has ended.
        while let Some(connection) = self.ended.pop_first() {
            self.give(Event::Disconnected { connection, confirmed_up_to: None });
        }
    }

    fn take(
        &mut self,
        to: ConnectionId,
        (channel, numbers): (ChannelName, Vec<u64>),
        sequence: u64,
        manual: bool,
        redelivered: bool,
    ) {
        let client = self.clients.get_mut(&to).expect("a delivery goes to a live client");
        assert!(client.channels.contains(channel.as_str()), "{to:?} does not receive {channel}");
        if sequence > 0 {
            assert_eq!(manual, client.manual, "{to:?} confirms in another way");
            assert_eq!(sequence, client.last + 1, "deliveries are numbered without a gap");
            client.last = sequence;
            client.unanswered.insert(sequence);
            let most = limits::FANOUT_DELIVERIES.max(client.prefetch.max(limits::PREFETCH) as usize);
            assert!(client.unanswered.len() <= most.max(limits::MAX_PREFETCH as usize), "the window is bounded");
        }
        for number in numbers {
            let seen = Seen { number, channel: channel.as_str(), to, sequence, manual, redelivered };
            self.model.delivered(self.now, &seen, "dead");
        }
    }

    fn answered(&mut self, to: ConnectionId, reply: &Reply) {
        assert!(self.clients.contains_key(&to), "a reply goes to a live client");
        let (id, accepted) = match reply {
            Reply::Accepted { id, .. } => (id, true),
            Reply::Refused { id: Some(id), .. } => (id, false),
            Reply::Refused { id: None, .. } => return,
            Reply::UnknownDelivery { sequence, .. } => {
                assert_eq!(*sequence, 1_000_000, "a known delivery is said to be unknown");
                return;
            }
            Reply::TooManyChannels => panic!("there are few channels"),
        };
        let asked = self.asked.get_mut(id.id()).expect("an answer is to something that was asked");
        let owed = asked.owed.get_mut(&to).expect("an answer goes to who asked");
        *owed = owed.checked_sub(1).expect("one answer to one question");
        asked.accepted |= accepted;
        asked.refused |= !accepted;
        let numbers = asked.numbers.clone();
        for number in &numbers {
            let stored = self.store.rows.values().any(|row| row.payload.as_text() == Some(&number.to_string()));
            let told = self.model.messages.get_mut(number).expect("it was sent");
            let over = told.confirmed || told.purged || told.expires.is_some_and(|at| at <= self.now);
            if accepted {
                told.accepted = true;
                let dropped = told.channel == "drop" && told.deliveries >= 2;
                assert!(!told.keep || stored || over || dropped, "message {number} is called safe and is not");
            } else if numbers.len() == 1 && !over {
                told.refused = true;
            } else {
                // Some of a publication's messages may have been delivered before the others were refused.
                self.missing_allowed += 1;
            }
        }
    }
}
