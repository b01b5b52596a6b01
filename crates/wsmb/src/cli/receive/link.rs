//! The connection of a receiver: what waits, answers to deliveries, and connecting again after a loss.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use super::Failure;
use super::item::Item;
use crate::cli::output;
use crate::limits;
use wsmb_client::frames::{self, Answer, Frame, ReceiveMessage};
use wsmb_client::{Backoff, Client, Error, Message, Options, Url};
use wsmb_core::message::Timestamp;

/// What this receiver declares on each of its connections.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    /// In the order of preference.
    pub channels: Vec<String>,
    pub receiver: Option<String>,
    pub group: Option<String>,
    /// The channels take turns.
    pub fair: bool,
}

impl Subscription {
    /// The command. `wanted`: how many deliveries there may be without an answer; 0: nothing comes from now on.
    pub(super) fn to_json(&self, wanted: u32) -> String {
        let channels = self.channels.iter().filter(|_| wanted > 0).map(String::as_str);
        let command = ReceiveMessage::new(channels).prefetch(Some(wanted.max(1))).fair(self.fair);
        command.receiver(self.receiver.as_deref()).group(self.group.as_deref()).to_json()
    }
}

/// A connection that comes back by itself.
pub(super) struct Link {
    url: Url,
    options: Options,
    subscription: Subscription,
    /// How many deliveries the broker may have given without an answer. 0: this receiver takes nothing now.
    wanted: u32,
    /// What the broker was last told of it, on this connection.
    declared: u32,
    state: State,
    backoff: Backoffs,
    waiting: VecDeque<Item>,
    /// Messages that came so far.
    serial: u64,
    /// Counts the connections: a delivery can only be answered where it came from.
    generation: u64,
    /// Deliveries of this connection that are being worked on.
    given: usize,
    /// The connection before, which the broker has ended while something of it was being worked on.
    leaving: Option<Leaving>,
    /// Its goodbye.
    goodbye: Option<JoinHandle<()>>,
    /// What was last said about an outage that still lasts.
    told: Option<String>,
}

/// A connection that the broker has ended, but over which it still takes answers for a while: work that is done in time is not done twice.
struct Leaving {
    client: Box<Client>,
    generation: u64,
    given: usize,
}

enum State {
    Up(Box<Client>),
    Down(Pin<Box<dyn Future<Output = Result<Client, Error>>>>),
}

/// What [`Link::take`] came to.
pub(super) enum Taken {
    /// Something changed; look again.
    Something,
    /// Another receiver has taken this one's name.
    Replaced,
    /// The broker refuses the subscription: why.
    Refused(String),
}

/// How long to wait before connecting again. Who asks a computer where nobody listens costs it next to nothing, and is there soon after the broker. Who
/// asks a server that answers "not now" or "not you" costs it a handshake each time, and there may be thousands.
struct Backoffs {
    nobody: Backoff,
    refused: Backoff,
}

impl Backoffs {
    fn new() -> Self {
        Self {
            nobody: Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_NOBODY),
            refused: Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_LONGEST),
        }
    }

    fn failed(&mut self, error: &Error) -> std::time::Duration {
        if error.is_answer() { self.refused.failed() } else { self.nobody.failed() }
    }
}

impl Link {
    /// The first connection. It must succeed: a wrong address or password is better said at once than tried for ever.
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
            backoff: Backoffs::new(),
            waiting: VecDeque::new(),
            serial: 0,
            generation: 0,
            given: 0,
            leaving: None,
            goodbye: None,
            told: None,
        })
    }

    /// Tells the broker, if it is news, how many deliveries without an answer this receiver takes from now on. To be called before the answer that
    /// would make room for one more.
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

    /// The first delivery that waits and that `fits`.
    pub(super) fn pop(&mut self, fits: impl FnMut(&Item) -> bool) -> Option<Item> {
        let at = self.waiting.iter().position(fits)?;
        let item = self.waiting.remove(at)?;
        self.given += usize::from(item.delivery.is_some());
        Some(item)
    }

    /// Puts messages back in front that have come, and begin later. Only of deliveries that are not answered.
    pub(super) fn put_back(&mut self, item: Item) {
        self.waiting.push_front(item);
    }

    /// Waits for something to happen on the connection, or for the connection itself. May be dropped and called again.
    pub(super) async fn take(&mut self) -> Taken {
        // The broker sends no more than the prefetch unacknowledged. A channel that keeps nothing knows no acknowledgement, and there the
        // socket is left to fill: the broker then ends this receiver as slow.
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
                Taken::Something
            }
        }
    }

    /// Answers a delivery. False: its connection has gone, and the broker gives the message out again.
    pub(super) fn answer(&mut self, item: &Item, answer: &Answer<'_>) -> Result<bool, Failure> {
        let Some(delivery) = &item.delivery else { return Ok(true) };
        let answer = answer.to_json(delivery);
        if item.generation == self.generation {
            self.given = self.given.saturating_sub(1);
            if let State::Up(client) = &mut self.state {
                client.queue_text(&answer)?;
                return Ok(true);
            }
            return Ok(false);
        }
        let Some(mut leaving) = self.leaving.take_if(|leaving| leaving.generation == item.generation) else {
            return Ok(false);
        };
        leaving.client.queue_text(&answer)?;
        leaving.client.write_some();
        leaving.given = leaving.given.saturating_sub(1);
        if leaving.given > 0 {
            self.leaving = Some(leaving);
        } else {
            self.say_goodbye(leaving.client);
        }
        Ok(true)
    }

    /// Tells the broker that the work on a delivery goes on.
    pub(super) fn extend(&mut self, generation: u64, delivery: &str) -> Result<(), Failure> {
        if let State::Up(client) = &mut self.state
            && generation == self.generation
        {
            client.queue_text(&Answer::Extend.to_json(delivery))?;
        }
        Ok(())
    }

    /// Ends the connection in an orderly way, so that the last answers have arrived.
    pub(super) async fn close(self) {
        if let Some(goodbye) = self.goodbye {
            // Its only failure would be a panic, which has been reported.
            let _ = goodbye.await;
        }
        if let State::Up(client) = self.state
            && let Err(error) = client.close().await
        {
            output::note(&format!("wsmb: {error}; the last message may come again"));
        }
    }

    fn read(&mut self, message: &Message) -> Taken {
        match frames::parse(&message.payload) {
            Ok(Frame::Delivery(delivery)) => {
                let item = Item::new(&delivery, self.generation, now(), self.serial);
                self.serial = self.serial.saturating_add(item.count());
                self.waiting.push_back(item);
                Taken::Something
            }
            Ok(Frame::Reply(reply)) if reply.is_accepted() => Taken::Something,
            // A delivery that expired or was purged while we worked on it is nobody's any more.
            Ok(Frame::Reply(reply)) if matches!(reply.command.as_deref(), Some("ack" | "nack" | "extend")) => {
                Taken::Something
            }
            Ok(Frame::Reply(reply)) => Taken::Refused(format!("the broker says: {} {}", reply.code, reply.text)),
            Err(error) => Taken::Refused(error.to_string()),
        }
    }

    fn lost(&mut self, error: &Error) -> Taken {
        if is_replaced(error) {
            return Taken::Replaced;
        }
        // The broker gives these out again; worked on now, they would be worked on twice.
        self.waiting.retain(|item| item.delivery.is_none());
        let (generation, given) = (self.generation, std::mem::take(&mut self.given));
        self.generation += 1;
        let before = self.down(error);
        if let (Error::Closed { .. }, State::Up(client)) = (error, before) {
            if given > 0 {
                self.leaving = Some(Leaving { client, generation, given });
            } else {
                self.say_goodbye(client);
            }
        }
        Taken::Something
    }

    fn connected(&mut self, result: Result<Client, Error>) {
        match result {
            Ok(client) => {
                output::note("wsmb: connected again");
                self.told = None;
                self.backoff = Backoffs::new();
                self.state = State::Up(Box::new(client));
            }
            Err(error) => drop(self.down(&error)),
        }
    }

    /// Answers the broker's close frame: it waits for that. If it does not any more, nobody misses it.
    fn say_goodbye(&mut self, client: Box<Client>) {
        self.goodbye = Some(tokio::spawn(async move { drop(client.close().await) }));
    }

    /// Begins to connect again; returns what was before.
    fn down(&mut self, error: &Error) -> State {
        // Once per outage; again only when there is something else to do about it.
        let refused = error.is_refusal();
        if self.told.is_none() || (refused && self.told.as_deref() != Some(&error.to_string())) {
            output::note(&format!("wsmb: {error}; connecting again until it works"));
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
    client.answer_close_late();
    Ok(client)
}

/// By this computer's clock.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A receiver with our name has come: taking the place back would only start a quarrel.
pub(super) fn is_replaced(error: &Error) -> bool {
    matches!(error, Error::Closed { code: Some(1008), reason } if reason == "replaced")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_protocol::handshake::BadReply;

    #[test]
    fn a_gateway_is_back_within_a_second_and_asks_a_server_that_refuses_it_seldom() {
        let refused = |status| {
            let reply = BadReply::Refused { status, reason: String::new(), body: String::new() };
            Error::Refused { address: String::new(), user: None, reply }
        };
        let longest = |error: &Error| {
            let mut backoffs = Backoffs::new();
            (0..20).map(|_| backoffs.failed(error)).max().unwrap()
        };
        let lost = Error::Lost { address: String::new(), source: None };
        for nobody in [&lost, &refused(502), &refused(504)] {
            assert!(longest(nobody) <= std::time::Duration::from_secs(1), "{nobody}");
        }
        for status in [401, 403, 429, 503] {
            assert!(longest(&refused(status)) >= limits::RECONNECT_LONGEST / 2, "{status}");
        }
    }
}
