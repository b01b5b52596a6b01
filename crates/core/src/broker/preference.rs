//! Receivers of several channels: the order in which their channels are served.
//!
//! A receiver has one window for all of its channels. While the window has room, a channel delivers nothing to the receiver if a preferred
//! channel has a message in memory for it, or reads a page (for [`limits::PREFERENCE_WAIT`] at most). Two kinds of messages ignore this
//! order: messages to all receivers, and messages that another receiver lost or gave back.

use std::collections::HashMap;
use std::time::Duration;

use super::channel::Channel;
use super::deadlines::Timer;
use super::member::Member;
use super::receiver::{Receiver, Sharing, Subscription};
use super::{Broker, Turn};
use crate::limits;
use crate::message::{ChannelName, ConnectionId, Order, Timestamp};

/// The reason why a receiver now takes nothing from a channel.
enum Reserved {
    /// A message waits for the receiver in this channel.
    For(usize),
    /// A page is awaited until this time.
    Until(Timestamp),
}

impl Broker {
    /// Whether a receiver with room takes nothing from a channel now, because another of its channels takes precedence.
    #[inline]
    pub(super) fn is_reserved(&self, receiver: &Receiver, channel: usize, now: Timestamp) -> bool {
        receiver.sharing != Sharing::Alone && self.reserved(receiver, channel, now).is_some()
    }

    #[cold]
    fn reserved(&self, receiver: &Receiver, channel: usize, now: Timestamp) -> Option<Reserved> {
        receiver.preferred(channel).find_map(|other| {
            let channel = &self.channels[other];
            if channel.has_for(receiver.connection, now) || self.is_owed_to(other, receiver.connection, now) {
                return Some(Reserved::For(other));
            }
            channel.page_until(now, self.settings.bounds.page_messages).map(Reserved::Until)
        })
    }

    /// Called when a channel has delivered what it could. If a receiver with room took nothing because another channel takes precedence,
    /// that channel is pumped first and this one again after it. If the receiver waits for a page, a timer ends the wait.
    pub(super) fn yield_to_preferred(&mut self, key: usize, turn: &mut Turn<'_>) {
        let Some(channel) = self.channels.get(key).filter(|_| !self.stopping) else { return };
        if channel.waiting.is_empty() && self.owed.is_empty() {
            return;
        }
        let mut first = Vec::new();
        // A receiver without room takes nothing in any case.
        for member in channel.members.ready_from(0) {
            let receiver = &self.receivers[member.receiver];
            if receiver.sharing == Sharing::Alone || !receiver.takes_backlog(turn.now) {
                continue;
            }
            match self.reserved(receiver, key, turn.now) {
                None => {}
                Some(Reserved::For(other)) => first.push(other),
                Some(Reserved::Until(at)) => {
                    let receiver = &mut self.receivers[member.receiver];
                    if !receiver.page_wait_armed {
                        receiver.page_wait_armed = true;
                        self.deadlines.arm(at, Timer::PageWait(member.connection));
                    }
                }
            }
        }
        if !first.is_empty() {
            // Bounded: each of these channels delivers to a receiver with room before this one is pumped again.
            self.to_pump.push(key);
            self.to_pump.extend(first);
        }
    }

    /// Handles the end of a receiver's wait for a page.
    pub(super) fn page_wait_over(&mut self, connection: ConnectionId) {
        let Some(key) = self.receiver_keys.get(&connection).copied() else { return };
        self.receivers[key].page_wait_armed = false;
        self.pump_all(key);
    }

    /// Handles a page that was read or failed: pumps the other channels of the receivers that have waited for it.
    pub(super) fn page_arrived(&mut self, channel: usize) {
        let members = self.channels[channel].members.iter().map(|member| member.receiver);
        let sharing: Vec<_> = members.filter(|key| self.receivers[*key].sharing != Sharing::Alone).collect();
        for key in sharing {
            self.pump_all(key);
        }
    }

    /// Marks all of a receiver's channels to be pumped, in the order of its request.
    fn pump_all(&mut self, receiver: usize) {
        let Self { receivers, channels, to_pump, .. } = self;
        let Receiver { connection, subscriptions, .. } = &receivers[receiver];
        for Subscription { channel, order } in subscriptions.iter().rev() {
            channels[*channel].members.note_room(Member { order: *order, receiver, connection: *connection });
            to_pump.push(*channel);
        }
    }

    /// Sorts a receiver's channels in the order of its request, and sets how they share its window.
    pub(super) fn sort_subscriptions(&mut self, key: usize, channels: &[ChannelName], order: Order) {
        let shares = self.receivers[key].subscriptions.len() > 1;
        let places = if shares { self.places(channels) } else { HashMap::default() };
        let receiver = &mut self.receivers[key];
        receiver.sharing = match order {
            _ if !shares => Sharing::Alone,
            Order::List => Sharing::Preference,
            // The first channel begins.
            Order::Fair => Sharing::Turns(u8::MAX),
        };
        if receiver.sharing != Sharing::Alone {
            receiver.subscriptions.sort_by_cached_key(|subscription| places.get(&subscription.channel).copied());
        }
        // The window may have become larger, or a wait may have ended.
        self.pump_all(key);
    }
}

impl Channel {
    /// Returns the time until which a receiver waits for a page of `page` messages that is being read, or about to be. `None` if there is
    /// no such page or the wait is over.
    fn page_until(&self, now: Timestamp, page: usize) -> Option<Timestamp> {
        let waited = match self.next_page.asked() {
            Some(asked) => Duration::from_millis(u64::from((now.0 as u32).wrapping_sub(asked))),
            None if self.wants_page(page) && !self.next_page.starved => Duration::ZERO,
            None => return None,
        };
        let left = limits::PREFERENCE_WAIT.saturating_sub(waited);
        (self.paged > 0 && !left.is_zero()).then(|| now.after(left))
    }
}
