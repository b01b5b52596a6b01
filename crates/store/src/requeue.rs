//! Moves dead letters back to the channels that they came from, while no broker runs on the store.
//!
//! ```text
//! page of the dead-letter channel ─► one group ─► one transaction
//!                                    adds rows with the highest ids: target channel, its time to live, created now, no delivery, no `dead`
//!                                    removes the old rows
//! ```
//!
//! A message has its old id before the transaction and its new id after it. So a run that is killed at any moment neither loses nor duplicates a
//! message, and the next run continues with the rest. This module never changes a body, never reads a clock, and never writes to a channel that keeps
//! nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::{Group, MessageStore, StoreError, Summary};
use crate::limits;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Policies;

/// Selects the messages to move.
#[derive(Clone, Debug)]
pub struct Requeue<'a> {
    /// The dead-letter channel.
    pub from: ChannelName,
    /// The target of every message. `None`: each dead letter goes to the channel that it came from, and other messages stay.
    pub to: Option<ChannelName>,
    /// The maximum number of messages to move.
    pub count: Option<u64>,
    /// The policies of the target channels.
    pub policies: &'a Policies,
}

/// Why a message stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stay {
    /// The message is not a dead letter: the channel that it came from is not known.
    NoDeadLetter,
    /// The message has expired in the dead-letter channel.
    Expired,
    /// The message has a due time.
    Delayed,
    /// The target channel keeps no messages.
    NotKept(ChannelName),
    /// The target channel has reached its maximum backlog.
    Full(ChannelName),
    /// The store cannot hold the message in the target channel.
    Unfit {
        /// The target channel.
        channel: ChannelName,
        /// The reason, as the rest of a sentence that begins with "they".
        reason: String,
    },
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requeued {
    /// The number of moved messages, by target channel.
    pub moved: BTreeMap<ChannelName, u64>,
    /// The number of messages that stay, by reason.
    pub stay: BTreeMap<Stay, u64>,
    /// Messages that were not examined because [`Requeue::count`] was reached.
    pub left: u64,
}

impl Requeued {
    /// The number of moved messages.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.moved.values().sum()
    }

    fn count_stay(&mut self, why: Stay) {
        *self.stay.entry(why).or_default() += 1;
    }
}

/// Why a run stopped early. Moved messages stay moved, and the same command continues with the rest.
#[derive(Debug)]
pub enum RequeueError {
    /// A new id would exceed the range of the table's id column.
    Ids,
    /// The store cannot be used.
    Store(StoreError),
}

impl From<StoreError> for RequeueError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for RequeueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids => f.write_str(
                "the next id exceeds 9223372036854775807; copy the messages into an empty store with `wsmb queue copy`",
            ),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RequeueError {}

/// One run.
pub(super) struct Mover<'a> {
    requeue: &'a Requeue<'a>,
    now: Timestamp,
    /// The highest id before the run: rows with higher ids are new.
    up_to: MessageId,
    /// The last id that was assigned.
    last: MessageId,
    /// How many more messages each target channel may take.
    room: HashMap<ChannelName, u64>,
    waiting: HashMap<ChannelName, u64>,
    requeued: Requeued,
    /// The number of examined messages without a due time.
    seen: u64,
}

impl<'a> Mover<'a> {
    pub(super) fn new(requeue: &'a Requeue<'a>, summary: &Summary, now: Timestamp) -> Self {
        let waiting = summary.channels.iter().map(|found| (found.channel.clone(), found.messages)).collect();
        let mut requeued = Requeued::default();
        for _ in summary.delayed.iter().filter(|message| message.channel == requeue.from) {
            requeued.count_stay(Stay::Delayed);
        }
        let (up_to, last) = (summary.last_id, summary.last_id);
        Self { requeue, now, up_to, last, room: HashMap::new(), waiting, requeued, seen: 0 }
    }

    /// Moves every message that can be moved.
    ///
    /// # Errors
    /// Moved messages stay moved.
    pub(super) fn run(mut self, store: &mut dyn MessageStore) -> Result<Requeued, RequeueError> {
        let (from, up_to) = (&self.requeue.from, self.up_to);
        let mut after = MessageId(0);
        while self.wanted() > 0 {
            let page = store.load(from, after, wsmb_core::limits::STORE_GROUP, limits::STORE_GROUP_BYTES)?;
            let is_last = page.complete || page.messages.last().is_none_or(|message| message.id >= self.up_to);
            let mut is_whole = true;
            let mut group = Group::default();
            for message in page.messages.into_iter().take_while(|message| message.id <= up_to) {
                if group.appends.len() as u64 >= self.wanted() {
                    is_whole = false;
                    break;
                }
                (after, self.seen) = (message.id, self.seen + 1);
                if let Some(moved) = self.moved(message)? {
                    group.removals.push(after);
                    group.appends.push(moved);
                }
            }
            self.commit(store, group)?;
            if is_last && is_whole {
                break;
            }
        }
        let waited = self.waiting.get(from).copied().unwrap_or(0);
        if self.wanted() == 0 {
            self.requeued.left = waited.saturating_sub(self.seen);
        }
        Ok(self.requeued)
    }

    /// How many more messages the run may move.
    fn wanted(&self) -> u64 {
        self.requeue.count.map_or(u64::MAX, |count| count.saturating_sub(self.requeued.total()))
    }

    /// The message as it is stored in its new channel; `None` if the message stays.
    fn moved(&mut self, message: Message) -> Result<Option<Message>, RequeueError> {
        let origin = message.dead.as_ref().map(|dead| &dead.channel);
        let Some(channel) = self.requeue.to.as_ref().or(origin).cloned() else {
            self.requeued.count_stay(Stay::NoDeadLetter);
            return Ok(None);
        };
        let policy = self.requeue.policies.of(&channel);
        let room = self
            .room
            .entry(channel.clone())
            .or_insert_with(|| policy.max_backlog.saturating_sub(self.waiting.get(&channel).copied().unwrap_or(0)));
        let stay = if message.expires.is_some_and(|expires| expires <= self.now) {
            Stay::Expired
        } else if !policy.keep {
            Stay::NotKept(channel)
        } else if *room == 0 {
            Stay::Full(channel)
        } else {
            *room -= 1;
            self.last = next(self.last)?;
            return Ok(Some(Message {
                id: self.last,
                channel,
                payload: message.payload,
                created: self.now,
                expires: (!policy.ttl.is_zero()).then(|| self.now.after(policy.ttl)),
                due: None,
                receivers: None,
                // The sender published the message long ago. The broker's file of ids recognises a repetition; a new publication must not be taken
                // for one.
                publication: None,
                deliveries: 0,
                dead: None,
            }));
        };
        self.requeued.count_stay(stay);
        Ok(None)
    }

    /// Moves the messages that the store can hold, in one transaction.
    fn commit(&mut self, store: &mut dyn MessageStore, mut group: Group) -> Result<(), RequeueError> {
        while !group.is_empty() {
            match store.commit(&group) {
                Ok(()) => break,
                Err(StoreError::Unfit { place, ids, reason }) => {
                    if !self.leave_unfit(&mut group, &ids, &reason) {
                        return Err(StoreError::Unfit { place, ids, reason }.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        for message in group.appends {
            *self.requeued.moved.entry(message.channel).or_default() += 1;
        }
        Ok(())
    }

    /// Takes new rows that the store cannot hold out of the group, together with the removal of the old rows. False if the group holds none of them.
    fn leave_unfit(&mut self, group: &mut Group, ids: &[MessageId], reason: &str) -> bool {
        let before = group.appends.len();
        let pairs = std::mem::take(&mut group.appends).into_iter().zip(std::mem::take(&mut group.removals));
        for (message, old) in pairs {
            if ids.contains(&message.id) {
                if let Some(room) = self.room.get_mut(&message.channel) {
                    *room += 1;
                }
                self.requeued.count_stay(Stay::Unfit { channel: message.channel, reason: reason.to_owned() });
            } else {
                group.appends.push(message);
                group.removals.push(old);
            }
        }
        group.appends.len() < before
    }
}

fn next(id: MessageId) -> Result<MessageId, RequeueError> {
    let next = id.0.checked_add(1).filter(|id| i64::try_from(*id).is_ok());
    next.map(MessageId).ok_or(RequeueError::Ids)
}

#[cfg(test)]
mod tests;
