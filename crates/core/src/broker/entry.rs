//! Kept messages in memory, and the state of unstored messages.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use super::dedup::Key;
use super::event::ReplyTo;
use super::holdings::Owner;
use super::stage::{Cause, Stage};
use crate::limits;
use crate::message::{
    ChannelName, ConnectionId, DeadLetter, GroupName, Message, MessageId, Payload, PublicationId, Timestamp,
};

/// A kept message in memory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The message as the store holds it, or would hold it.
    pub message: Message,
    /// The key of its publication's id in the table of remembered ids.
    pub remembered: Option<Key>,
    /// The sender, if it received the channel when it sent the message: the sender must not get it back.
    pub origin: Option<ConnectionId>,
    /// The user whose memory it takes: the user that has sent it.
    pub owner: Owner,
    /// Whether the message is in the store. If not, `Broker::unstored` contains the message.
    pub written: bool,
    /// The message was in the store when the broker started after a crash, so it may have been delivered before.
    pub suspect: bool,
    /// The stage of the entry: where it is, or from where it was just taken. Only `journey.rs` changes it.
    pub stage: Stage,
    /// The failed deliveries. Few messages have any.
    pub failures: Option<Box<Failures>>,
}

/// The failed deliveries of a message, remembered as long as the message is in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    /// The number of nacks.
    pub nacks: u32,
    /// The reason in the last nack.
    pub reason: Option<Box<str>>,
    /// The groups whose members lost the message or gave it back: the message goes to these groups next.
    pub binding: Option<Binding>,
}

/// The groups to which a message is bound, because their members have lost it or given it back.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    /// One or more.
    pub groups: Box<[GroupName]>,
    /// The message waits for these groups. If false, other receivers get the message if no member of the groups has room.
    pub waits: bool,
}

/// A message that has just been accepted.
pub(super) struct Accepted<'a> {
    pub id: MessageId,
    pub channel: &'a ChannelName,
    pub payload: Payload,
    pub at: Timestamp,
    pub expires: Option<Timestamp>,
    pub receivers: Option<u32>,
    pub publication: Option<&'a PublicationId>,
    pub remembered: Option<Key>,
    pub origin: Option<ConnectionId>,
    pub owner: Owner,
}

impl Accepted<'_> {
    /// Makes the entry. `spare`: the box of a settled entry, of the same channel at best, which saves an allocation and a copy.
    #[inline]
    pub fn into_entry(self, spare: Option<Box<Entry>>) -> Box<Entry> {
        let Self { id, channel, payload, at, expires, receivers, publication, remembered, origin, owner } = self;
        let publication = publication.cloned();
        let Some(mut entry) = spare else {
            let channel = channel.clone();
            let (created, due, deliveries, dead) = (at, None, 0, None);
            let message =
                Message { id, channel, payload, created, expires, due, receivers, publication, deliveries, dead };
            let (written, suspect, stage, failures) = (false, false, Stage::Outside, None);
            return Box::new(Entry { message, remembered, origin, owner, written, suspect, stage, failures });
        };
        let message = &mut entry.message;
        if !message.channel.is(channel) {
            message.channel = channel.clone();
        }
        (message.id, message.payload, message.created, message.expires) = (id, payload, at, expires);
        (message.due, message.receivers, message.publication, message.deliveries) = (None, receivers, publication, 0);
        (entry.remembered, entry.origin, entry.owner) = (remembered, origin, owner);
        (entry.written, entry.suspect, entry.stage) = (false, false, Stage::Outside);
        entry
    }
}

/// The boxes of settled entries. They are filled again, so that the memory of a stream of messages stays in the processor's caches.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the boxes themselves are kept, to save their allocation")]
pub(super) struct SpareEntries(Vec<Box<Entry>>);

impl SpareEntries {
    /// Keeps the box of a settled entry, and frees what the message holds. Beyond [`limits::SPARE_ENTRIES`] boxes, the box is freed too.
    #[inline]
    pub fn put(&mut self, mut entry: Box<Entry>) {
        if self.0.len() < limits::SPARE_ENTRIES {
            entry.message.payload.bytes = Bytes::new();
            (entry.message.publication, entry.message.dead, entry.failures) = (None, None, None);
            self.0.push(entry);
        }
    }

    /// Returns the box that was kept last.
    #[inline]
    pub fn take(&mut self) -> Option<Box<Entry>> {
        self.0.pop()
    }

    /// Frees all boxes.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }
}

impl Entry {
    /// Returns the entry's estimated memory in bytes.
    pub fn bytes(&self) -> usize {
        let failures = self.failures.as_ref().map_or(0, |failures| failures.bytes());
        let dead = self
            .message
            .dead
            .as_ref()
            .map_or(0, |dead| size_of::<DeadLetter>() + dead.reason.as_ref().map_or(0, |reason| reason.len()));
        self.message.payload.bytes.len() + limits::ENTRY_BYTES + failures + dead
    }

    /// Returns the reason in the last nack.
    pub fn reason(&self) -> Option<&str> {
        self.failures.as_ref()?.reason.as_deref()
    }

    /// Returns the groups to which the message is bound, if any.
    pub fn binding(&self) -> Option<&Binding> {
        self.failures.as_ref()?.binding.as_ref()
    }

    /// Returns the cause of the message's return: it was in flight or held.
    pub fn return_cause(&self) -> Cause {
        if self.stage == Stage::Held { Cause::Released } else { Cause::Returned }
    }

    /// Whether the message has expired.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.message.expires.is_some_and(|expires| expires <= now)
    }

    /// Returns the number of the last counted delivery. More than 1 means that a receiver may have seen the message before.
    pub fn attempt(&self) -> u32 {
        if self.suspect { self.message.deliveries.max(2) } else { self.message.deliveries }
    }
}

/// Returns the time at which a message accepted at `now` with this time to live expires. Zero = never.
pub(super) fn expires_at(now: Timestamp, ttl: Duration) -> Option<Timestamp> {
    (!ttl.is_zero()).then(|| now.after(ttl))
}

/// The location of an unstored message's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// In its channel's `waiting`.
    Waiting,
    /// In its channel's `parked`.
    Parked,
    /// In this flight.
    Flight(usize),
    /// In `Broker::delayed`, under this due time.
    Delayed(Timestamp),
    /// In `Broker::held`, until this time.
    Held(Timestamp),
    /// Not in memory: only the store's queue contains the message.
    Paged,
}

impl Location {
    /// Returns the location without its key.
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

/// The state of a message's row in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteState {
    /// The store has not been asked to write the message.
    NotRequested,
    /// The store has been asked to write the message and has not answered.
    Writing,
    /// The store failed to write the message; the broker asks it again.
    Failed,
}

/// An unstored message.
#[derive(Clone, Debug)]
pub(super) struct Unstored {
    /// Its channel's key.
    pub channel: usize,
    /// The user whose share of the store's queue it takes.
    pub owner: Owner,
    /// The bytes that it takes of the share: 0 unless the store has been asked to write it and has not answered.
    pub writing: u32,
    /// The location of its entry.
    pub location: Location,
    /// The state of its row.
    pub write_state: WriteState,
    /// The key of the pending publication that waits until the message is safe.
    pub pending: Option<usize>,
    /// The connection that gets the refusal if no publication is pending.
    pub reply_to: ReplyTo,
    /// Older rows that stand for the message until its own row is written: the row of a delayed message that came due, or of a message that
    /// became a dead letter.
    pub replaces: SmallVec<[MessageId; 1]>,
    /// The message's time of expiry.
    pub expires: Option<Timestamp>,
    /// The message must not be refused any more: its sender may have been told `00`, or a receiver may have seen it. If the store fails,
    /// the message stays in memory and is written again.
    pub committed: bool,
}

impl Unstored {
    /// Whether the message has expired.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether an older row stands for the message and was counted in the answer to its publication.
    pub fn has_counted_row(&self) -> bool {
        !self.replaces.is_empty() && self.pending.is_none()
    }
}

/// A message that is held back until a given time.
#[derive(Debug)]
pub(super) struct Held {
    /// Its channel's key.
    pub channel: usize,
    pub entry: Box<Entry>,
}

impl Failures {
    /// Returns the estimated memory in bytes.
    pub fn bytes(&self) -> usize {
        // The text of the names is shared with the members and not counted.
        let groups = self.binding.as_ref().map_or(0, |binding| binding.groups.len());
        let binding = groups * (size_of::<GroupName>() + limits::OWED_BYTES);
        size_of::<Self>() + binding + self.reason.as_ref().map_or(0, |reason| reason.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Why;

    fn accepted(spare: Option<Box<Entry>>) -> Box<Entry> {
        Accepted {
            id: MessageId(2),
            channel: &ChannelName::parse("new").expect("a name"),
            payload: Payload::text("new"),
            at: Timestamp(2),
            expires: None,
            receivers: Some(2),
            publication: None,
            remembered: None,
            origin: None,
            owner: Owner::NOBODY,
        }
        .into_entry(spare)
    }

    #[test]
    fn nothing_of_a_settled_message_is_left_in_the_next_one() {
        let (mut spare, mut old, at) = (SpareEntries::default(), accepted(None), Some(Timestamp(1)));
        let channel = ChannelName::parse("old").expect("a name");
        let dead = DeadLetter { channel: channel.clone(), why: Why::Expired, attempts: 3, reason: None };
        old.message = Message {
            id: MessageId(1),
            channel,
            payload: Payload { bytes: Bytes::from_static(b"old"), kind: crate::message::Kind::Binary },
            created: Timestamp(1),
            expires: at,
            due: at,
            receivers: None,
            publication: Some(PublicationId::new("app", "1")),
            deliveries: 3,
            dead: Some(Box::new(dead)),
        };
        (old.origin, old.written, old.suspect, old.stage) = (Some(ConnectionId(1)), true, true, Stage::Gone);
        old.failures = Some(Box::default());
        spare.put(old);
        assert_eq!(format!("{:?}", accepted(spare.take())), format!("{:?}", accepted(None)));
        assert!(spare.take().is_none());
    }

    #[test]
    fn few_boxes_are_kept() {
        let mut spare = SpareEntries::default();
        (0..limits::SPARE_ENTRIES + 9).for_each(|_| spare.put(accepted(None)));
        assert_eq!(spare.0.len(), limits::SPARE_ENTRIES);
        spare.clear();
        assert_eq!(spare.0.capacity(), 0);
    }
}
