//! Everything that can happen to the broker. One way in: sockets, timers, the store and tools all enter as one of these.

use std::sync::Arc;
use std::time::Duration;

use crate::message::{
    Answer, ChannelName, ConnectionId, GroupName, Message, MessageId, Order, Publication, PublicationId,
};

/// Something that happened, to be given to [`super::Broker::handle`] together with the time.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A client sent a publication.
    Publish(&'a Publish<'a>),
    /// A connection that names itself (`?receiver=ID`) has been made: an older one with that name is replaced at once.
    Claim {
        /// The new connection.
        connection: ConnectionId,
        /// Its name.
        receiver: ReceiverKey,
    },
    /// A connection declares what it receives; replaces what it declared before.
    Subscribe(Subscribe),
    /// A receiver with manual acknowledgement answers a delivery.
    Acknowledge(Acknowledge),
    /// A pong proves that a receiver has every delivery up to and including this sequence number.
    Confirmed {
        /// The receiver.
        connection: ConnectionId,
        /// The highest confirmed [`super::Effect::Deliver::sequence`].
        up_to: u64,
    },
    /// A connection has ended. Nothing may be addressed to it any more.
    Disconnected {
        /// Which.
        connection: ConnectionId,
        /// The connection looks like a one-shot reader that took its only message: it is a legacy connection without a proxy, it ended with
        /// FIN or close 1000 or 1001, exactly one data frame was ever delivered to it, and its TCP has acknowledged that frame and no
        /// ping behind it. Confirms that delivery, unless the connection has sent to the delivery's channel.
        took_only: bool,
        /// It has only finished sending, and still reads: it is answered what it is owed. Its end is reported once more.
        listens: bool,
    },
    /// These messages are durable.
    Stored(Vec<MessageId>),
    /// These messages are not stored and will not be unless asked again.
    StoreFailed(Vec<MessageId>, StoreFailure),
    /// The answer to [`super::StoreEffect::Load`]: messages in order, at most as many as asked for.
    Loaded {
        /// Of which channel.
        channel: ChannelName,
        /// Oldest first.
        messages: Vec<Message>,
        /// There was nothing more behind them when the store was read.
        complete: bool,
    },
    /// A load did not succeed; it is asked for again after [`crate::limits::STORE_RETRY`].
    LoadFailed {
        /// Of which channel.
        channel: ChannelName,
    },
    /// The answer to [`super::StoreEffect::Sweep`], always given.
    Swept {
        /// These were expired and are gone from the store.
        gone: Vec<(MessageId, ChannelName)>,
        /// These are expired, and are still there, because their channels are spared.
        spared: Vec<Message>,
        /// There may be further ones that are expired already.
        more: bool,
    },
    /// The wall clock was behind by so much and has been set forward. What the store held at the start is reckoned anew; everything else lives by
    /// elapsed time.
    WallAdvanced(Duration),
    /// An administrator empties a channel: whatever no receiver has confirmed is forgotten.
    Purge {
        /// Which channel.
        channel: ChannelName,
    },
    /// The broker is going to stop: from now on no kept message is given to a receiver, and whoever has unconfirmed ones is asked to confirm them.
    /// Given again when every connection has ended: what the store has refused meanwhile is tried once more.
    Stopping,
    /// A deadline named by [`super::Broker::next_deadline`] has come.
    Tick,
}

/// Where the answer to a command goes. Apart from a publication's origin: who asks need not be a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// Nobody waits for it.
    Nobody,
    /// To a command of this connection.
    Connection(ConnectionId),
}

/// One publication on its way in.
#[derive(Clone, Debug)]
pub struct Publish<'a> {
    /// The connection that sent it, which does not get it back; `None`: no connection, or one that has ended.
    pub origin: Option<ConnectionId>,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// What was sent, and where to. The core copies it only if it keeps it.
    pub publication: &'a Publication<'a>,
    /// To how many receivers, if the sender says so (0 = all).
    pub receivers: Option<u32>,
    /// The sender's name for it: asks for a reply, and makes a repetition harmless.
    pub id: Option<PublicationId>,
    /// Its sender waits for a reply, though it gave no `id`.
    pub answer: bool,
    /// Never delivered when this has passed; `Some(0)` = never expires; `None` = as the channel is configured.
    pub ttl: Option<Duration>,
    /// Not delivered before this has passed.
    pub delay: Option<Duration>,
}

/// A receiver's own name, good for one user: two users may use the same `id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiverKey {
    /// Who is logged in; empty for an anonymous connection.
    pub user: Arc<str>,
    /// The name it gave.
    pub id: Arc<str>,
}

/// How a receiver confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// By answering a ping.
    Automatic,
    /// By `ack` and `nack`.
    Manual,
}

/// What kind of client a receiver is: it decides how the receiver's window begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// It offered `wsmb.v1`: it answers pings as RFC 6455 says, and begins with [`crate::limits::PREFETCH`] deliveries.
    Modern,
    /// Any other: perhaps it takes one message and leaves. It gets one frame until its first confirmation, and of a backlog one message.
    Legacy,
}

/// What a connection wants to receive.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// Which connection.
    pub connection: ConnectionId,
    /// Which channels; at most [`crate::limits::SUBSCRIPTIONS`], no name twice. Empty: none any more.
    pub channels: Vec<ChannelName>,
    /// Which of them goes first.
    pub order: Order,
    /// How it confirms.
    pub ack: AckMode,
    /// Unconfirmed deliveries allowed, 1 to [`crate::limits::MAX_PREFETCH`]; `None`: as many as suit the receiver's pace, or one, if it prefers some
    /// of several channels.
    pub prefetch: Option<u32>,
    /// What kind of client it is.
    pub client: ClientKind,
    /// Its name, if it has one: an older connection with that name is replaced at once.
    pub receiver: Option<ReceiverKey>,
    /// Its group on each of these channels: of the receivers that name one group, one gets each message.
    pub group: Option<GroupName>,
}

impl Subscribe {
    /// Unconfirmed deliveries allowed, if that is certain. With several channels in an order of preference one: what has been handed over can't be
    /// overtaken any more.
    pub(super) fn window(&self) -> Option<u32> {
        let prefers = self.channels.len() > 1 && self.order == Order::List;
        self.prefetch.or_else(|| prefers.then_some(1))
    }
}

/// A receiver's answer to one delivery.
#[derive(Clone, Debug)]
pub struct Acknowledge {
    /// The receiver.
    pub connection: ConnectionId,
    /// The delivery's sequence number.
    pub sequence: u64,
    /// What it says.
    pub answer: Answer,
}

/// Why the store did not take messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFailure {
    /// It can't be written now (disk full, locked, read-only, gone).
    Unavailable,
    /// It is at its own limit.
    Full,
}
