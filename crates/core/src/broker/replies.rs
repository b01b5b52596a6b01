//! Replies: the answer to a request goes to its [`ReplyTo`], and to nobody once that has ended.

use super::Broker;
use super::effect::{Effect, Reply};
use super::event::ReplyTo;
use super::turn::Turn;
use crate::message::ConnectionId;

impl Broker {
    /// Remembers that replies may go to a connection.
    pub(super) fn note_connection(&mut self, connection: ConnectionId) {
        if !self.receiver_keys.contains_key(&connection) {
            self.connections.entry(connection).or_default();
        }
    }

    /// Sends a reply, unless the waiting connection has ended.
    pub(super) fn reply(&self, to: ReplyTo, reply: Reply, turn: &mut Turn<'_>) {
        let is_there = match to {
            ReplyTo::Nobody => false,
            // The server ignores a reply to a caller that has gone.
            ReplyTo::Caller(_) => true,
            ReplyTo::Connection(to) => self.connections.contains_key(&to) || self.receiver_keys.contains_key(&to),
        };
        if is_there {
            turn.effects.list.push(Effect::Reply { to, reply });
        }
    }

    /// Notes that a publication is accepted or refused.
    pub(super) fn note_answer(&mut self, to: ReplyTo, is_accepted: bool) {
        match to {
            ReplyTo::Caller(caller) if is_accepted => self.watches.accept(caller),
            ReplyTo::Caller(caller) => self.watches.end(caller),
            ReplyTo::Nobody | ReplyTo::Connection(_) => {}
        }
    }

    /// Tells the callers whose publications are settled.
    #[inline]
    pub(super) fn report_outcomes(&mut self, turn: &mut Turn<'_>) {
        if self.watches.settled.is_empty() {
            return;
        }
        let told = std::mem::take(&mut self.watches.settled).into_iter();
        let effect = |(caller, outcome)| Effect::Reply { to: ReplyTo::Caller(caller), reply: Reply::Settled(outcome) };
        turn.effects.list.extend(told.map(effect));
    }
}
