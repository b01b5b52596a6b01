//! The requests that the engine carries out: plain data. `interpret` makes them from frames, timers and the store from events.
//!
//! Never here: a lock, a socket, a decision.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::session::Closing;
use wsmb_core::broker::{Event, ReceiverKey, Subscribe};
use wsmb_core::message::{Answer, Frame, Kind, Publication, PublicationId};
use wsmb_protocol::envelope::Code;

/// One request. All but [`Request::Core`] concern the session that sent them.
#[derive(Debug)]
pub(super) enum Request<'a> {
    /// An event that concerns no session: of a timer, of the store, of a tool.
    Core(Box<Event<'a>>),
    /// Send a message of a topic session to the session's channel. It has a variant of its own because it is small: moving a [`Publication`] costs
    /// more than all other work on such a message.
    Message { kind: Kind, frame: Frame<'a> },
    /// Send a publication of at least one message. `options`: present if the sender gave any; in a box, because a short list of requests is a fast
    /// one. `first`: this is an envelope client's first frame: if it has no id, the connect reply waits for its result.
    Publish { publication: Publication<'a>, options: Option<Box<PublishOptions>>, first: bool },
    /// Receive these channels. `first`: this is the client's first frame, and the connect reply says whether it is refused.
    Subscribe { subscribe: Box<Subscribe>, first: bool },
    /// Claim this receiver name (`?receiver=ID`) without a subscription.
    Claim(ReceiverKey),
    /// Answer a delivery. `first` as above.
    Acknowledge { sequence: u64, answer: Box<Answer>, first: bool },
    /// A pong with its payload.
    Pong(Cow<'a, [u8]>),
    /// Queue this frame for the session.
    Frame(Bytes),
    /// The client's `ping` command, which asks whether the store can be written. `known`: the answer; `None`: the store is asked.
    /// `first`: this is the client's first frame; its answer replaces the connect reply, and no frame is sent before it.
    Ping { first: bool, known: Option<bool> },
    /// The answer to a `ping` command: whether the store can be written.
    PingAnswer(bool),
    /// The client's first frame has come, or is late: end the hold, and send the connect reply first.
    Release,
    /// Refuse a frame that names no id. The refusal of the first frame replaces the connect reply, as long as that is held.
    Refuse(Box<Refused>),
    /// The answer is late: tell the client, and wait no longer.
    GiveUp,
    /// End the session.
    End(Closing),
    /// The client has sent a close frame.
    Leave(Leave),
    /// The client has finished sending. If it waits for answers, the session stays open for them, but receives no messages. `took_only`: see
    /// [`Event::Disconnected`].
    Finished { took_only: bool },
    /// The session's task has ended: remove the session. `took_only` as above.
    Departed { took_only: bool },
    /// The session was aborted; its task is about to end.
    Aborted,
}

/// The sender's options for a publication.
#[derive(Debug, Default)]
pub(super) struct PublishOptions {
    /// The number of receivers (0 = all); `None` = as the channel is configured.
    pub(super) receivers: Option<u32>,
    /// The sender's id of the publication; a publication with an id is answered.
    pub(super) id: Option<PublicationId>,
    /// The time to live; `Some(0)` = never expires; `None` = as the channel is configured.
    pub(super) ttl: Option<Duration>,
    /// The delay before the delivery.
    pub(super) delay: Option<Duration>,
}

/// A frame that was refused before the core saw it.
#[derive(Debug)]
pub(super) struct Refused {
    /// This is the client's first frame.
    pub(super) first: bool,
    /// The `response_code`.
    pub(super) code: Code,
    /// The cause, for the answer's text.
    pub(super) detail: String,
    /// The refusal as a frame of its own.
    pub(super) frame: Bytes,
}

/// The client's own close frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    /// The code of the close frame; 1000 if the frame has none.
    pub(super) code: u16,
    /// See [`Event::Disconnected`].
    pub(super) took_only: bool,
}
