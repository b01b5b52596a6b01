//! Delayed messages: they wait in memory until they are due, and are then queued at the end of their channel.

use super::counters::Metric;
use super::entry::{Entry, Location, Unstored, WriteState};
use super::holdings::{Kind, Owner};
use super::stage::Cause;
use super::{Broker, Content, Delayed, ReplyTo, Turn};
use crate::limits;
use crate::message::{MessageId, Publication, Timestamp};

impl Broker {
    /// Holds a kept message until its due time. The message is written at once.
    pub(super) fn delay(&mut self, key: usize, due: Timestamp, mut entry: Box<Entry>) {
        let id = entry.message.id;
        self.transition(key, &mut entry, Location::Delayed(due), Cause::Accepted);
        self.insert_delayed((due, id), Delayed::Kept(key, entry));
        self.append(id);
    }

    /// Adds a delayed message or publication, whose bytes are counted already.
    pub(super) fn insert_delayed(&mut self, at: (Timestamp, MessageId), delayed: Delayed) {
        self.holdings.add(delayed.owner(), Kind::Delayed, 1);
        self.delayed.insert(at, delayed);
    }

    /// Removes a delayed message or publication. Its bytes stay counted.
    pub(super) fn take_delayed(&mut self, at: &(Timestamp, MessageId)) -> Option<Delayed> {
        let delayed = self.delayed.remove(at)?;
        self.holdings.take(delayed.owner(), Kind::Delayed, 1);
        Some(delayed)
    }

    /// Releases messages that are due, at most [`limits::RELEASED_AT_ONCE`]; the next deadline is then in the past. Each gets a new id at the end
    /// of its channel's order. Its old row is removed when the new one is written.
    pub(super) fn release_delayed(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..limits::RELEASED_AT_ONCE {
            let due = self.delayed.first_key_value().filter(|((due, _), _)| *due <= turn.now);
            let Some(at) = due.map(|(at, _)| *at) else { return };
            let Some(delayed) = self.take_delayed(&at) else { return };
            match delayed {
                Delayed::Fleeting { publication, origin, receivers, owner } => {
                    self.uncharge_bytes(owner, fleeting_bytes(&publication));
                    let count = publication.messages.len();
                    if let Some(key) = self.channel_keys.get(&*publication.channel).copied().filter(|_| count > 0) {
                        self.fan_out(key, Content::Due(publication), count, (origin, receivers), turn);
                    } else {
                        self.count(None, Metric::Fleeting, count as u64);
                    }
                }
                Delayed::Kept(key, entry) if entry.expired(turn.now) => self.expire(key, entry, turn),
                Delayed::Kept(key, entry) => {
                    self.requeue(key, entry, Cause::Due, turn);
                    self.to_pump.push(key);
                }
            }
        }
    }

    /// Gives an entry a new id at the end of a channel's order, and queues it. The older row stands for the message until the new row is
    /// written.
    pub(super) fn requeue(&mut self, key: usize, mut entry: Box<Entry>, cause: Cause, turn: &mut Turn<'_>) {
        let old = entry.message.id;
        let id = self.next_id();
        let before = self.unstored.remove(old);
        if let Some(unstored) = &before {
            self.uncharge_write(unstored.owner, unstored.writing);
        }
        self.failed.remove(&old);
        let pending = before.as_ref().and_then(|unstored| unstored.pending);
        let asked = before.as_ref().is_none_or(|unstored| unstored.write_state != WriteState::NotRequested);
        let mut replaces = before.map(|unstored| unstored.replaces).unwrap_or_default();
        if asked {
            replaces.push(old);
            let from = self.channel_keys.get(&entry.message.channel).copied().unwrap_or(key);
            self.superseded.insert(old, from);
        }
        self.count_out(key, old, entry.message.expires);
        self.count_in(key, id, entry.message.expires);
        self.unstored.insert(
            id,
            Unstored {
                channel: key,
                owner: entry.owner,
                writing: 0,
                location: Location::Waiting,
                write_state: WriteState::NotRequested,
                pending,
                reply_to: entry.origin.map_or(ReplyTo::Nobody, ReplyTo::Connection),
                replaces,
                expires: entry.message.expires,
                committed: true,
            },
        );
        if entry.suspect && self.channels[key].policy.max_deliveries == 0 {
            // With its new id the message is no longer known to be delivered before, so count one delivery. Not where deliveries are
            // limited, because an invented delivery would count.
            entry.message.deliveries = entry.message.deliveries.max(1);
        }
        if cause == Cause::DeadLettered {
            self.watches.settle(old, cause);
        } else {
            self.watches.rename(old, id);
        }
        entry.message.id = id;
        entry.message.due = None;
        entry.message.channel = self.channels[key].name.clone();
        entry.written = false;
        self.enqueue(key, entry, cause, turn);
    }
}

impl Delayed {
    /// Returns the user whose memory it takes.
    pub(super) fn owner(&self) -> Owner {
        match self {
            Self::Kept(_, entry) => entry.owner,
            Self::Fleeting { owner, .. } => *owner,
        }
    }
}

/// Returns the estimated memory of a delayed publication to a channel that is not kept, in bytes.
pub(super) fn fleeting_bytes(publication: &Publication<'_>) -> usize {
    publication.frame.len() + limits::ENTRY_BYTES
}
