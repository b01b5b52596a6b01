//! Carries out what the core wants: deliveries and answers into queues, ends, wishes to the store.
//!
//! Runs under the core's lock: memory only, no system call. Who is ended here becomes a victim, of which the core has to be told.

use std::sync::Arc;

use bytes::Bytes;
use tracing::debug;

use super::carry::Turn;
use super::commands::text;
use super::connection::{Closing, Connection};
use super::counters::Counters;
use super::outgoing::Outgoing;
use super::render::Body;
use super::replies;
use wsmb_core::broker::{Content, Effect, EndReason, Publish, Reply};
use wsmb_core::message::{ChannelName, ConnectionId, DeliveryName};
use wsmb_protocol::delivery::Manual;
use wsmb_protocol::envelope::{self, Code};

/// Where effects go.
#[derive(Debug, Default)]
pub(super) struct Carrier {
    pub(super) outgoing: Outgoing,
    /// Ended while effects were carried out; the core is told afterwards.
    pub(super) victims: Vec<Arc<Connection>>,
    /// Who is to be asked for a confirmation, behind everything that this turn delivers to it.
    asked: Vec<ConnectionId>,
    /// Whose first frame is being handled: if it is refused, the connect reply says so.
    pub(super) first: Option<ConnectionId>,
}

impl Carrier {
    /// Carries out one effect. `contents` is what it may refer to, `publish` the publication that it follows from.
    pub(super) fn effect(
        &mut self,
        effect: Effect,
        contents: &[Content],
        publish: Option<&Publish<'_>>,
        turn: &mut Turn<'_>,
    ) {
        let max = turn.options.limits.max_queue;
        let live = publish.map(|publish| publish.publication);
        let body = |content: u32| contents.get(content as usize).and_then(|content| Body::of(content, live));
        match effect {
            Effect::Deliver { to, content, sequence, manual, attempt, message } => {
                let Some(body) = body(content) else { return };
                let name = DeliveryName { connection: to, sequence };
                let manual = manual.then_some(Manual { name, message, attempt });
                self.outgoing.deliver(to, (content, body), sequence, manual, max);
            }
            Effect::Broadcast { to, except, content } => {
                let Some(body) = body(content) else { return };
                self.outgoing.broadcast(to, except, (content, body), max);
            }
            Effect::Confirm { connection } => self.asked.push(connection),
            Effect::Reply { to, reply } => self.reply(to, &reply, publish, turn),
            Effect::End { connection, reason } => {
                let Some(connection) = self.outgoing.connection(connection).cloned() else { return };
                let reason = match reason {
                    EndReason::Slow => {
                        turn.hub.note_slow(&connection);
                        "slow receiver"
                    }
                    EndReason::Unconfirmed => {
                        turn.hub.note_unconfirmed(&connection);
                        "no confirmation"
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
            Effect::Note(note) => turn.hub.note(&note),
        }
    }

    fn reply(&mut self, to: ConnectionId, reply: &Reply, publish: Option<&Publish<'_>>, turn: &mut Turn<'_>) {
        if matches!(reply, Reply::Refused { .. }) {
            Counters::add(&turn.hub.counters.refused, 1);
        }
        let Some(connection) = self.outgoing.connection(to).cloned() else { return };
        match (&connection.profile.topic, reply) {
            (None, reply) => {
                let max_backlog = |channel: &ChannelName| turn.options.policies.of(channel).max_backlog;
                let channel = publish.map(|publish| &*publish.publication.channel);
                let is_awaited = match reply {
                    Reply::Accepted { .. } => true,
                    Reply::Refused { id, answer, .. } => id.is_some() || *answer,
                    Reply::UnknownDelivery { .. } | Reply::TooManyChannels => false,
                };
                let is_nameless =
                    is_awaited && matches!(reply, Reply::Accepted { id: None, .. } | Reply::Refused { id: None, .. });
                if is_nameless || self.first == Some(to) {
                    let (code, detail) = replies::summary(reply, to, channel, max_backlog);
                    self.greet(&connection, code, &detail, turn);
                } else {
                    let frame = text(&replies::render(reply, to, channel, max_backlog));
                    self.push(&connection, &frame, turn);
                }
                if is_awaited {
                    connection.answered();
                }
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
    pub(super) fn push(&mut self, connection: &Arc<Connection>, frame: &Bytes, turn: &mut Turn<'_>) {
        self.outgoing.push(connection, frame, turn.options.limits.max_queue);
        self.end_overflowed(turn);
    }

    /// Has the connect reply, if it is held for an answer, say this. If it is not any more, the client was told that its answer comes too late.
    pub(super) fn greet(&mut self, connection: &Arc<Connection>, code: Code, detail: &str, turn: &mut Turn<'_>) {
        self.first = self.first.filter(|first| *first != connection.id);
        if connection.queue().is_answering() {
            let frame = text(&envelope::connect_reply(turn.on_the_wall(), code, detail));
            self.answer(connection, frame, turn);
        }
    }

    /// Queues the answer to a `ping`, which may be held for.
    pub(super) fn answer(&mut self, connection: &Arc<Connection>, frame: Bytes, turn: &mut Turn<'_>) {
        let max = turn.options.limits.max_queue;
        self.outgoing.spread(max);
        let pushed = connection.queue().answer(frame, max);
        self.outgoing.note(connection, pushed);
        self.end_overflowed(turn);
    }

    /// Asks for the confirmations that are wanted, so that one ping answers for all that a burst has brought. The run must have been
    /// spread.
    pub(super) fn ask(&mut self) {
        for connection in self.asked.drain(..) {
            let Some(connection) = self.outgoing.connection(connection).cloned() else { continue };
            let first = connection.queue().confirm();
            self.outgoing.touch(&connection, first == Some(true));
        }
    }

    /// Ends those who had no room in their queues.
    pub(super) fn end_overflowed(&mut self, turn: &mut Turn<'_>) {
        while let Some(connection) = self.outgoing.overflowed.pop() {
            turn.hub.note_slow(&connection);
            self.end(&connection, Closing { code: 1008, reason: "slow receiver", invited: false, flush: false }, turn);
        }
    }

    /// Ends a connection from this side; it becomes a victim.
    pub(super) fn end(&mut self, connection: &Arc<Connection>, closing: Closing, turn: &mut Turn<'_>) {
        self.outgoing.spread(turn.options.limits.max_queue);
        connection.end(closing);
        let first = connection.queue().touch();
        self.outgoing.touch(connection, first);
        self.victims.push(connection.clone());
    }
}
