//! The connection of a receiver: what waits, acknowledgements, and connecting again after a loss.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinHandle;

use super::super::output;
use super::work::Item;
use super::{Failure, is_replaced};
use crate::client::frames::{self, Frame};
use crate::client::{Backoff, Client, Error, Message, Options, Url};
use crate::limits;

/// A connection that comes back by itself.
pub(super) struct Link {
    url: Url,
    options: Options,
    subscription: String,
    state: State,
    backoff: Backoff,
    waiting: VecDeque<Item>,
    /// Counts the connections: a delivery can only be acknowledged where it came from.
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

/// A connection that the broker has ended, but over which it still takes acknowledgements for a while: work that is done in time is not
/// done twice.
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

impl Link {
    /// The first connection. It must succeed: a wrong address or password is better said at once than tried for ever.
    pub(super) async fn connect(url: Url, options: Options, subscription: String) -> Result<Self, Failure> {
        let client = subscribe(&url, &options, &subscription).await?;
        Ok(Self {
            url,
            options,
            subscription,
            state: State::Up(Box::new(client)),
            backoff: Backoff::new(limits::RECONNECT_FIRST, limits::RECONNECT_LONGEST),
            waiting: VecDeque::new(),
            generation: 0,
            given: 0,
            leaving: None,
            goodbye: None,
            told: None,
        })
    }

    /// The next delivery that waits.
    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.waiting.pop_front()?;
        self.given += usize::from(item.delivery.is_some());
        Some(item)
    }

    /// Waits for something to happen on the connection, or for the connection itself. May be dropped and called again.
    pub(super) async fn take(&mut self) -> Taken {
        // The broker sends no more than the prefetch unacknowledged. A channel that keeps nothing knows no acknowledgement, and there the
        // socket is left to fill: the broker then ends this receiver as slow.
        if self.waiting.len() > limits::CLIENT_RECEIVED {
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

    /// Tells the broker that a delivery is done with, or gives it back.
    pub(super) fn acknowledge(&mut self, item: &Item, done: bool) -> Result<(), Failure> {
        let Some(delivery) = &item.delivery else { return Ok(()) };
        let answer = frames::acknowledge(delivery, done);
        if item.generation == self.generation {
            self.given = self.given.saturating_sub(1);
            if let State::Up(client) = &mut self.state {
                client.queue_text(&answer)?;
            }
            return Ok(());
        }
        // Otherwise the connection has gone: the broker has taken the delivery back, and gives it out again.
        if let Some(mut leaving) = self.leaving.take_if(|leaving| leaving.generation == item.generation) {
            leaving.client.queue_text(&answer)?;
            leaving.client.write_some();
            leaving.given = leaving.given.saturating_sub(1);
            if leaving.given > 0 {
                self.leaving = Some(leaving);
            } else {
                self.say_goodbye(leaving.client);
            }
        }
        Ok(())
    }

    /// Ends the connection in an orderly way, so that the last acknowledgements have arrived.
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
                self.waiting.push_back(Item::new(&delivery, self.generation));
                Taken::Something
            }
            Ok(Frame::Reply(reply)) if reply.is_accepted() => Taken::Something,
            // A delivery that expired or was purged while we worked on it is nobody's any more.
            Ok(Frame::Reply(reply)) if matches!(reply.command.as_deref(), Some("ack" | "nack")) => Taken::Something,
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
                self.backoff.succeeded();
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
        let wait = self.backoff.failed();
        let (url, options, subscription) = (self.url.clone(), self.options.clone(), self.subscription.clone());
        let connecting = State::Down(Box::pin(async move {
            tokio::time::sleep(wait).await;
            subscribe(&url, &options, &subscription).await
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
