//! Everything the broker can want. One way out: the runtime carries these out in their order.

use std::sync::Arc;

use smallvec::SmallVec;

use super::event::ReplyTo;
use crate::message::{
    ChannelName, ConnectionId, DeadLetter, Message, MessageId, Payload, Publication, PublicationId, Timestamp, Why,
};
use crate::policy::Spare;

/// What [`super::Broker::handle`] appended: effects in order, and the contents that deliveries refer to, each once.
///
/// To be carried out before the next event is handled: [`Content::Live`] means what the last one carried.
#[derive(Debug, Default)]
pub struct Effects {
    /// In the order in which they must be carried out.
    pub list: Vec<Effect>,
    /// What is delivered; a fan-out names one content many times, so that it is encoded once for each dialect.
    pub contents: Vec<Content>,
}

impl Effects {
    /// Empties both lists and keeps their memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.contents.clear();
    }
}

/// What a delivery carries.
#[derive(Clone, Debug)]
pub enum Content {
    /// The publication of the event that was handled, as its sender sent it.
    Live,
    /// An earlier publication whose time has come, as its sender sent it.
    Due(Box<Publication<'static>>),
    /// Kept messages, oldest first.
    Backlog {
        /// Their channel.
        channel: ChannelName,
        /// At least one.
        messages: SmallVec<[Payload; 4]>,
        /// There is one message only, and it is a dead letter: what is known of it.
        dead: Option<Box<DeadLetter>>,
    },
}

/// Something to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Put this into the connection's queue.
    Deliver {
        /// The receiver.
        to: ConnectionId,
        /// Index into [`Effects::contents`].
        content: u32,
        /// The delivery's number on this connection, counting up from 1; 0 if nothing is to be confirmed (channel not kept).
        sequence: u64,
        /// The receiver acknowledges by hand: the frame names the delivery.
        manual: bool,
        /// Which delivery of its message this is, as far as is known. More than 1: it may have been delivered before (only ever stated in manual mode).
        attempt: u32,
        /// The message; of several that go together the first, and the others follow it without a gap. 0 if nothing is to be confirmed.
        message: MessageId,
    },
    /// Put this into the queues of all these connections: the receivers of a channel that is not kept. Nothing is to be confirmed.
    Broadcast {
        /// The receivers, in the channel's order. The same list as before, as long as they are the same.
        to: Arc<[ConnectionId]>,
        /// One of them that does not get it: who sent it.
        except: Option<ConnectionId>,
        /// Index into [`Effects::contents`].
        content: u32,
    },
    /// Have this connection prove what it has received: a ping, when none is outstanding, behind all that is delivered now. Its answer is
    /// [`super::Event::Confirmed`] up to the last delivery queued before that ping.
    Confirm {
        /// The receiver.
        connection: ConnectionId,
    },
    /// Answer a command.
    Reply {
        /// Never [`ReplyTo::Nobody`], and never a connection that has ended.
        to: ReplyTo,
        /// The answer.
        reply: Reply,
    },
    /// End this connection: flush, then end it as its kind of client needs. The core has forgotten it already.
    End {
        /// Which.
        connection: ConnectionId,
        /// Why.
        reason: EndReason,
    },
    /// Something for the store.
    Store(StoreEffect),
    /// Something that the administrator may want to know.
    Note(Box<Note>),
}

/// Something that went wrong with a message, and that no client is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A message was given up and is gone: there is no dead-letter channel, or it is full.
    Dropped {
        /// Its channel.
        channel: ChannelName,
        /// Its id.
        id: MessageId,
        /// Why.
        why: Why,
        /// How often it was delivered.
        attempts: u32,
        /// The last reason that a receiver gave.
        reason: Option<Box<str>>,
    },
    /// A message comes back again and again.
    Failing {
        /// Its channel.
        channel: ChannelName,
        /// Its id.
        id: MessageId,
        /// How often it was delivered.
        attempts: u32,
        /// The last reason that a receiver gave.
        reason: Option<Box<str>>,
    },
    /// A receiver with manual acknowledgement has not answered a delivery within the channel's `ack_timeout`.
    Unanswered {
        /// The receiver.
        connection: ConnectionId,
        /// The delivery.
        sequence: u64,
        /// The channel.
        channel: ChannelName,
        /// The delivery is the receiver's no more. Else nobody else is there to take it, and it stays where it is.
        given: bool,
    },
}

/// Why the broker ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// It does not take what it is sent (1008 `slow receiver`).
    Slow,
    /// A newer connection of the same user has taken its name (1008 `replaced`).
    Replaced,
    /// It has confirmed nothing for `confirm_timeout`, although it has unconfirmed deliveries (1008 `no confirmation`).
    Unconfirmed,
}

/// An answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `00` to a publication whose sender waits for a reply: it is safe. Each such publication gets one reply, this one or a refusal.
    Accepted {
        /// The sender's name for it, if it gave one.
        id: Option<PublicationId>,
        /// How many receivers held each message when it was safe, one that has confirmed it included; of several messages the smallest number.
        receivers: u32,
        /// At least one message of it is in the store now.
        stored: bool,
        /// It had been accepted before and went to nobody this time.
        duplicate: bool,
    },
    /// The publication was not accepted.
    Refused {
        /// The sender's name for it, if it gave one.
        id: Option<PublicationId>,
        /// Its sender waits for this reply, though it gave no `id`.
        answer: bool,
        /// Why.
        refusal: Refusal,
    },
    /// `02` to an answer to something that is not waiting for one.
    UnknownDelivery {
        /// As the receiver named it.
        sequence: u64,
        /// The command that the receiver sent.
        command: &'static str,
    },
    /// `06` to a `receive-message`: the broker is at its limit of channels ([`crate::limits::CHANNELS`]).
    TooManyChannels,
}

/// Why a publication was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `05`: the store can't take it.
    Unavailable,
    /// `06`: the channel's backlog is at `max_backlog`.
    BacklogFull,
    /// `06`: the broker (its memory, its store, its number of channels or of delayed publications) is full.
    BrokerFull,
    /// `08`: its ttl ran out before it was safe.
    Expired,
}

/// Something for the store. The store carries out appends, removals and counts in order, as groups, and reads after them.
#[derive(Clone, Debug)]
pub enum StoreEffect {
    /// Write these; answered by [`super::Event::Stored`] or [`super::Event::StoreFailed`], unless removed before.
    Append(Vec<Message>),
    /// Write this and remove the older rows that stood for it, all or nothing; answered like an append. If the new one is removed
    /// before it is written, the older ones stay until they are removed themselves.
    Replace {
        /// The new row.
        message: Box<Message>,
        /// The rows it replaces.
        old: SmallVec<[MessageId; 1]>,
    },
    /// Remove these; one that is not written yet is never written. Not answered.
    Remove(Vec<MessageId>),
    /// Writing these was answered by [`super::Event::StoreFailed`], and they were refused: remove what may have been written for all that. Not answered.
    Disown(Vec<MessageId>),
    /// Remember how often these have been delivered. Not answered.
    Deliveries(Vec<(MessageId, u32)>),
    /// Read a page of a channel's backlog: messages without due time and above `after`, oldest first.
    Load {
        /// Which channel.
        channel: ChannelName,
        /// Only ids greater than this.
        after: MessageId,
        /// At most so many messages.
        limit: usize,
    },
    /// Remove messages that are expired at `now`, and read those of spared channels instead: [`crate::limits::SWEEP_ROWS`] at the most. Each sweep goes
    /// on behind what the last one has read, until one has come to the end.
    Sweep {
        /// The time.
        now: Timestamp,
        /// The channels whose expired messages stay.
        spare: Spare,
    },
    /// Remove every message of the channel with an id up to this one, written or not. Not answered.
    Purge {
        /// Which channel.
        channel: ChannelName,
        /// The last id that goes.
        up_to: MessageId,
    },
}
