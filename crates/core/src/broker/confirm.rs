//! What becomes of a delivery: confirmed, or given back. What becomes of one that failed is in `failure.rs`.

use super::counters::Metric;
use super::entry::Entry;
use super::failure::Why;
use super::flight::Failed;
use super::pending::Fate;
use super::stage::Cause;
use super::{Acknowledge, Broker, Reply, ReplyTo, Turn};
use crate::message::{Answer, ConnectionId};

impl Broker {
    /// A receiver has proved that it has everything up to a delivery.
    pub(super) fn confirmed(&mut self, connection: ConnectionId, up_to: u64, turn: &mut Turn<'_>) {
        let Some(key) = self.receiver_keys.get(&connection).copied() else { return };
        let deliveries = self.settle_up_to(key, up_to, turn);
        self.receivers[key].confirmed(deliveries, turn.now);
        self.want_confirmation(key, turn);
        self.pump_receiver(key);
    }

    /// Settles what a receiver has proved to have; how many deliveries. Of a delivery that is to be answered by hand, nothing else proves
    /// anything.
    pub(super) fn settle_up_to(&mut self, key: usize, up_to: u64, turn: &mut Turn<'_>) -> usize {
        let mut deliveries = 0;
        while let Some(delivery) = self.receivers[key].window.pop_confirmed(up_to) {
            let connection = self.receivers[key].connection;
            self.forget_overdue(connection, &delivery);
            self.settle_flight(delivery.flight, connection, turn);
            self.release_flight(delivery.flight, connection, false, turn);
            deliveries += 1;
        }
        deliveries
    }

    /// Whether a receiver that leaves, and looks to the server like one that took its only message, has confirmed it by that. Not if it has
    /// sent to the message's channel: then it perhaps came only to send.
    pub(super) fn confirms_by_leaving(&self, key: usize) -> bool {
        let receiver = &self.receivers[key];
        let Some(flight) = receiver.window.only().map(|flight| &self.flights[flight]) else { return false };
        // Of several messages it may have worked on the first only. A settled flight may outlive its channel, and there is nothing to confirm.
        flight.entries.len() == 1 && !receiver.sent_to.may_include(&self.channels[flight.channel].name)
    }

    /// A receiver has answered a manual delivery.
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
            Answer::Ack | Answer::Extend => self.settle_flight(delivery.flight, connection, turn),
        }
        self.release_flight(delivery.flight, connection, true, turn);
        self.pump_receiver(key);
    }

    /// A receiver may have room now: whatever waits for it, or may be passed on to it, is looked at again.
    pub(super) fn pump_receiver(&mut self, key: usize) {
        let (channels, passed) = (&self.channels, !self.overdue.is_empty() || !self.owed.is_empty());
        // A receiver may be ended by what its own answer has led to.
        self.to_pump.extend(
            self.receivers
                .get(key)
                .iter()
                // What is pumped last is looked at first.
                .flat_map(|receiver| receiver.subscriptions.iter().rev())
                .map(|subscription| subscription.channel)
                .filter(|channel| passed || !channels[*channel].is_drained()),
        );
    }

    /// The messages of a flight are confirmed by `by`, if they were not before. Where groups have them, nobody else can.
    fn settle_flight(&mut self, flight: usize, by: ConnectionId, turn: &mut Turn<'_>) {
        let Some(flight) = self.flights.get_mut(flight) else { return };
        if flight.party.as_ref().is_some_and(|party| !party.is_holder(by)) {
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

    /// A flight stands in one window less, that of `by`. If it was the last and nobody has confirmed it, its messages are given back.
    /// `pump`: whoever else is there is to be offered them.
    pub(super) fn release_flight(&mut self, key: usize, by: ConnectionId, pump: bool, turn: &mut Turn<'_>) {
        let Some(flight) = self.flights.get_mut(key) else { return };
        flight.outstanding -= 1;
        // One more receiver may get it, if this was the one that did.
        let doubled = std::mem::take(&mut flight.doubled);
        if flight.party.is_some() {
            self.release_part(key, by, doubled, pump, turn);
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
            self.come_back(channel, entry, flight.failed.as_deref(), turn);
        }
        if pump && self.channels.contains(channel) {
            self.to_pump.push(channel);
        }
    }

    /// Nobody has a message any more that somebody had.
    pub(super) fn come_back(&mut self, channel: usize, entry: Entry, failed: Option<&Failed>, turn: &mut Turn<'_>) {
        match failed {
            Some(failed) => self.fail(channel, entry, failed, turn),
            None => self.give_back(channel, entry, turn),
        }
    }

    /// A receiver has vanished with a message: puts it back at its place in the order, unless its time or its number of deliveries is over. One
    /// that may go to others goes to another member of its receiver's group first.
    fn give_back(&mut self, channel: usize, entry: Entry, turn: &mut Turn<'_>) {
        let Some(entry) = self.still_wanted(channel, entry, None, turn) else { return };
        let may_go_on = entry.bound().is_some_and(|bound| !bound.waits);
        let entry = if may_go_on { self.pass_on(channel, entry, &[], true, turn) } else { Some(entry) };
        if let Some(entry) = entry {
            self.stand_or_owe(channel, entry, turn);
        }
    }

    /// Notes that a message has come back, and returns it if it is to be delivered again. `reject`: it is not.
    pub(super) fn still_wanted(
        &mut self,
        channel: usize,
        entry: Entry,
        reject: Option<Why>,
        turn: &mut Turn<'_>,
    ) -> Option<Entry> {
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
        let asked =
            entry.written || self.unstored.get(id).is_some_and(|unstored| unstored.row == super::entry::Row::Writing);
        if asked {
            self.counts.push((id, deliveries));
        }
        if let Some(unstored) = self.unstored.get_mut(id) {
            unstored.committed = true;
        }
        self.note_failing(channel, &entry, turn);
        Some(entry)
    }

    /// Puts a message at its old place among what waits.
    pub(super) fn stand(&mut self, channel: usize, entry: Entry) {
        let id = entry.message.id;
        let cause = entry.why_back();
        self.wait(channel, entry, cause);
        if self.channels[channel].members.is_empty() {
            self.append_unasked(id);
        }
    }
}
