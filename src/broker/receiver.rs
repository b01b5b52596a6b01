//! One receiver: what it asked for, its window, and when it is asked for a confirmation.

use std::time::Duration;

use smallvec::SmallVec;

use super::AckMode;
use super::window::Window;
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

/// A connection that receives.
#[derive(Debug)]
pub(super) struct Receiver {
    pub connection: ConnectionId,
    pub subscriptions: SmallVec<[Subscription; 1]>,
    pub ack: AckMode,
    /// Unconfirmed deliveries allowed.
    pub allowed: usize,
    /// `allowed` follows how quickly the receiver confirms.
    pub adaptive: bool,
    pub window: Window,
    /// It has sent to a channel that it receives: perhaps it came only to send, so its leaving proves nothing.
    pub publishes: bool,
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
    pub last_delivery: Timestamp,
    /// No backlog frame before this (`store.delay`).
    pub next_backlog: Timestamp,
    /// The timer for `next_backlog` is running.
    pub pace_armed: bool,
}

impl Receiver {
    pub fn new(connection: ConnectionId) -> Self {
        Self {
            connection,
            subscriptions: SmallVec::new(),
            ack: AckMode::Automatic,
            allowed: limits::PREFETCH as usize,
            adaptive: true,
            window: Window::default(),
            publishes: false,
            asked: false,
            asked_at: Timestamp::default(),
            prompt: false,
            awaited: false,
            quiet_armed: false,
            burst_began: Timestamp::default(),
            last_delivery: Timestamp::default(),
            next_backlog: Timestamp::default(),
            pace_armed: false,
        }
    }

    /// Whether its window takes another delivery. One is always taken, however large.
    pub fn has_room(&self) -> bool {
        self.window.len() < self.allowed && self.window.bytes() < limits::WINDOW_BYTES
    }

    /// Whether it takes another backlog frame now.
    pub fn takes_backlog(&self, now: Timestamp) -> bool {
        self.has_room() && self.next_backlog <= now
    }

    /// Whether a fan-out, which waits for nobody, has outrun it.
    pub fn is_outrun(&self) -> bool {
        let far = self.window.len() >= limits::FANOUT_DELIVERIES || self.window.bytes() >= limits::QUEUE_BYTES;
        far && !self.has_room()
    }

    /// Whether so much is unconfirmed that the confirmation is asked for without waiting for a pause.
    pub fn half_used(&self) -> bool {
        self.window.len() * 2 >= self.allowed || self.window.bytes() * 2 >= limits::WINDOW_BYTES
    }

    /// Whether it is likely to confirm sooner than a disk would. One that has never confirmed is not: perhaps it can't.
    pub fn is_prompt(&self, now: Timestamp) -> bool {
        let since = match self.ack {
            AckMode::Automatic => self.asked.then_some(self.asked_at),
            AckMode::Manual => self.window.oldest(),
        };
        self.prompt && since.is_none_or(|since| now.since(since) <= limits::PROMPT_CONFIRMATION)
    }

    /// What it asked for. A receiver that confirms by pongs and leaves the window as it is gets one that adapts.
    pub fn configure(&mut self, ack: AckMode, prefetch: u32) {
        self.ack = ack;
        self.allowed = prefetch as usize;
        self.adaptive = ack == AckMode::Automatic && prefetch == limits::PREFETCH;
    }

    /// A confirmation is asked for.
    pub fn ask(&mut self, now: Timestamp) {
        (self.asked, self.asked_at) = (true, now);
    }

    /// It has answered a delivery by hand.
    pub fn acknowledged(&mut self, done: bool, took: Duration) {
        self.prompt = done && took <= limits::PROMPT_CONFIRMATION;
    }

    /// A confirmation came. A receiver that confirms at once gets a larger window, one that takes its time (it works on each
    /// message, say) gets the small one back: what is in its window when it dies is what arrives twice.
    pub fn confirmed(&mut self, now: Timestamp) {
        if !std::mem::take(&mut self.asked) {
            return;
        }
        if self.ack == AckMode::Manual {
            return;
        }
        let took = now.since(self.asked_at);
        self.prompt = took <= limits::PROMPT_CONFIRMATION;
        if !self.adaptive {
            return;
        }
        if took <= limits::QUICK_CONFIRMATION {
            self.allowed = (self.allowed * 2).min(limits::MAX_PREFETCH as usize);
        } else if took >= limits::SLOW_CONFIRMATION {
            self.allowed = limits::PREFETCH as usize;
        }
    }
}
