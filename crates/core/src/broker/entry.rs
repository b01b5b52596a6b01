//! A kept message while the core knows it, and what is known of one that is not durable yet.

use std::time::Duration;

use smallvec::SmallVec;

use super::dedup::Key;
use super::event::ReplyTo;
use super::stage::{Cause, Stage};
use crate::limits;
use crate::message::{ConnectionId, DeadLetter, GroupName, Message, MessageId, Timestamp};

/// A kept message in memory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The message, as it would be stored.
    pub message: Message,
    /// By what its publication's id is remembered, if it has one.
    pub remembered: Option<Key>,
    /// Who sent it while receiving the channel, and must not get it back.
    pub origin: Option<ConnectionId>,
    /// It is in the store. If it is not, the broker's table of unstored messages has a line for it.
    pub written: bool,
    /// It was in the store when the broker started after a crash: it may have been delivered before.
    pub suspect: bool,
    /// The place where the entry is, or from which it was taken. Only `journey.rs` changes it.
    pub stage: Stage,
    /// What is remembered of its failed deliveries. Few messages have any.
    pub failures: Option<Box<Failures>>,
}

/// What is remembered of a message whose deliveries failed, as long as the message is in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    /// How often that happened.
    pub nacks: u32,
    /// The last reason that was given.
    pub reason: Option<Box<str>>,
    /// The groups whose members had a message and lost it or gave it back: the message goes to them next.
    pub bound: Option<Bound>,
}

/// To which groups a message goes that members of theirs have given back.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    /// One or more.
    pub groups: Box<[GroupName]>,
    /// It waits for them. Else it goes to others, if none of them has room.
    pub waits: bool,
}

impl Entry {
    /// Bytes that this entry holds in memory.
    pub fn bytes(&self) -> usize {
        let failures = self.failures.as_ref().map_or(0, |failures| failures.bytes());
        let dead = self
            .message
            .dead
            .as_ref()
            .map_or(0, |dead| size_of::<DeadLetter>() + dead.reason.as_ref().map_or(0, |reason| reason.len()));
        self.message.payload.bytes.len() + limits::ENTRY_BYTES + failures + dead
    }

    /// The last reason that a receiver gave for giving it back.
    pub fn reason(&self) -> Option<&str> {
        self.failures.as_ref()?.reason.as_deref()
    }

    /// To which groups it goes, if members of groups have given it back.
    pub fn bound(&self) -> Option<&Bound> {
        self.failures.as_ref()?.bound.as_ref()
    }

    /// The cause for which the message comes back: it was in flight or was held back.
    pub fn why_back(&self) -> Cause {
        if self.stage == Stage::Held { Cause::Released } else { Cause::Returned }
    }

    /// Whether it must not be delivered any more.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.message.expires.is_some_and(|expires| expires <= now)
    }

    /// Which delivery the last one was that has been counted. More than 1: a receiver may have seen the message before.
    pub fn attempt(&self) -> u32 {
        if self.suspect { self.message.deliveries.max(2) } else { self.message.deliveries }
    }
}

/// The moment at which something accepted `now` with this time to live expires; zero = never.
pub(super) fn expires_at(now: Timestamp, ttl: Duration) -> Option<Timestamp> {
    (!ttl.is_zero()).then(|| now.after(ttl))
}

/// Where the entry of an unstored message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its channel's `waiting`.
    Waiting,
    /// In its channel's `parked`.
    Parked,
    /// In this flight.
    Flight(usize),
    /// Among the delayed, under this due time.
    Delayed(Timestamp),
    /// Among those that are held back, until this.
    Held(Timestamp),
    /// Nowhere in memory: only the store's queue has it.
    Paged,
}

impl Place {
    /// The same without the key.
    pub fn stage(self) -> Stage {
        match self {
            Self::Waiting => Stage::Waiting,
            Self::Parked => Stage::Parked,
            Self::Flight(_) => Stage::Flight,
            Self::Delayed(_) => Stage::Delayed,
            Self::Held(_) => Stage::Held,
            Self::Paged => Stage::Paged,
        }
    }
}

/// How far the store is with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// Not asked to write it.
    Unasked,
    /// Asked, not answered.
    Writing,
    /// The store did not take it; it is asked again.
    Failed,
}

/// One message that is neither stored nor settled.
#[derive(Clone, Debug)]
pub(super) struct Unstored {
    /// Its channel's key.
    pub channel: usize,
    /// Where its entry is.
    pub place: Place,
    /// How far the store is.
    pub row: Row,
    /// The publication that waits for it to be safe.
    pub pending: Option<usize>,
    /// Who is told if it is refused and no publication waits.
    pub reply_to: ReplyTo,
    /// Older rows that stand for it until this one is safe (a delayed message that came due, a dead letter).
    pub replaces: SmallVec<[MessageId; 1]>,
    /// As its message says.
    pub expires: Option<Timestamp>,
    /// Its sender may believe that it was taken: on failure it is kept in memory and tried again, not refused.
    pub committed: bool,
}

impl Unstored {
    /// Whether its time to live is over.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// An older row stands for it, and its publication was told so.
    pub fn has_counted_row(&self) -> bool {
        !self.replaces.is_empty() && self.pending.is_none()
    }
}

/// A message that is held back.
#[derive(Debug)]
pub(super) struct Held {
    /// Its channel's key.
    pub channel: usize,
    pub entry: Entry,
}

impl Failures {
    /// Bytes that this holds in memory.
    pub fn bytes(&self) -> usize {
        // The names are shared with the members.
        let groups = self.bound.as_ref().map_or(0, |bound| bound.groups.len());
        let bound = groups * (size_of::<GroupName>() + limits::OWED_BYTES);
        size_of::<Self>() + bound + self.reason.as_ref().map_or(0, |reason| reason.len())
    }
}
