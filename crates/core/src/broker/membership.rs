//! Connections: their names, subscriptions and ends.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::counters::Metric;
use super::deadlines::Timer;
use super::member::Member;
use super::receiver::{Receiver, Subscription};
use super::{Broker, Effect, EndReason, ReceiverKey, Reply, ReplyTo, Subscribe, Turn};
use crate::message::{ChannelName, ConnectionId, GroupName, Timestamp};

impl Broker {
    /// Handles a connection that claims a name: an older connection with this name is ended, and the new one inherits its positions.
    pub(super) fn claim(&mut self, connection: ConnectionId, key: ReceiverKey, turn: &mut Turn<'_>) {
        if self.ended.contains(&connection) {
            return;
        }
        self.note_connection(connection);
        if let Some((other, _)) = self.claims.get(&connection)
            && *other != key
        {
            self.named.remove(other);
        }
        let places = self.take_over(connection, &key, turn);
        self.named.insert(key.clone(), connection);
        self.claims.insert(connection, (key, places));
    }

    /// Ends the older connection of this name. Returns its channels and its position in each.
    fn take_over(
        &mut self,
        connection: ConnectionId,
        name: &ReceiverKey,
        turn: &mut Turn<'_>,
    ) -> Vec<(ChannelName, u64)> {
        let Some(older) = self.named.get(name).copied().filter(|older| *older != connection) else { return Vec::new() };
        let mut places = self.claims.get(&older).map(|(_, places)| places.clone()).unwrap_or_default();
        if let Some(receiver) = self.receiver_keys.get(&older).map(|key| &self.receivers[*key]) {
            places = receiver
                .subscriptions
                .iter()
                .map(|subscription| (self.channels[subscription.channel].name.clone(), subscription.order))
                .collect();
        }
        self.end(older, EndReason::Replaced, turn);
        places
    }

    pub(super) fn subscribe(&mut self, subscribe: Subscribe, turn: &mut Turn<'_>) {
        let connection = subscribe.connection;
        if self.ended.contains(&connection) {
            return;
        }
        if self.refuses_subscription(&subscribe, turn) {
            self.note_connection(connection);
            self.reply(ReplyTo::Connection(connection), Reply::TooManyChannels, turn);
            return;
        }
        let key = self.receiver_key(&subscribe);
        let group = subscribe.group.as_ref();
        let named = self.places(&subscribe.channels);
        self.leave_all_but(key, &named);
        self.regroup(key, group);
        // After the channels are left: the receiver may get messages of the connection that it replaces.
        if let Some(name) = &subscribe.receiver {
            let claimed = self.claims.get(&connection).is_some_and(|(own, _)| own == name);
            if !claimed {
                self.claim(connection, name.clone(), turn);
            }
        }
        let places = self.claims.get_mut(&connection).map(|(_, places)| std::mem::take(places)).unwrap_or_default();
        self.last_sender = None;
        let subscriptions = self.receivers[key].subscriptions.iter().map(|subscription| subscription.channel);
        // Made here, because the end of a replaced connection may have closed channels whose keys are used again.
        let mut subscribed: HashSet<usize, RandomState> = subscriptions.collect();
        for name in &subscribe.channels {
            let channel = self.channel_keys.get(name).copied().unwrap_or_else(|| {
                let owner = self.holdings.owner(&subscribe.user);
                self.make_channel(name, owner)
            });
            if !subscribed.insert(channel) {
                continue;
            }
            let order = match places.iter().find(|(place, _)| place == name) {
                Some((_, order)) => *order,
                None => self.next_order(),
            };
            self.channels[channel].join(Member { order, receiver: key, connection }, group);
            self.receivers[key].subscriptions.push(Subscription { channel, order });
            self.to_pump.push(channel);
        }
        self.sort_subscriptions(key, &subscribe.channels, subscribe.order);
        self.want_confirmation(key, turn);
    }

    fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }

    /// Returns the receiver's key; registers a new receiver. A receiver is removed only when its connection ends, because its deliveries
    /// are numbered through.
    fn receiver_key(&mut self, subscribe: &Subscribe) -> usize {
        let connection = subscribe.connection;
        if let Some(key) = self.receiver_keys.get(&connection) {
            self.receivers[*key].configure(subscribe);
            return *key;
        }
        // A receiver needs no entry in `connections`.
        let sent_to = self.connections.remove(&connection).unwrap_or_default();
        let key = self.receivers.insert(Receiver::new(connection, sent_to, subscribe));
        self.receiver_keys.insert(connection, key);
        key
    }

    /// Returns the shared name of an existing channel, so that thousands of connections that name one channel hold its name once.
    #[must_use]
    pub fn known_channel(&self, name: &ChannelName) -> Option<ChannelName> {
        self.channel_keys.get_key_value(name).map(|(name, _)| name.clone())
    }

    /// Returns the channels that a connection receives.
    pub fn channels_of(&self, connection: ConnectionId) -> impl Iterator<Item = &ChannelName> {
        let receiver = self.receiver_keys.get(&connection).map(|key| &self.receivers[*key]);
        let subscriptions = receiver.into_iter().flat_map(|receiver| &receiver.subscriptions);
        subscriptions.map(|subscription| &self.channels[subscription.channel].name)
    }

    /// Returns the place of each existing channel in a list of names, by the channel's key: the first place, if a name is in the list twice.
    pub(super) fn places(&self, names: &[ChannelName]) -> HashMap<usize, usize, RandomState> {
        // In reverse order, so that the first place is the last one that is inserted.
        let places = names.iter().enumerate().rev();
        places.filter_map(|(place, name)| Some((*self.channel_keys.get(name)?, place))).collect()
    }

    /// Sets a receiver's group on all of its channels.
    fn regroup(&mut self, receiver: usize, group: Option<&GroupName>) {
        for Subscription { channel, order } in &self.receivers[receiver].subscriptions {
            if self.channels[*channel].regroup(*order, group) {
                self.to_pump.push(*channel);
            }
        }
    }

    /// Notes that a connection sends to a channel, even if the publication is refused. `known`: the channel's key, if the channel exists.
    /// Returns whether the connection also receives the channel.
    pub(super) fn note_sender(&mut self, connection: ConnectionId, name: &ChannelName, known: Option<usize>) -> bool {
        let Some(key) = self.receiver_keys.get(&connection) else {
            self.connections.entry(connection).or_default().note(name);
            return false;
        };
        let receiver = &mut self.receivers[*key];
        receiver.sent_to.note(name);
        known.is_some_and(|channel| receiver.subscriptions.iter().any(|subscription| subscription.channel == channel))
    }

    /// Whether a connection receives a channel.
    pub(super) fn receives(&self, connection: ConnectionId, channel: usize) -> bool {
        if let Some(last) = self.last_sender
            && (last.connection, last.channel) == (connection, channel)
        {
            return last.receives;
        }
        self.receiver_keys.get(&connection).is_some_and(|key| {
            self.receivers[*key].subscriptions.iter().any(|subscription| subscription.channel == channel)
        })
    }

    /// Leaves every channel whose key is not in `keep`. Unconfirmed deliveries stay in the receiver's window.
    fn leave_all_but(&mut self, receiver: usize, keep: &HashMap<usize, usize, RandomState>) {
        let subscriptions = std::mem::take(&mut self.receivers[receiver].subscriptions);
        let (stay, leave): (SmallVec<[_; 1]>, SmallVec<[Subscription; 1]>) =
            subscriptions.into_iter().partition(|subscription| keep.contains_key(&subscription.channel));
        self.receivers[receiver].subscriptions = stay;
        for subscription in leave {
            self.leave(subscription);
        }
    }

    /// Removes a receiver from a channel. If it was the last one, the waiting messages are written at once, because no receiver is about to
    /// confirm them.
    fn leave(&mut self, subscription: Subscription) {
        let channel = &mut self.channels[subscription.channel];
        channel.leave(subscription.order);
        if channel.members.is_empty() {
            let unwritten: Vec<_> =
                channel.waiting.values().filter(|entry| !entry.written).map(|entry| entry.message.id).collect();
            for id in unwritten {
                self.append_unrequested(id);
            }
        }
        self.close_if_unused(subscription.channel);
        if self.channels.contains(subscription.channel) {
            self.to_pump.push(subscription.channel);
        }
    }

    /// Handles the end of a connection. `listens`: the client has closed its sending side only, and gets the outstanding replies.
    pub(super) fn disconnected(
        &mut self,
        connection: ConnectionId,
        took_only: bool,
        listens: bool,
        turn: &mut Turn<'_>,
    ) {
        let listens = listens && !self.ended.contains(&connection);
        if !listens {
            self.ended.remove(&connection);
        }
        self.forget(connection, took_only, listens, turn);
    }

    /// Whether a connection has unconfirmed deliveries and time left to confirm them. Such a connection may be silent and still alive.
    #[must_use]
    pub fn is_at_work(&self, now: Timestamp, connection: ConnectionId) -> bool {
        let receiver = self.receiver_keys.get(&connection).map(|key| &self.receivers[*key]);
        receiver.is_some_and(|receiver| receiver.is_at_work(now, self.settings.confirm_timeout))
    }

    /// Handles the timer for `confirm_timeout`.
    pub(super) fn end_unconfirmed(&mut self, connection: ConnectionId, turn: &mut Turn<'_>) {
        let Some(key) = self.receiver_keys.get(&connection).copied() else { return };
        let receiver = &mut self.receivers[key];
        match receiver.unconfirmed_until(self.settings.confirm_timeout) {
            None => receiver.timeout_armed = false,
            Some(until) if until > turn.now => self.deadlines.arm(until, Timer::ConfirmTimeout(connection)),
            Some(_) => {
                self.count(None, Metric::UnconfirmedReceivers, 1);
                self.end(connection, EndReason::Unconfirmed, turn);
            }
        }
    }

    /// Restarts the timers of unconfirmed deliveries after their times have changed.
    pub(super) fn restart_confirm_timers(&mut self) {
        self.deadlines.drop_unconfirmed();
        // The checks of the receivers find late deliveries again.
        self.overdue.clear();
        for (_, receiver) in &mut self.receivers {
            let until = receiver.unconfirmed_until(self.settings.confirm_timeout);
            receiver.timeout_armed = until.is_some();
            if let Some(until) = until {
                self.deadlines.arm(until, Timer::ConfirmTimeout(receiver.connection));
            }
            receiver.window.forget_overdue();
            if let Some(oldest) = receiver.window.oldest() {
                self.deadlines.arm_late_check(oldest.after(self.shortest_deadline), receiver.connection);
            }
        }
    }

    /// Ends a connection from the broker's side.
    pub(super) fn end(&mut self, connection: ConnectionId, reason: EndReason, turn: &mut Turn<'_>) {
        // Before other receivers get its messages.
        turn.effects.list.push(Effect::End { connection, reason });
        self.forget(connection, false, false, turn);
        self.ended.insert(connection);
    }

    /// Removes a connection. Its unconfirmed messages return.
    fn forget(&mut self, connection: ConnectionId, took_only: bool, listens: bool, turn: &mut Turn<'_>) {
        self.last_sender = None;
        if listens {
            self.connections.entry(connection).or_default();
        } else {
            // Before its deliveries are confirmed, because it gets no replies any more.
            self.connections.remove(&connection);
        }
        if let Some((name, _)) = self.claims.remove(&connection)
            && self.named.get(&name) == Some(&connection)
        {
            self.named.remove(&name);
        }
        let Some(key) = self.receiver_keys.remove(&connection) else { return };
        if took_only && self.confirms_by_leaving(key) {
            self.confirm_up_to(key, 1, turn);
        }
        let receiver = self.receivers.remove(key);
        for subscription in &receiver.subscriptions {
            self.leave(*subscription);
        }
        for delivery in receiver.window.iter() {
            self.forget_overdue(connection, delivery);
            self.release_flight(delivery.flight, connection, true, turn);
        }
        let live = self.receivers.len();
        self.deadlines.forget_receiver(connection, live, |other| self.receiver_keys.contains_key(other));
    }
}
