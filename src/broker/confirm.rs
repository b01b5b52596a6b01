//! What becomes of a delivery: confirmed, or given back and delivered again, or given up.

use super::entry::{Entry, Place, Unstored};
use super::safety::Fate;
use super::window::InFlight;
use super::{AckMode, Acknowledge, Broker, Content, Reply, Turn};
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

    /// Settles what a receiver has proved to have; how many deliveries. A receiver with manual acknowledgement proves nothing in this way.
    pub(super) fn settle_up_to(&mut self, key: usize, up_to: u64, turn: &mut Turn<'_>) -> usize {
        if self.receivers[key].ack == AckMode::Manual {
            return 0;
        }
        let mut deliveries = 0;
        while let Some(delivery) = self.receivers[key].window.pop_confirmed(up_to) {
            self.settle_flight(delivery.flight, turn);
            self.release_flight(delivery.flight, false, turn);
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

    /// A receiver with manual acknowledgement has answered a delivery.
    pub(super) fn acknowledge(&mut self, acknowledge: Acknowledge, turn: &mut Turn<'_>) {
        let Acknowledge { connection, sequence, answer } = acknowledge;
        if self.ended.contains(&connection) {
            return;
        }
        self.note_connection(connection);
        let key = self.receiver_keys.get(&connection).copied();
        if answer == Answer::Extend && key.is_some_and(|key| self.receivers[key].window.extend(sequence, turn.now)) {
            return;
        }
        let taken = key.filter(|_| answer != Answer::Extend).and_then(|key| {
            let delivery = self.receivers[key].window.take(sequence)?;
            Some((key, delivery))
        });
        let Some((key, InFlight { flight, at, .. })) = taken else {
            self.reply(Some(connection), Reply::UnknownDelivery { sequence, command: answer.command() }, turn);
            return;
        };
        let done = answer == Answer::Ack;
        self.receivers[key].acknowledged(done, turn.now.since(at));
        self.receivers[key].window.progressed(turn.now);
        if done {
            self.settle_flight(flight, turn);
        }
        self.release_flight(flight, true, turn);
        self.pump_receiver(key);
    }

    /// A receiver may have room now: whatever waits for it is looked at again.
    fn pump_receiver(&mut self, key: usize) {
        let channels = &self.channels;
        self.to_pump.extend(
            self.receivers[key]
                .subscriptions
                .iter()
                .map(|subscription| subscription.channel)
                .filter(|channel| !channels[*channel].is_drained()),
        );
    }

    /// The messages of a flight are confirmed, if they were not before.
    fn settle_flight(&mut self, flight: usize, turn: &mut Turn<'_>) {
        let Some(flight) = self.flights.get_mut(flight) else { return };
        let channel = flight.channel;
        let entries = std::mem::take(&mut flight.entries);
        if entries.is_empty() {
            return;
        }
        self.channels[channel].in_flight -= 1;
        self.counters.confirmed += entries.len() as u64;
        for entry in entries {
            self.drop_entry(channel, entry, Fate::Settled, turn);
        }
    }

    /// A flight stands in one window less. If it was the last and nobody has confirmed it, its messages are given back.
    /// `pump`: whoever else is there is to be offered them.
    pub(super) fn release_flight(&mut self, key: usize, pump: bool, turn: &mut Turn<'_>) {
        let Some(flight) = self.flights.get_mut(key) else { return };
        flight.outstanding -= 1;
        if flight.outstanding > 0 {
            return;
        }
        let flight = self.flights.remove(key);
        if flight.entries.is_empty() {
            return;
        }
        let channel = flight.channel;
        self.channels[channel].in_flight -= 1;
        for entry in flight.entries {
            self.give_back(channel, entry, turn);
        }
        if pump && self.channels.contains(channel) {
            self.to_pump.push(channel);
        }
    }

    /// Puts a message back at its place in the order, unless its time or its number of deliveries is over.
    fn give_back(&mut self, channel: usize, entry: Entry, turn: &mut Turn<'_>) {
        let most = self.channels[channel].policy.max_deliveries;
        if entry.expired(turn.now) {
            self.expire(channel, entry, turn);
            return;
        }
        if most > 0 && entry.message.deliveries >= most {
            self.give_up(channel, entry, turn);
            return;
        }
        let id = entry.message.id;
        let deliveries = entry.message.deliveries;
        let asked =
            entry.written || self.unstored.get(id).is_some_and(|unstored| unstored.row == super::entry::Row::Writing);
        if asked {
            self.counts.push((id, deliveries));
        }
        if let Some(unstored) = self.unstored.get_mut(id) {
            unstored.committed = true;
        }
        self.wait(channel, entry);
        self.move_to(id, Place::Waiting);
        if self.channels[channel].members.is_empty() {
            self.append_unasked(id);
        }
    }

    /// Moves a message that was delivered too often to the dead-letter channel, or drops it.
    fn give_up(&mut self, channel: usize, entry: Entry, turn: &mut Turn<'_>) {
        let letter = self.channels[channel].policy.dead_letter.clone();
        let target = letter.and_then(|name| self.open_channel(&name)).filter(|target| *target != channel);
        let Some(target) = target else {
            self.counters.dropped += 1;
            self.drop_entry(channel, entry, Fate::Settled, turn);
            return;
        };
        let policy = &self.channels[target].policy;
        if !policy.keep {
            self.dead_letter_fleeting(channel, target, entry, turn);
        } else if self.is_backlog_full(target, 1, turn.now) || self.is_memory_full(0, Some(target), turn) {
            self.counters.dropped += 1;
            self.drop_entry(channel, entry, Fate::Settled, turn);
            self.close_if_unused(target);
        } else {
            let mut entry = entry;
            let (id, before) = (entry.message.id, entry.message.expires);
            entry.message.expires = super::entry::expires_at(turn.now, self.channels[target].policy.ttl);
            self.count_out(channel, id, before);
            self.count_in(target, id, entry.message.expires);
            entry.message.deliveries = 0;
            entry.message.receivers = None;
            entry.origin = None;
            entry.suspect = false;
            self.counters.dead_lettered += 1;
            self.counters.accepted += 1;
            if entry.written || self.unstored.get(entry.message.id).is_some_and(Unstored::has_counted_row) {
                self.row_gone(channel, &entry);
            }
            self.renew(target, entry, turn);
            self.to_pump.push(target);
            self.close_if_unused(channel);
        }
    }

    fn dead_letter_fleeting(&mut self, channel: usize, target: usize, entry: Entry, turn: &mut Turn<'_>) {
        self.counters.dead_lettered += 1;
        let name = self.channels[target].name.clone();
        let messages = std::iter::once(entry.message.payload.clone()).collect();
        self.fan_out(target, Content::Backlog { channel: name, messages }, 1, (None, None), turn);
        self.drop_entry(channel, entry, Fate::Settled, turn);
        self.close_if_unused(target);
    }
}
