//! What a client's frames mean: each becomes steps that the core's turn carries out in their order.
//!
//! Nothing is sent from here. An answer that needs no core (to a ping, to a malformed command) is a step too, so that it keeps its
//! place behind what the client sent before.

use std::cell::{Cell, RefCell};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::access::Access;
use super::connection::{Closing, Connection};
use super::counters::Counters;
use super::replies;
use super::runtime::{Burst, Hub};
use wsmb_core::broker::{AckMode, Acknowledge, Event, Publish, ReceiverKey, Subscribe};
use wsmb_core::message::{ChannelName, Frame, Kind, Order, PublicationId, Timestamp};
use wsmb_protocol::envelope::{self, Ack, Code, Command};
use wsmb_protocol::frame::{self, Incoming, Opcode};
use wsmb_protocol::topic;

/// One thing to do for a connection.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// Give this to the core.
    Event(Event<'a>),
    /// Queue this for the connection itself.
    Frame(Bytes),
    /// The client's `ping`: the store is asked whether it can be written. With `first`, it is the client's first frame, and nothing goes
    /// out before its answer, which takes the connect reply's place.
    Ping {
        /// See above.
        first: bool,
    },
    /// The answer to a `ping`.
    Answer(Bytes),
    /// The client's first frame has come, or does not come: nothing is held any more, and the connect reply goes before all else.
    Release,
    /// Give this to the core, for the client's first frame. If it is refused, that takes the connect reply's place.
    First(Event<'a>),
    /// What was sent is refused, and names no id. For the first frame, that takes the connect reply's place, as long as this is held.
    Refuse {
        /// It is the client's first frame.
        first: bool,
        /// What `response_code` says.
        code: Code,
        /// What is wrong, in words.
        detail: String,
        /// The refusal as a frame of its own.
        frame: Bytes,
    },
    /// The answer that a client waits for has not come in time: it is told so, and waited for no longer.
    GiveUp,
    /// Something was queued already: flush it.
    Flush,
    /// End the connection.
    End(Closing),
    /// The client has ended the connection by its close frame.
    Leave(Leave),
}

/// The client's own close frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    /// Its code; 1000 where it named none.
    pub(super) code: u16,
    /// It took the only message that it was given ([`Event::Disconnected`]).
    pub(super) took_only: bool,
}

thread_local! {
    /// Reads the commands of all connections of the thread. It keeps the channel of the last publication.
    static PARSER: RefCell<envelope::Parser> = const { RefCell::new(envelope::Parser::new()) };
}

/// Reads the frames of one burst of one connection.
pub(super) struct Desk<'a> {
    hub: &'a Hub,
    connection: &'a Connection,
    access: Arc<Access>,
    /// Commands since [`Self::count`] was last called.
    commands: Cell<u64>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(hub: &'a Hub, connection: &'a Connection) -> Self {
        Self { hub, connection, access: hub.access(), commands: Cell::new(0) }
    }

    /// Adds to the server's counters what the burst has brought.
    pub(super) fn count(&self) {
        Counters::add(&self.hub.counters.commands, self.commands.take());
    }

    /// Has `burst` do what `incoming` asks for, step by step. `greeted`: a frame has come before. Breaks if the client has closed, which
    /// is left to the caller, or must go.
    pub(super) fn take(&self, incoming: &Incoming<'_>, greeted: &mut bool, burst: &mut Burst<'_>) -> ControlFlow<()> {
        let first = !std::mem::replace(greeted, true);
        let topic = &self.connection.profile.topic;
        match (incoming, topic) {
            (Incoming::Message { kind, frame }, Some(channel)) => {
                if first {
                    burst.carry(Step::Release);
                }
                return self.topic_message(channel, *kind, frame, burst);
            }
            (Incoming::Message { kind, frame }, None) => PARSER.with_borrow_mut(|parser| {
                let command = parser.parse(*kind, frame);
                self.commands.set(self.commands.get() + 1);
                match &command {
                    // Borrowed, because it is large, and most commands are this one.
                    Ok(Command::Send(send)) => self.send(send, first, burst),
                    Ok(_) | Err(_) => self.other(command, first, burst),
                }
            }),
            (control, _) => {
                if first {
                    burst.carry(Step::Release);
                }
                return self.control(control, burst);
            }
        }
        ControlFlow::Continue(())
    }

    fn control(&self, incoming: &Incoming<'_>, burst: &mut Burst<'_>) -> ControlFlow<()> {
        match incoming {
            Incoming::Ping(payload) => burst.carry(Step::Frame(frame::encode(Opcode::Pong, payload))),
            Incoming::Pong(payload) => {
                let (up_to, again) = self.connection.queue().pong(payload);
                if up_to > 0 {
                    burst.carry(Step::Event(Event::Confirmed { connection: self.connection.id, up_to }));
                }
                if again {
                    burst.carry(Step::Flush);
                }
            }
            Incoming::Close { .. } => return ControlFlow::Break(()),
            Incoming::Message { .. } => {}
        }
        ControlFlow::Continue(())
    }

    fn topic_message(
        &self,
        channel: &ChannelName,
        kind: Kind,
        frame: &Frame<'_>,
        burst: &mut Burst<'_>,
    ) -> ControlFlow<()> {
        let publication = topic::publication(channel, kind, frame.clone());
        if publication.messages.iter().all(Range::is_empty) {
            Counters::add(&self.hub.counters.empty, 1);
            return ControlFlow::Continue(());
        }
        let connection = &self.connection;
        if !self.access.may_send(&connection.profile.user, channel) {
            self.hub.note_forbidden(&connection.profile.user, &connection.profile.peer, channel);
            burst.carry(Step::End(Closing { code: 1008, reason: "forbidden", invited: false, flush: true }));
            return ControlFlow::Break(());
        }
        burst.publish(&Publish {
            connection: Some(connection.id),
            publication: &publication,
            receivers: None,
            id: None,
            answer: false,
            ttl: None,
            delay: None,
        });
        ControlFlow::Continue(())
    }

    fn other(&self, command: Result<Command<'_>, envelope::Malformed>, first: bool, burst: &mut Burst<'_>) {
        let connection = &self.connection;
        let command = match command {
            Ok(command) => command,
            Err(envelope::Malformed { command, id, code, text }) => {
                return self.refuse(burst, first, (command.as_deref(), id.as_deref()), code, text);
            }
        };
        match command {
            Command::Ping => burst.carry(Step::Ping { first }),
            Command::Receive { channels, ack, prefetch, receiver, group, order } => {
                let user = &connection.profile.user;
                if let Some(channel) = channels.iter().find(|channel| !self.access.may_receive(user, channel)) {
                    let detail = format!("user \"{user}\" may not receive from channel \"{channel}\"");
                    self.refuse(burst, first, (Some("receive-message"), None), Code::Forbidden, detail);
                    return;
                }
                let name = receiver.map(Arc::from).or_else(|| connection.profile.receiver.as_deref().cloned());
                let event = Event::Subscribe(Subscribe {
                    connection: connection.id,
                    channels,
                    order,
                    ack: match ack {
                        Ack::Automatic => AckMode::Automatic,
                        Ack::Manual => AckMode::Manual,
                    },
                    prefetch,
                    client: connection.profile.client(),
                    receiver: name.map(|id| ReceiverKey { user: user.clone(), id }),
                    group,
                });
                burst.carry(if first { Step::First(event) } else { Step::Event(event) });
            }
            Command::Send(send) => self.send(&send, first, burst),
            Command::Acknowledge { delivery, answer } if delivery.connection != connection.id => {
                // It was given out on a connection that has ended, and has been given back.
                let detail = replies::not_waiting(delivery);
                self.refuse(burst, first, (Some(answer.command()), None), Code::Malformed, detail);
            }
            Command::Acknowledge { delivery, answer } => {
                let acknowledge = Acknowledge { connection: connection.id, sequence: delivery.sequence, answer };
                let event = Event::Acknowledge(acknowledge);
                burst.carry(if first { Step::First(event) } else { Step::Event(event) });
            }
        }
    }

    fn send(&self, send: &envelope::Send<'_>, first: bool, burst: &mut Burst<'_>) {
        let connection = &self.connection;
        let user = &connection.profile.user;
        let channel = &send.publication.channel;
        if !self.access.may_send(user, channel) {
            let detail = format!("user \"{user}\" may not send to channel \"{channel}\"");
            self.refuse(burst, first, (Some("send-message"), send.id.as_deref()), Code::Forbidden, detail);
            return;
        }
        let is_empty = send.publication.messages.is_empty();
        // A legacy client that sends without an id may read one frame, the connect reply: so that one waits for what becomes of this.
        let answer = first && send.id.is_none() && !is_empty && connection.queue().hold_for_answer();
        if first && !answer {
            burst.carry(Step::Release);
        }
        if is_empty {
            if let Some(id) = &send.id {
                burst.carry(Step::Frame(text(&envelope::accepted(id, 0, false, false))));
            }
            return;
        }
        if send.id.is_some() || answer {
            connection.owed.add();
        }
        burst.publish(&Publish {
            connection: Some(connection.id),
            id: send.id.as_deref().map(|id| PublicationId::new(user, id)),
            answer,
            publication: &send.publication,
            receivers: send.receivers,
            ttl: send.ttl,
            delay: send.delay,
        });
    }

    /// Refuses a frame, as far as it could be read: its command and its id.
    fn refuse(
        &self,
        burst: &mut Burst<'_>,
        first: bool,
        (command, id): (Option<&str>, Option<&str>),
        code: Code,
        detail: String,
    ) {
        let counter =
            if matches!(code, Code::Forbidden) { &self.hub.counters.forbidden } else { &self.hub.counters.malformed };
        Counters::add(counter, 1);
        let frame = text(&envelope::refusal(command, code, &detail, id));
        if id.is_none() {
            burst.carry(Step::Refuse { first, code, detail, frame });
            return;
        }
        if first {
            burst.carry(Step::Release);
        }
        burst.carry(Step::Frame(frame));
    }

    /// What a connection declares by connecting: a topic connection receives its channel; an envelope connection claims its name.
    pub(super) fn arrive(&self, burst: &mut Burst<'_>) {
        let connection = self.connection;
        let profile = &connection.profile;
        let receiver = profile.receiver.as_deref().cloned().map(|id| ReceiverKey { user: profile.user.clone(), id });
        match &profile.topic {
            Some(channel) if self.access.may_receive(&profile.user, channel) => {
                burst.carry(Step::Event(Event::Subscribe(Subscribe {
                    connection: connection.id,
                    channels: vec![channel.clone()],
                    order: Order::default(),
                    ack: AckMode::Automatic,
                    prefetch: None,
                    client: profile.client(),
                    receiver,
                    group: None,
                })));
            }
            _ => {
                if let Some(receiver) = receiver {
                    burst.carry(Step::Event(Event::Claim { connection: connection.id, receiver }));
                }
            }
        }
    }
}

/// The answer to the client's `ping`.
pub(super) fn ping_reply(now: Timestamp, healthy: bool) -> Bytes {
    let code = if healthy { Code::Accepted } else { Code::Rejected };
    text(&envelope::connect_reply(now, code, ""))
}

/// A text frame.
pub(super) fn text(payload: &str) -> Bytes {
    frame::encode(Opcode::Text, payload.as_bytes())
}
