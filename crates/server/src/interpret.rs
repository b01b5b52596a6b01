//! Turns a client's frames into requests, outside the core's lock.
//!
//! This module sends nothing. An answer that does not need the core (to a ping, to a malformed command) is a request too, so that answers keep the
//! order of the frames.
//!
//! Never here: the core's lock, a queue.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::access::{Access, BadRefresh};
use super::counters::Counters;
use super::hub::Hub;
use super::replies::{self, text};
use super::request::{PublishOptions, Refused, Request};
use super::session::{Closing, Session};
use wsmb_auth::UserRate;
use wsmb_core::broker::{AckMode, ReceiverKey, Subscribe};
use wsmb_core::message::{ChannelName, Frame, Kind, Order, Publication, PublicationId};
use wsmb_protocol::envelope::{self, Ack, Code, Command};
use wsmb_protocol::frame::{self, Incoming, Opcode};

thread_local! {
    /// Parses the commands of all sessions of the thread. It caches the channel of the last publication.
    static PARSER: RefCell<envelope::Parser> = const { RefCell::new(envelope::Parser::new()) };
}

/// Interprets the frames of one read of one session.
pub(super) struct Interpreter<'a> {
    hub: &'a Hub,
    session: &'a Session,
    access: Arc<Access>,
    /// The limits of the session's user, if it has any.
    rate: Option<Arc<UserRate>>,
    /// The session has waited for the store as long as it may.
    has_waited: bool,
    /// A publication was among the frames.
    publishes: bool,
    /// How long a topic session is not read after this, because its user has exceeded its rate.
    pause: Duration,
    /// The requests so far, in the order of the frames.
    requests: Vec<Option<Request<'a>>>,
    /// The client has sent a frame before.
    greeted: bool,
    commands: u64,
    /// As [`Interpreted::closed`]. Frames behind the close frame are not read.
    closed: Option<(u16, bool)>,
}

/// The result for the frames of one read.
pub(super) struct Interpreted<'a> {
    /// The requests, in the order of the frames.
    pub(super) requests: Vec<Option<Request<'a>>>,
    /// The client has sent a frame, in this read or before.
    pub(super) greeted: bool,
    /// The code of the client's close frame (1000 if it has none), and whether the frame ends the connection in an orderly way.
    pub(super) closed: Option<(u16, bool)>,
    /// There is a publication among the requests.
    pub(super) publishes: bool,
    /// The time for which the session is not read.
    pub(super) pause: Duration,
}

impl<'a> Interpreter<'a> {
    /// `requests`: an empty list, whose memory is reused. `greeted`: the client has sent a frame before. `has_waited`: the session has waited for the
    /// store as long as it may.
    pub(super) fn new(
        hub: &'a Hub,
        session: &'a Session,
        requests: Vec<Option<Request<'a>>>,
        greeted: bool,
        has_waited: bool,
    ) -> Self {
        let access = hub.access();
        let rate = access.rates.of(session.profile.user(), hub.now());
        let (commands, closed, publishes, pause) = (0, None, false, Duration::ZERO);
        Self { hub, session, access, rate, has_waited, publishes, pause, requests, greeted, commands, closed }
    }

    /// Returns the result, and counts the commands.
    pub(super) fn finish(self) -> Interpreted<'a> {
        Counters::add(&self.hub.counters.commands, self.commands);
        let Self { requests, greeted, publishes, closed, pause, .. } = self;
        Interpreted { requests, greeted, publishes, closed, pause }
    }

    /// Turns one frame into requests. Breaks if the client has sent a close frame or its connection must end: later frames are ignored.
    pub(super) fn take(&mut self, incoming: Incoming<'a>) -> ControlFlow<()> {
        let first = !std::mem::replace(&mut self.greeted, true);
        let session = self.session;
        match (incoming, &session.profile.topic) {
            (Incoming::Message { kind, frame }, Some(channel)) => {
                if first {
                    self.push_request(Request::Release);
                }
                return self.topic_message(channel, kind, frame);
            }
            (Incoming::Message { kind, frame }, None) => {
                self.commands += 1;
                PARSER.with_borrow_mut(|parser| match parser.parse(kind, &frame) {
                    Ok(Command::Send(send)) => self.send(send, &frame, first),
                    command => self.interpret_command(command, first),
                });
            }
            (control, _) => {
                if first {
                    self.push_request(Request::Release);
                }
                return self.control(control);
            }
        }
        ControlFlow::Continue(())
    }

    fn push_request(&mut self, request: Request<'a>) {
        self.push_with(|| request);
    }

    /// Builds a request in its place in the list: a request is large, and to copy it costs more than to make it.
    #[inline]
    fn push_with(&mut self, make: impl FnOnce() -> Request<'a>) {
        self.requests.extend(std::iter::once_with(|| Some(make())));
    }

    fn control(&mut self, incoming: Incoming<'a>) -> ControlFlow<()> {
        match incoming {
            Incoming::Ping(payload) => self.push_request(Request::Frame(frame::encode(Opcode::Pong, &payload))),
            Incoming::Pong(payload) => self.push_request(Request::Pong(payload)),
            Incoming::Close { code, .. } => {
                self.closed = Some((code.unwrap_or(1000), matches!(code, Some(1000 | 1001))));
                return ControlFlow::Break(());
            }
            Incoming::Message { .. } => {}
        }
        ControlFlow::Continue(())
    }

    fn topic_message(&mut self, channel: &'a ChannelName, kind: Kind, frame: Frame<'a>) -> ControlFlow<()> {
        if frame::payload_start(&frame) == frame.len() {
            Counters::add(&self.hub.counters.empty, 1);
            return ControlFlow::Continue(());
        }
        let profile = &self.session.profile;
        if !self.access.may_send(&profile.identity, channel) {
            self.hub.note_forbidden(profile.user(), &profile.peer, channel);
            let closing = Closing { code: 1008, reason: "forbidden", invited: false, flush: true };
            self.push_request(Request::End(closing));
            return ControlFlow::Break(());
        }
        if let Some(rate) = &self.rate {
            // There is no answer to a message of a topic session that the client could act on, so its TCP slows the client down.
            self.pause = rate.published(1, self.hub.now());
            if !self.pause.is_zero() {
                self.hub.note_above_rate(profile.user(), &profile.peer);
            }
        }
        self.publishes = true;
        self.push_with(|| Request::Message { kind, frame });
        ControlFlow::Continue(())
    }

    fn interpret_command(&mut self, command: Result<Command<'_>, envelope::Malformed>, first: bool) {
        let session = self.session;
        let command = match command {
            Ok(command) => command,
            Err(envelope::Malformed { command, id, code, text }) => {
                return self.refuse(first, (command.as_deref(), id.as_deref()), code, text);
            }
        };
        match command {
            Command::Ping => {
                let known = self.hub.storage.known_health();
                self.push_request(Request::Ping { first, known });
            }
            Command::Receive { channels, ack, prefetch, receiver, group, order } => {
                let user = session.profile.user();
                let identity = &session.profile.identity;
                if let Some(channel) = channels.iter().find(|channel| !self.access.may_receive(identity, channel)) {
                    let detail = format!("user \"{user}\" may not receive from channel \"{channel}\"");
                    self.refuse(first, (Some("receive-message"), None), Code::Forbidden, detail);
                    return;
                }
                let name = receiver.map(Arc::from).or_else(|| session.profile.receiver.as_deref().cloned());
                let subscribe = Subscribe {
                    connection: session.id,
                    user: user.clone(),
                    channels,
                    order,
                    ack: match ack {
                        Ack::Automatic => AckMode::Automatic,
                        Ack::Manual => AckMode::Manual,
                    },
                    prefetch,
                    client: session.profile.client(),
                    receiver: name.map(|id| ReceiverKey { user: user.clone(), id }),
                    group,
                };
                self.push_request(Request::Subscribe { subscribe: Box::new(subscribe), first });
            }
            Command::Refresh { token, id } => self.refresh(&token, id.as_deref(), first),
            // `take` handles it, because it needs the frame.
            Command::Send(_) => {}
            Command::Acknowledge { delivery, answer } if delivery.connection != session.id => {
                // The delivery was made on another connection, and was given back when that connection ended.
                let detail = replies::not_waiting(delivery);
                self.refuse(first, (Some(answer.command()), None), Code::Malformed, detail);
            }
            Command::Acknowledge { delivery, answer } => {
                let request = Request::Acknowledge { sequence: delivery.sequence, answer: Box::new(answer), first };
                self.push_request(request);
            }
        }
    }

    /// Replaces the token of the session.
    fn refresh(&mut self, token: &str, id: Option<&str>, first: bool) {
        let (code, detail) = match self.hub.refresh(self.session, token) {
            Ok(()) => {
                if first {
                    self.push_request(Request::Release);
                }
                return self.push_request(Request::Frame(text(&envelope::refreshed(id))));
            }
            Err(BadRefresh::NoToken) => (Code::Malformed, "this connection has not logged in with a token".to_owned()),
            Err(BadRefresh::OtherUser) => (Code::Rejected, "the token is of another user".to_owned()),
            Err(BadRefresh::Token(bad)) => (Code::Rejected, bad.to_string()),
        };
        self.refuse(first, (Some("refresh"), id), code, detail);
    }

    /// `frame`: the frame of `send`, which borrows from it.
    fn send(&mut self, send: envelope::Send<'_>, frame: &Frame<'a>, first: bool) {
        let envelope::Send { publication, receivers, id, ttl, delay } = send;
        let user = self.session.profile.user();
        if !self.access.may_send(&self.session.profile.identity, &publication.channel) {
            let detail = format!("user \"{user}\" may not send to channel \"{}\"", publication.channel);
            self.refuse(first, (Some("send-message"), id.as_deref()), Code::Forbidden, detail);
            return;
        }
        if self.store_refuses(&publication.channel) {
            let detail = "too many messages wait for the store; it was not accepted, send it again later".to_owned();
            self.refuse(first, (Some("send-message"), id.as_deref()), Code::Unavailable, detail);
            return;
        }
        if let Some(rate) = &self.rate
            && let Err(wait) = rate.publish(publication.messages.len(), self.hub.now())
        {
            self.hub.note_above_rate(user, &self.session.profile.peer);
            let detail = format!("user \"{user}\" may publish again in {} ms", wait.as_millis() + 1);
            self.refuse(first, (Some("send-message"), id.as_deref()), Code::SlowDown, detail);
            return;
        }
        if publication.messages.is_empty() {
            if first {
                self.push_request(Request::Release);
            }
            if let Some(id) = &id {
                self.push_request(Request::Frame(text(&envelope::accepted(id, 0, false, false))));
            }
            return;
        }
        self.publishes = true;
        let has_options = id.is_some() || receivers.is_some() || ttl.is_some() || delay.is_some();
        let options = has_options.then(|| {
            let id = id.as_deref().map(|id| PublicationId::new(user, id));
            Box::new(PublishOptions { receivers, id, ttl, delay })
        });
        self.push_with(|| Request::Publish { publication: detach_from_parser(publication, frame), options, first });
    }

    /// Whether a publication to this channel is refused, because the session has waited for the store in vain.
    fn store_refuses(&self, channel: &ChannelName) -> bool {
        self.has_waited && self.hub.backpressure.is_closed() && self.hub.options().policies.of(channel).keep
    }

    /// Refuses a frame. `command` and `id`: as far as the frame could be parsed.
    fn refuse(&mut self, first: bool, (command, id): (Option<&str>, Option<&str>), code: Code, detail: String) {
        let counters = &self.hub.counters;
        let counter = match code {
            Code::Forbidden => &counters.forbidden,
            Code::Rejected => &counters.unauthorized,
            Code::SlowDown => &counters.above_rate,
            Code::Unavailable => &counters.refused,
            _ => &counters.malformed,
        };
        Counters::add(counter, 1);
        let frame = text(&envelope::refusal(command, code, &detail, id));
        if id.is_none() {
            self.push_request(Request::Refuse(Box::new(Refused { first, code, detail, frame })));
            return;
        }
        if first {
            self.push_request(Request::Release);
        }
        self.push_request(Request::Frame(frame));
    }
}

/// The request that follows from the handshake: a topic session subscribes to its channel; an envelope session claims its receiver name.
pub(super) fn initial_request(session: &Session, access: &Access) -> Option<Request<'static>> {
    let profile = &session.profile;
    let receiver = profile.receiver.as_deref().cloned().map(|id| ReceiverKey { user: profile.user().clone(), id });
    match &profile.topic {
        Some(channel) if access.may_receive(&profile.identity, channel) => {
            let subscribe = Subscribe {
                connection: session.id,
                user: profile.user().clone(),
                channels: vec![channel.clone()],
                order: Order::default(),
                ack: AckMode::Automatic,
                prefetch: None,
                client: profile.client(),
                receiver,
                group: None,
            };
            Some(Request::Subscribe { subscribe: Box::new(subscribe), first: false })
        }
        _ => receiver.map(Request::Claim),
    }
}

/// Makes a publication borrow only from the read buffer, not from the parser. Copies no message.
fn detach_from_parser<'a>(publication: Publication<'_>, source: &Frame<'a>) -> Publication<'a> {
    let Publication { channel, dialect, kind, frame, messages, verbatim } = publication;
    let frame = match frame {
        Frame::Shared(frame) => Frame::Shared(frame),
        Frame::Borrowed(_) => source.clone(),
    };
    Publication { channel: Cow::Owned(channel.into_owned()), dialect, kind, frame, messages, verbatim }
}
