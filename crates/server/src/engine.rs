//! The engine: the core, the sessions, and the frames of a turn. It carries out requests and returns the work that is left when the lock is released.
//!
//! ```text
//! requests ─► [ broker.handle ─► effects ─► queues ] ─► TurnOutcome { touched, store_commands, ended, … } ─► hub
//! ```
//!
//! A session's queue has the order of the core's decisions, because both change under the same lock.
//!
//! Never here: a counter, a log line, a clock, a lock, a system call, an await.

mod dispatch;
mod outcome;

use std::slice::IterMut;
use std::sync::Arc;

use super::outbox::Sealed;
use super::registry::Registry;
use super::replies::{NOT_YET_SAFE, greeting, ping_reply};
use super::request::{Leave, PublishOptions, Refused, Request};
use super::session::{Closing, Session};
use crate::limits;
use dispatch::Dispatch;
use wsmb_core::broker::{Acknowledge, Broker, Effects, Event, Publish, ReplyTo};
use wsmb_core::message::{ConnectionId, Publication};
use wsmb_protocol::envelope::Code;
use wsmb_protocol::topic;

pub(super) use outcome::{EngineSettings, Now, TurnOutcome};

/// The state that the core's lock guards.
#[derive(Debug)]
pub(super) struct Engine {
    broker: Broker,
    effects: Effects,
    dispatch: Dispatch,
    /// The engine creates no more sessions.
    is_closed: bool,
}

/// Why no session can be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The maximum number of sessions is open, or the user has too many of them.
    Crowded,
    /// The program uses nearly all of its memory budget.
    Memory,
    /// The server is going down.
    GoingDown,
}

impl Engine {
    /// Creates an engine without sessions. `seed`: see [`Registry::new`].
    pub(super) fn new(broker: Broker, settings: EngineSettings, seed: u64) -> Self {
        Self { broker, effects: Effects::default(), dispatch: Dispatch::new(settings, seed), is_closed: false }
    }

    pub(super) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The core, for changes that are not events.
    pub(super) fn broker_mut(&mut self) -> &mut Broker {
        &mut self.broker
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.dispatch.registry
    }

    pub(super) fn reconfigure(&mut self, settings: EngineSettings) {
        self.dispatch.settings = settings;
    }

    /// Carries out requests of one session (or of none), until none are left or the outbox is full: then the caller must flush and call again.
    /// Empty slots are skipped. A publication stays in its slot, and the caller drops it.
    pub(super) fn apply(
        &mut self,
        now: Now,
        source: Option<&Arc<Session>>,
        requests: &mut IterMut<'_, Option<Request<'_>>>,
    ) -> TurnOutcome {
        self.broker.set_memory_used(now.memory);
        self.dispatch.outbox.begin(now.here);
        while !self.dispatch.outbox.is_full()
            && let Some(slot) = requests.next()
        {
            // A publication is large: a copy of it costs more than all other work on it here. So it stays in its slot.
            match (&mut *slot, source) {
                (Some(Request::Message { kind, frame }), Some(source)) => {
                    let Some(channel) = &source.profile.topic else { continue };
                    let publication = topic::publication(channel, *kind, frame.clone());
                    self.publish(&publication, None, false, source, now);
                    continue;
                }
                (Some(Request::Publish { publication, options, first }), Some(source)) => {
                    self.publish(publication, options.take(), *first, source, now);
                    continue;
                }
                _ => {}
            }
            match (slot.take(), source) {
                (Some(Request::Core(event)), _) => self.handle(*event, now),
                (Some(request), Some(source)) => self.carry_out_request(request, source, now),
                // The slot is empty, or the request needs a session and there is none.
                (None, _) | (_, None) => {}
            }
        }
        self.seal(now)
    }

    #[inline]
    fn publish(
        &mut self,
        publication: &Publication<'_>,
        options: Option<Box<PublishOptions>>,
        first: bool,
        source: &Arc<Session>,
        now: Now,
    ) {
        let PublishOptions { receivers, id, ttl, delay } =
            options.map_or_else(PublishOptions::default, |options| *options);
        // A legacy client that sends without an id may read only one frame, the connect reply. So the reply waits for the result.
        let answer = first && id.is_none() && source.queue().hold_for_answer();
        if first && !answer {
            self.release(source, now);
        }
        if id.is_some() || answer {
            source.pending.add();
        }
        // A publication that was sent before the session's end is still valid, but the session receives no messages and no answers.
        let origin = (!source.is_forgotten()).then_some(source.id);
        let reply_to = origin.map_or(ReplyTo::Nobody, ReplyTo::Connection);
        let user = source.profile.user();
        let publish = Publish { origin, user, reply_to, publication, receivers, id, answer, watch: false, ttl, delay };
        self.broker.handle(now.core, Event::Publish(&publish), &mut self.effects);
        self.carry_out(Some(&publish), now);
    }

    fn handle(&mut self, event: Event<'_>, now: Now) {
        let publish = if let Event::Publish(publish) = event { Some(publish) } else { None };
        self.broker.handle(now.core, event, &mut self.effects);
        self.carry_out(publish, now);
    }

    /// Handles an event of a session, unless the core has forgotten the session.
    fn handle_of(&mut self, event: Event<'_>, source: &Arc<Session>, now: Now) {
        if !source.is_forgotten() {
            self.handle(event, now);
        }
    }

    /// Handles an event of a session. If it comes from the client's first frame (`first`), the connect reply says whether it is refused.
    fn handle_first(&mut self, event: Event<'_>, first: bool, source: &Arc<Session>, now: Now) {
        if !first {
            return self.handle_of(event, source, now);
        }
        self.dispatch.first = source.queue().hold_for_answer().then_some(source.id);
        self.handle_of(event, source, now);
        if self.dispatch.first.take().is_some() {
            self.dispatch.greet(source, Code::Accepted, "", now);
            self.report_and_carry_out(now);
        }
    }

    fn carry_out_request(&mut self, request: Request<'_>, source: &Arc<Session>, now: Now) {
        match request {
            // `apply` carries out these.
            Request::Core(_) | Request::Message { .. } | Request::Publish { .. } => {}
            Request::Subscribe { subscribe, first } => {
                self.handle_first(Event::Subscribe(*subscribe), first, source, now);
            }
            Request::Claim(receiver) => {
                self.handle_of(Event::Claim { connection: source.id, receiver }, source, now);
            }
            Request::Acknowledge { sequence, answer, first } => {
                let acknowledge = Acknowledge { connection: source.id, sequence, answer: *answer };
                self.handle_first(Event::Acknowledge(acknowledge), first, source, now);
            }
            Request::Pong(payload) => self.pong(&payload, source, now),
            Request::Frame(frame) => self.dispatch.push(source, &frame),
            Request::Ping { first, known } => {
                if first {
                    source.queue().hold_for_answer();
                }
                match known {
                    Some(healthy) => self.dispatch.answer(source, ping_reply(now.wall, healthy)),
                    None => {
                        source.pending.add();
                        self.dispatch.outcome.questions.push(source.clone());
                    }
                }
            }
            Request::PingAnswer(healthy) => {
                self.dispatch.answer(source, ping_reply(now.wall, healthy));
                source.answered();
            }
            Request::Refuse(refused) => self.refuse(*refused, source, now),
            Request::GiveUp => {
                self.dispatch.greet(source, Code::Unavailable, NOT_YET_SAFE, now);
                source.give_up();
            }
            Request::Release => self.release(source, now),
            Request::End(closing) => self.dispatch.end(source, closing),
            Request::Leave(Leave { code, took_only }) => {
                self.forget(source, took_only, now);
                self.dispatch.end(source, Closing { code, reason: "", invited: true, flush: true });
            }
            Request::Finished { took_only } => self.finish(source, took_only, now),
            Request::Departed { took_only } => {
                self.forget(source, took_only, now);
                self.report_and_carry_out(now);
                self.dispatch.registry.remove(source.id);
            }
            Request::Aborted => self.forget(source, false, now),
        }
        self.report_and_carry_out(now);
    }

    fn pong(&mut self, payload: &[u8], source: &Arc<Session>, now: Now) {
        let (up_to, again) = source.queue().pong(payload);
        if up_to > 0 {
            self.handle_of(Event::Confirmed { connection: source.id, up_to }, source, now);
        }
        if again {
            let first = source.queue().touch();
            self.dispatch.outbox.touch(source, first);
        }
    }

    fn refuse(&mut self, refused: Refused, source: &Arc<Session>, now: Now) {
        let Refused { first, code, detail, frame } = refused;
        if first && source.queue().hold_for_answer() {
            self.dispatch.greet(source, code, &detail, now);
        } else {
            self.dispatch.push(source, &frame);
        }
    }

    /// Ends the hold of the session's queue; the connect reply goes before the held frames.
    fn release(&mut self, source: &Arc<Session>, now: Now) {
        let first = {
            let mut queue = source.queue();
            let greeting = source.profile.topic.is_none().then(|| greeting(now.wall));
            queue.release(greeting) && queue.touch()
        };
        self.dispatch.outbox.touch(source, first);
    }

    /// The client has finished sending. If it waits for answers, reports to the core that it receives no more messages.
    fn finish(&mut self, source: &Arc<Session>, took_only: bool, now: Now) {
        if !source.is_forgotten() && source.pending.listen() {
            self.handle(Event::Disconnected { connection: source.id, took_only, listens: true }, now);
        }
    }

    /// Reports to the core that a session has ended, once.
    fn forget(&mut self, session: &Arc<Session>, took_only: bool, now: Now) {
        if session.forget() {
            let event = Event::Disconnected { connection: session.id, took_only, listens: false };
            self.broker.handle(now.core, event, &mut self.effects);
        }
    }

    /// Carries out the core's effects. `publish`: the publication that the core has just handled.
    fn carry_out(&mut self, publish: Option<&Publish<'_>>, now: Now) {
        // Bounded: each further round follows the end of a session.
        while !self.effects.list.is_empty() {
            let Self { effects: Effects { list, contents }, dispatch, .. } = self;
            dispatch.outbox.prepare();
            for effect in list.drain(..) {
                dispatch.effect(effect, contents, publish, now);
            }
            contents.clear();
            if dispatch.has_ended_sessions() {
                self.report_ended(now);
            }
        }
    }

    /// Reports the ended sessions to the core, and carries out the effects.
    fn report_and_carry_out(&mut self, now: Now) {
        self.report_ended(now);
        self.carry_out(None, now);
    }

    fn report_ended(&mut self, now: Now) {
        self.dispatch.end_overflowed();
        while let Some(session) = self.dispatch.unreported.pop() {
            self.forget(&session, false, now);
        }
    }

    /// Ends the turn.
    fn seal(&mut self, now: Now) -> TurnOutcome {
        self.dispatch.spread();
        // Bounded: each further round follows the end of a session.
        while self.dispatch.has_ended_sessions() || !self.effects.list.is_empty() {
            self.report_and_carry_out(now);
            self.dispatch.spread();
        }
        self.dispatch.ask_for_confirmations();
        shrink(&mut self.effects.list);
        shrink(&mut self.effects.contents);
        let sealed = self.dispatch.outbox.seal();
        TurnOutcome { sealed, deadline: self.broker.next_deadline(), ..std::mem::take(&mut self.dispatch.outcome) }
    }

    /// Takes back the memory of a turn after its queues were flushed.
    pub(super) fn reuse(&mut self, sealed: Sealed) {
        self.dispatch.outbox.reuse(sealed);
    }

    /// Returns why no session of this user can be created, or `None`. `max`: the largest number of sessions of all users.
    pub(super) fn no_room(&self, user: &str, max: usize) -> Option<NoRoom> {
        if self.is_closed {
            return Some(NoRoom::GoingDown);
        }
        self.dispatch.registry.refuses(user, max).then_some(NoRoom::Crowded)
    }

    /// Adds the session that `make` creates for a new id. The caller must have checked [`Self::no_room`].
    pub(super) fn register(&mut self, make: impl FnOnce(ConnectionId) -> Arc<Session>) -> Arc<Session> {
        self.dispatch.registry.insert(make)
    }

    /// Frees the memory that tables keep for removed entries.
    pub(super) fn shrink(&mut self) {
        self.broker.shrink();
        self.dispatch.registry.shrink();
    }

    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }
}

/// Bounds the memory that a reused list keeps between turns.
fn shrink<T>(list: &mut Vec<T>) {
    if list.capacity() > limits::EFFECTS_AT_ONCE {
        list.shrink_to(limits::EFFECTS_AT_ONCE);
    }
}
