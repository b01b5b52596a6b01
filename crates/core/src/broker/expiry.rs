//! The expiry of messages: in memory at the time of expiry, in the store by sweeps, and at once in the counts that limits use.
//!
//! An expired message in memory goes through [`Broker::expire`]. An expired message that only the store had goes through
//! [`Broker::expire_unseen`]; if it must become a dead letter, it is first loaded into memory ([`Broker::expire_spared`]).

use std::time::Duration;

use super::channel::Channel;
use super::counters::Metric;
use super::entry::{Entry, Location};
use super::failure::Why;
use super::pending::Fate;
use super::stage::Cause;
use super::{Broker, Delayed, Effect, Refusal, StoreEffect, Turn};
use crate::message::{ChannelName, Message, MessageId, Timestamp};

impl Broker {
    /// Expires a message: it becomes a dead letter, if its channel says so, or is removed. If it was not safe yet, its sender is told.
    pub(super) fn expire(&mut self, key: usize, mut entry: Box<Entry>, turn: &mut Turn<'_>) {
        if self.survives_expiry(key, &entry) {
            self.answer_expired(&mut entry, turn);
            self.give_up(key, entry, Why::Expired, turn);
            return;
        }
        self.count(key, Metric::Expired, 1);
        self.drop_entry(key, entry, (Fate::Refused(Refusal::Expired), Cause::Expired), turn);
    }

    /// Whether an expired message becomes a dead letter. A message that is a dead letter already does not, because it would circulate for
    /// ever.
    fn survives_expiry(&self, key: usize, entry: &Entry) -> bool {
        let channel = &self.channels[key];
        let target = channel.policy.dead_letter.as_ref().filter(|target| **target != channel.name);
        channel.policy.dead_letter_expired && target.is_some() && entry.message.dead.is_none()
    }

    /// Tells the waiting sender that its message has expired before it was safe, although the message lives on as a dead letter. The
    /// message was not accepted, so it must not keep its publication's id.
    fn answer_expired(&mut self, entry: &mut Entry, turn: &mut Turn<'_>) {
        let unstored = self.unstored.get_mut(entry.message.id);
        let pending = unstored.and_then(|unstored| Some((unstored.pending.take()?, unstored.location)));
        if let Some((pending, location)) = pending {
            self.resolve_pending(pending, location, Fate::Refused(Refusal::Expired), turn);
            (entry.message.publication, entry.remembered) = (None, None);
        } else if let Some(key) = entry.remembered
            && self.dedup.get(turn.now, self.settings.dedup_window, key).is_none()
        {
            // The message was written too late and refused then, or the id's window is over.
            (entry.message.publication, entry.remembered) = (None, None);
        }
    }

    /// Handles an expired message of a spared channel, which must become a dead letter. A message that is also in memory expires there.
    fn expire_spared(&mut self, message: Message, turn: &mut Turn<'_>) {
        let id = message.id;
        let key = self.channel_keys.get(&message.channel).copied();
        if key.is_some_and(|key| self.channels[key].next_page.is_loading()) {
            // The page may contain the message, too, and checks the same tables.
            return;
        }
        if self.refused.contains(&id) {
            // The message is not counted; its sender was told that it is refused, and its removal is requested.
            return;
        }
        let is_known =
            self.expired_early.contains(&id) || self.superseded.contains_key(&id) || self.unstored.contains(id);
        let Some(key) = key.filter(|_| !is_known) else { return };
        let channel = &self.channels[key];
        if channel.paged == 0 || id <= channel.cursor {
            return;
        }
        // The next sweeps return the other messages again.
        if self.superseded.len() >= self.settings.bounds.superseded_rows || self.is_memory_short() {
            return;
        }
        self.channels[key].paged -= 1;
        let entry = self.stored_entry(message, None);
        self.expire(key, entry, turn);
        self.to_pump.extend(self.channels.contains(key).then_some(key));
    }

    /// Handles an expired message that only the store had and has removed.
    fn expire_unseen(&mut self, key: usize, id: MessageId, turn: &Turn<'_>) {
        self.count(key, Metric::Expired, 1);
        self.watches.settle(id, Cause::Expired);
        let is_restored = self.is_restored(id);
        let channel = &mut self.channels[key];
        channel.paged -= 1;
        channel.unsettled -= 1;
        if let Some(expiring) = &mut channel.expiring {
            let expiries = if is_restored { &mut expiring.restored } else { &mut expiring.accepted };
            expiries.remove_expired(turn.now);
        }
        self.forget_expiries_if_none(key);
        self.to_pump.push(key);
        self.close_if_unused(key);
    }

    /// Whether the store held the message at the start.
    fn is_restored(&self, id: MessageId) -> bool {
        id <= self.restored_up_to
    }

    /// Adds a message to the channel's counts.
    #[inline]
    pub(super) fn count_in(&mut self, key: usize, id: MessageId, expires: Option<Timestamp>) {
        let is_restored = self.is_restored(id);
        let channel = &mut self.channels[key];
        channel.unsettled += 1;
        if let Some(expires) = expires {
            let expiring = channel.expiring.get_or_insert_default();
            let expiries = if is_restored { &mut expiring.restored } else { &mut expiring.accepted };
            expiries.add(expires, 1, self.settings.bounds.expiry_buckets);
        }
    }

    /// Removes a message from the channel's counts.
    #[inline]
    pub(super) fn count_out(&mut self, key: usize, id: MessageId, expires: Option<Timestamp>) {
        let is_restored = self.is_restored(id);
        let channel = &mut self.channels[key];
        channel.unsettled -= 1;
        if let Some(expiring) = &mut channel.expiring {
            if let Some(expires) = expires {
                let expiries = if is_restored { &mut expiring.restored } else { &mut expiring.accepted };
                expiries.remove(expires);
            }
            self.forget_expiries_if_none(key);
        }
    }

    /// Limits the counts of expiring messages to `most`, because unknown messages of the channel are gone.
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

    /// Adds an entry to the channel's waiting messages, and arms the timer for its expiry.
    pub(super) fn wait(&mut self, key: usize, mut entry: Box<Entry>, cause: Cause) {
        self.transition(key, &mut entry, Location::Waiting, cause);
        let expires = entry.message.expires;
        self.channels[key].wait(entry);
        self.arm_expiry(key, expires);
    }

    /// Adds an entry to the channel's parked messages, and arms the timer for its expiry.
    pub(super) fn park(&mut self, key: usize, mut entry: Box<Entry>, cause: Cause) {
        self.transition(key, &mut entry, Location::Parked, cause);
        let expires = entry.message.expires;
        self.channels[key].park(entry);
        self.arm_expiry(key, expires);
    }

    fn arm_expiry(&mut self, key: usize, expires: Option<Timestamp>) {
        let Some((expires, expiring)) = expires.zip(self.channels[key].expiring.as_mut()) else { return };
        if expiring.armed.is_none_or(|armed| expires < armed) {
            self.deadlines.expire_at(Some(expires), expiring.armed, key);
            expiring.armed = Some(expires);
        }
    }

    /// Sets the channel's timer to the first expiry of its messages in memory.
    fn rearm_expiry(&mut self, key: usize) {
        if !self.channels.contains(key) {
            return;
        }
        let first = first_to_expire(&self.channels[key]).map(|(at, _)| at);
        let Some(expiring) = self.channels[key].expiring.as_mut() else { return };
        self.deadlines.expire_at(first, expiring.armed, key);
        expiring.armed = first;
        self.forget_expiries_if_none(key);
    }

    /// Stops the timer of a channel before the channel is closed.
    pub(super) fn disarm_expiry(&mut self, key: usize) {
        let armed = self.channels[key].expiring.as_ref().and_then(|expiring| expiring.armed);
        self.deadlines.expire_at(None, armed, key);
    }

    /// Expires all messages in memory that have expired.
    pub(super) fn expire_due(&mut self, turn: &mut Turn<'_>) {
        while let Some(key) = self.deadlines.due_expiry(turn.now) {
            if let Some(expiring) = self.channels.get_mut(key).and_then(|channel| channel.expiring.as_mut()) {
                expiring.armed = None;
            }
            self.expire_in(key, turn);
        }
    }

    /// Expires all waiting and parked messages of a channel that have expired.
    fn expire_in(&mut self, key: usize, turn: &mut Turn<'_>) {
        while let Some(entry) = self.channels.get_mut(key).and_then(|channel| take_expired(channel, turn.now)) {
            if self.sweeping && !entry.written {
                // The sweep may name the row, which was being written.
                self.expired_early.insert(entry.message.id);
            }
            self.expire(key, entry, turn);
            self.to_pump.extend(self.channels.contains(key).then_some(key));
        }
        self.rearm_expiry(key);
    }

    /// Called after a page was read or failed: expires the parked messages that had to wait for it.
    pub(super) fn expire_after_page(&mut self, name: &ChannelName, turn: &mut Turn<'_>) {
        if let Some(key) = self.channel_keys.get(name) {
            self.expire_in(*key, turn);
        }
    }

    /// Whether `more` messages would exceed the channel's `max_backlog`. Expired messages do not count.
    #[inline]
    pub(super) fn is_backlog_full(&mut self, key: usize, more: u64, now: Timestamp) -> bool {
        let channel = &mut self.channels[key];
        let most = channel.policy.max_backlog;
        channel.unsettled.saturating_add(more) > most && channel.live(now).saturating_add(more) > most
    }

    /// Arms the sweep timer, because a message is in the store only. A caller that waits learns at once that its message has expired.
    pub(super) fn sweep_later(&mut self, now: Timestamp) {
        let at = now.after(self.settings.bounds.sweep_every);
        let at = self.watches.next_expiry(now).map_or(at, |expiry| expiry.min(at));
        self.deadlines.sweep = Some(self.deadlines.sweep.map_or(at, |armed| armed.min(at)));
    }

    /// Asks the store to remove expired messages, and arms the timer for the next sweep while any message is paged.
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

    /// Handles the answer to a sweep. `more`: there may be further expired messages; then the next sweep runs at once.
    pub(super) fn swept(
        &mut self,
        gone: &[(MessageId, ChannelName)],
        spared: Vec<Message>,
        more: bool,
        turn: &mut Turn<'_>,
    ) {
        self.sweeping = false;
        if more {
            self.deadlines.sweep = Some(turn.now);
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
            // Otherwise the message is in flight: its receiver may still confirm it, and the core expires it if the receiver does not.
        }
        for message in spared {
            self.expire_spared(message, turn);
        }
        self.expired_early.clear();
        let unattended = |channel: &Channel| channel.members.is_empty() && !channel.waiting.is_empty();
        self.to_pump.extend(self.channels.iter().filter(|(_, channel)| unattended(channel)).map(|(key, _)| key));
    }

    /// Handles a wall clock that was behind and has been set forward. Messages that the store held at the start have times of the wall
    /// clock, so these times move earlier. Messages that were accepted since then use elapsed time.
    pub(super) fn wall_advanced(&mut self, by: Duration, turn: &mut Turn<'_>) {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let advance = |at: &mut Option<Timestamp>| {
            if let Some(at) = at {
                at.0 = at.0.saturating_sub(millis);
            }
        };
        let up_to = self.restored_up_to;
        for (_, channel) in &mut self.channels {
            let Some(expiring) = channel.expiring.as_mut() else { continue };
            expiring.restored.advance(millis);
            let entries = channel.waiting.range_mut(..=up_to).chain(channel.parked.range_mut(..=up_to));
            for (id, entry) in entries {
                let Some(expires) = entry.message.expires else { continue };
                expiring.waiting.remove(&(expires, *id));
                advance(&mut entry.message.expires);
                expiring.waiting.extend(entry.message.expires.map(|expires| (expires, *id)));
            }
        }
        for (_, flight) in &mut self.flights {
            flight.entries.iter_mut().filter(|entry| entry.message.id <= up_to).for_each(|entry| {
                advance(&mut entry.message.expires);
            });
        }
        let old: Vec<_> = self.delayed.keys().filter(|(_, id)| *id <= up_to).copied().collect();
        for at in old {
            let Some(mut delayed) = self.delayed.remove(&at) else { continue };
            let due = Timestamp(at.0.0.saturating_sub(millis));
            if let Delayed::Kept(_, entry) = &mut delayed {
                advance(&mut entry.message.expires);
                entry.message.due = Some(due);
                self.move_to(at.1, Location::Delayed(due));
            }
            self.delayed.insert((due, at.1), delayed);
        }
        self.advance_held(up_to, advance);
        let keys: Vec<usize> = self.channels.iter().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.rearm_expiry(key));
        self.expire_due(turn);
        self.deadlines.sweep = Some(turn.now);
    }
}

/// Returns the waiting or parked message that expires first. Parked messages are left out while a page is read, because the page may
/// contain them and must find them.
pub(super) fn first_to_expire(channel: &Channel) -> Option<(Timestamp, MessageId)> {
    let mut waiting = channel.expiring.as_ref()?.waiting.iter();
    waiting.find(|(_, id)| !channel.next_page.is_loading() || !channel.parked.contains_key(id)).copied()
}

/// Removes a waiting or parked entry that has expired.
fn take_expired(channel: &mut Channel, now: Timestamp) -> Option<Box<Entry>> {
    let (_, id) = first_to_expire(channel).filter(|(expires, _)| *expires <= now)?;
    channel.unwait(id).or_else(|| channel.unpark(id))
}
