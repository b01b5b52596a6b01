//! The end of a message's time: out of the memory at its moment, out of the store by sweeps, and out of every count at once.
//!
//! Every expired message that is in memory goes through [`Broker::expire`], and every one that only the store had through
//! [`Broker::expire_unseen`], or, if it is to be a dead letter, first into memory ([`Broker::expire_spared`]).

use std::time::Duration;

use super::channel::Channel;
use super::counters::Metric;
use super::entry::{Entry, Place};
use super::failure::Why;
use super::pending::Fate;
use super::stage::Cause;
use super::{Broker, Delayed, Effect, Refusal, StoreEffect, Turn};
use crate::limits;
use crate::message::{ChannelName, Message, MessageId, Timestamp};

impl Broker {
    /// Lets go of a message whose time to live is over: it is a dead letter, if its channel says so, or gone. If it is not safe yet, its sender is told.
    pub(super) fn expire(&mut self, key: usize, mut entry: Entry, turn: &mut Turn<'_>) {
        if self.survives_expiry(key, &entry) {
            self.answer_expired(&mut entry, turn);
            self.give_up(key, entry, Why::Expired, turn);
            return;
        }
        self.count(key, Metric::Expired, 1);
        self.drop_entry(key, entry, (Fate::Refused(Refusal::Expired), Cause::Expired), turn);
    }

    /// Whether a message is a dead letter when it has expired. One that is a dead letter already is not: it would go round for ever.
    fn survives_expiry(&self, key: usize, entry: &Entry) -> bool {
        let channel = &self.channels[key];
        let target = channel.policy.dead_letter.as_ref().filter(|target| **target != channel.name);
        channel.policy.dead_letter_expired && target.is_some() && entry.message.dead.is_none()
    }

    /// Tells who waits for a message to be safe that it has expired before, though it lives on as a dead letter. It was not accepted, and so its
    /// publication's id is not remembered by it.
    fn answer_expired(&mut self, entry: &mut Entry, turn: &mut Turn<'_>) {
        let unstored = self.unstored.get_mut(entry.message.id);
        let pending = unstored.and_then(|unstored| Some((unstored.pending.take()?, unstored.place)));
        if let Some((pending, place)) = pending {
            self.advance(pending, place, Fate::Refused(Refusal::Expired), turn);
            (entry.message.publication, entry.remembered) = (None, None);
        } else if let Some(key) = entry.remembered
            && self.dedup.get(turn.now, self.settings.dedup_window, key).is_none()
        {
            // It was written too late, and refused then; or that is long ago.
            (entry.message.publication, entry.remembered) = (None, None);
        }
    }

    /// The store has an expired message that is to be a dead letter. What is in memory, or about to be, expires there.
    fn expire_spared(&mut self, message: Message, turn: &mut Turn<'_>) {
        let id = message.id;
        let key = self.channel_keys.get(&message.channel).copied();
        if key.is_some_and(|key| self.channels[key].loading.is_some()) {
            // The page may bring it, too, and knows by the same marks what it is.
            return;
        }
        if self.refused.contains(&id) {
            // Nobody has counted it; its sender was told that it is not there, and its removal is on its way.
            return;
        }
        let is_known =
            self.expired_early.contains(&id) || self.superseded.contains_key(&id) || self.unstored.contains(id);
        let Some(key) = key.filter(|_| !is_known) else { return };
        let channel = &self.channels[key];
        if channel.paged == 0 || id <= channel.cursor {
            return;
        }
        // The next sweeps find the others.
        if self.superseded.len() >= self.settings.bounds.dying || self.is_pressed() {
            return;
        }
        self.channels[key].paged -= 1;
        let entry = self.stored_entry(message, None);
        self.bytes += entry.bytes();
        self.expire(key, entry, turn);
        self.to_pump.extend(self.channels.contains(key).then_some(key));
    }

    /// A message that only the store had is gone, because its time to live was over.
    fn expire_unseen(&mut self, key: usize, id: MessageId, turn: &Turn<'_>) {
        self.count(key, Metric::Expired, 1);
        let is_old = self.is_old(id);
        let channel = &mut self.channels[key];
        channel.paged -= 1;
        channel.unsettled -= 1;
        if let Some(expiring) = &mut channel.expiring {
            let expiries = if is_old { &mut expiring.old } else { &mut expiring.new };
            expiries.remove_expired(turn.now);
        }
        self.forget_expiries_if_none(key);
        self.to_pump.push(key);
        self.close_if_unused(key);
    }

    /// Whether the store held this message at the start.
    fn is_old(&self, id: MessageId) -> bool {
        id <= self.restored_up_to
    }

    /// Counts a message as one of the channel's.
    #[inline]
    pub(super) fn count_in(&mut self, key: usize, id: MessageId, expires: Option<Timestamp>) {
        let is_old = self.is_old(id);
        let channel = &mut self.channels[key];
        channel.unsettled += 1;
        if let Some(expires) = expires {
            let expiring = channel.expiring.get_or_insert_default();
            let expiries = if is_old { &mut expiring.old } else { &mut expiring.new };
            expiries.add(expires, 1, self.settings.bounds.expiry_buckets);
        }
    }

    /// Counts a message as one of the channel's no more.
    #[inline]
    pub(super) fn count_out(&mut self, key: usize, id: MessageId, expires: Option<Timestamp>) {
        let is_old = self.is_old(id);
        let channel = &mut self.channels[key];
        channel.unsettled -= 1;
        if let Some(expiring) = &mut channel.expiring {
            if let Some(expires) = expires {
                let expiries = if is_old { &mut expiring.old } else { &mut expiring.new };
                expiries.remove(expires);
            }
            self.forget_expiries_if_none(key);
        }
    }

    /// Messages of the channel are gone, nobody knows which: it has no more that expire than messages.
    pub(super) fn trim_expiries(&mut self, key: usize, most: u64) {
        if let Some(expiring) = &mut self.channels[key].expiring {
            expiring.trim(most);
            self.forget_expiries_if_none(key);
        }
    }

    fn forget_expiries_if_none(&mut self, key: usize) {
        let channel = &mut self.channels[key];
        if channel.unsettled == 0 {
            channel.expiring.take_if(|expiring| expiring.armed.is_none());
        }
    }

    /// Has an entry wait in memory, and sees to it that it is let go in time.
    pub(super) fn wait(&mut self, key: usize, mut entry: Entry, cause: Cause) {
        self.transition(key, &mut entry, Place::Waiting, cause);
        let expires = entry.message.expires;
        self.channels[key].wait(entry);
        self.arm_expiry(key, expires);
    }

    /// The same for one that is parked.
    pub(super) fn park(&mut self, key: usize, mut entry: Entry, cause: Cause) {
        self.transition(key, &mut entry, Place::Parked, cause);
        let expires = entry.message.expires;
        self.channels[key].park(entry);
        self.arm_expiry(key, expires);
    }

    fn arm_expiry(&mut self, key: usize, expires: Option<Timestamp>) {
        let Some((expires, expiring)) = expires.zip(self.channels[key].expiring.as_mut()) else { return };
        if expiring.armed.is_none_or(|armed| expires < armed) {
            self.timers.expire_at(Some(expires), expiring.armed, key);
            expiring.armed = Some(expires);
        }
    }

    /// Sets the channel's timer to what expires first of all that waits.
    fn rearm_expiry(&mut self, key: usize) {
        if !self.channels.contains(key) {
            return;
        }
        let first = first_to_expire(&self.channels[key]).map(|(at, _)| at);
        let Some(expiring) = self.channels[key].expiring.as_mut() else { return };
        self.timers.expire_at(first, expiring.armed, key);
        expiring.armed = first;
        self.forget_expiries_if_none(key);
    }

    /// Stops the timer of a channel that is about to be closed.
    pub(super) fn disarm_expiry(&mut self, key: usize) {
        let armed = self.channels[key].expiring.as_ref().and_then(|expiring| expiring.armed);
        self.timers.expire_at(None, armed, key);
    }

    /// Lets go of everything in memory whose time is over.
    pub(super) fn expire_due(&mut self, turn: &mut Turn<'_>) {
        while let Some(key) = self.timers.due_expiry(turn.now) {
            if let Some(expiring) = self.channels.get_mut(key).and_then(|channel| channel.expiring.as_mut()) {
                expiring.armed = None;
            }
            self.expire_in(key, turn);
        }
    }

    /// Lets go of everything in a channel that waits in memory and whose time is over.
    fn expire_in(&mut self, key: usize, turn: &mut Turn<'_>) {
        while let Some(entry) = self.channels.get_mut(key).and_then(|channel| take_expired(channel, turn.now)) {
            if self.sweeping && !entry.written {
                // The sweep may have met its row, which was being written.
                self.expired_early.insert(entry.message.id);
            }
            self.expire(key, entry, turn);
            self.to_pump.extend(self.channels.contains(key).then_some(key));
        }
        self.rearm_expiry(key);
    }

    /// A page of the channel has come, or will not: what is parked may expire again.
    pub(super) fn expire_after_page(&mut self, name: &ChannelName, turn: &mut Turn<'_>) {
        if let Some(key) = self.channel_keys.get(name) {
            self.expire_in(*key, turn);
        }
    }

    /// Whether the channel is at its limit with so many messages more; what has expired does not count.
    #[inline]
    pub(super) fn is_backlog_full(&mut self, key: usize, more: u64, now: Timestamp) -> bool {
        let channel = &mut self.channels[key];
        let most = channel.policy.max_backlog;
        channel.unsettled.saturating_add(more) > most && channel.live(now).saturating_add(more) > most
    }

    /// Whether the memory is full with so many bytes more. What has expired is let go first; `channel` stays open.
    pub(super) fn is_memory_full(&mut self, more: usize, channel: Option<usize>, turn: &mut Turn<'_>) -> bool {
        if self.bytes + more <= limits::CORE_BYTES {
            return false;
        }
        let hold = |broker: &mut Self, by: i64| {
            if let Some(channel) = channel.and_then(|key| broker.channels.get_mut(key)) {
                channel.unsettled = channel.unsettled.wrapping_add_signed(by);
            }
        };
        hold(self, 1);
        self.expire_due(turn);
        hold(self, -1);
        self.bytes + more > limits::CORE_BYTES
    }

    /// Something is in the store only, where it may expire unnoticed.
    pub(super) fn sweep_later(&mut self, now: Timestamp) {
        self.timers.sweep.get_or_insert(now.after(self.settings.bounds.sweep_every));
    }

    /// Has the store look for expired messages, and again later while any message is in the store only.
    pub(super) fn sweep(&mut self, turn: &mut Turn<'_>) {
        if !self.sweeping {
            self.sweeping = true;
            let spare = self.spare.clone();
            turn.effects.list.push(Effect::Store(StoreEffect::Sweep { now: turn.now, spare }));
        }
        if self.channels.iter().any(|(_, channel)| channel.paged > 0) {
            self.sweep_later(turn.now);
        }
    }

    /// Expired messages are gone from the store, but for those of spared channels. `more`: perhaps not all of them; then the next ones go at once.
    pub(super) fn swept(
        &mut self,
        gone: &[(MessageId, ChannelName)],
        spared: Vec<Message>,
        more: bool,
        turn: &mut Turn<'_>,
    ) {
        self.sweeping = false;
        if more {
            self.timers.sweep = Some(turn.now);
        }
        for (id, name) in gone {
            let known = self.refused.remove(id) || self.expired_early.contains(id);
            let counted = !known && !self.superseded.contains_key(id);
            let Some(key) = self.channel_keys.get(name).copied().filter(|_| counted) else { continue };
            let channel = &mut self.channels[key];
            if let Some(entry) = channel.unwait(*id) {
                self.expire(key, entry, turn);
            } else if channel.paged > 0 && *id > channel.cursor {
                self.expire_unseen(key, *id, turn);
            }
            // Otherwise it is in flight: its receiver may still confirm it, and the core will expire it if not.
        }
        for message in spared {
            self.expire_spared(message, turn);
        }
        self.expired_early.clear();
        let unattended = |channel: &Channel| channel.members.is_empty() && !channel.waiting.is_empty();
        self.to_pump.extend(self.channels.iter().filter(|(_, channel)| unattended(channel)).map(|(key, _)| key));
    }

    /// The wall clock was found to be late by so much, and is right now. What the store held at the start carries times of the wall clock, and
    /// so its moments come sooner; what was accepted since lives by elapsed time.
    pub(super) fn wall_advanced(&mut self, by: Duration, turn: &mut Turn<'_>) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let sooner = |at: &mut Option<Timestamp>| {
            if let Some(at) = at {
                at.0 = at.0.saturating_sub(millis);
            }
        };
        let up_to = self.restored_up_to;
        for (_, channel) in &mut self.channels {
            let Some(expiring) = channel.expiring.as_mut() else { continue };
            expiring.old.advance(millis);
            let entries = channel.waiting.range_mut(..=up_to).chain(channel.parked.range_mut(..=up_to));
            for (id, entry) in entries {
                let Some(expires) = entry.message.expires else { continue };
                expiring.waiting.remove(&(expires, *id));
                sooner(&mut entry.message.expires);
                expiring.waiting.extend(entry.message.expires.map(|expires| (expires, *id)));
            }
        }
        for (_, flight) in &mut self.flights {
            flight.entries.iter_mut().filter(|entry| entry.message.id <= up_to).for_each(|entry| {
                sooner(&mut entry.message.expires);
            });
        }
        let old: Vec<_> = self.delayed.keys().filter(|(_, id)| *id <= up_to).copied().collect();
        for at in old {
            let Some(mut delayed) = self.delayed.remove(&at) else { continue };
            let due = Timestamp(at.0.0.saturating_sub(millis));
            if let Delayed::Kept(_, entry) = &mut delayed {
                sooner(&mut entry.message.expires);
                entry.message.due = Some(due);
                self.move_to(at.1, Place::Delayed(due));
            }
            self.delayed.insert((due, at.1), delayed);
        }
        self.hold_anew(up_to, sooner);
        let keys: Vec<usize> = self.channels.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.rearm_expiry(key));
        self.expire_due(turn);
        self.timers.sweep = Some(turn.now);
    }
}

/// What expires first of all that waits in memory. While a page is read, not what is parked: the page may bring it too, and must find it.
pub(super) fn first_to_expire(channel: &Channel) -> Option<(Timestamp, MessageId)> {
    let mut waiting = channel.expiring.as_ref()?.waiting.iter();
    waiting.find(|(_, id)| channel.loading.is_none() || !channel.parked.contains_key(id)).copied()
}

/// Takes out an entry that waits in memory and has expired.
fn take_expired(channel: &mut Channel, now: Timestamp) -> Option<Entry> {
    let (_, id) = first_to_expire(channel).filter(|(expires, _)| *expires <= now)?;
    channel.unwait(id).or_else(|| channel.unpark(id))
}
