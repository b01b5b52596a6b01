//! The core with its surroundings, all behind one lock: the register of connections, and the effects on their way into queues.
//!
//! Nothing here makes a system call; what is queued is flushed by the caller after the lock is released.

use std::sync::Arc;

use bytes::Bytes;
use tracing::debug;

use super::commands::{Leave, Step, ping_reply, text};
use super::connection::{Closing, Connection};
use super::counters::Counters;
use super::outgoing::{Outgoing, SLOT_BITS, Sealed};
use super::render::Body;
use super::replies;
use super::runtime::{Hub, NoRoom, Options, shrink};
use crate::broker::{Broker, Content, Effect, Effects, EndReason, Event, Reply};
use crate::message::{ChannelName, ConnectionId, Publication, Timestamp};
use crate::protocol::delivery::Manual;
use crate::protocol::envelope::{self, Code};

/// What the core's lock guards.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) broker: Broker,
    effects: Effects,
    outgoing: Outgoing,
    /// No connection is made any more.
    closed: bool,
    /// For when the deadline's task sleeps.
    armed: Option<Timestamp>,
    /// Ended while effects were carried out; the core is told afterwards.
    victims: Vec<Arc<Connection>>,
}

/// A turn's surroundings.
pub(super) struct Turn<'a> {
    hub: &'a Hub,
    now: Timestamp,
    options: Arc<Options>,
}

impl<'a> Turn<'a> {
    /// Begun under the core's lock, so that the core's time never goes back.
    pub(super) fn new(hub: &'a Hub) -> Self {
        Self { hub, now: hub.now(), options: hub.options() }
    }

    /// Begins the next turn of a burst: time has passed.
    pub(super) fn renew(&mut self) {
        self.now = self.hub.now();
    }
}

impl Core {
    pub(super) fn new(broker: Broker) -> Self {
        Self {
            broker,
            effects: Effects::default(),
            outgoing: Outgoing::default(),
            closed: false,
            armed: None,
            victims: Vec::new(),
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
        self.outgoing.is_full()
    }

    /// Ends a turn: what it has queued can be flushed when the lock is released, and is then given back with [`Self::reuse`].
    pub(super) fn seal(&mut self, turn: &mut Turn<'_>) -> Sealed {
        self.outgoing.spread(turn.options.max_queue);
        // Bounded: every further round follows the end of a connection.
        while !(self.outgoing.overflowed.is_empty() && self.victims.is_empty() && self.effects.list.is_empty()) {
            self.settle(turn);
            self.outgoing.spread(turn.options.max_queue);
        }
        let sealed = self.outgoing.seal();
        Counters::add(&turn.hub.counters.deliveries, sealed.deliveries);
        sealed
    }

    /// Takes back the memory of a turn whose queues are flushed.
    pub(super) fn reuse(&mut self, sealed: Sealed) {
        self.outgoing.reuse(sealed);
    }

    fn handle(&mut self, mut event: Event<'_>, source: Option<&Arc<Connection>>, turn: &mut Turn<'_>) {
        if source.is_some_and(|source| source.is_forgotten()) {
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
                self.outgoing.touch(source, first);
            }
            Step::Flush => {
                let first = source.queue().touch();
                self.outgoing.touch(source, first);
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
        if connection.forget() {
            let event = Event::Disconnected { connection: connection.id, confirmed_up_to };
            self.broker.handle(turn.now, event, &mut self.effects);
        }
    }

    /// Ends a connection from this side; the core is told by [`Self::settle`].
    fn end(&mut self, connection: &Arc<Connection>, closing: Closing, turn: &mut Turn<'_>) {
        self.outgoing.spread(turn.options.max_queue);
        connection.end(closing);
        let first = connection.queue().touch();
        self.outgoing.touch(connection, first);
        self.victims.push(connection.clone());
    }

    /// Tells the core of those who were ended, and carries out what it wants then.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        self.end_overflowed(turn);
        self.tell_of_victims(turn);
        self.carry_out(None, turn);
    }

    fn tell_of_victims(&mut self, turn: &mut Turn<'_>) {
        while let Some(connection) = self.victims.pop() {
            self.tell(&connection, None, turn);
        }
    }

    /// Carries out what the core wants. `live`: the publication of the event that it has just handled.
    fn carry_out(&mut self, live: Option<&Publication<'_>>, turn: &mut Turn<'_>) {
        // Bounded: every further round follows the end of a connection.
        while !self.effects.list.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            self.outgoing.expect(effects.contents.len());
            for effect in effects.list.drain(..) {
                self.effect(effect, &effects.contents, live, turn);
            }
            effects.contents.clear();
            shrink(&mut effects.list);
            shrink(&mut effects.contents);
            self.effects = effects;
            self.end_overflowed(turn);
            self.tell_of_victims(turn);
        }
    }

    fn effect(&mut self, effect: Effect, contents: &[Content], live: Option<&Publication<'_>>, turn: &mut Turn<'_>) {
        let max = turn.options.max_queue;
        let body = |content: u32| contents.get(content as usize).and_then(|content| Body::of(content, live));
        match effect {
            Effect::Deliver { to, content, sequence, manual, redelivered } => {
                let Some(body) = body(content) else { return };
                let manual = manual.then_some(Manual { sequence, redelivered });
                self.outgoing.deliver(to, (content, body), sequence, manual, max);
            }
            Effect::Broadcast { to, except, content } => {
                let Some(body) = body(content) else { return };
                self.outgoing.broadcast(to, except, (content, body), max);
            }
            Effect::Confirm { connection } => {
                self.outgoing.spread(max);
                let Some(connection) = self.connection(connection).cloned() else { return };
                let first = connection.queue().confirm();
                self.outgoing.touch(&connection, first == Some(true));
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
        self.outgoing.push(connection, frame, turn.options.max_queue);
        self.end_overflowed(turn);
    }

    fn answer(&mut self, connection: &Arc<Connection>, frame: Bytes, turn: &mut Turn<'_>) {
        let max = turn.options.max_queue;
        self.outgoing.spread(max);
        let pushed = connection.queue().answer(frame, max);
        self.outgoing.note(connection, pushed);
        self.end_overflowed(turn);
    }

    /// Ends those who had no room in their queues.
    fn end_overflowed(&mut self, turn: &mut Turn<'_>) {
        while let Some(connection) = self.outgoing.overflowed.pop() {
            turn.hub.note_slow(&connection);
            self.end(&connection, Closing { code: 1008, reason: "slow receiver", invited: false, flush: false }, turn);
        }
    }

    /// The connection with this id, if it has not ended.
    pub(super) fn connection(&self, id: ConnectionId) -> Option<&Arc<Connection>> {
        self.outgoing.connection(id)
    }

    /// Why no connection can be made, if none can. `max`: how many there may be.
    pub(super) fn no_room(&self, max: usize) -> Option<NoRoom> {
        if self.closed {
            return Some(NoRoom::GoingDown);
        }
        (self.open() >= max.min(1 << SLOT_BITS)).then_some(NoRoom::Crowded)
    }

    /// Puts a new connection into the register; to be asked [`Self::no_room`] before.
    pub(super) fn register(&mut self, make: impl FnOnce(ConnectionId) -> Arc<Connection>) -> Arc<Connection> {
        self.outgoing.register(make)
    }

    /// Takes a connection out of the register. Its caller holds the connection, so that no socket is closed under the lock.
    pub(super) fn unregister(&mut self, id: ConnectionId) {
        self.outgoing.unregister(id);
    }

    /// Makes no connection any more, and names those that are there.
    pub(super) fn close(&mut self) -> Vec<Arc<Connection>> {
        self.closed = true;
        self.outgoing.connections().cloned().collect()
    }

    /// How many connections there are.
    pub(super) fn open(&self) -> usize {
        self.outgoing.connections().len()
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

/// The connect reply.
pub(super) fn greeting(now: Timestamp) -> Bytes {
    text(&envelope::connect_reply(now, Code::Accepted))
}
