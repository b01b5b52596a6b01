//! The broker core: channels, receivers, waiting messages and messages in flight, and every guarantee about delivery.
//!
//! The core is a state machine without I/O. It must never use a socket, a clock, a thread, an async runtime or a database. Everything that
//! happens is an [`Event`] that is passed to [`Broker::handle`] with the time; everything that the core wants done is an [`Effect`] that it
//! appends. Therefore one seed replays every step of a test (`simulation.rs`).
//!
//! A kept message is in exactly one of these states:
//!
//! ```text
//!                    ┌────── returned (its receiver vanished) ◄──────┐
//!                    ├─ held ◄─── nack ◄─────────────────────────────┤
//! publish ─► waiting ┴► flight ─► confirmed                          │
//!        │     ▲  └► expired        └────────────────────────────────┘──► dead letter, dropped
//!        │     └─ paged (in the store only) ◄─ parked (behind it, not written yet)
//!        └► delayed ─► waiting
//! ```
//!
//! A message is *settled* when it is confirmed, expired, dropped, purged or refused, or when it has become a dead letter of another
//! channel. An *unstored* message is neither settled nor known to be in the store. A message is *safe* when it is in the store or
//! confirmed: then its sender gets the answer.

#[cfg(test)]
mod audit;
mod bounds;
mod channel;
mod channel_table;
mod charge;
mod confirm;
mod counters;
mod deadlines;
mod dedup;
mod delay;
mod deliver;
mod effect;
mod entry;
mod event;
mod expiry;
mod expiry_histogram;
mod failure;
mod flight;
mod group_delivery;
mod group_shares;
mod groups;
mod holdings;
mod id_table;
mod journey;
mod late;
mod late_refusal;
mod member;
mod members;
mod membership;
mod memory;
mod memory_use;
mod next_page;
mod pending;
mod preference;
mod publish;
mod receiver;
mod replies;
mod restore;
mod safety;
mod sent;
mod stage;
mod status;
mod stopping;
mod storage;
mod turn;
mod watches;
mod window;
mod window_size;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use slab::Slab;
use smallvec::SmallVec;

pub use bounds::Bounds;
pub use counters::{Counters, Metric};
pub use dedup::{ForgottenIds, FreshIds};
pub use effect::{Backlog, Content, Effect, Effects, EndReason, Note, Outcome, Refusal, Reply, StoreEffect};
pub use event::{
    AckMode, Acknowledge, CallerId, ClientKind, Event, Publish, ReceiverKey, ReplyTo, StoreEvent, StoreFailure,
    Subscribe,
};
pub use restore::{ChannelSummary, Restored, Settings};
pub use status::ChannelStatus;

use channel::Channel;
use deadlines::{Deadlines, Timer};
use dedup::Dedup;
use entry::{Entry, Held, SpareEntries, Unstored};
use flight::Flight;
use holdings::{Holdings, Owner};
use id_table::IdTable;
use memory_use::Memory;
use pending::Pending;
use receiver::Receiver;
use sent::SentTo;
use turn::Turn;
use watches::Watches;

use crate::limits;
use crate::message::{AcceptedId, ChannelName, ConnectionId, GroupName, Message, MessageId, Publication, Timestamp};
use crate::policy::{ChannelPolicy, Spare};

/// A message or publication that is held until its due time.
#[derive(Debug)]
enum Delayed {
    /// A message of a kept channel; with the channel's key.
    Kept(usize, Box<Entry>),
    /// A publication to a channel that is not kept.
    Fleeting {
        publication: Box<Publication<'static>>,
        origin: Option<ConnectionId>,
        receivers: Option<u32>,
        owner: Owner,
    },
}

/// The name of a connection, and the positions (channel and order) that the connection takes over from its predecessor when it subscribes.
type Claim = (ReceiverKey, Vec<(ChannelName, u64)>);

/// The connection that published last, and its channel.
#[derive(Clone, Copy, Debug)]
struct Sender {
    connection: ConnectionId,
    /// The channel's key.
    channel: usize,
    /// Whether the connection also receives the channel.
    receives: bool,
}

/// The broker core. The module describes its rules.
#[derive(Debug)]
pub struct Broker {
    settings: Settings,
    /// The policies of `settings`, by [`crate::policy::Policies::position`].
    policies: Vec<Arc<ChannelPolicy>>,
    /// The channels whose expired messages become dead letters.
    spare: Spare,
    /// In boxes, so that the places of closed channels take little memory.
    channels: Slab<Box<Channel>>,
    channel_keys: HashMap<ChannelName, usize, RandomState>,
    receivers: Slab<Receiver>,
    receiver_keys: HashMap<ConnectionId, usize, RandomState>,
    /// The connection that has each receiver name.
    named: HashMap<ReceiverKey, ConnectionId, RandomState>,
    /// Names and inherited positions of connections that replaced another connection and have not subscribed yet.
    claims: HashMap<ConnectionId, Claim, RandomState>,
    /// Connections that have sent a command and receive nothing, with the channels to which they have sent. Replies go to these connections
    /// and to receivers only.
    connections: HashMap<ConnectionId, SentTo, RandomState>,
    /// Connections that the core has ended and whose end has not been reported yet. Their events are ignored.
    ended: HashSet<ConnectionId, RandomState>,
    flights: Slab<Flight>,
    /// Every unstored message.
    unstored: IdTable<Unstored>,
    /// Rows that stand for an unstored message under its older id, with the key of their channel (perhaps not the message's channel). A
    /// page that contains such a row skips it.
    superseded: HashMap<MessageId, usize, RandomState>,
    /// Messages that were refused because the store had failed, the newest ones. The store has been asked to remove them; a page that still
    /// contains one skips it.
    refused: BTreeSet<MessageId>,
    /// Unstored messages that the store refused and that the broker asks it to write again.
    failed: BTreeSet<MessageId>,
    pending: Slab<Pending>,
    delayed: BTreeMap<(Timestamp, MessageId), Delayed>,
    /// Messages that are held back, by the time at which they are released (at the latest when they expire).
    held: BTreeMap<(Timestamp, MessageId), Held>,
    /// Bytes of the held messages.
    held_bytes: usize,
    /// Held messages that wait for a member of a group: channel, group, message, and the time until which each is held.
    owed: BTreeMap<(usize, GroupName, MessageId), Timestamp>,
    /// Late deliveries that no other receiver has taken yet: channel, receiver, sequence number.
    overdue: BTreeSet<(usize, ConnectionId, u64)>,
    /// The shortest time after which any delivery can be late.
    shortest_deadline: Duration,
    dedup: Dedup,
    /// Channels purged within `dedup_window`, oldest first.
    purges: VecDeque<(Timestamp, ChannelName)>,
    deadlines: Deadlines,
    counters: Counters,
    #[cfg(test)]
    channel_audit: audit::ChannelAudit,
    /// Messages that the answer to the running sweep may name and that are counted already: they expired in memory while they were being
    /// written, or their successor row was settled first.
    expired_early: BTreeSet<MessageId>,
    /// A sweep is running: no message may become paged that its answer could name.
    sweeping: bool,
    /// An orderly stop has begun: kept messages are stored and not delivered.
    stopping: bool,
    last_id: MessageId,
    last_order: u64,
    /// The last publisher; saves the bookkeeping for a sender that publishes again. Cleared by every change of connections, subscriptions
    /// or channels.
    last_sender: Option<Sender>,
    /// Messages up to this id were in the store when the broker started.
    restored_up_to: MessageId,
    /// See [`Restored::suspect_up_to`].
    suspect_up_to: MessageId,
    spare_entries: SpareEntries,
    /// Bytes of entries in memory, of delayed publications and of channels.
    bytes: usize,
    memory: Memory,
    /// Bytes of messages that the store has been asked to write.
    writing: usize,
    /// `bytes` and `writing` by user, and more.
    holdings: Holdings,
    appends: Vec<Message>,
    replacements: Vec<(Message, SmallVec<[MessageId; 1]>)>,
    removals: Vec<MessageId>,
    counts: Vec<(MessageId, u32)>,
    /// Channels to pump (deliver from) before the turn ends.
    to_pump: Vec<usize>,
    watches: Watches,
}

impl Broker {
    /// Makes a broker with the backlog from the store.
    #[must_use]
    pub fn new(settings: Settings, restored: Restored) -> Self {
        let mut broker = Self {
            policies: settings.policies.shared(),
            spare: settings.policies.spare(),
            settings,
            channels: Slab::new(),
            channel_keys: HashMap::default(),
            receivers: Slab::new(),
            receiver_keys: HashMap::default(),
            named: HashMap::default(),
            claims: HashMap::default(),
            connections: HashMap::default(),
            ended: HashSet::default(),
            flights: Slab::new(),
            unstored: IdTable::default(),
            superseded: HashMap::default(),
            refused: BTreeSet::new(),
            failed: BTreeSet::new(),
            pending: Slab::new(),
            delayed: BTreeMap::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            owed: BTreeMap::new(),
            overdue: BTreeSet::new(),
            shortest_deadline: Duration::MAX,
            dedup: Dedup::new(restored.id_seed, restored.id_bound.unwrap_or(limits::DEDUP_IDS)),
            purges: VecDeque::new(),
            deadlines: Deadlines::default(),
            counters: Counters::default(),
            #[cfg(test)]
            channel_audit: audit::ChannelAudit::default(),
            expired_early: BTreeSet::new(),
            sweeping: false,
            stopping: false,
            last_id: restored.last_id,
            last_order: 0,
            last_sender: None,
            restored_up_to: restored.last_id,
            suspect_up_to: restored.suspect_up_to,
            spare_entries: SpareEntries::default(),
            bytes: 0,
            memory: Memory::default(),
            writing: 0,
            holdings: Holdings::default(),
            appends: Vec::new(),
            replacements: Vec::new(),
            removals: Vec::new(),
            counts: Vec::new(),
            to_pump: Vec::new(),
            watches: Watches::default(),
        };
        broker.shortest_deadline = shortest_deadline(&broker.policies);
        broker.restore(restored);
        broker
    }

    /// Handles `event`, which happened at `now`, and appends the effects that the caller must carry out to `effects`.
    ///
    /// `now` must never go back.
    // Inlined, so that the event of the hot path is never built in memory.
    #[inline]
    pub fn handle(&mut self, now: Timestamp, event: Event<'_>, effects: &mut Effects) {
        let turn = &mut Turn { now, effects };
        if let Event::Publish(publish) = event {
            self.publish(publish, turn);
        } else {
            self.handle_other(event, turn);
        }
        self.finish_turn(turn);
    }

    fn handle_other(&mut self, event: Event<'_>, turn: &mut Turn<'_>) {
        match event {
            Event::Publish(publish) => self.publish(publish, turn),
            Event::Claim { connection, receiver } => self.claim(connection, receiver, turn),
            Event::Subscribe(subscribe) => self.subscribe(subscribe, turn),
            Event::Acknowledge(acknowledge) => self.acknowledge(acknowledge, turn),
            Event::Confirmed { connection, up_to } => self.confirmed(connection, up_to, turn),
            Event::Disconnected { connection, took_only, listens } => {
                self.disconnected(connection, took_only, listens, turn);
            }
            Event::Store(event) => self.handle_store(event, turn),
            Event::Purge { channel } => self.purge(&channel, turn),
            Event::Stopping => self.begin_stop(turn),
            Event::CallerGone(caller) => self.watches.end(caller),
            Event::Tick => self.tick(turn),
        }
    }

    fn handle_store(&mut self, event: StoreEvent, turn: &mut Turn<'_>) {
        match event {
            StoreEvent::Stored(ids) => self.stored(&ids, turn),
            StoreEvent::StoreFailed(ids, failure) => self.store_failed(&ids, failure, turn),
            StoreEvent::Loaded { channel, messages, complete } => {
                self.loaded(&channel, messages, complete, turn);
                self.expire_after_page(&channel, turn);
            }
            StoreEvent::LoadFailed { channel } => {
                self.load_failed(&channel, turn);
                self.expire_after_page(&channel, turn);
            }
            StoreEvent::Swept { gone, spared, more } => self.swept(&gone, spared, more, turn),
            StoreEvent::WallAdvanced(by) => self.wall_advanced(by, turn),
        }
    }

    /// Returns the time of the next deadline: the caller must then pass [`Event::Tick`]. `None` if there is no deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let delayed = self.delayed.first_key_value().map(|((due, _), _)| *due);
        let held = self.held.first_key_value().map(|((until, _), _)| *until);
        [self.deadlines.next(), delayed, held].into_iter().flatten().min()
    }

    /// Returns the counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the number of unsettled messages of all channels: waiting, parked, paged, delayed, held back or in flight.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        self.channels.iter().map(|(_, channel)| channel.unsettled).sum()
    }

    /// Returns the ids that were accepted since the last call. The caller writes them to a file for the next start.
    pub fn take_fresh_ids(&mut self) -> FreshIds {
        self.dedup.take_fresh()
    }

    /// Whether [`Self::take_fresh_ids`] or [`Self::take_forgotten_ids`] would return something.
    #[must_use]
    pub fn has_fresh_ids(&self) -> bool {
        self.dedup.has_news()
    }

    /// Returns every accepted id that is remembered.
    #[must_use]
    pub fn accepted_ids(&self) -> Vec<AcceptedId> {
        self.dedup.accepted()
    }

    /// Returns the number of accepted ids that are remembered.
    #[must_use]
    pub fn accepted_ids_count(&self) -> usize {
        self.dedup.len()
    }

    /// The ids that were forgotten before `dedup_window` was over since this was asked last, if any were.
    pub fn take_forgotten_ids(&mut self) -> Option<ForgottenIds> {
        let forgotten = self.dedup.take_forgotten()?;
        self.count(None, Metric::ForgottenIds, forgotten.count);
        Some(forgotten)
    }

    /// Applies new settings. Accepted messages stay accepted. The caller must pass [`Event::Tick`] afterwards, because a deadline may have
    /// passed.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.policies = settings.policies.shared();
        self.spare = settings.policies.spare();
        self.shortest_deadline = shortest_deadline(&self.policies);
        self.settings = settings;
        self.restart_confirm_timers();
        for (_, channel) in &mut self.channels {
            channel.policy = self.policies[self.settings.policies.position(&channel.name)].clone();
        }
    }

    /// Pumps the channels that the turn has marked, and passes the collected store operations on.
    fn finish_turn(&mut self, turn: &mut Turn<'_>) {
        let is_due = self.deadlines.relief.take_if(|at| *at <= turn.now).is_some();
        if is_due || self.is_memory_short() {
            self.relieve_memory(turn);
        }
        // Bounded: each round delivers or gives up at least one message, or asks for a page, and adds at most the channels of changed
        // receivers.
        while let Some(channel) = self.to_pump.pop() {
            self.pump(channel, turn);
        }
        if self.has_store_requests() {
            self.flush_store(turn);
        }
        self.report_outcomes(turn);
        let unstored = &self.unstored;
        self.deadlines.drop_finished_writes(|id| !unstored.contains(id));
    }

    /// Handles every deadline that has passed.
    fn tick(&mut self, turn: &mut Turn<'_>) {
        self.expire_due(turn);
        while let Some(timer) = self.deadlines.due_receiver(turn.now) {
            match timer {
                Timer::BurstEnd(connection) => self.burst_ended(connection, turn),
                Timer::NextBacklog(connection) => self.backlog_pause_over(connection),
                Timer::ConfirmTimeout(connection) => self.end_unconfirmed(connection, turn),
                Timer::LateCheck(connection) => self.check_late(connection, turn),
                Timer::PageWait(connection) => self.page_wait_over(connection),
            }
        }
        while let Some(id) = self.deadlines.due_write(turn.now) {
            self.append_unrequested(id);
        }
        self.release_delayed(turn);
        self.release_held(turn);
        if self.deadlines.retry.is_some_and(|at| at <= turn.now) {
            self.deadlines.retry = None;
            self.retry_store();
        }
        if self.deadlines.sweep.is_some_and(|at| at <= turn.now) {
            self.deadlines.sweep = None;
            self.sweep(turn);
        }
    }

    fn next_id(&mut self) -> MessageId {
        self.last_id.0 += 1;
        self.last_id
    }
}

/// Returns the shortest time of all policies after which a delivery is late. No delivery needs a check sooner.
fn shortest_deadline(policies: &[Arc<ChannelPolicy>]) -> Duration {
    let times = policies.iter().flat_map(|policy| [policy.ack_timeout, policy.confirm_within]);
    times.filter(|time| !time.is_zero()).min().unwrap_or(Duration::MAX)
}
