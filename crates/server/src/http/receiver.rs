//! Begins, continues and ends receivers without a socket.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::mailbox::{Mailbox, Next, Terms};
use super::response::Problem;
use super::subscription::Subscription;
use crate::access::Identity;
use crate::engine::NoRoom;
use crate::hub::Hub;
use crate::proxies::Client;
use crate::request::Request;
use crate::session::{Outlet, Profile};
use wsmb_auth::Users;
use wsmb_core::broker::{AckMode, ClientKind, ReceiverKey, Subscribe};
use wsmb_core::message::{Answer, DeliveryName};
use wsmb_protocol::envelope::Code;

/// A response that takes the deliveries of a receiver. Its drop detaches it: a named receiver keeps its place for a while, another one ends.
pub(super) struct Attached {
    hub: Arc<Hub>,
    mailbox: Arc<Mailbox>,
    number: u64,
}

impl Attached {
    /// See [`Mailbox::poll_next`].
    pub(super) fn poll_next(&self, most: usize, cx: &Context<'_>) -> Poll<Next> {
        self.mailbox.poll_next(self.number, most, cx)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let (hub, session) = (&self.hub, &self.mailbox.session);
        if self.mailbox.detach(self.number, hub.now())
            && (session.is_forgotten() || session.queue().is_ending() || !hub.mailboxes.is_named(session.id))
        {
            end(hub, &self.mailbox);
        }
    }
}

/// Ends a receiver: its unacknowledged deliveries go to other receivers.
pub(super) fn end(hub: &Hub, mailbox: &Mailbox) {
    if hub.mailboxes.remove(mailbox.session.id) {
        hub.depart(&mailbox.session, false);
    }
}

/// Attaches a response to the receiver that the request describes: to a new one, or to the one with its name.
///
/// # Errors
/// There is no room for a further receiver, or the user is not accepted any more.
pub(super) fn attach(
    hub: &Arc<Hub>,
    (identity, users): (&Identity, &Users),
    client: &Client,
    subscription: &Subscription,
) -> Result<Attached, Problem> {
    let name = subscription.receiver.clone().map(|id| ReceiverKey { user: identity.user().clone(), id });
    let known = name.as_ref().and_then(|name| hub.mailboxes.named(name));
    // The newest request decides what the receiver may do. A request with another kind of login begins another receiver.
    let known = known.filter(|mailbox| {
        let is_same = hub.adopt(&mailbox.session, identity);
        if !is_same {
            end(hub, mailbox);
        }
        is_same
    });
    let mailbox = match known {
        Some(mailbox) => mailbox,
        None => begin(hub, (identity, users), client, name.clone())?,
    };
    if let Some(after) = subscription.after.filter(|after| after.connection == mailbox.session.id) {
        acknowledge_up_to(hub, &mailbox, after.sequence);
    }
    let number = mailbox.attach();
    let attached = Attached { hub: hub.clone(), mailbox, number };
    let session = &attached.mailbox.session;
    let subscribe = Subscribe {
        connection: session.id,
        user: identity.user().clone(),
        channels: subscription.channels.clone(),
        order: subscription.order,
        ack: AckMode::Manual,
        prefetch: subscription.prefetch,
        client: ClientKind::Modern,
        receiver: name,
        group: subscription.group.clone(),
    };
    let window = subscribe.window().unwrap_or(wsmb_core::limits::PREFETCH);
    let terms = Terms { order: subscribe.order, group: subscribe.group.clone(), window };
    if attached.mailbox.set_terms(terms) || !receives(hub, &attached.mailbox, subscription) {
        hub.apply(session, Request::Subscribe { subscribe: Box::new(subscribe), first: false });
    }
    if session.is_forgotten() {
        let most = wsmb_core::limits::CHANNELS;
        let detail = format!("no room for further channels; the broker has at most {most}, shared by its users");
        return Err(Problem::of(Code::Full, detail));
    }
    Ok(attached)
}

/// Whether the receiver has these channels already.
fn receives(hub: &Hub, mailbox: &Mailbox, subscription: &Subscription) -> bool {
    hub.with_broker(|broker| {
        let mut channels: Vec<_> = broker.channels_of(mailbox.session.id).collect();
        channels.sort_unstable();
        let mut wanted: Vec<_> = subscription.channels.iter().collect();
        wanted.sort_unstable();
        channels == wanted
    })
}

fn begin(
    hub: &Arc<Hub>,
    (identity, users): (&Identity, &Users),
    client: &Client,
    name: Option<ReceiverKey>,
) -> Result<Arc<Mailbox>, Problem> {
    let profile = Profile {
        identity: identity.clone(),
        peer: client.address,
        topic: None,
        receiver: name.as_ref().map(|name| Box::new(name.id.clone())),
        modern: true,
        proxied: client.is_proxied,
        internal: false,
    };
    let session = hub.establish(Outlet::Mailbox, profile, hub.loops.here()).map_err(|(_, no_room)| crowded(no_room))?;
    let mailbox = Arc::new(Mailbox::new(session));
    hub.mailboxes.add(mailbox.clone(), name);
    // After the registration: a later change of the users finds the session (`enforce`).
    if !hub.access().is_still_accepted(identity, users) {
        end(hub, &mailbox);
        return Err(Problem::of(Code::Rejected, "the credentials are not valid any more"));
    }
    Ok(mailbox)
}

fn crowded(no_room: NoRoom) -> Problem {
    let detail = match no_room {
        NoRoom::GoingDown => return super::response::going_down(),
        NoRoom::Memory => "the broker is short of memory (server.memory_budget); try again later",
        NoRoom::Crowded => {
            "no room for a further receiver of this user (server.max_connections); end another one first"
        }
    };
    Problem::of(Code::Unavailable, detail)
}

/// Acknowledges all deliveries of a receiver up to this sequence number. Returns how many.
pub(super) fn acknowledge_up_to(hub: &Hub, mailbox: &Mailbox, sequence: u64) -> usize {
    let answered = mailbox.answered_up_to(sequence);
    let mut requests: Vec<_> = answered
        .iter()
        .map(|sequence| Some(Request::Acknowledge { sequence: *sequence, answer: Box::new(Answer::Ack), first: false }))
        .collect();
    hub.apply_all(&mailbox.session, &mut requests);
    answered.len()
}

/// Answers one delivery. Returns false if it does not wait for an answer of this user.
pub(super) fn answer(hub: &Hub, identity: &Identity, delivery: DeliveryName, answer: Answer) -> bool {
    let Some(mailbox) = hub.mailboxes.of(delivery.connection) else { return false };
    let is_extend = matches!(answer, Answer::Extend);
    let is_known = mailbox.session.profile.user() == identity.user()
        && if is_extend { mailbox.is_unanswered(delivery.sequence) } else { mailbox.answered(delivery.sequence) };
    if is_known {
        let request = Request::Acknowledge { sequence: delivery.sequence, answer: Box::new(answer), first: false };
        hub.apply(&mailbox.session, request);
    }
    is_known
}
