//! The events of the broker core: sockets, timers, the store and tools all act on it through an [`Event`].

use std::sync::Arc;
use std::time::Duration;

use crate::message::{
    Answer, ChannelName, ConnectionId, GroupName, Message, MessageId, Order, Publication, PublicationId,
};

/// An event, to be passed to [`super::Broker::handle`] together with the time.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A client sent a publication.
    Publish(&'a Publish<'a>),
    /// A new connection with a receiver name (`?receiver=ID`) was made. An older connection with this name is replaced at once.
    Claim {
        /// The new connection.
        connection: ConnectionId,
        /// Its name.
        receiver: ReceiverKey,
    },
    /// A connection declares the channels that it receives. Replaces its previous declaration.
    Subscribe(Subscribe),
    /// A receiver with manual acknowledgement answers a delivery.
    Acknowledge(Acknowledge),
    /// A pong proves that a receiver has all automatic deliveries up to and including this sequence number.
    Confirmed {
        /// The receiver.
        connection: ConnectionId,
        /// The highest confirmed [`super::Effect::Deliver::sequence`].
        up_to: u64,
    },
    /// A connection has ended. No further effect may name it, unless `listens`.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
        /// The client looks like a one-shot reader that took its only message: a legacy connection without a proxy that ended with FIN or
        /// close 1000 or 1001, to which exactly one data frame was ever delivered, and whose TCP has acknowledged that frame and no later
        /// ping. Confirms that delivery, unless the connection has sent to the delivery's channel.
        took_only: bool,
        /// The client has closed its sending side only and still reads: it gets the outstanding replies. Its final end is reported by a
        /// second event.
        listens: bool,
    },
    /// The store has carried out a request, or has failed to.
    Store(StoreEvent),
    /// An administrator purges a channel: all unconfirmed messages are removed.
    Purge {
        /// The channel.
        channel: ChannelName,
    },
    /// The broker is going to stop: from now on, kept messages are not delivered, and receivers with unconfirmed deliveries are asked to
    /// confirm. Passed again when all connections have ended: then the failed writes are retried once more.
    Stopping,
    /// A caller waits no longer for the outcome of its publication ([`Publish::watch`]).
    CallerGone(CallerId),
    /// A deadline named by [`super::Broker::next_deadline`] has come.
    Tick,
}

/// The number of a caller: a program without a connection to the core, such as an HTTP client, that waits for the reply to one request. A number is
/// never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId(pub u64);

/// The receiver of the reply to a command. It is not always the origin of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyTo {
    /// No reply is wanted.
    Nobody,
    /// The reply goes to this connection.
    Connection(ConnectionId),
    /// The reply goes to this caller.
    Caller(CallerId),
}

/// A publication from a client or a tool.
#[derive(Clone, Debug)]
pub struct Publish<'a> {
    /// The sending connection, which does not get the message. `None`: not sent by a connection, or the connection has ended.
    pub origin: Option<ConnectionId>,
    /// The user that sends; empty if anonymous. What the core keeps of the publication counts as this user's.
    pub user: &'a Arc<str>,
    /// The receiver of the reply.
    pub reply_to: ReplyTo,
    /// The content and the channel. The core copies the content only if it keeps it.
    pub publication: &'a Publication<'a>,
    /// The receiver limit, if the sender gave one (0 = all).
    pub receivers: Option<u32>,
    /// The publication's id. With an id, the sender gets a reply, and repetitions are detected.
    pub id: Option<PublicationId>,
    /// The sender waits for a reply, although the publication has no id.
    pub answer: bool,
    /// The caller wants to know what becomes of an accepted publication on a kept channel: [`super::Reply::Settled`] follows
    /// [`super::Reply::Accepted`], unless the publication is a repetition.
    pub watch: bool,
    /// The time to live; `Some(0)` = never expires; `None` = the channel's.
    pub ttl: Option<Duration>,
    /// The delay before the delivery.
    pub delay: Option<Duration>,
}

/// The name of a receiver. Names belong to users: two users may use the same `id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReceiverKey {
    /// The user name; empty for an anonymous connection.
    pub user: Arc<str>,
    /// The name that the receiver gave.
    pub id: Arc<str>,
}

/// How a receiver confirms deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// By answering a ping.
    Automatic,
    /// By `ack` and `nack`.
    Manual,
}

/// The kind of a receiver's client. It decides the receiver's first window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// The client offered `wsmb.v1`: it answers pings as RFC 6455 requires. Its first window has [`crate::limits::PREFETCH`] deliveries.
    Modern,
    /// Any other client: it may take one message and leave. Until its first confirmation it gets one frame, and only one message of a
    /// backlog.
    Legacy,
}

/// The request of a connection to receive channels.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The connection.
    pub connection: ConnectionId,
    /// The connection's user; empty if anonymous. Channels that the subscription opens count as this user's.
    pub user: Arc<str>,
    /// The channels; at most [`crate::limits::SUBSCRIPTIONS`], no name twice. Empty: the connection receives nothing any more.
    pub channels: Vec<ChannelName>,
    /// The order in which the channels are served.
    pub order: Order,
    /// How the receiver confirms deliveries.
    pub ack: AckMode,
    /// The allowed number of unconfirmed deliveries, 1 to [`crate::limits::MAX_PREFETCH`]. `None`: one, if the receiver has several
    /// channels with an order of preference; else the broker adapts the number to the receiver.
    pub prefetch: Option<u32>,
    /// The kind of client.
    pub client: ClientKind,
    /// The receiver's name, if it has one. An older connection with this name is replaced at once.
    pub receiver: Option<ReceiverKey>,
    /// The receiver's group on each of these channels. One member of a group gets each message.
    pub group: Option<GroupName>,
}

impl Subscribe {
    /// Returns the allowed number of unconfirmed deliveries if it is fixed. It is one for several channels with an order of preference,
    /// because no message can overtake a delivered one.
    #[must_use]
    pub fn window(&self) -> Option<u32> {
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
    /// The answer.
    pub answer: Answer,
}

/// An event of the store. The store's worker reports them in the order in which they happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// The store has written these messages.
    Stored(Vec<MessageId>),
    /// The store has not written these messages, and will not unless it is asked again. Their rows may exist nevertheless.
    StoreFailed(Vec<MessageId>, StoreFailure),
    /// The answer to [`super::StoreEffect::Load`]: messages in order, at most as many as requested.
    Loaded {
        /// The channel.
        channel: ChannelName,
        /// Oldest first.
        messages: Vec<Message>,
        /// The store had no further messages of the channel.
        complete: bool,
    },
    /// A page could not be read. The store has logged the cause. The broker repeats it after [`crate::limits::STORE_RETRY`].
    LoadFailed {
        /// The channel.
        channel: ChannelName,
    },
    /// The answer to [`super::StoreEffect::Sweep`]. Each sweep is answered.
    Swept {
        /// Expired messages that were removed from the store.
        gone: Vec<(MessageId, ChannelName)>,
        /// Expired messages that stay in the store, because their channels are spared.
        spared: Vec<Message>,
        /// There may be further expired messages.
        more: bool,
    },
    /// The wall clock was behind by this time and has been set forward. The times of messages that the store held at the start move earlier
    /// by this time. All other times count elapsed time and stay.
    WallAdvanced(Duration),
}

impl From<StoreEvent> for Event<'_> {
    fn from(event: StoreEvent) -> Self {
        Self::Store(event)
    }
}

/// The reason why the store did not write messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFailure {
    /// The store cannot be written now (disk full, locked, read-only, missing).
    Unavailable,
    /// The store has reached its own size limit.
    Full,
}
