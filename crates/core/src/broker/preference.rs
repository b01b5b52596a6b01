//! A receiver of several channels: which of them goes first.
//!
//! A receiver has one window for all of its channels. While the window has room, a channel gives the receiver nothing if an earlier channel has
//! something in memory for it, or reads a page (for [`limits::PREFERENCE_WAIT`] at most). Two things ignore this order: a message to all receivers,
//! and a message that another receiver lost or gave back.

use std::time::Duration;

use super::channel::Channel;
use super::receiver::{Receiver, Sharing};
use super::timers::Timer;
use super::{Broker, Turn};
use crate::limits;
use crate::message::{ChannelName, ConnectionId, Order, Timestamp};

/// Why a receiver takes nothing from a channel now.
enum Reserved {
    /// Something waits for it in this channel.
    For(usize),
    /// A page may bring something, until this moment.
    Until(Timestamp),
}

impl Broker {
    /// Whether a receiver that has room takes nothing from a channel now, because another one of its channels goes first.
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

    /// Called when a channel has given what it could. If a receiver with room took nothing because another channel goes first, that channel is pumped
    /// now and this one after it. If the receiver waits for a page, a timer ends the wait.
    pub(super) fn yield_to_preferred(&mut self, key: usize, turn: &mut Turn<'_>) {
        let Some(channel) = self.channels.get(key).filter(|_| !self.stopping) else { return };
        if channel.waiting.is_empty() && self.owed.is_empty() {
            return;
        }
        let mut first = Vec::new();
        for member in &channel.members {
            let receiver = &self.receivers[member.receiver];
            if receiver.sharing == Sharing::Alone || !receiver.takes_backlog(turn.now) {
                continue;
            }
            match self.reserved(receiver, key, turn.now) {
                None => {}
                Some(Reserved::For(other)) => first.push(other),
                Some(Reserved::Until(at)) => {
                    let receiver = &mut self.receivers[member.receiver];
                    if !receiver.yield_armed {
                        receiver.yield_armed = true;
                        self.timers.arm(at, Timer::Yield(member.connection));
                    }
                }
            }
        }
        if !first.is_empty() {
            // Bounded: each of them gives something to a receiver that has room, before this one is looked at again.
            self.to_pump.push(key);
            self.to_pump.extend(first);
        }
    }

    /// A receiver has waited for a page long enough.
    pub(super) fn waited_for_page(&mut self, connection: ConnectionId) {
        let Some(key) = self.receiver_keys.get(&connection).copied() else { return };
        self.receivers[key].yield_armed = false;
        self.pump_all(key);
    }

    /// A page of a channel has been read, or could not be: whoever has waited for it looks at its other channels, too.
    pub(super) fn page_is_here(&mut self, channel: usize) {
        let members = self.channels[channel].members.iter().map(|member| member.receiver);
        let sharing: Vec<_> = members.filter(|key| self.receivers[*key].sharing != Sharing::Alone).collect();
        for key in sharing {
            self.pump_all(key);
        }
    }

    /// All of a receiver's channels are pumped, those first that it names first.
    fn pump_all(&mut self, receiver: usize) {
        let subscriptions = self.receivers[receiver].subscriptions.iter().rev();
        self.to_pump.extend(subscriptions.map(|subscription| subscription.channel));
    }

    /// A receiver has declared its channels in this order.
    pub(super) fn arrange(&mut self, key: usize, channels: &[ChannelName], order: Order) {
        let Self { receivers, channels: known, .. } = self;
        let receiver = &mut receivers[key];
        receiver.sharing = match order {
            _ if receiver.subscriptions.len() < 2 => Sharing::Alone,
            Order::List => Sharing::Preference,
            // The first one begins.
            Order::Fair => Sharing::Turns(u8::MAX),
        };
        if receiver.sharing != Sharing::Alone {
            let place = |channel: usize| channels.iter().position(|name| *name == known[channel].name);
            receiver.subscriptions.sort_by_cached_key(|subscription| place(subscription.channel));
        }
        // It may have more room than before, or wait for nothing any more.
        self.pump_all(key);
    }
}

impl Channel {
    /// Until when a page of `page` messages is waited for that may bring something: nothing is in memory, and it is being read, or about to be.
    fn page_until(&self, now: Timestamp, page: usize) -> Option<Timestamp> {
        let waited = match self.loading {
            Some(loading) => Duration::from_millis(u64::from((now.0 as u32).wrapping_sub(loading.asked))),
            None if self.wants_page(page) => Duration::ZERO,
            None => return None,
        };
        let left = limits::PREFERENCE_WAIT.saturating_sub(waited);
        (self.paged > 0 && !left.is_zero()).then(|| now.after(left))
    }
}
