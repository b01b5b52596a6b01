//! The effects of the broker core: everything that it wants done. The caller carries them out in order.

use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::Entry;
use super::event::ReplyTo;
use crate::message::{
    ChannelName, ConnectionId, DeadLetter, Message, MessageId, Payload, Publication, PublicationId, Timestamp, Why,
};
use crate::policy::Spare;

/// The output of [`super::Broker::handle`]: effects in order, and the contents to which deliveries refer, each once.
///
/// The caller must carry the effects out before the next event is handled, because [`Content::Live`] refers to the publication of the
/// current event.
#[derive(Debug, Default)]
pub struct Effects {
    /// The effects, in the order in which they must be carried out.
    pub list: Vec<Effect>,
    /// The delivered contents. All deliveries of a fan-out refer to one content, so that it is encoded once for each dialect.
    pub contents: Vec<Content>,
}

impl Effects {
    /// Empties both lists and keeps their memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.contents.clear();
    }
}

/// The content of a delivery.
#[derive(Clone, Debug)]
pub enum Content {
    /// The publication of the current event, as its sender sent it.
    Live,
    /// A delayed publication that is due now, as its sender sent it.
    Due(Box<Publication<'static>>),
    /// Kept messages. In a box, so that the contents of live deliveries stay small.
    Backlog(Box<Backlog>),
}

/// Kept messages of one delivery.
#[derive(Clone, Debug)]
pub struct Backlog {
    /// Their channel.
    pub channel: ChannelName,
    /// At least one, oldest first.
    pub messages: SmallVec<[Payload; 4]>,
    /// Present if the only message is a dead letter.
    pub dead: Option<Box<DeadLetter>>,
}

impl Content {
    /// Makes the content of kept messages.
    pub(super) fn backlog<'a>(channel: &ChannelName, entries: impl Iterator<Item = &'a Box<Entry>> + Clone) -> Self {
        let dead = if entries.clone().count() == 1 { entries.clone().next() } else { None };
        Self::Backlog(Box::new(Backlog {
            channel: channel.clone(),
            messages: entries.map(|entry| entry.message.payload.clone()).collect(),
            dead: dead.and_then(|entry| entry.message.dead.clone()),
        }))
    }
}

/// An action that the caller must carry out.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Queue this content for the connection.
    Deliver {
        /// The receiver.
        to: ConnectionId,
        /// Index into [`Effects::contents`].
        content: u32,
        /// The delivery's sequence number on this connection, counting up from 1; 0 if the channel is not kept and nothing is to be
        /// confirmed.
        sequence: u64,
        /// The receiver acknowledges manually: the frame must contain the delivery's name.
        manual: bool,
        /// The number of this delivery of its message, as far as it is known. More than 1 means that the message may have been delivered
        /// before. Always 1 for automatic receivers.
        attempt: u32,
        /// The id of the first message; the other messages have the following ids. 0 if nothing is to be confirmed.
        message: MessageId,
    },
    /// Queue this content for all these connections: the receivers of a channel that is not kept. Nothing is to be confirmed.
    Broadcast {
        /// The receivers, in the channel's order. The same list as in the previous effect, as long as the receivers are the same.
        to: Arc<[ConnectionId]>,
        /// The sender, if it is one of the receivers. It does not get the content.
        except: Option<ConnectionId>,
        /// Index into [`Effects::contents`].
        content: u32,
    },
    /// Ask this connection to confirm its deliveries: send a ping after everything that is queued, as soon as no other ping is outstanding.
    /// The pong is [`super::Event::Confirmed`] up to the last delivery before that ping.
    Confirm {
        /// The receiver.
        connection: ConnectionId,
    },
    /// Reply to a command.
    Reply {
        /// The receiver of the reply. Never [`ReplyTo::Nobody`], and never a connection that has ended.
        to: ReplyTo,
        /// The reply.
        reply: Reply,
    },
    /// End this connection: flush its queue, then close it in the way its kind of client needs. The core has already forgotten the
    /// connection.
    End {
        /// The connection.
        connection: ConnectionId,
        /// The reason.
        reason: EndReason,
    },
    /// A request to the store.
    Store(StoreEffect),
    /// An entry for the administrator's log.
    Note(Box<Note>),
}

/// A problem with a message that no client is told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A message was given up and dropped, because there is no dead-letter channel or it is full.
    Dropped {
        /// The channel.
        channel: ChannelName,
        /// The message's id.
        id: MessageId,
        /// The reason.
        why: Why,
        /// The number of deliveries.
        attempts: u32,
        /// The reason in the last nack.
        reason: Option<Box<str>>,
    },
    /// A message has failed repeatedly.
    Failing {
        /// The channel.
        channel: ChannelName,
        /// The message's id.
        id: MessageId,
        /// The number of deliveries.
        attempts: u32,
        /// The reason in the last nack.
        reason: Option<Box<str>>,
    },
    /// A receiver with manual acknowledgement has not answered a delivery within the channel's `ack_timeout`.
    Unanswered {
        /// The receiver.
        connection: ConnectionId,
        /// The delivery's sequence number.
        sequence: u64,
        /// The channel.
        channel: ChannelName,
        /// Whether the delivery was taken from the receiver. If false, it stays with the receiver, because no other receiver can take the
        /// message.
        given: bool,
    },
}

/// The reason why the broker ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client does not read its messages (1008 `slow receiver`).
    Slow,
    /// A newer connection of the same user has claimed its name (1008 `replaced`).
    Replaced,
    /// The client has unconfirmed deliveries and has confirmed nothing for `confirm_timeout` (1008 `no confirmation`).
    Unconfirmed,
}

/// The reply to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `00` to a publication whose sender waits for a reply: the publication is safe. Each such publication gets one reply, this one or a
    /// refusal.
    Accepted {
        /// The publication's id, if it has one.
        id: Option<PublicationId>,
        /// The number of receivers that held each message when it became safe, including the receiver that confirmed it. If the messages
        /// differ, the smallest number.
        receivers: u32,
        /// At least one of its messages is in the store now.
        stored: bool,
        /// The publication had been accepted before, and was delivered to nobody this time.
        duplicate: bool,
    },
    /// The publication was not accepted.
    Refused {
        /// The publication's id, if it has one.
        id: Option<PublicationId>,
        /// The sender waits for this reply, although the publication has no id.
        answer: bool,
        /// The reason.
        refusal: Refusal,
    },
    /// `02` to an answer (`ack`, `nack`, `extend`) to a delivery that does not wait for one.
    UnknownDelivery {
        /// The sequence number in the receiver's answer.
        sequence: u64,
        /// The command that the receiver sent.
        command: &'static str,
    },
    /// All messages of an accepted publication are settled ([`super::Publish::watch`]).
    Settled(Outcome),
    /// `06` to a `receive-message`: the broker has no room for further channels of this user ([`super::Bounds::channels`]). The connection
    /// receives what it received before.
    TooManyChannels,
}

/// What has become of a settled publication. If its messages have different outcomes, the last one of this list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A receiver has confirmed each message.
    Delivered,
    /// The time to live has run out.
    Expired,
    /// The message was given up, and is in the dead-letter channel.
    DeadLettered,
    /// The message was given up, and is lost: there is no dead-letter channel, or it is full.
    Dropped,
    /// An administrator has removed the message.
    Purged,
}

/// The reason why a publication was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `05`: the store cannot write the message.
    Unavailable,
    /// `06`: the channel's backlog is at `max_backlog`.
    BacklogFull,
    /// `06`: a limit of the broker, or the user's share of it, is reached (memory, store, channels, delayed publications).
    BrokerFull,
    /// `08`: the message expired before it was safe.
    Expired,
}

/// A request to the store. The store carries out appends, removals and counts in order, in groups, and reads after them.
#[derive(Clone, Debug)]
pub enum StoreEffect {
    /// Write these messages. Answered by [`super::StoreEvent::Stored`] or [`super::StoreEvent::StoreFailed`], unless they are removed before.
    Append(Vec<Message>),
    /// Write this message and remove the older rows that stand for it, in one transaction. Answered like an append. If the message is
    /// removed before it is written, the older rows stay until they are removed themselves.
    Replace {
        /// The new row.
        message: Box<Message>,
        /// The rows it replaces.
        old: SmallVec<[MessageId; 1]>,
    },
    /// Remove these messages. A message that is not written yet is never written. Not answered.
    Remove(Vec<MessageId>),
    /// Remove these messages if they are in the store. Their write was answered by [`super::StoreEvent::StoreFailed`] and they were refused, but
    /// the store may have written them. Not answered.
    Disown(Vec<MessageId>),
    /// Store the numbers of deliveries of these messages. Not answered.
    Deliveries(Vec<(MessageId, u32)>),
    /// Read a page of a channel's backlog: messages without due time and with ids above `after`, oldest first.
    Load {
        /// The channel.
        channel: ChannelName,
        /// Only ids greater than this.
        after: MessageId,
        /// The most messages of the page.
        limit: usize,
        /// The bytes at which the page ends.
        bytes: usize,
    },
    /// Remove messages that are expired at `now`, and return those of spared channels instead; at most [`crate::limits::SWEEP_ROWS`]. Each
    /// sweep continues after the last row of the previous one, until a sweep has reached the end.
    Sweep {
        /// The time.
        now: Timestamp,
        /// The channels whose expired messages stay in the store.
        spare: Spare,
    },
    /// Remove every message of the channel with an id up to `up_to`, written or not. Not answered.
    Purge {
        /// The channel.
        channel: ChannelName,
        /// The last id that is removed.
        up_to: MessageId,
    },
}
