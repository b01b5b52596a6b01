//! Failed deliveries: another receiver gets the message, or it is held back for a while, or it is given up.
//!
//! A held message stays in memory, apart from `waiting`, so that it does not block other messages. Afterwards it returns to its old
//! position.

use smallvec::SmallVec;

use super::counters::Metric;
use super::entry::{Binding, Entry, Held, Location};
use super::flight::Failed;
use super::group_shares::Eligible;
use super::member::Targets;
use super::pending::Fate;
use super::receiver::Receiver;
use super::stage::Cause;
use super::{Broker, Content, Note, Turn};
use crate::limits;
use crate::message::{ConnectionId, DeadLetter, MessageId, Nack, Timestamp};

pub use crate::message::Why;

impl Broker {
    /// Notes a receiver's nack with the flight.
    pub(super) fn note_nack(&mut self, flight: usize, by: ConnectionId, nack: Nack, now: Timestamp) {
        let Some(flight) = self.flights.get_mut(flight) else { return };
        if flight.shares.as_ref().is_some_and(|shares| !shares.is_holder(by)) {
            // The nack of an observer does not count.
            return;
        }
        let failed = flight.failed.get_or_insert_default();
        failed.by.push(by);
        failed.nacked = true;
        failed.reject |= nack.reject;
        failed.until = failed.until.max(nack.retry_after.map(|pause| now.after(pause)));
        failed.reason = nack.reason.or(failed.reason.take());
    }

    /// Notes with the flight that a receiver has not answered in time.
    pub(super) fn note_unanswered(&mut self, flight: usize, by: ConnectionId) {
        if let Some(flight) = self.flights.get_mut(flight) {
            flight.failed.get_or_insert_default().by.push(by);
        }
    }

    /// Decides about a message that no receiver holds any more, after at least one of them gave it back or was too slow.
    pub(super) fn handle_failed(
        &mut self,
        channel: usize,
        mut entry: Box<Entry>,
        failed: &Failed,
        turn: &mut Turn<'_>,
    ) {
        let first = failed.nacked && self.count_nack(&mut entry, failed);
        let reject = failed.reject.then_some(Why::Rejected);
        let Some(entry) = self.check_returned(channel, entry, reject, turn) else { return };
        if let Some(until) = failed.until {
            self.hold(channel, entry, until, turn);
            return;
        }
        let attempts = entry.message.deliveries;
        let at_once = first || !failed.nacked;
        let entry = if at_once { self.pass_to_other(channel, entry, &failed.by, false, turn) } else { Some(entry) };
        match entry {
            None => {}
            Some(entry) if failed.nacked => self.hold(channel, entry, turn.now.after(back_off(attempts)), turn),
            Some(entry) => self.put_back_or_owe(channel, entry, turn),
        }
    }

    /// Notes a nack and its reason with a message. Returns true for the first nack.
    fn count_nack(&mut self, entry: &mut Entry, failed: &Failed) -> bool {
        let before = entry.bytes();
        let failures = entry.failures.get_or_insert_default();
        let first = failures.nacks == 0;
        failures.nacks = failures.nacks.saturating_add(1);
        if failed.reason.is_some() {
            failures.reason.clone_from(&failed.reason);
        }
        self.recharge(entry, before);
        first
    }

    /// Chooses receivers that take a returned message now, except its sender and those for which `not` returns true. `binding`: members of
    /// these groups take precedence, or only they may get the message.
    pub(super) fn other_receivers(
        &self,
        key: usize,
        entry: &Entry,
        binding: Option<&Binding>,
        not: impl Fn(ConnectionId) -> bool,
        now: Timestamp,
    ) -> Targets {
        if self.stopping {
            return Targets::new();
        }
        let channel = &self.channels[key];
        let limit = entry.message.receivers.unwrap_or(channel.policy.receivers);
        let takes_backlog = |receiver: &Receiver| receiver.takes_backlog(now);
        if let Some(binding) = binding {
            let eligible = Eligible { origin: entry.origin, limit, within: Some(&binding.groups), not: &not };
            let targets = self.grouped_targets(key, eligible, &takes_backlog);
            if binding.waits || !targets.is_empty() {
                return targets;
            }
        }
        if channel.groups().is_some() {
            let eligible = Eligible { origin: entry.origin, limit, within: None, not: &not };
            return self.grouped_targets(key, eligible, &takes_backlog);
        }
        let other = |key: usize| !not(self.receivers[key].connection);
        let takes = |key: usize| other(key) && takes_backlog(&self.receivers[key]);
        let targets = channel.choose_ready(entry.origin, limit.max(1), takes);
        if limit > 0 || targets.is_empty() {
            return targets;
        }
        channel.choose(entry.origin, 0, |key| other(key) && !self.is_outrun(key))
    }

    /// Delivers a failed message to another receiver at once. Returns the message if there is none. `within`: only to the groups to which
    /// it is bound.
    pub(super) fn pass_to_other(
        &mut self,
        channel: usize,
        mut entry: Box<Entry>,
        not: &[ConnectionId],
        within: bool,
        turn: &mut Turn<'_>,
    ) -> Option<Box<Entry>> {
        if entry.message.receivers.unwrap_or(self.channels[channel].policy.receivers) == 0 {
            self.end_outrun(channel, entry.origin, turn);
        }
        let binding = entry.binding().cloned().map(|binding| Binding { waits: binding.waits || within, ..binding });
        let targets =
            self.other_receivers(channel, &entry, binding.as_ref(), |connection| not.contains(&connection), turn.now);
        if targets.is_empty() {
            return Some(entry);
        }
        self.unbind(&mut entry);
        let content = Content::backlog(&self.channels[channel].name, std::iter::once(&entry));
        let entries: SmallVec<[Box<Entry>; 1]> = std::iter::once(entry).collect();
        self.start_flight(channel, entries, content, &targets, turn);
        self.pause_backlog(&targets, turn);
        None
    }

    /// Holds a message back until `until`. The message is written, because the back-off may be long.
    fn hold(&mut self, channel: usize, entry: Box<Entry>, until: Timestamp, turn: &mut Turn<'_>) {
        if until <= turn.now {
            self.put_back_or_owe(channel, entry, turn);
            return;
        }
        // Release it when it expires.
        let until = entry.message.expires.map_or(until, |expires| expires.min(until));
        self.hold_until(channel, entry, until, turn);
    }

    /// Holds a message back until a time that is not after its expiry.
    pub(super) fn hold_until(&mut self, channel: usize, mut entry: Box<Entry>, until: Timestamp, turn: &mut Turn<'_>) {
        let id = entry.message.id;
        let cause = entry.return_cause();
        self.transition(channel, &mut entry, Location::Held(until), cause);
        self.held_bytes += entry.bytes();
        self.channels[channel].in_flight += 1;
        self.held.insert((until, id), Held { channel, entry });
        self.append_unrequested(id);
        while self.held.len() > self.settings.bounds.held || self.held_bytes > self.held_bytes_bound() {
            let Some((key, _)) = self.held.first_key_value() else { break };
            self.release(*key, true, turn);
        }
    }

    /// Applies `advance` to the expiry of held messages up to this id, and releases them at the latest when they expire.
    pub(super) fn advance_held(&mut self, up_to: MessageId, advance: impl Fn(&mut Option<Timestamp>)) {
        let old: Vec<_> = self.held.keys().filter(|(_, id)| *id <= up_to).copied().collect();
        for (until, id) in old {
            let Some(mut held) = self.held.remove(&(until, id)) else { continue };
            advance(&mut held.entry.message.expires);
            let until = held.entry.message.expires.map_or(until, |expires| expires.min(until));
            self.move_owed(&held, until);
            self.held.insert((until, id), held);
            self.move_to(id, Location::Held(until));
        }
    }

    /// Releases the held messages whose time has come.
    pub(super) fn release_held(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..limits::RELEASED_AT_ONCE {
            let over = self.held.first_key_value().filter(|((until, _), _)| *until <= turn.now);
            let Some(key) = over.map(|(key, _)| *key) else { return };
            self.release(key, false, turn);
        }
    }

    /// Releases a held message. `early`: before its time, because too many messages are held.
    fn release(&mut self, key: (Timestamp, MessageId), early: bool, turn: &mut Turn<'_>) {
        let owed = self.held.get(&key).is_some_and(|held| self.is_owed(held));
        let Some(Held { channel, mut entry }) = self.take_held(key) else { return };
        if entry.expired(turn.now) {
            self.expire(channel, entry, turn);
            return;
        }
        if owed || early {
            // The wait for its groups is over.
            self.unbind(&mut entry);
        }
        self.put_back_or_owe(channel, entry, turn);
        self.to_pump.push(channel);
    }

    /// Removes a message from the held ones.
    pub(super) fn take_held(&mut self, key: (Timestamp, MessageId)) -> Option<Held> {
        let held = self.held.remove(&key)?;
        self.forget_owed(&held);
        self.held_bytes -= held.entry.bytes();
        self.channels[held.channel].in_flight -= 1;
        Some(held)
    }

    /// Logs a warning when a message has failed [`limits::FAILING_TOLD`] times, and each time the number has doubled.
    pub(super) fn note_failing(&mut self, channel: usize, entry: &Entry, turn: &mut Turn<'_>) {
        let attempts = entry.message.deliveries;
        let rounds = attempts / limits::FAILING_TOLD;
        if attempts.is_multiple_of(limits::FAILING_TOLD) && rounds.is_power_of_two() {
            self.count(channel, Metric::Failing, 1);
            let reason = entry.reason().map(Box::from);
            let channel = self.channels[channel].name.clone();
            turn.note(Note::Failing { channel, id: entry.message.id, attempts, reason });
        }
    }

    /// Gives a message up: moves it to the dead-letter channel, or drops it.
    pub(super) fn give_up(&mut self, channel: usize, entry: Box<Entry>, why: Why, turn: &mut Turn<'_>) {
        let letter = self.channels[channel].policy.dead_letter.clone();
        let Some(letter) = letter.filter(|name| *name != self.channels[channel].name) else {
            self.drop_failed(channel, entry, why, turn);
            return;
        };
        // Even if its owner holds too many channels: the configuration names few dead-letter channels, and the message would be lost.
        let known = self.channel_keys.get(&letter).copied();
        let target = known.unwrap_or_else(|| self.make_channel(&letter, entry.owner));
        let policy = &self.channels[target].policy;
        if !policy.keep {
            self.dead_letter_fleeting(channel, target, entry, turn);
        } else if self.is_backlog_full(target, 1, turn.now) {
            self.drop_failed(channel, entry, why, turn);
            self.close_if_unused(target);
        } else {
            let mut entry = entry;
            let (from, attempts) = (self.channels[channel].name.clone(), entry.message.deliveries);
            let (id, before) = (entry.message.id, entry.message.expires);
            entry.message.expires = super::entry::expires_at(turn.now, self.channels[target].policy.ttl);
            self.count_out(channel, id, before);
            self.count_in(target, id, entry.message.expires);
            entry.message.deliveries = 0;
            entry.message.receivers = None;
            entry.origin = None;
            entry.suspect = false;
            let before = entry.bytes();
            let reason = entry.failures.take().and_then(|failures| failures.reason);
            entry.message.dead.get_or_insert_with(|| Box::new(DeadLetter { why, channel: from, attempts, reason }));
            self.recharge(&entry, before);
            self.count(channel, Metric::DeadLettered, 1);
            self.count(target, Metric::Accepted, 1);
            self.requeue(target, entry, Cause::DeadLettered, turn);
            self.to_pump.push(target);
            self.close_if_unused(channel);
        }
    }

    /// Drops a message that was given up, and logs it.
    fn drop_failed(&mut self, channel: usize, entry: Box<Entry>, why: Why, turn: &mut Turn<'_>) {
        self.count(channel, Metric::Dropped, 1);
        turn.note(Note::Dropped {
            channel: self.channels[channel].name.clone(),
            id: entry.message.id,
            why,
            attempts: entry.message.deliveries,
            reason: entry.reason().map(Box::from),
        });
        self.drop_entry(channel, entry, (Fate::Settled, Cause::Dropped), turn);
    }

    fn dead_letter_fleeting(&mut self, channel: usize, target: usize, entry: Box<Entry>, turn: &mut Turn<'_>) {
        self.count(channel, Metric::DeadLettered, 1);
        let content = Content::backlog(&self.channels[target].name, std::iter::once(&entry));
        self.fan_out(target, content, 1, (None, None), turn);
        self.drop_entry(channel, entry, (Fate::Settled, Cause::DeadLettered), turn);
        self.close_if_unused(target);
    }
}

/// Returns the back-off of a message after this number of failed deliveries.
fn back_off(attempts: u32) -> std::time::Duration {
    limits::RETRY_FIRST.saturating_mul(2_u32.saturating_pow(attempts.saturating_sub(1))).min(limits::RETRY_LONGEST)
}
