//! Carries out the core's effects: deliveries and answers go into queues, all other effects into the turn's outcome.
//!
//! A session that is ended here is *unreported* until its end was reported to the core.

use std::sync::Arc;

use bytes::Bytes;

use super::outcome::{EngineSettings, Now, TurnOutcome};
use crate::encoding::Encoding;
use crate::outbox::{Body, Outbox};
use crate::registry::Registry;
use crate::replies::{self, text};
use crate::session::{Closing, Session};
use wsmb_core::broker::{Content, Effect, EndReason, Publish, Reply, ReplyTo};
use wsmb_core::message::{ChannelName, ConnectionId, DeliveryName};
use wsmb_protocol::delivery::Manual;
use wsmb_protocol::envelope::{self, Code};

/// The targets of effects.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) registry: Registry,
    pub(super) outbox: Outbox,
    pub(super) settings: EngineSettings,
    /// The outcome of the current turn so far.
    pub(super) outcome: TurnOutcome,
    /// Sessions that ended while effects were carried out.
    pub(super) unreported: Vec<Arc<Session>>,
    /// Receivers that get a ping for a confirmation behind this turn's deliveries to them.
    confirmations: Vec<ConnectionId>,
    /// The session whose first frame is being handled: its connect reply says whether the frame is refused.
    pub(super) first: Option<ConnectionId>,
}

impl Dispatch {
    pub(super) fn new(settings: EngineSettings, seed: u64) -> Self {
        Self {
            registry: Registry::new(seed),
            outbox: Outbox::default(),
            settings,
            outcome: TurnOutcome::default(),
            unreported: Vec::new(),
            confirmations: Vec::new(),
            first: None,
        }
    }

    /// Carries out one effect. `contents`: the contents that the effect may refer to; `publish`: the publication that caused it.
    pub(super) fn effect(&mut self, effect: Effect, contents: &[Content], publish: Option<&Publish<'_>>, now: Now) {
        let max = self.settings.max_queue;
        let live = publish.map(|publish| publish.publication);
        let body = |content: u32| contents.get(content as usize).and_then(|content| Body::of(content, live));
        match effect {
            Effect::Deliver { to, content, sequence, manual, attempt, message } => {
                let Some(body) = body(content) else { return };
                let name = DeliveryName { connection: to, sequence };
                let manual = manual.then_some(Manual { name, message, attempt });
                self.outbox.deliver(&self.registry, to, (content, body), sequence, manual, max);
            }
            Effect::Broadcast { to, except, content } => {
                let Some(body) = body(content) else { return };
                self.outbox.broadcast(&self.registry, to, except, (content, body), max);
            }
            Effect::Confirm { connection } => self.confirmations.push(connection),
            Effect::Reply { to: ReplyTo::Connection(to), reply } => self.reply(to, &reply, publish, now),
            Effect::Reply { to: ReplyTo::Caller(caller), reply } => {
                self.outcome.refusals += u64::from(matches!(reply, Reply::Refused { .. }));
                self.outcome.replies.push((caller, reply));
            }
            Effect::Reply { to: ReplyTo::Nobody, .. } => {}
            Effect::End { connection, reason } => self.end_for(connection, reason),
            Effect::Store(command) => self.outcome.store_commands.push(command),
            Effect::Note(note) => self.outcome.notes.push(*note),
        }
    }

    fn end_for(&mut self, connection: ConnectionId, reason: EndReason) {
        let Some(session) = self.registry.get(connection).cloned() else { return };
        let words = match reason {
            EndReason::Slow => "slow receiver",
            EndReason::Unconfirmed => "no confirmation",
            EndReason::Replaced => "replaced",
        };
        self.end(&session, Closing { code: 1008, reason: words, invited: false, flush: false });
        self.outcome.ended.push((session, reason));
    }

    fn reply(&mut self, to: ConnectionId, reply: &Reply, publish: Option<&Publish<'_>>, now: Now) {
        if matches!(reply, Reply::Refused { .. }) {
            self.outcome.refusals += 1;
        }
        let Some(session) = self.registry.get(to).cloned() else { return };
        if session.encoding() == Encoding::Lines {
            return self.reply_to_mailbox(&session, reply);
        }
        match (&session.profile.topic, reply) {
            (None, reply) => self.reply_to_envelope(&session, reply, publish, now),
            (Some(_), Reply::Refused { refusal, .. }) => {
                let closing =
                    Closing { code: 1013, reason: "not accepted, try again later", invited: false, flush: true };
                self.end(&session, closing);
                self.outcome.refused.push((session, *refusal));
            }
            (Some(_), Reply::TooManyChannels) => {
                let closing = Closing { code: 1013, reason: "too many channels", invited: false, flush: true };
                self.end(&session, closing);
            }
            (Some(_), Reply::Accepted { .. } | Reply::Settled(_) | Reply::UnknownDelivery { .. }) => {}
        }
    }

    /// Replies to requests for a session without a socket: the HTTP request that has made them is answered on its own.
    fn reply_to_mailbox(&mut self, session: &Arc<Session>, reply: &Reply) {
        if *reply == Reply::TooManyChannels {
            self.end(session, Closing { code: 1013, reason: "too many channels", invited: false, flush: true });
        }
    }

    fn reply_to_envelope(&mut self, session: &Arc<Session>, reply: &Reply, publish: Option<&Publish<'_>>, now: Now) {
        let to = session.id;
        let max_backlog = |channel: &ChannelName| self.settings.policies.of(channel).max_backlog;
        let channel = publish.map(|publish| &*publish.publication.channel);
        let is_awaited = match reply {
            Reply::Accepted { .. } => true,
            Reply::Refused { id, answer, .. } => id.is_some() || *answer,
            Reply::Settled(_) | Reply::UnknownDelivery { .. } | Reply::TooManyChannels => false,
        };
        let is_nameless =
            is_awaited && matches!(reply, Reply::Accepted { id: None, .. } | Reply::Refused { id: None, .. });
        if is_nameless || self.first == Some(to) {
            let (code, detail) = replies::summary(reply, to, channel, max_backlog);
            self.greet(session, code, &detail, now);
        } else {
            let frame = text(&replies::render(reply, to, channel, max_backlog));
            self.push(session, &frame);
        }
        if is_awaited {
            session.answered();
        }
    }

    /// Queues a small frame for one session.
    pub(super) fn push(&mut self, session: &Arc<Session>, frame: &Bytes) {
        self.outbox.push(&self.registry, session, frame, self.settings.max_queue);
        self.end_overflowed();
    }

    /// Sends the connect reply with this code and detail, if the reply waits for an answer. Otherwise the client was told already that the answer is late.
    pub(super) fn greet(&mut self, session: &Arc<Session>, code: Code, detail: &str, now: Now) {
        self.first = self.first.filter(|first| *first != session.id);
        if session.queue().is_answering() {
            let frame = text(&envelope::connect_reply(now.wall, code, detail));
            self.answer(session, frame);
        }
    }

    /// Queues an answer for which the queue may be held: a connect reply, or the answer to a `ping` command.
    pub(super) fn answer(&mut self, session: &Arc<Session>, frame: Bytes) {
        self.spread();
        let pushed = session.queue().answer(frame, self.settings.max_queue);
        self.outbox.note(session, pushed);
        self.end_overflowed();
    }

    /// Spreads the run over its receivers' queues.
    pub(super) fn spread(&mut self) {
        self.outbox.spread(&self.registry, self.settings.max_queue);
    }

    /// Queues the pings for confirmations: one ping covers all deliveries of the turn. The run must have been spread.
    pub(super) fn ask_for_confirmations(&mut self) {
        for connection in self.confirmations.drain(..) {
            let Some(session) = self.registry.get(connection) else { continue };
            let first = session.queue().confirm();
            self.outbox.touch(session, first == Some(true));
        }
    }

    /// Whether the end of a session has not been reported to the core.
    pub(super) fn has_ended_sessions(&self) -> bool {
        self.outbox.has_overflowed() || !self.unreported.is_empty()
    }

    /// Ends the sessions whose queues were full.
    pub(super) fn end_overflowed(&mut self) {
        while let Some(session) = self.outbox.next_overflowed() {
            self.end(&session, Closing { code: 1008, reason: "slow receiver", invited: false, flush: false });
            self.outcome.ended.push((session, EndReason::Slow));
        }
    }

    /// Ends a session; the end is reported to the core later.
    pub(super) fn end(&mut self, session: &Arc<Session>, closing: Closing) {
        self.spread();
        session.end(closing);
        let first = session.queue().touch();
        self.outbox.touch(session, first);
        self.unreported.push(session.clone());
    }
}
