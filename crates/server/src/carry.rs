//! The core with its surroundings, all behind one lock: the register of connections, and the effects on their way into queues.
//!
//! Nothing here makes a system call; what is queued is flushed by the caller after the lock is released.

use std::sync::Arc;

use bytes::Bytes;

use super::carrier::Carrier;
use super::commands::{Leave, Step, ping_reply, text};
use super::connection::{Closing, Connection};
use super::counters::Counters;
use super::outgoing::{SLOT_BITS, Sealed};
use super::runtime::{Hub, NoRoom, Options, shrink};
use wsmb_core::broker::{Broker, Effects, Event, Publish};
use wsmb_core::message::{ConnectionId, Timestamp};
use wsmb_protocol::envelope::{self, Code};

/// What a client is told that has waited long enough.
const NOT_YET_SAFE: &str = "not yet safe; may still be delivered";

/// What the core's lock guards.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) broker: Broker,
    effects: Effects,
    carrier: Carrier,
    /// No connection is made any more.
    closed: bool,
    /// For when the deadline's task sleeps.
    armed: Option<Timestamp>,
}

/// A turn's surroundings.
pub(super) struct Turn<'a> {
    pub(super) hub: &'a Hub,
    pub(super) now: Timestamp,
    pub(super) options: Arc<Options>,
}

impl<'a> Turn<'a> {
    /// Begun under the core's lock, so that the core's time never goes back.
    pub(super) fn new(hub: &'a Hub) -> Self {
        Self { hub, now: hub.now(), options: hub.options() }
    }

    /// The time of the turn as the wall clock shows it.
    pub(super) fn on_the_wall(&self) -> Timestamp {
        self.hub.clock.on_the_wall(self.now)
    }

    /// Begins the next turn of a burst: time has passed.
    pub(super) fn renew(&mut self) {
        self.now = self.hub.now();
    }
}

impl Core {
    pub(super) fn new(broker: Broker) -> Self {
        Self { broker, effects: Effects::default(), carrier: Carrier::default(), closed: false, armed: None }
    }

    /// Carries out one step; `source` is the connection that it comes from.
    #[inline]
    pub(super) fn step(&mut self, step: Step<'_>, source: Option<&Arc<Connection>>, turn: &mut Turn<'_>) {
        match step {
            Step::Event(Event::Publish(publish)) => self.publish(publish, source, turn),
            Step::Event(event) => {
                if matches!(event, Event::Tick) {
                    super::defect::strike("core");
                }
                self.handle(event, source, turn);
            }
            Step::First(event) => self.handle_first(event, source, turn),
            step => {
                if let Some(source) = source {
                    self.own(step, source, turn);
                }
            }
        }
    }

    /// Whether so much was queued that it shall be flushed before more is.
    pub(super) fn is_full(&self) -> bool {
        self.carrier.outgoing.is_full()
    }

    /// Ends a turn: what it has queued can be flushed when the lock is released, and is then given back with [`Self::reuse`].
    pub(super) fn seal(&mut self, turn: &mut Turn<'_>) -> Sealed {
        self.carrier.outgoing.spread(turn.options.limits.max_queue);
        // Bounded: every further round follows the end of a connection.
        while !(self.carrier.outgoing.overflowed.is_empty()
            && self.carrier.victims.is_empty()
            && self.effects.list.is_empty())
        {
            self.settle(turn);
            self.carrier.outgoing.spread(turn.options.limits.max_queue);
        }
        self.carrier.ask();
        let sealed = self.carrier.outgoing.seal();
        Counters::add(&turn.hub.counters.deliveries, sealed.deliveries);
        sealed
    }

    /// Takes back the memory of a turn whose queues are flushed.
    pub(super) fn reuse(&mut self, sealed: Sealed) {
        self.carrier.outgoing.reuse(sealed);
    }

    /// Has a client's publication sent.
    #[inline]
    pub(super) fn publish(&mut self, publish: &Publish<'_>, source: Option<&Arc<Connection>>, turn: &mut Turn<'_>) {
        let nobodys;
        let publish = if source.is_some_and(|source| source.is_forgotten()) {
            // What a connection has sent before its end is still good; but the connection is no receiver any more, and nobody is answered.
            nobodys = Publish { connection: None, ..publish.clone() };
            &nobodys
        } else {
            publish
        };
        self.broker.handle(turn.now, Event::Publish(publish), &mut self.effects);
        self.carry_out(Some(publish), turn);
    }

    fn handle(&mut self, event: Event<'_>, source: Option<&Arc<Connection>>, turn: &mut Turn<'_>) {
        if source.is_some_and(|source| source.is_forgotten()) {
            return;
        }
        self.broker.handle(turn.now, event, &mut self.effects);
        self.carry_out(None, turn);
    }

    /// Handles a client's first frame: the connect reply says whether it is refused.
    fn handle_first(&mut self, event: Event<'_>, source: Option<&Arc<Connection>>, turn: &mut Turn<'_>) {
        if let Some(source) = source {
            self.carrier.first = source.queue().hold_for_answer().then_some(source.id);
        }
        self.handle(event, source, turn);
        if let Some(source) = source
            && self.carrier.first.take().is_some()
        {
            self.carrier.greet(source, Code::Accepted, "", turn);
            self.settle(turn);
        }
    }

    /// A step that concerns the connection itself.
    fn own(&mut self, step: Step<'_>, source: &Arc<Connection>, turn: &mut Turn<'_>) {
        match step {
            Step::Event(_) | Step::First(_) => {}
            Step::Frame(frame) => self.carrier.push(source, &frame, turn),
            Step::Ping { first } => {
                if first {
                    source.queue().hold_for_answer();
                }
                match turn.hub.storage.ask(source) {
                    Some(healthy) => self.carrier.answer(source, ping_reply(turn.on_the_wall(), healthy), turn),
                    None => source.owed.add(),
                }
            }
            Step::Answer(frame) => {
                self.carrier.answer(source, frame, turn);
                source.answered();
            }
            Step::Refuse { first, code, detail, frame } => {
                if first && source.queue().hold_for_answer() {
                    self.carrier.greet(source, code, &detail, turn);
                } else {
                    self.carrier.push(source, &frame, turn);
                }
            }
            Step::GiveUp => {
                self.carrier.greet(source, Code::Unavailable, NOT_YET_SAFE, turn);
                source.give_up();
            }
            Step::Release => {
                let first = {
                    let mut queue = source.queue();
                    let greeting = source.profile.topic.is_none().then(|| greeting(turn.on_the_wall()));
                    queue.release(greeting) && queue.touch()
                };
                self.carrier.outgoing.touch(source, first);
            }
            Step::Flush => {
                let first = source.queue().touch();
                self.carrier.outgoing.touch(source, first);
            }
            Step::End(closing) => self.carrier.end(source, closing, turn),
            Step::Leave(Leave { code, took_only }) => {
                self.tell(source, took_only, turn);
                self.carrier.end(source, Closing { code, reason: "", invited: true, flush: true }, turn);
            }
        }
        self.settle(turn);
    }

    /// The client has finished sending, and waits for answers: as a receiver it has ended. False if it is owed none.
    pub(super) fn finish(&mut self, connection: &Arc<Connection>, took_only: bool, turn: &mut Turn<'_>) -> bool {
        if connection.is_forgotten() || !connection.owed.listen() {
            return false;
        }
        let event = Event::Disconnected { connection: connection.id, took_only, listens: true };
        self.broker.handle(turn.now, event, &mut self.effects);
        self.carry_out(None, turn);
        true
    }

    /// Tells the core that a connection has ended, once.
    pub(super) fn forget(&mut self, connection: &Arc<Connection>, took_only: bool, turn: &mut Turn<'_>) {
        self.tell(connection, took_only, turn);
        self.carry_out(None, turn);
    }

    fn tell(&mut self, connection: &Arc<Connection>, took_only: bool, turn: &mut Turn<'_>) {
        if connection.forget() {
            let event = Event::Disconnected { connection: connection.id, took_only, listens: false };
            self.broker.handle(turn.now, event, &mut self.effects);
        }
    }

    /// Tells the core of those who were ended, and carries out what it wants then.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        self.carrier.end_overflowed(turn);
        self.tell_of_victims(turn);
        self.carry_out(None, turn);
    }

    fn tell_of_victims(&mut self, turn: &mut Turn<'_>) {
        while let Some(connection) = self.carrier.victims.pop() {
            self.tell(&connection, false, turn);
        }
    }

    /// Carries out what the core wants. `publish`: the publication that it has just handled.
    fn carry_out(&mut self, publish: Option<&Publish<'_>>, turn: &mut Turn<'_>) {
        // Bounded: every further round follows the end of a connection.
        while !self.effects.list.is_empty() {
            let Self { effects: Effects { list, contents }, carrier, .. } = self;
            carrier.outgoing.prepare(contents.len());
            for effect in list.drain(..) {
                carrier.effect(effect, contents, publish, turn);
            }
            contents.clear();
            shrink(list);
            shrink(contents);
            self.carrier.end_overflowed(turn);
            self.tell_of_victims(turn);
        }
    }

    /// The connection with this id, if it has not ended.
    pub(super) fn connection(&self, id: ConnectionId) -> Option<&Arc<Connection>> {
        self.carrier.outgoing.connection(id)
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
        super::defect::strike("register");
        self.carrier.outgoing.register(make)
    }

    /// Takes a connection out of the register. Its caller holds the connection, so that no socket is closed under the lock.
    pub(super) fn unregister(&mut self, id: ConnectionId) {
        self.carrier.outgoing.unregister(id);
    }

    /// Makes no connection any more, and names those that are there.
    pub(super) fn close(&mut self) -> Vec<Arc<Connection>> {
        self.closed = true;
        self.connections()
    }

    /// Those that have not ended.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.carrier.outgoing.connections().cloned().collect()
    }

    /// How many connections there are.
    pub(super) fn open(&self) -> usize {
        self.carrier.outgoing.connections().len()
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
    text(&envelope::connect_reply(now, Code::Accepted, ""))
}

/// The connect reply of a client that has waited long enough for what becomes of its first message.
pub(super) fn late_greeting(now: Timestamp) -> Bytes {
    text(&envelope::connect_reply(now, Code::Unavailable, NOT_YET_SAFE))
}
