//! A receiver: its request, its window, and the times at which it is asked for a confirmation.

use std::time::Duration;

use smallvec::SmallVec;

use super::sent::SentTo;
use super::window::Window;
use super::window_size::WindowSize;
use super::{AckMode, Subscribe};
use crate::limits;
use crate::message::{ConnectionId, Timestamp};

/// A channel to which a receiver is subscribed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    /// The channel's key.
    pub channel: usize,
    /// The receiver's position in the channel's order of receivers.
    pub order: u64,
}

/// The order in which a receiver's channels use its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    /// The receiver has one channel, or none.
    Alone,
    /// An earlier channel takes precedence.
    Preference,
    /// The channels take turns. Holds the index of the channel that was served last.
    Turns(u8),
}

/// A connection that is subscribed to channels.
#[derive(Debug)]
pub(super) struct Receiver {
    pub connection: ConnectionId,
    /// In the order of the receiver's request.
    pub subscriptions: SmallVec<[Subscription; 1]>,
    pub sharing: Sharing,
    pub ack: AckMode,
    /// The number of unconfirmed deliveries that the receiver may hold.
    pub window_size: WindowSize,
    pub window: Window,
    /// The channels to which the connection has sent.
    pub sent_to: SentTo,
    /// A confirmation was asked for and has not arrived.
    pub asked: bool,
    asked_at: Timestamp,
    /// The last confirmation arrived within [`limits::PROMPT_CONFIRMATION`].
    prompt: bool,
    /// A sender waits for a message that was delivered after the last request for a confirmation: the next request is made at once.
    pub awaited: bool,
    /// The timer for the end of the current burst is running.
    pub burst_armed: bool,
    /// The time of the first delivery of the current burst.
    pub burst_began: Timestamp,
    /// The receiver gets no backlog frame before this time (`store.delay`).
    pub next_backlog: Timestamp,
    /// The timer for `next_backlog` is running.
    pub backlog_armed: bool,
    /// The timer for `confirm_timeout` is running.
    pub timeout_armed: bool,
    /// The timer for the end of the wait for a preferred channel's page is running.
    pub page_wait_armed: bool,
}

impl Receiver {
    pub fn new(connection: ConnectionId, sent_to: SentTo, subscribe: &Subscribe) -> Self {
        Self {
            connection,
            subscriptions: SmallVec::new(),
            sharing: Sharing::Alone,
            ack: subscribe.ack,
            window_size: WindowSize::new(subscribe.client, subscribe.ack, subscribe.window()),
            window: Window::default(),
            sent_to,
            asked: false,
            asked_at: Timestamp::default(),
            prompt: false,
            awaited: false,
            burst_armed: false,
            burst_began: Timestamp::default(),
            next_backlog: Timestamp::default(),
            backlog_armed: false,
            timeout_armed: false,
            page_wait_armed: false,
        }
    }

    /// Whether the window takes another delivery. An empty window always takes one, however large.
    pub fn has_room(&self) -> bool {
        !self.window.is_silent()
            && self.window.len() < self.window_size.allowed()
            && self.window.bytes() < limits::WINDOW_BYTES
    }

    /// Returns the receiver's channels that now take precedence over this one.
    pub fn preferred(&self, channel: usize) -> impl Iterator<Item = usize> {
        let start = match self.sharing {
            Sharing::Turns(served) => usize::from(served) + 1,
            Sharing::Alone | Sharing::Preference => 0,
        };
        let (before, after) = self.subscriptions.split_at(start.min(self.subscriptions.len()));
        let turn = after.iter().chain(before).map(|subscription| subscription.channel);
        turn.take_while(move |other| *other != channel)
    }

    /// Notes that a channel has delivered to the receiver.
    pub fn serve(&mut self, channel: usize) {
        if let Sharing::Turns(served) = &mut self.sharing {
            let place = self.subscriptions.iter().position(|subscription| subscription.channel == channel);
            *served = place.and_then(|place| u8::try_from(place).ok()).unwrap_or(*served);
        }
    }

    /// Whether the receiver takes another backlog frame now.
    pub fn takes_backlog(&self, now: Timestamp) -> bool {
        self.has_room() && self.next_backlog <= now
    }

    /// Whether the receiver is too slow for a fan-out without receiver limit. `most`: the number of unconfirmed deliveries that such a
    /// fan-out allows.
    pub fn is_outrun(&self, most: usize) -> bool {
        let far = self.window.len() >= most || self.window.bytes() >= limits::QUEUE_BYTES;
        far && !self.has_room()
    }

    /// Whether the confirmation is asked for before the burst ends, because half of the window or [`limits::CONFIRM_DELIVERIES`] is used. Never for a client that may take
    /// one frame and leave: an unread ping would turn its FIN into an RST.
    pub fn is_asked_early(&self) -> bool {
        !self.window_size.is_unproven() && self.half_used()
    }

    /// Whether a backlog frame to the receiver contains a single message.
    pub fn takes_single(&self) -> bool {
        self.ack == AckMode::Manual || self.window_size.is_unproven()
    }

    fn half_used(&self) -> bool {
        let most = limits::CONFIRM_DELIVERIES.min(self.window_size.allowed().div_ceil(2));
        self.window.len() >= most || self.window.bytes() * 2 >= limits::WINDOW_BYTES
    }

    /// Whether the receiver will probably confirm sooner than a disk could write. False for a receiver that has never confirmed.
    pub fn is_prompt(&self, now: Timestamp) -> bool {
        let since = match self.ack {
            AckMode::Automatic => self.asked.then_some(self.asked_at),
            AckMode::Manual => self.window.oldest(),
        };
        self.prompt && since.is_none_or(|since| now.since(since) <= limits::PROMPT_CONFIRMATION)
    }

    /// Applies the receiver's new request.
    pub fn configure(&mut self, subscribe: &Subscribe) {
        self.ack = subscribe.ack;
        self.window_size = self.window_size.reconfigured(subscribe.client, subscribe.ack, subscribe.window());
    }

    /// Notes that a confirmation is asked for.
    pub fn ask(&mut self, now: Timestamp) {
        (self.asked, self.asked_at) = (true, now);
    }

    /// Notes an `ack` or `nack`. `done`: it was an `ack`; `took`: the time since the delivery.
    pub fn acknowledged(&mut self, done: bool, took: Duration) {
        self.prompt = done && took <= limits::PROMPT_CONFIRMATION;
    }

    /// Notes that a pong has confirmed this number of deliveries.
    pub fn confirmed(&mut self, deliveries: usize, now: Timestamp) {
        let held = self.window.len() + deliveries;
        let asked = std::mem::take(&mut self.asked);
        if deliveries == 0 {
            return;
        }
        self.window.confirmed(now);
        let took = asked.then(|| now.since(self.asked_at));
        if let Some(took) = took {
            self.prompt = took <= limits::PROMPT_CONFIRMATION;
        }
        self.window_size.confirmed(deliveries, held, took);
    }

    /// Whether the receiver works on deliveries: it has unconfirmed deliveries, and `timeout` has not passed since its last confirmation or
    /// the first of these deliveries.
    pub fn is_at_work(&self, now: Timestamp, timeout: Duration) -> bool {
        self.window.since().is_some_and(|since| now < since.after(timeout))
    }

    /// Returns the time at which the receiver is ended unless a pong confirms something before. `None` if a pong would confirm nothing.
    pub fn unconfirmed_until(&self, timeout: Duration) -> Option<Timestamp> {
        Some(self.window.automatic_since()?.after(timeout))
    }
}
