//! One receiver: what it asked for, its window, and when it is asked for a confirmation.

use std::time::Duration;

use smallvec::SmallVec;

use super::pace::Pace;
use super::sent::SentTo;
use super::window::Window;
use super::{AckMode, Subscribe};
use crate::limits;
use crate::message::{ConnectionId, Timestamp};

/// A channel that a receiver receives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    /// The channel's key.
    pub channel: usize,
    /// Its place in the channel's order of receivers.
    pub order: u64,
}

/// How a receiver's channels share its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// It receives one channel, or none.
    Alone,
    /// What waits in an earlier one goes first.
    Preference,
    /// After the one at this place, the next one goes first.
    Turns(u8),
}

/// A connection that receives.
#[derive(Debug)]
pub(super) struct Receiver {
    pub connection: ConnectionId,
    /// In the order in which it names them.
    pub subscriptions: SmallVec<[Subscription; 1]>,
    pub sharing: Sharing,
    pub ack: AckMode,
    /// How many unconfirmed deliveries are allowed.
    pub pace: Pace,
    pub window: Window,
    /// To which channels the connection has sent.
    pub sent_to: SentTo,
    /// A confirmation was asked for and has not come.
    pub asked: bool,
    asked_at: Timestamp,
    /// Its last confirmation came within [`limits::PROMPT_CONFIRMATION`].
    prompt: bool,
    /// A sender waits for what was delivered since a confirmation was asked for: the next one is asked for at once.
    pub awaited: bool,
    /// The timer that will ask for one is running.
    pub quiet_armed: bool,
    /// When that timer was started: the first delivery of the burst.
    pub burst_began: Timestamp,
    /// No backlog frame before this (`store.delay`).
    pub next_backlog: Timestamp,
    /// The timer for `next_backlog` is running.
    pub pace_armed: bool,
    /// The timer that ends it if it confirms nothing is running.
    pub watched: bool,
    /// The timer for the end of its waiting for a page is running.
    pub yield_armed: bool,
}

impl Receiver {
    pub fn new(connection: ConnectionId, sent_to: SentTo, subscribe: &Subscribe) -> Self {
        Self {
            connection,
            subscriptions: SmallVec::new(),
            sharing: Sharing::Alone,
            ack: subscribe.ack,
            pace: Pace::new(subscribe.client, subscribe.ack, subscribe.window()),
            window: Window::default(),
            sent_to,
            asked: false,
            asked_at: Timestamp::default(),
            prompt: false,
            awaited: false,
            quiet_armed: false,
            burst_began: Timestamp::default(),
            next_backlog: Timestamp::default(),
            pace_armed: false,
            watched: false,
            yield_armed: false,
        }
    }

    /// Whether its window takes another delivery. One is always taken, however large.
    pub fn has_room(&self) -> bool {
        !self.window.is_silent()
            && self.window.len() < self.pace.allowed()
            && self.window.bytes() < limits::WINDOW_BYTES
    }

    /// Which of its channels go before this one, now.
    pub fn preferred(&self, channel: usize) -> impl Iterator<Item = usize> {
        let start = match self.sharing {
            Sharing::Turns(served) => usize::from(served) + 1,
            Sharing::Alone | Sharing::Preference => 0,
        };
        let (before, after) = self.subscriptions.split_at(start.min(self.subscriptions.len()));
        let turn = after.iter().chain(before).map(|subscription| subscription.channel);
        turn.take_while(move |other| *other != channel)
    }

    /// It is given something of a channel.
    pub fn serve(&mut self, channel: usize) {
        if let Sharing::Turns(served) = &mut self.sharing {
            let place = self.subscriptions.iter().position(|subscription| subscription.channel == channel);
            *served = place.and_then(|place| u8::try_from(place).ok()).unwrap_or(*served);
        }
    }

    /// Whether it takes another backlog frame now.
    pub fn takes_backlog(&self, now: Timestamp) -> bool {
        self.has_room() && self.next_backlog <= now
    }

    /// Whether a fan-out, which waits for nobody, has outrun it.
    /// `most`: unconfirmed deliveries that a fan-out allows.
    pub fn is_outrun(&self, most: usize) -> bool {
        let far = self.window.len() >= most || self.window.bytes() >= limits::QUEUE_BYTES;
        far && !self.has_room()
    }

    /// Whether the confirmation is asked for without waiting for a pause, because so much is unconfirmed. Not for a client that perhaps takes
    /// one frame and leaves: a ping that it has not read would turn its FIN into an RST.
    pub fn is_asked_early(&self) -> bool {
        !self.pace.is_unproven() && self.half_used()
    }

    /// Whether a backlog frame to it holds one message only.
    pub fn takes_single(&self) -> bool {
        self.ack == AckMode::Manual || self.pace.is_unproven()
    }

    fn half_used(&self) -> bool {
        self.window.len() * 2 >= self.pace.allowed() || self.window.bytes() * 2 >= limits::WINDOW_BYTES
    }

    /// Whether it is likely to confirm sooner than a disk would. One that has never confirmed is not: perhaps it can't.
    pub fn is_prompt(&self, now: Timestamp) -> bool {
        let since = match self.ack {
            AckMode::Automatic => self.asked.then_some(self.asked_at),
            AckMode::Manual => self.window.oldest(),
        };
        self.prompt && since.is_none_or(|since| now.since(since) <= limits::PROMPT_CONFIRMATION)
    }

    /// It has subscribed again.
    pub fn configure(&mut self, subscribe: &Subscribe) {
        self.ack = subscribe.ack;
        self.pace = self.pace.renew(subscribe.client, subscribe.ack, subscribe.window());
    }

    /// A confirmation is asked for.
    pub fn ask(&mut self, now: Timestamp) {
        (self.asked, self.asked_at) = (true, now);
    }

    /// It has answered a delivery by hand.
    pub fn acknowledged(&mut self, done: bool, took: Duration) {
        self.prompt = done && took <= limits::PROMPT_CONFIRMATION;
    }

    /// A confirmation of so many deliveries came.
    pub fn confirmed(&mut self, deliveries: usize, now: Timestamp) {
        let asked = std::mem::take(&mut self.asked);
        if deliveries == 0 {
            return;
        }
        self.window.confirmed(now);
        let took = asked.then(|| now.since(self.asked_at));
        if let Some(took) = took {
            self.prompt = took <= limits::PROMPT_CONFIRMATION;
        }
        self.pace.confirmed(deliveries, took);
    }

    /// Whether it works on deliveries: something is unconfirmed, and it has confirmed something within this time, or was given the first of
    /// them.
    pub fn is_at_work(&self, now: Timestamp, timeout: Duration) -> bool {
        self.window.since().is_some_and(|since| now < since.after(timeout))
    }

    /// When it is ended unless it confirms something by a pong before; `None` if a pong would confirm nothing.
    pub fn unconfirmed_until(&self, timeout: Duration) -> Option<Timestamp> {
        Some(self.window.automatic_since()?.after(timeout))
    }
}
