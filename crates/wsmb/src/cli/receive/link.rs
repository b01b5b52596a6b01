//! The connection of a receiver: queues received deliveries, sends the answers to them, and reconnects after a loss.
//!
//! Never sends an answer on another connection than the one on which the delivery arrived.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use super::Failure;
use super::delivery::ReceivedDelivery;
use crate::cli::output;
use crate::limits;
use wsmb_client::frames::{self, Answer, Frame, ReceiveMessage};
use wsmb_client::{Backoff, Client, Error, Message, Options, Url};
use wsmb_core::message::Timestamp;

/// The subscription of this receiver, sent on each of its connections.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    /// The channels, in the order of preference.
    pub channels: Vec<String>,
    pub receiver: Option<String>,
    pub group: Option<String>,
    /// Whether the channels take turns.
    pub fair: bool,
}

impl Subscription {
    /// Returns the subscription command. `wanted`: the number of deliveries that may be unanswered; with 0 the broker sends no further deliveries.
    pub(super) fn to_json(&self, wanted: u32) -> String {
        let channels = self.channels.iter().filter(|_| wanted > 0).map(String::as_str);
        let command = ReceiveMessage::new(channels).prefetch(Some(wanted.max(1))).fair(self.fair);
        command.receiver(self.receiver.as_deref()).group(self.group.as_deref()).to_json()
    }
}

/// A connection that reconnects by itself.
pub(super) struct Link {
    url: Url,
    options: Options,
    subscription: Subscription,
    /// The number of deliveries that may be unanswered. 0: this receiver takes no deliveries now.
    wanted: u32,
    /// The value of `wanted` in the last subscription on this connection.
    declared: u32,
    state: State,
    backoff: ReconnectBackoffs,
    waiting: VecDeque<ReceivedDelivery>,
    /// The number of messages received so far.
    serial: u64,
    /// The number of this connection: a delivery can only be answered on the connection on which it arrived.
    generation: u64,
    /// Deliveries of this connection that workers process.
    processing: usize,
    /// The previous connection, if the broker has closed it while workers processed deliveries of it.
    closed: Option<ClosedConnection>,
    /// The task that answers the close frame on the previous connection.
    closing_task: Option<JoinHandle<()>>,
    /// The error that was logged last during the present outage.
    told: Option<String>,
}

/// A connection that the broker has closed. The broker still accepts answers on it for a while, so that finished messages are not processed twice.
struct ClosedConnection {
    client: Box<Client>,
    generation: u64,
    processing: usize,
}

enum State {
    Up(Box<Client>),
    Down(Pin<Box<dyn Future<Output = Result<Client, Error>>>>),
}

/// The result of [`Link::take`].
pub(super) enum LinkEvent {
    /// A delivery may have arrived, or the connection has changed.
    Changed,
    /// Another receiver with the same name has replaced this one.
    Replaced,
    /// The broker refuses the subscription, with this reason.
    Refused(String),
}

/// The back-offs before reconnecting. An attempt costs almost nothing if no broker listens, so that back-off is short. An attempt that the broker refuses
/// costs the broker a handshake, and thousands of receivers may try, so that back-off is long.
struct ReconnectBackoffs {
    nobody: Backoff,
    refused: Backoff,
}

impl ReconnectBackoffs {
    fn new() -> Self {
        Self {
            nobody: Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_UNREACHABLE),
            refused: Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_REFUSED),
        }
    }

    fn failed(&mut self, error: &Error) -> std::time::Duration {
        if error.is_broker_response() { self.refused.failed() } else { self.nobody.failed() }
    }
}

impl Link {
    /// Makes the first connection, without retries: a wrong address or password must be reported at once.
    pub(super) async fn connect(
        url: Url,
        options: Options,
        subscription: Subscription,
        wanted: u32,
    ) -> Result<Self, Failure> {
        let client = subscribe(&url, &options, &subscription.to_json(wanted)).await?;
        Ok(Self {
            url,
            options,
            subscription,
            wanted,
            declared: wanted,
            state: State::Up(Box::new(client)),
            backoff: ReconnectBackoffs::new(),
            waiting: VecDeque::new(),
            serial: 0,
            generation: 0,
            processing: 0,
            closed: None,
            closing_task: None,
            told: None,
        })
    }

    /// Sends the number of deliveries that may be unanswered to the broker, if the number has changed. Must be called before an answer: the answer lets the
    /// broker send the next delivery.
    pub(super) fn want(&mut self, wanted: u32) -> Result<(), Failure> {
        self.wanted = wanted;
        if let State::Up(client) = &mut self.state
            && self.declared != wanted
        {
            client.queue_text(&self.subscription.to_json(wanted))?;
            self.declared = wanted;
        }
        Ok(())
    }

    /// Removes and returns the first waiting delivery that `fits`.
    pub(super) fn pop(&mut self, fits: impl FnMut(&ReceivedDelivery) -> bool) -> Option<ReceivedDelivery> {
        let at = self.waiting.iter().position(fits)?;
        let item = self.waiting.remove(at)?;
        self.processing += usize::from(item.delivery.is_some());
        Some(item)
    }

    /// Puts the rest of a split delivery back at the front of the queue. Only for deliveries that need no answer.
    pub(super) fn put_back(&mut self, item: ReceivedDelivery) {
        self.waiting.push_front(item);
    }

    /// Waits for a frame, or for the connection. Cancellation-safe.
    pub(super) async fn take(&mut self) -> LinkEvent {
        // The prefetch limits the unacknowledged deliveries. A channel that keeps no messages has no acknowledgements; then this loop stops reading, the
        // socket fills, and the broker ends this receiver as slow.
        if self.waiting.len() > wsmb_client::limits::CLIENT_RECEIVED {
            return std::future::pending().await;
        }
        match &mut self.state {
            State::Up(client) => match client.next().await {
                Ok(message) => self.read(&message),
                Err(error) => self.lost(&error),
            },
            State::Down(connecting) => {
                let result = connecting.as_mut().await;
                self.connected(result);
                LinkEvent::Changed
            }
        }
    }

    /// Answers a delivery. Returns false if the connection of the delivery is lost; the broker then delivers the message again.
    pub(super) fn answer(&mut self, item: &ReceivedDelivery, answer: &Answer<'_>) -> Result<bool, Failure> {
        let Some(delivery) = &item.delivery else { return Ok(true) };
        let answer = answer.to_json(delivery);
        if item.generation == self.generation {
            self.processing = self.processing.saturating_sub(1);
            if let State::Up(client) = &mut self.state {
                client.queue_text(&answer)?;
                return Ok(true);
            }
            return Ok(false);
        }
        let Some(mut closed) = self.closed.take_if(|closed| closed.generation == item.generation) else {
            return Ok(false);
        };
        closed.client.queue_text(&answer)?;
        closed.client.try_flush();
        closed.processing = closed.processing.saturating_sub(1);
        if closed.processing > 0 {
            self.closed = Some(closed);
        } else {
            self.close_in_background(closed.client);
        }
        Ok(true)
    }

    /// Extends the deadline of a delivery.
    pub(super) fn extend(&mut self, generation: u64, delivery: &str) -> Result<(), Failure> {
        if let State::Up(client) = &mut self.state
            && generation == self.generation
        {
            client.queue_text(&Answer::Extend.to_json(delivery))?;
        }
        Ok(())
    }

    /// Closes the connection with a close handshake, so that the last answers have arrived.
    pub(super) async fn close(self) {
        if let Some(closing_task) = self.closing_task {
            // The task fails only by a panic, which the panic hook has reported.
            let _ = closing_task.await;
        }
        if let State::Up(client) = self.state
            && let Err(error) = client.close().await
        {
            output::note(&format!("wsmb: {error}; the broker may deliver the last message again"));
        }
    }

    fn read(&mut self, message: &Message) -> LinkEvent {
        match frames::parse(&message.payload) {
            Ok(Frame::Delivery(delivery)) => {
                let item = ReceivedDelivery::new(&delivery, self.generation, now(), self.serial);
                self.serial = self.serial.saturating_add(item.count());
                self.waiting.push_back(item);
                LinkEvent::Changed
            }
            Ok(Frame::Reply(reply)) if reply.is_accepted() => LinkEvent::Changed,
            // The delivery expired or was purged while a worker processed it. No action is needed.
            Ok(Frame::Reply(reply)) if matches!(reply.command.as_deref(), Some("ack" | "nack" | "extend")) => {
                LinkEvent::Changed
            }
            Ok(Frame::Reply(reply)) => {
                LinkEvent::Refused(format!("the broker answered: {} {}", reply.code, reply.text))
            }
            Err(error) => LinkEvent::Refused(error.to_string()),
        }
    }

    fn lost(&mut self, error: &Error) -> LinkEvent {
        if is_replaced(error) {
            return LinkEvent::Replaced;
        }
        // The broker delivers these again. Processing them now would process them twice.
        self.waiting.retain(|item| item.delivery.is_none());
        let (generation, processing) = (self.generation, std::mem::take(&mut self.processing));
        self.generation += 1;
        let before = self.down(error);
        if let (Error::Closed { .. }, State::Up(client)) = (error, before) {
            if processing > 0 {
                self.closed = Some(ClosedConnection { client, generation, processing });
            } else {
                self.close_in_background(client);
            }
        }
        LinkEvent::Changed
    }

    fn connected(&mut self, result: Result<Client, Error>) {
        match result {
            Ok(client) => {
                output::note("wsmb: reconnected");
                self.told = None;
                self.backoff = ReconnectBackoffs::new();
                self.state = State::Up(Box::new(client));
            }
            Err(error) => drop(self.down(&error)),
        }
    }

    /// Answers the broker's close frame in a background task. A failure has no effect: then the broker does not wait for the answer any more.
    fn close_in_background(&mut self, client: Box<Client>) {
        self.closing_task = Some(tokio::spawn(async move { drop(client.close().await) }));
    }

    /// Starts to reconnect. Returns the previous state.
    fn down(&mut self, error: &Error) -> State {
        // Logs once per outage, and again only if the broker refuses the login with another reason, which the user must resolve.
        let refused = error.is_refusal();
        if self.told.is_none() || (refused && self.told.as_deref() != Some(&error.to_string())) {
            output::note(&format!("wsmb: {error}; reconnecting until it succeeds"));
            self.told = Some(error.to_string());
        }
        let wait = self.backoff.failed(error);
        let (url, options, text) = (self.url.clone(), self.options.clone(), self.subscription.to_json(self.wanted));
        self.declared = self.wanted;
        let connecting = State::Down(Box::pin(async move {
            tokio::time::sleep(wait).await;
            subscribe(&url, &options, &text).await
        }));
        std::mem::replace(&mut self.state, connecting)
    }
}

async fn subscribe(url: &Url, options: &Options, subscription: &str) -> Result<Client, Error> {
    let mut client = Client::connect(url, options).await?;
    client.queue_text(subscription)?;
    client.defer_close_reply();
    Ok(client)
}

/// The time by the clock of this computer.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Whether another receiver with the same name has replaced this one. Reconnecting would replace the other one, and both would alternate for ever.
pub(super) fn is_replaced(error: &Error) -> bool {
    matches!(error, Error::Closed { code: Some(1008), reason } if reason == "replaced")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_protocol::handshake::BadReply;

    #[test]
    fn the_back_off_is_short_without_a_broker_and_long_after_a_refusal() {
        let refused = |status| {
            let reply = BadReply::Refused { status, reason: String::new(), body: String::new() };
            Error::Refused { address: String::new(), user: None, reply }
        };
        let longest = |error: &Error| {
            let mut backoffs = ReconnectBackoffs::new();
            (0..20).map(|_| backoffs.failed(error)).max().unwrap()
        };
        let lost = Error::Lost { address: String::new(), source: None };
        for nobody in [&lost, &refused(502), &refused(504)] {
            assert!(longest(nobody) <= std::time::Duration::from_secs(1), "{nobody}");
        }
        for status in [401, 403, 429, 503] {
            assert!(longest(&refused(status)) >= limits::RECONNECT_REFUSED / 2, "{status}");
        }
    }
}
