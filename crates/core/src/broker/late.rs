//! Late deliveries. A manual delivery is late after `ack_timeout`: it is taken back and given to another receiver. An automatic delivery is
//! late after `confirm_within`: it is also given to one more receiver. If no other receiver is there, the delivery stays with its receiver
//! and is *overdue*, until another receiver subscribes or has room again.

use std::time::Duration;

use smallvec::SmallVec;

use super::counters::Metric;
use super::entry::Entry;
use super::member::Member;
use super::window::InFlight;
use super::{Broker, Note, Turn};
use crate::message::{ConnectionId, Timestamp};

impl Broker {
    /// Checks a receiver's deliveries for late ones.
    pub(super) fn check_late(&mut self, connection: ConnectionId, turn: &mut Turn<'_>) {
        let Some(key) = self.receiver_keys.get(&connection).copied() else { return };
        let mut late: SmallVec<[u64; 4]> = SmallVec::new();
        // A delivery that is made from now on needs no check before this time.
        let mut next = turn.now.after(self.shortest_deadline);
        let mut any = false;
        for delivery in self.receivers[key].window.iter() {
            let Some(deadline) = self.deadline(connection, delivery) else { continue };
            any = true;
            if deadline > turn.now {
                next = next.min(deadline);
            } else {
                late.push(delivery.sequence);
            }
        }
        for sequence in late {
            self.handle_late(connection, sequence, turn);
        }
        if any && self.receiver_keys.contains_key(&connection) {
            self.deadlines.arm_late_check(next, connection);
        }
    }

    /// Returns the time at which a delivery is late. `None`: never, or the delivery does not matter any more.
    fn deadline(&self, connection: ConnectionId, delivery: &InFlight) -> Option<Timestamp> {
        let flight = &self.flights[delivery.flight];
        if flight.entries.is_empty() || flight.shares.as_ref().is_some_and(|shares| !shares.is_holder(connection)) {
            return None;
        }
        let policy = &self.channels[flight.channel].policy;
        let within = if delivery.manual { policy.ack_timeout } else { policy.confirm_within };
        (!within.is_zero()).then(|| delivery.at.after(within))
    }

    /// Handles a late delivery.
    fn handle_late(&mut self, connection: ConnectionId, sequence: u64, turn: &mut Turn<'_>) {
        let Some(key) = self.receiver_keys.get(&connection).copied() else { return };
        let Some(delivery) = self.receivers[key].window.get(sequence).copied() else { return };
        if self.flights[delivery.flight].entries.is_empty() {
            return;
        }
        let channel = self.flights[delivery.flight].channel;
        if delivery.manual && self.revoke(connection, &delivery, false, turn) {
            return;
        }
        let window = &mut self.receivers[key].window;
        if let Some(delivery) = window.get_mut(sequence) {
            delivery.overdue = true;
            if delivery.manual {
                delivery.at = turn.now;
            }
        }
        self.overdue.insert((channel, connection, sequence));
        if delivery.manual {
            let channel = self.channels[channel].name.clone();
            turn.note(Note::Unanswered { connection, sequence, channel, given: false });
        } else {
            window.silence();
            self.give_to_one_more(connection, &delivery, turn);
        }
    }

    /// Called when a receiver has subscribed or has room again: gives the channel's overdue deliveries to other receivers, if possible.
    pub(super) fn pass_on_overdue(&mut self, channel: usize, turn: &mut Turn<'_>) {
        let from = (channel, ConnectionId(0), 0);
        let overdue: Vec<_> = self.overdue.range(from..).take_while(|(key, ..)| *key == channel).copied().collect();
        for (_, connection, sequence) in overdue {
            let delivery = self
                .receiver_keys
                .get(&connection)
                .and_then(|key| self.receivers[*key].window.get(sequence))
                .filter(|delivery| delivery.overdue)
                .copied();
            let live = delivery.filter(|delivery| !self.flights[delivery.flight].entries.is_empty());
            match live {
                Some(delivery) if delivery.manual => {
                    self.revoke(connection, &delivery, true, turn);
                }
                Some(delivery) => self.give_to_one_more(connection, &delivery, turn),
                None => {}
            }
        }
    }

    /// Called when a delivery leaves its window.
    #[inline]
    pub(super) fn forget_overdue(&mut self, connection: ConnectionId, delivery: &InFlight) {
        if delivery.overdue {
            self.overdue.remove(&(self.flights[delivery.flight].channel, connection, delivery.sequence));
        }
    }

    /// Takes a late manual delivery from its receiver, if its messages can go elsewhere: to another receiver, to the dead letters, or away
    /// because they have expired. Returns false if the delivery stays.
    fn revoke(&mut self, connection: ConnectionId, delivery: &InFlight, pump: bool, turn: &mut Turn<'_>) -> bool {
        let flight = &self.flights[delivery.flight];
        let channel = flight.channel;
        let most = self.channels[channel].policy.max_deliveries;
        // Receivers that were too slow before, or gave the messages back, do not get them again.
        let failed = flight.failed.as_deref();
        let had = |other| other == connection || failed.is_some_and(|failed| failed.has(other));
        let shares = flight.shares.as_deref();
        let is_over = |entry: &Entry| entry.expired(turn.now) || (most > 0 && entry.message.deliveries >= most);
        let has_taker = |entry: &Entry| {
            let binding = self.binding_of(entry, channel, shares);
            !self.other_receivers(channel, entry, binding.as_ref(), had, turn.now).is_empty()
        };
        let is_elsewhere = match shares {
            None => flight.outstanding > 1,
            Some(shares) => shares.is_shared(connection),
        };
        let goes = is_elsewhere
            || flight.entries.iter().any(|entry| is_over(entry))
            || match shares
                .filter(|shares| shares.is_held_beside(connection))
                .and_then(|shares| shares.share(connection))
            {
                Some(share) => self.next_within(delivery.flight, share, turn.now).is_some(),
                None => flight.entries.iter().any(|entry| has_taker(entry)),
            };
        let Some(key) = self.receiver_keys.get(&connection).copied().filter(|_| goes) else { return false };
        self.forget_overdue(connection, delivery);
        self.receivers[key].window.take(delivery.sequence);
        self.receivers[key].acknowledged(false, Duration::MAX);
        self.count(channel, Metric::Unanswered, 1);
        let name = self.channels[channel].name.clone();
        turn.note(Note::Unanswered { connection, sequence: delivery.sequence, channel: name, given: true });
        self.note_unanswered(delivery.flight, connection);
        self.release_flight(delivery.flight, connection, !pump, turn);
        self.pump_receiver(key);
        true
    }

    /// Gives a late automatic delivery to one more receiver, if one takes it. The delivery then is in both windows. It stays overdue: if
    /// the second receiver vanishes, another one may get it.
    fn give_to_one_more(&mut self, connection: ConnectionId, delivery: &InFlight, turn: &mut Turn<'_>) {
        let flight = &self.flights[delivery.flight];
        let Some(entry) = flight.entries.iter().find(|entry| !entry.expired(turn.now)) else { return };
        let limit = entry.message.receivers.unwrap_or(self.channels[flight.channel].policy.receivers);
        // At most one receiver more than the limit, which may have been lowered.
        if self.stopping || flight.doubled || (limit > 0 && flight.outstanding > limit) {
            return;
        }
        let channel = &self.channels[flight.channel];
        let joins = |member: &&Member| self.joins(delivery.flight, member, turn.now);
        let share = flight.shares.as_deref().and_then(|shares| Some((shares, shares.share(connection)?)));
        let group = share.zip(channel.groups()).map(|((shares, share), groups)| groups.members(shares.group(share)));
        let waits =
            self.binding_of(entry, flight.channel, flight.shares.as_deref()).is_some_and(|binding| binding.waits);
        let others = || channel.members.ready_from(0).find(joins).filter(|_| !waits);
        let target = group.and_then(|members| members.iter().find(joins)).or_else(others).copied();
        let (Some(target), share) = (target, share.map(|(_, share)| share)) else { return };
        let counted = flight.channel;
        self.flights[delivery.flight].doubled = true;
        self.count(counted, Metric::Doubled, 1);
        self.join_flight(delivery.flight, share, target, turn);
    }
}
