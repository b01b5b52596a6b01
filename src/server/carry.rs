//! The core with its surroundings, all behind one lock: the register of connections, and the effects on their way into queues.
//!
//! Nothing here makes a system call; what is queued is flushed by the caller after the lock is released.

use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;
use tracing::debug;

use super::batch::Batch;
use super::commands::{Leave, Step, ping_reply, text};
use super::connection::{Closing, Connection};
use super::counters::Counters;
use super::outbound::Pushed;
use super::render::{Body, Place, Rendered};
use super::replies;
use super::runtime::{Hub, NoRoom, Options, shrink};
use crate::broker::{Broker, Content, Effect, Effects, EndReason, Event, Reply};
use crate::limits;
use crate::message::{ChannelName, ConnectionId, Publication, Timestamp};
use crate::protocol::delivery::Manual;
use crate::protocol::envelope::{self, Code};

/// How many low bits of a [`ConnectionId`] are the place in the register; the others count up, so that no id comes twice.
const SLOT_BITS: u32 = 24;

/// What the core's lock guards.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) broker: Broker,
    effects: Effects,
    connections: Slab<Arc<Connection>>,
    serial: u64,
    /// No connection is made any more.
    closed: bool,
    /// For when the deadline's task sleeps.
    armed: Option<Timestamp>,
    /// The contents of the current effects as frames: once for each dialect.
    rendered: Vec<[Rendered; 2]>,
    /// The frames of this turn.
    batch: Batch,
    /// Ended while effects were carried out; the core is told afterwards.
    victims: Vec<Arc<Connection>>,
    /// Frames queued in this turn.
    queued: usize,
    /// Deliveries among them, until they are counted.
    deliveries: u64,
}

/// A turn's surroundings.
pub(super) struct Turn<'a> {
    hub: &'a Hub,
    now: Timestamp,
    options: Arc<Options>,
    /// Whose queues are to be flushed.
    pub(super) touched: Vec<Arc<Connection>>,
}

impl<'a> Turn<'a> {
    /// Begun under the core's lock, so that the core's time never goes back.
    pub(super) fn new(hub: &'a Hub) -> Self {
        Self { hub, now: hub.now(), options: hub.options(), touched: Vec::new() }
    }

    /// Begins the next turn of a burst: time has passed.
    pub(super) fn renew(&mut self) {
        self.now = self.hub.now();
    }

    fn touch(&mut self, connection: &Arc<Connection>, first: bool) {
        if first {
            self.touched.push(connection.clone());
        }
    }
}

impl Core {
    pub(super) fn new(broker: Broker) -> Self {
        Self {
            broker,
            effects: Effects::default(),
            connections: Slab::new(),
            serial: 0,
            closed: false,
            armed: None,
            rendered: Vec::new(),
            batch: Batch::default(),
            victims: Vec::new(),
            queued: 0,
            deliveries: 0,
        }
    }

    /// Carries out one step; `source` is the connection that it comes from.
    pub(super) fn step(&mut self, step: Step<'_>, source: Option<&Arc<Connection>>, turn: &mut Turn<'_>) {
        match (step, source) {
            (Step::Event(event), _) => self.handle(event, source, turn),
            (step, Some(source)) => self.own(step, source, turn),
            (_, None) => {}
        }
    }

    /// Whether so much was queued that it shall be flushed before more is.
    pub(super) fn is_full(&self) -> bool {
        self.queued >= limits::FRAMES_AT_ONCE
    }

    /// Ends a turn: what it has queued can be flushed when the lock is released. Its batch, to be given back with [`Self::reuse`].
    pub(super) fn seal(&mut self, hub: &Hub, touched: &[Arc<Connection>]) -> Bytes {
        Counters::add(&hub.counters.deliveries, std::mem::take(&mut self.deliveries));
        self.queued = 0;
        let batch = self.batch.freeze();
        for connection in touched {
            connection.queue().seal(&batch);
        }
        batch
    }

    /// Takes back the memory of a batch whose slices are written.
    pub(super) fn reuse(&mut self, batch: Bytes) {
        self.batch.reuse(batch);
    }

    fn handle(&mut self, mut event: Event<'_>, source: Option<&Arc<Connection>>, turn: &mut Turn<'_>) {
        if source.is_some_and(|source| source.queue().is_forgotten()) {
            // What it sends is still good; but it is no receiver any more, and nobody to answer.
            let Event::Publish(publish) = &mut event else { return };
            publish.connection = None;
        }
        let live = if let Event::Publish(publish) = &event { Some(publish.publication) } else { None };
        self.broker.handle(turn.now, event, &mut self.effects);
        self.carry_out(live, turn);
    }

    /// A step that concerns the connection itself.
    fn own(&mut self, step: Step<'_>, source: &Arc<Connection>, turn: &mut Turn<'_>) {
        match step {
            Step::Event(_) => {}
            Step::Frame(frame) => self.push(source, &frame, turn),
            Step::Ping { first } => {
                if first {
                    source.queue().hold_for_answer();
                }
                if let Some(healthy) = turn.hub.storage.ask(source) {
                    self.answer(source, ping_reply(turn.now, healthy), turn);
                }
            }
            Step::Answer(frame) => self.answer(source, frame, turn),
            Step::Release => {
                let first = {
                    let mut queue = source.queue();
                    let greeting = source.profile.topic.is_none().then(|| greeting(turn.now));
                    queue.release(greeting) && queue.touch()
                };
                turn.touch(source, first);
            }
            Step::Flush => {
                let first = source.queue().touch();
                turn.touch(source, first);
            }
            Step::End(closing) => self.end(source, closing, turn),
            Step::Leave(Leave { code, confirmed_up_to }) => {
                self.tell(source, confirmed_up_to, turn);
                self.end(source, Closing { code, reason: "", invited: true, flush: true }, turn);
            }
        }
        self.settle(turn);
    }

    /// Tells the core that a connection has ended, once.
    pub(super) fn forget(&mut self, connection: &Arc<Connection>, confirmed_up_to: Option<u64>, turn: &mut Turn<'_>) {
        self.tell(connection, confirmed_up_to, turn);
        self.carry_out(None, turn);
    }

    fn tell(&mut self, connection: &Arc<Connection>, confirmed_up_to: Option<u64>, turn: &mut Turn<'_>) {
        if connection.queue().forget() {
            let event = Event::Disconnected { connection: connection.id, confirmed_up_to };
            self.broker.handle(turn.now, event, &mut self.effects);
        }
    }

    /// Ends a connection from this side; the core is told by [`Self::settle`].
    fn end(&mut self, connection: &Arc<Connection>, closing: Closing, turn: &mut Turn<'_>) {
        connection.end(closing);
        let first = connection.queue().touch();
        turn.touch(connection, first);
        self.victims.push(connection.clone());
    }

    /// Tells the core of those who were ended, and carries out what it wants then.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        while let Some(connection) = self.victims.pop() {
            self.tell(&connection, None, turn);
        }
        self.carry_out(None, turn);
    }

    /// Carries out what the core wants. `live`: the publication of the event that it has just handled.
    fn carry_out(&mut self, live: Option<&Publication<'_>>, turn: &mut Turn<'_>) {
        // Bounded: every further round follows the end of a connection.
        while !self.effects.list.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            self.rendered.clear();
            self.rendered.resize_with(effects.contents.len(), Default::default);
            for effect in effects.list.drain(..) {
                self.effect(effect, &effects.contents, live, turn);
            }
            effects.contents.clear();
            shrink(&mut effects.list);
            shrink(&mut effects.contents);
            shrink(&mut self.rendered);
            self.effects = effects;
            while let Some(connection) = self.victims.pop() {
                self.tell(&connection, None, turn);
            }
        }
    }

    fn effect(&mut self, effect: Effect, contents: &[Content], live: Option<&Publication<'_>>, turn: &mut Turn<'_>) {
        match effect {
            Effect::Deliver { to, content, sequence, manual, redelivered } => {
                let Some(body) = contents.get(content as usize).and_then(|content| Body::of(content, live)) else {
                    return;
                };
                let manual = manual.then_some(Manual { sequence, redelivered });
                self.deliver(to, (content, body), sequence, manual, turn);
            }
            Effect::Confirm { connection } => {
                let Some(connection) = self.connection(connection).cloned() else { return };
                let first = connection.queue().confirm();
                turn.touch(&connection, first == Some(true));
            }
            Effect::Reply { to, reply } => self.reply(to, &reply, live, turn),
            Effect::End { connection, reason } => {
                let Some(connection) = self.connection(connection).cloned() else { return };
                let reason = match reason {
                    EndReason::Slow => {
                        turn.hub.note_slow(&connection);
                        "slow receiver"
                    }
                    EndReason::Replaced => {
                        Counters::add(&turn.hub.counters.replaced, 1);
                        debug!(connection = connection.id.0, "ended: replaced by a newer connection of the same name");
                        "replaced"
                    }
                };
                self.end(&connection, Closing { code: 1008, reason, invited: false, flush: false }, turn);
            }
            Effect::Store(effect) => turn.hub.storage.submit(effect),
        }
    }

    fn deliver(
        &mut self,
        to: ConnectionId,
        (content, body): (u32, Body<'_>),
        sequence: u64,
        manual: Option<Manual>,
        turn: &mut Turn<'_>,
    ) {
        let Self { connections, batch, rendered, .. } = self;
        let Some(connection) = find(connections, to) else { return };
        let dialect = connection.profile.dialect();
        let mut once = Rendered::default();
        let rendered = match manual {
            // Its frame bears the delivery's number: nobody else gets the same.
            Some(_) => &mut once,
            None => match rendered.get_mut(content as usize) {
                Some(rendered) => &mut rendered[dialect as usize],
                None => return,
            },
        };
        let max = turn.options.max_queue;
        let mut queue = connection.queue();
        let pushed = match rendered.place(batch, queue.is_flowing(), (body, dialect, manual)) {
            Place::Batch(span) => queue.push_span(span, max),
            Place::Own(frame) => queue.push(frame, max),
        };
        if let Pushed::Queued { first } = pushed {
            if sequence > 0 {
                queue.mark(sequence, manual.is_some());
            }
            drop(queue);
            self.queued += 1;
            self.deliveries += 1;
            if first {
                turn.touched.push(connection.clone());
            }
        } else {
            drop(queue);
            let connection = connection.clone();
            self.pushed(&connection, pushed, turn);
        }
    }

    fn reply(&mut self, to: ConnectionId, reply: &Reply, live: Option<&Publication<'_>>, turn: &mut Turn<'_>) {
        if matches!(reply, Reply::Refused { .. }) {
            Counters::add(&turn.hub.counters.refused, 1);
        }
        let Some(connection) = self.connection(to).cloned() else { return };
        match (&connection.profile.topic, reply) {
            (None, reply) => {
                let max_backlog = |channel: &ChannelName| turn.options.policies.of(channel).max_backlog;
                let channel = live.map(|publication| &*publication.channel);
                let frame = text(&replies::render(reply, channel, max_backlog));
                self.push(&connection, &frame, turn);
            }
            (Some(_), Reply::Refused { refusal, .. }) => {
                turn.hub.note_refused(&connection, *refusal);
                let closing =
                    Closing { code: 1013, reason: "not accepted, try again later", invited: false, flush: true };
                self.end(&connection, closing, turn);
            }
            (Some(_), Reply::TooManyChannels) => {
                let closing = Closing { code: 1013, reason: "too many channels", invited: false, flush: true };
                self.end(&connection, closing, turn);
            }
            (Some(_), Reply::Accepted { .. } | Reply::UnknownDelivery { .. }) => {}
        }
    }

    /// Queues a small frame for one connection.
    fn push(&mut self, connection: &Arc<Connection>, frame: &Bytes, turn: &mut Turn<'_>) {
        let max = turn.options.max_queue;
        let pushed = {
            let mut queue = connection.queue();
            if queue.is_flowing() && self.batch.has_room() {
                queue.push_span(self.batch.append(|out| out.extend_from_slice(frame)), max)
            } else {
                queue.push(frame.clone(), max)
            }
        };
        self.pushed(connection, pushed, turn);
    }

    fn answer(&mut self, connection: &Arc<Connection>, frame: Bytes, turn: &mut Turn<'_>) {
        let pushed = connection.queue().answer(frame, turn.options.max_queue);
        self.pushed(connection, pushed, turn);
    }

    fn pushed(&mut self, connection: &Arc<Connection>, pushed: Pushed, turn: &mut Turn<'_>) {
        match pushed {
            Pushed::Queued { first } => turn.touch(connection, first),
            Pushed::Gone => {}
            Pushed::Overflow => {
                turn.hub.note_slow(connection);
                self.end(
                    connection,
                    Closing { code: 1008, reason: "slow receiver", invited: false, flush: false },
                    turn,
                );
            }
        }
    }

    /// The connection with this id, if it has not ended.
    pub(super) fn connection(&self, id: ConnectionId) -> Option<&Arc<Connection>> {
        find(&self.connections, id)
    }

    /// Why no connection can be made, if none can. `max`: how many there may be.
    pub(super) fn no_room(&self, max: usize) -> Option<NoRoom> {
        if self.closed {
            return Some(NoRoom::GoingDown);
        }
        (self.connections.len() >= max.min(1 << SLOT_BITS)).then_some(NoRoom::Crowded)
    }

    /// Puts a new connection into the register; to be asked [`Self::no_room`] before.
    pub(super) fn register(&mut self, make: impl FnOnce(ConnectionId) -> Arc<Connection>) -> Arc<Connection> {
        let entry = self.connections.vacant_entry();
        self.serial += 1;
        let connection = make(ConnectionId((self.serial << SLOT_BITS) | entry.key() as u64));
        entry.insert(connection.clone());
        connection
    }

    /// Takes a connection out of the register. Its caller holds the connection, so that no socket is closed under the lock.
    pub(super) fn unregister(&mut self, id: ConnectionId) {
        if self.connection(id).is_some() {
            self.connections.remove(slot(id));
        }
    }

    /// Makes no connection any more, and names those that are there.
    pub(super) fn close(&mut self) -> Vec<Arc<Connection>> {
        self.closed = true;
        self.connections.iter().map(|(_, connection)| connection.clone()).collect()
    }

    /// How many connections there are.
    pub(super) fn open(&self) -> usize {
        self.connections.len()
    }

    /// The core's next deadline, for which the caller is going to sleep.
    pub(super) fn rearm(&mut self) -> Option<Timestamp> {
        self.armed = self.broker.next_deadline();
        self.armed
    }

    /// Whether the next deadline is nearer than the one that is slept for.
    pub(super) fn arm(&mut self) -> bool {
        let nearer = match (self.broker.next_deadline(), self.armed) {
            (Some(next), Some(armed)) => next < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if nearer {
            self.armed = self.broker.next_deadline();
        }
        nearer
    }
}

fn slot(id: ConnectionId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}

fn find(connections: &Slab<Arc<Connection>>, id: ConnectionId) -> Option<&Arc<Connection>> {
    connections.get(slot(id)).filter(|connection| connection.id == id)
}

/// The connect reply.
pub(super) fn greeting(now: Timestamp) -> Bytes {
    text(&envelope::connect_reply(now, Code::Accepted))
}
