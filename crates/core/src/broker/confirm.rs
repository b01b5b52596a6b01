//! The end of a delivery: it is confirmed, or its messages return. Failed deliveries are in `failure.rs`.

use super::counters::Metric;
use super::entry::Entry;
use super::failure::Why;
use super::flight::Failed;
use super::member::Member;
use super::pending::Fate;
use super::receiver::{Receiver, Subscription};
use super::stage::Cause;
use super::{Acknowledge, Broker, Reply, ReplyTo, Turn};
use crate::message::{Answer, ConnectionId};

impl Broker {
    /// Handles a pong, which proves that the receiver has all automatic deliveries up to `up_to`.
    pub(super) fn confirmed(&mut self, connection: ConnectionId, up_to: u64, turn: &mut Turn<'_>) {
        let Some(key) = self.receiver_keys.get(&connection).copied() else { return };
        let deliveries = self.confirm_up_to(key, up_to, turn);
        self.receivers[key].confirmed(deliveries, turn.now);
        self.want_confirmation(key, turn);
        self.pump_receiver(key);
    }

    /// Confirms a receiver's automatic deliveries up to `up_to`. Returns their number. Manual deliveries are confirmed by `ack` only.
    pub(super) fn confirm_up_to(&mut self, key: usize, up_to: u64, turn: &mut Turn<'_>) -> usize {
        let mut deliveries = 0;
        while let Some(delivery) = self.receivers[key].window.pop_confirmed(up_to) {
            let connection = self.receivers[key].connection;
            self.forget_overdue(connection, &delivery);
            self.confirm_flight(delivery.flight, connection, turn);
            self.release_flight(delivery.flight, connection, false, turn);
            deliveries += 1;
        }
        deliveries
    }

    /// Whether a receiver that leaves, and that the server takes for a one-shot reader, confirms its only message by leaving. False if it
    /// has sent to the message's channel: then it may have come only to send.
    pub(super) fn confirms_by_leaving(&self, key: usize) -> bool {
        let receiver = &self.receivers[key];
        let Some(flight) = receiver.window.only().map(|flight| &self.flights[flight]) else { return false };
        // Of several messages it may have handled the first only. A flight whose messages are settled may outlive its channel; it has
        // nothing to confirm.
        flight.entries.len() == 1 && !receiver.sent_to.may_include(&self.channels[flight.channel].name)
    }

    /// Handles a receiver's answer to a manual delivery.
    pub(super) fn acknowledge(&mut self, acknowledge: Acknowledge, turn: &mut Turn<'_>) {
        let Acknowledge { connection, sequence, answer } = acknowledge;
        if self.ended.contains(&connection) {
            return;
        }
        self.note_connection(connection);
        let key = self.receiver_keys.get(&connection).copied();
        let known = key.and_then(|key| {
            let delivery = self.receivers[key].window.get(sequence).filter(|delivery| delivery.manual)?;
            Some((key, *delivery))
        });
        let Some((key, delivery)) = known else {
            self.reply(
                ReplyTo::Connection(connection),
                Reply::UnknownDelivery { sequence, command: answer.command() },
                turn,
            );
            return;
        };
        self.forget_overdue(connection, &delivery);
        if answer == Answer::Extend {
            self.receivers[key].window.restart(sequence, turn.now);
            return;
        }
        self.receivers[key].window.take(sequence);
        self.receivers[key].acknowledged(answer == Answer::Ack, turn.now.since(delivery.at));
        self.receivers[key].window.progressed(turn.now);
        match answer {
            Answer::Nack(nack) => self.note_nack(delivery.flight, connection, nack, turn.now),
            Answer::Ack | Answer::Extend => self.confirm_flight(delivery.flight, connection, turn),
        }
        self.release_flight(delivery.flight, connection, true, turn);
        self.pump_receiver(key);
    }

    /// Marks the channels of a receiver, which may have room now, to be pumped.
    pub(super) fn pump_receiver(&mut self, key: usize) {
        let Self { receivers, channels, overdue, owed, to_pump, .. } = self;
        let passed = !overdue.is_empty() || !owed.is_empty();
        // The receiver may have been ended as a consequence of its own answer.
        let Some(Receiver { connection, subscriptions, .. }) = receivers.get(key) else { return };
        // The channel that is pushed last is pumped first.
        for Subscription { channel, order } in subscriptions.iter().rev() {
            let at = &mut channels[*channel];
            at.members.note_room(Member { order: *order, receiver: key, connection: *connection });
            if passed || !at.is_drained() {
                to_pump.push(*channel);
            }
        }
    }

    /// Confirms the messages of a flight, unless they are settled already. If groups have the flight, only their members can confirm it.
    fn confirm_flight(&mut self, flight: usize, by: ConnectionId, turn: &mut Turn<'_>) {
        let Some(flight) = self.flights.get_mut(flight) else { return };
        if flight.shares.as_ref().is_some_and(|shares| !shares.is_holder(by)) {
            return;
        }
        let channel = flight.channel;
        let entries = std::mem::take(&mut flight.entries);
        if entries.is_empty() {
            return;
        }
        self.channels[channel].in_flight -= 1;
        self.count(channel, Metric::Confirmed, entries.len() as u64);
        for entry in entries {
            self.drop_entry(channel, entry, (Fate::Settled, Cause::Confirmed), turn);
        }
    }

    /// Removes the flight from the window of `by`. If this was the last window and nobody has confirmed the flight, its messages return.
    /// `pump`: offer them to other receivers.
    pub(super) fn release_flight(&mut self, key: usize, by: ConnectionId, pump: bool, turn: &mut Turn<'_>) {
        let Some(flight) = self.flights.get_mut(key) else { return };
        flight.outstanding -= 1;
        // If `by` was the additional receiver of a late delivery, another one may get it.
        let doubled = std::mem::take(&mut flight.doubled);
        if flight.shares.is_some() {
            self.release_share(key, by, doubled, pump, turn);
            return;
        }
        if flight.outstanding > 0 {
            if doubled && !flight.entries.is_empty() {
                self.to_pump.push(flight.channel);
            }
            return;
        }
        let flight = self.flights.remove(key);
        if flight.entries.is_empty() {
            return;
        }
        let channel = flight.channel;
        self.channels[channel].in_flight -= 1;
        for entry in flight.entries {
            self.return_entry(channel, entry, flight.failed.as_deref(), turn);
        }
        if pump && self.channels.contains(channel) {
            self.to_pump.push(channel);
        }
    }

    /// Handles a message whose receivers have all vanished, failed or given it back.
    pub(super) fn return_entry(
        &mut self,
        channel: usize,
        entry: Box<Entry>,
        failed: Option<&Failed>,
        turn: &mut Turn<'_>,
    ) {
        match failed {
            Some(failed) => self.handle_failed(channel, entry, failed, turn),
            None => self.return_lost(channel, entry, turn),
        }
    }

    /// Returns the message of a vanished receiver to its old position, unless it has expired or reached its limit of deliveries. A message
    /// that does not wait for its groups goes to another member of the receiver's group first.
    fn return_lost(&mut self, channel: usize, entry: Box<Entry>, turn: &mut Turn<'_>) {
        let Some(entry) = self.check_returned(channel, entry, None, turn) else { return };
        let may_go_on = entry.binding().is_some_and(|binding| !binding.waits);
        let entry = if may_go_on { self.pass_to_other(channel, entry, &[], true, turn) } else { Some(entry) };
        if let Some(entry) = entry {
            self.put_back_or_owe(channel, entry, turn);
        }
    }

    /// Checks whether a returned message is to be delivered again, and returns it if so. `reject`: the reason why it must not be.
    pub(super) fn check_returned(
        &mut self,
        channel: usize,
        entry: Box<Entry>,
        reject: Option<Why>,
        turn: &mut Turn<'_>,
    ) -> Option<Box<Entry>> {
        let (id, deliveries) = (entry.message.id, entry.message.deliveries);
        let most = self.channels[channel].policy.max_deliveries;
        if entry.expired(turn.now) {
            self.expire(channel, entry, turn);
            return None;
        }
        let why = reject.or_else(|| (most > 0 && deliveries >= most).then_some(Why::MaxDeliveries));
        if let Some(why) = why {
            self.give_up(channel, entry, why, turn);
            return None;
        }
        let asked = entry.written
            || self.unstored.get(id).is_some_and(|unstored| unstored.write_state == super::entry::WriteState::Writing);
        if asked {
            self.counts.push((id, deliveries));
        }
        if let Some(unstored) = self.unstored.get_mut(id) {
            unstored.committed = true;
        }
        self.note_failing(channel, &entry, turn);
        Some(entry)
    }

    /// Puts a message back to its old position in `waiting`.
    pub(super) fn put_back(&mut self, channel: usize, entry: Box<Entry>) {
        let id = entry.message.id;
        let cause = entry.return_cause();
        self.wait(channel, entry, cause);
        if self.channels[channel].members.is_empty() {
            self.append_unrequested(id);
        }
    }
}
