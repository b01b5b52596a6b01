//! What can be asked of the engine: plain data. Protocols make requests of bytes (`interpret`), timers and the store make them of what happens.
//!
//! Never here: a lock, a socket, a decision.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::session::Closing;
use wsmb_core::broker::{Event, ReceiverKey, Subscribe};
use wsmb_core::message::{Answer, Publication, PublicationId};
use wsmb_protocol::envelope::Code;

/// One thing to do. All but [`Request::Core`] concern the session that they come from.
#[derive(Debug)]
pub(super) enum Request<'a> {
    /// Something has happened that concerns no session: a timer, an outcome of the store, a tool.
    Core(Event<'a>),
    /// Send a publication, which has at least one message.
    Publish(Publication<'a>, PublishOptions),
    /// Receive these channels. `first`: it is the client's first frame, and the connect reply says so if it is refused.
    Subscribe { subscribe: Box<Subscribe>, first: bool },
    /// Take this name (`?receiver=ID`) without receiving anything yet.
    Claim(ReceiverKey),
    /// Answer a delivery. `first` as above.
    Acknowledge { sequence: u64, answer: Box<Answer>, first: bool },
    /// A pong, and what it carries.
    Pong(Cow<'a, [u8]>),
    /// Queue this for the session itself.
    Frame(Bytes),
    /// The client's `ping` command: it asks whether the store can be written. `known`: the answer, if it is known; otherwise the store is asked. With
    /// `first`, it is the client's first frame, and nothing goes out before its answer, which takes the connect reply's place.
    Ping { first: bool, known: Option<bool> },
    /// The answer to a `ping` command: whether the store can be written.
    PingAnswer(bool),
    /// The client's first frame has come, or does not come: nothing is held any more, and the connect reply goes before all else.
    Release,
    /// What was sent is refused, and names no id. For the first frame, that takes the connect reply's place, as long as this is held.
    Refuse(Box<Refused>),
    /// The answer that the client waits for has not come in time: the client is told so, and waits no longer.
    GiveUp,
    /// End the session.
    End(Closing),
    /// The client has ended the connection by its close frame.
    Leave(Leave),
    /// The client has finished sending. If it waits for answers, the session stays for them and receives nothing more. `took_only`: see
    /// [`Event::Disconnected`].
    Finished { took_only: bool },
    /// The session's task has ended: nothing is addressed to it any more. `took_only` as above.
    Departed { took_only: bool },
    /// The session's task is going to end at once.
    Aborted,
}

/// What a sender asks for besides that a publication is sent.
#[derive(Debug, Default)]
pub(super) struct PublishOptions {
    /// To how many receivers, if the sender says so (0 = all).
    pub(super) receivers: Option<u32>,
    /// The sender's name for the publication: asks for an answer.
    pub(super) id: Option<PublicationId>,
    /// Never delivered when this has passed; `Some(0)` = never expires; `None` = as the channel is configured.
    pub(super) ttl: Option<Duration>,
    /// Not delivered before this has passed.
    pub(super) delay: Option<Duration>,
    /// It is an envelope client's first frame: without an id, the connect reply waits for what becomes of it.
    pub(super) first: bool,
}

/// A frame that was refused before the core saw it.
#[derive(Debug)]
pub(super) struct Refused {
    /// It is the client's first frame.
    pub(super) first: bool,
    /// What `response_code` says.
    pub(super) code: Code,
    /// What is wrong, in words.
    pub(super) detail: String,
    /// The refusal as a frame of its own.
    pub(super) frame: Bytes,
}

/// The client's own close frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    /// Its code; 1000 where it named none.
    pub(super) code: u16,
    /// It took the only message that it was given ([`Event::Disconnected`]).
    pub(super) took_only: bool,
}
