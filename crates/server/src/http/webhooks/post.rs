//! The receiver of one channel of a webhook: a session without a socket, with one unacknowledged delivery at a time. So the messages of a channel are posted in
//! order as long as they succeed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

use super::call::Call;
use super::hook::Hook;
use super::outcome::{Failed, Outcome};
use super::pace;
use crate::access::Identity;
use crate::http::line::Line;
use crate::http::mailbox::{Mailbox, Next};
use crate::hub::Hub;
use crate::limits;
use crate::request::Request;
use crate::session::{Outlet, Profile};
use wsmb_core::broker::{AckMode, ClientKind, Subscribe};
use wsmb_core::message::{Answer, ChannelName, Nack, Order};

/// The most unacknowledged deliveries.
const WINDOW: u32 = 1;

/// Posts the messages of a channel until the webhook ends or the broker stops.
pub(super) async fn run(hub: Arc<Hub>, hook: Arc<Hook>, channel: ChannelName) {
    loop {
        if hook.has_ended() || hub.stop.has_begun() {
            return;
        }
        if let Some(receiver) = Receiver::begin(&hub, &hook, &channel) {
            receiver.serve().await;
        }
        // There was no room, or the session was ended to free memory.
        tokio::select! {
            () = hook.ended() => {}
            () = hub.stop.begun() => {}
            () = sleep(limits::WEBHOOK_AGAIN) => {}
        }
    }
}

/// A session that receives the channel. Its drop ends it, and an unanswered delivery returns to the channel.
struct Receiver<'a> {
    hub: &'a Arc<Hub>,
    hook: &'a Hook,
    channel: &'a ChannelName,
    mailbox: Mailbox,
    attachment: u64,
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        self.hub.depart(&self.mailbox.session, false);
    }
}

impl<'a> Receiver<'a> {
    /// Begins a session; `None` if there is no room.
    fn begin(hub: &'a Arc<Hub>, hook: &'a Hook, channel: &'a ChannelName) -> Option<Self> {
        let user: Arc<str> = format!("webhook:{}", hook.settings.name).into();
        let profile = Profile {
            identity: Identity::User(user.clone()),
            peer: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into(),
            topic: None,
            receiver: None,
            modern: true,
            proxied: false,
            internal: true,
        };
        let session = hub.establish(Outlet::Mailbox, profile, hub.loops.here()).ok()?;
        let mailbox = Mailbox::new(session);
        let attachment = mailbox.attach();
        let receiver = Self { hub, hook, channel, mailbox, attachment };
        let subscribe = Subscribe {
            connection: receiver.mailbox.session.id,
            user,
            channels: vec![channel.clone()],
            order: Order::default(),
            ack: AckMode::Manual,
            prefetch: Some(WINDOW),
            client: ClientKind::Modern,
            receiver: None,
            group: None,
        };
        hub.apply(&receiver.mailbox.session, Request::Subscribe { subscribe: Box::new(subscribe), first: false });
        Some(receiver)
    }

    /// Posts deliveries until the session or the webhook ends.
    async fn serve(&self) {
        let mut failures = 0;
        loop {
            let lines = tokio::select! {
                biased;
                () = self.hook.ended() => return,
                lines = self.next() => lines,
            };
            let Some(lines) = lines else { return };
            for line in &lines {
                match self.deliver(line).await {
                    None => return,
                    Some(Outcome::Delivered) => {
                        failures = 0;
                        self.hook.note_success();
                        self.answer(line, Answer::Ack);
                    }
                    Some(Outcome::Gone) => return self.hook.disable(),
                    Some(Outcome::Failed(failed)) => {
                        failures += 1;
                        self.hook.note_failure(&failed.cause);
                        self.give_back(line, failures, failed).await;
                    }
                }
            }
        }
    }

    /// The next deliveries; `None` if the session has ended.
    async fn next(&self) -> Option<Vec<Line>> {
        match std::future::poll_fn(|cx| self.mailbox.poll_next(self.attachment, WINDOW as usize, cx)).await {
            Next::Lines { lines, .. } => Some(lines),
            Next::Ended | Next::Aborted => None,
        }
    }

    /// Posts a delivery; `None` if the session ends before.
    async fn deliver(&self, line: &Line) -> Option<Outcome> {
        let Some(call) = Call::read(self.channel, line) else {
            let cause = "the delivery cannot be read".to_owned();
            return Some(Outcome::Failed(Failed { cause, is_of_message: true, retry_after: None }));
        };
        let posted = async {
            // No error: the semaphore is never closed.
            let _permit = self.hook.permits.acquire().await;
            call.send(self.hook, || self.hub.wall_now()).await
        };
        self.holding(line, posted).await
    }

    /// Gives a delivery back after a failure, so that it waits aside while others pass. After several failures in a row the channel rests before that: then the
    /// URL has a fault, and a long backlog must not be tried message by message.
    async fn give_back(&self, line: &Line, failures: u32, failed: Failed) {
        if line.delivery.is_none() {
            // The channel keeps nothing: the message is lost, as for every receiver that is away.
            return;
        }
        let attempt = Call::read(self.channel, line).map_or(1, |call| call.attempt());
        let rest = pace::rest(failures, &failed);
        let rested = async {
            tokio::select! {
                () = sleep(rest) => {}
                () = self.hook.ended() => {}
                () = self.hub.stop.begun() => {}
            }
        };
        if self.holding(line, rested).await.is_none() {
            return;
        }
        // At least a moment, so that the next message has its turn first.
        let aside = pace::back_off(attempt).saturating_sub(rest).max(limits::WEBHOOK_REST);
        let reason = format!("webhook {}: {}", self.hook.settings.name, failed.cause);
        let reason = &reason[..reason.floor_char_boundary(wsmb_core::limits::REASON_BYTES)];
        let nack = Nack { retry_after: Some(aside), reject: false, reason: Some(reason.into()) };
        self.answer(line, Answer::Nack(nack));
    }

    /// Carries out `work` and keeps the delivery meanwhile: its `ack_timeout` begins anew in time. `None`: the session ends before.
    async fn holding<T>(&self, line: &Line, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let pause = self.hub.options().policies.of(self.channel).ack_timeout / 3;
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = self.over() => return None,
                () = sleep(pause.max(Duration::from_millis(100))) => self.answer(line, Answer::Extend),
            }
        }
    }

    /// Waits until the session ends.
    async fn over(&self) {
        std::future::poll_fn(|cx| {
            let mut queue = self.mailbox.session.queue();
            if queue.is_ending() || queue.is_aborted() {
                return Poll::Ready(());
            }
            queue.wake_with(cx.waker());
            Poll::Pending
        })
        .await;
    }

    fn answer(&self, line: &Line, answer: Answer) {
        let Some(sequence) = line.sequence() else { return };
        if !matches!(answer, Answer::Extend) {
            self.mailbox.answered(sequence);
        }
        let request = Request::Acknowledge { sequence, answer: Box::new(answer), first: false };
        self.hub.apply(&self.mailbox.session, request);
    }
}
