//! The core with its surroundings, all behind one lock: the register of connections, and the effects on their way into queues.
//!
//! Nothing here makes a system call; what is queued is flushed by the caller after the lock is released.

use std::sync::Arc;
use std::vec::Drain;

use bytes::Bytes;
use slab::Slab;
use tracing::debug;

use super::commands::{Leave, Step, ping_reply, text};
use super::connection::{Closing, Connection};
use super::counters::Counters;
use super::outbound::Pushed;
use super::replies;
use super::runtime::{Hub, NoRoom, Options, shrink};
use crate::broker::{Broker, Content, Effect, Effects, EndReason, Event, Reply};
use crate::limits;
use crate::message::{ChannelName, ConnectionId, Dialect, Timestamp};
use crate::protocol::delivery::{self, Manual};
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
    /// The contents of the current effects, encoded: once for each dialect.
    encoded: Vec<[Option<Bytes>; 2]>,
    /// Ended while effects were carried out; the core is told afterwards.
    victims: Vec<Arc<Connection>>,
    /// Who is to be asked for a confirmation, behind everything that this turn delivers to it.
    asked: Vec<ConnectionId>,
    /// Frames queued in this turn.
    queued: usize,
    /// The channel of the publication that is being handled.
    channel: Option<ChannelName>,
}

/// A turn's surroundings.
struct Turn<'a> {
    hub: &'a Hub,
    now: Timestamp,
    options: Arc<Options>,
    touched: &'a mut Vec<Arc<Connection>>,
}

impl<'a> Turn<'a> {
    /// Begun under the core's lock, so that the core's time never goes back.
    fn new(hub: &'a Hub, touched: &'a mut Vec<Arc<Connection>>) -> Self {
        Self { hub, now: hub.now(), options: hub.options(), touched }
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
            encoded: Vec::new(),
            victims: Vec::new(),
            asked: Vec::new(),
            queued: 0,
            channel: None,
        }
    }

    /// Carries out steps until there are none left (false) or so many frames were queued that they shall be flushed first (true).
    pub(super) fn turn(
        &mut self,
        hub: &Hub,
        source: Option<&Arc<Connection>>,
        steps: &mut Drain<'_, Step>,
        touched: &mut Vec<Arc<Connection>>,
    ) -> bool {
        let turn = &mut Turn::new(hub, touched);
        self.queued = 0;
        for step in steps.by_ref() {
            match (step, source) {
                (Step::Event(event), _) => self.handle(event, source, turn),
                (step, Some(source)) => {
                    self.carry_out(turn);
                    self.own(step, source, turn);
                }
                (_, None) => {}
            }
            if self.queued >= limits::FRAMES_AT_ONCE {
                self.carry_out(turn);
                self.ask(turn);
                return true;
            }
        }
        self.carry_out(turn);
        self.ask(turn);
        false
    }

    /// Asks for the confirmations that are wanted, so that one ping answers for all that a burst has brought.
    fn ask(&mut self, turn: &mut Turn<'_>) {
        for connection in std::mem::take(&mut self.asked) {
            let Some(connection) = self.connection(connection).cloned() else { continue };
            let first = connection.queue().confirm();
            turn.touch(&connection, first == Some(true));
        }
    }

    fn handle(&mut self, mut event: Event, source: Option<&Arc<Connection>>, turn: &mut Turn<'_>) {
        if source.is_some_and(|source| source.queue().is_forgotten()) {
            // What it sends is still good; but it is no receiver any more, and nobody to answer.
            let Event::Publish(publish) = &mut event else { return };
            publish.connection = None;
        }
        if let Event::Publish(publish) = &event {
            // A refusal of the publication before is put into words with its own channel.
            if self.channel.as_ref() != Some(&publish.publication.channel) {
                self.carry_out(turn);
                self.channel = Some(publish.publication.channel.clone());
            }
        }
        self.broker.handle(turn.now, event, &mut self.effects);
        if self.effects.list.len() >= limits::EFFECTS_AT_ONCE {
            self.carry_out(turn);
        }
    }

    /// A step that concerns the connection itself.
    fn own(&mut self, step: Step, source: &Arc<Connection>, turn: &mut Turn<'_>) {
        match step {
            Step::Event(_) => {}
            Step::Frame(frame) => self.push(source, frame, turn),
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
    pub(super) fn forget(
        &mut self,
        hub: &Hub,
        connection: &Arc<Connection>,
        confirmed_up_to: Option<u64>,
        touched: &mut Vec<Arc<Connection>>,
    ) {
        let turn = &mut Turn::new(hub, touched);
        self.tell(connection, confirmed_up_to, turn);
        self.carry_out(turn);
        self.ask(turn);
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
        self.carry_out(turn);
    }

    fn carry_out(&mut self, turn: &mut Turn<'_>) {
        // Bounded: every further round follows the end of a connection.
        while !self.effects.list.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            self.encoded.clear();
            self.encoded.resize_with(effects.contents.len(), Default::default);
            for effect in effects.list.drain(..) {
                self.effect(effect, &effects.contents, turn);
            }
            effects.contents.clear();
            shrink(&mut effects.list);
            shrink(&mut effects.contents);
            shrink(&mut self.encoded);
            self.effects = effects;
            while let Some(connection) = self.victims.pop() {
                self.tell(&connection, None, turn);
            }
        }
    }

    fn effect(&mut self, effect: Effect, contents: &[Content], turn: &mut Turn<'_>) {
        match effect {
            Effect::Deliver { to, content, sequence, manual, redelivered } => {
                let Some(connection) = self.connection(to).cloned() else { return };
                let dialect = connection.profile.dialect();
                let manual = manual.then_some(Manual { sequence, redelivered });
                let Some(frame) = self.encoded(contents, content, dialect, manual) else { return };
                self.queued += 1;
                let max = turn.options.max_queue;
                let pushed = connection.queue().push_delivery(frame, max, sequence, manual.is_some());
                Counters::add(&turn.hub.counters.deliveries, 1);
                self.pushed(&connection, pushed, turn);
            }
            Effect::Confirm { connection } => self.asked.push(connection),
            Effect::Reply { to, reply } => self.reply(to, &reply, turn),
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

    /// The frame of a delivery, encoded once for all receivers that get the same bytes.
    fn encoded(&mut self, contents: &[Content], index: u32, dialect: Dialect, manual: Option<Manual>) -> Option<Bytes> {
        let index = index as usize;
        let content = contents.get(index)?;
        if manual.is_some() {
            return Some(encode(content, dialect, manual));
        }
        let slot = &mut self.encoded.get_mut(index)?[dialect as usize];
        Some(slot.get_or_insert_with(|| encode(content, dialect, None)).clone())
    }

    fn reply(&mut self, to: ConnectionId, reply: &Reply, turn: &mut Turn<'_>) {
        if matches!(reply, Reply::Refused { .. }) {
            Counters::add(&turn.hub.counters.refused, 1);
        }
        let Some(connection) = self.connection(to).cloned() else { return };
        match (&connection.profile.topic, reply) {
            (None, reply) => {
                let max_backlog = |channel: &ChannelName| turn.options.policies.of(channel).max_backlog;
                let frame = text(&replies::render(reply, self.channel.as_ref(), max_backlog));
                self.push(&connection, frame, turn);
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

    fn push(&mut self, connection: &Arc<Connection>, frame: Bytes, turn: &mut Turn<'_>) {
        let pushed = connection.queue().push(frame, turn.options.max_queue);
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
        self.connections.get(slot(id)).filter(|connection| connection.id == id)
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

fn encode(content: &Content, dialect: Dialect, manual: Option<Manual>) -> Bytes {
    match content {
        Content::Live(publication) => delivery::encode_live(publication, dialect, manual),
        Content::Backlog { channel, messages } => delivery::encode_backlog(channel, messages, dialect, manual),
    }
}

/// The connect reply.
pub(super) fn greeting(now: Timestamp) -> Bytes {
    text(&envelope::connect_reply(now, Code::Accepted))
}
