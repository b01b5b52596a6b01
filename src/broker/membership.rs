//! Connections come, say what they receive, take each other's place, and go.

use smallvec::SmallVec;

use super::channel::Member;
use super::receiver::{Receiver, Subscription};
use super::{Broker, Effect, EndReason, ReceiverKey, Reply, Subscribe, Turn};
use crate::message::{ChannelName, ConnectionId};

impl Broker {
    /// A connection names itself: an older one of that name is ended, and its places are kept for the new one.
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

    /// Ends the older connection of this name; the channels it received and its place in each.
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
        let Subscribe { connection, channels, ack, prefetch, receiver: name } = subscribe;
        if self.ended.contains(&connection) {
            return;
        }
        if let Some(name) = name {
            let claimed = self.claims.get(&connection).is_some_and(|(own, _)| *own == name);
            if !claimed {
                self.claim(connection, name, turn);
            }
        }
        let places = self.claims.get_mut(&connection).map(|(_, places)| std::mem::take(places)).unwrap_or_default();
        let key = self.receiver_key(connection);
        // A receiver is known as such; it needs no second line.
        self.connections.remove(&connection);
        self.receivers[key].configure(ack, prefetch);
        self.leave_all_but(key, &channels);
        for name in channels {
            if self.is_subscribed(key, &name) {
                continue;
            }
            let Some(channel) = self.open_channel(&name) else {
                self.reply(Some(connection), Reply::TooManyChannels, turn);
                continue;
            };
            let order = match places.iter().find(|(place, _)| *place == name) {
                Some((_, order)) => *order,
                None => self.next_order(),
            };
            self.channels[channel].join(Member { order, receiver: key, connection });
            self.receivers[key].subscriptions.push(Subscription { channel, order });
            self.to_pump.push(channel);
        }
        self.want_confirmation(key, turn);
    }

    fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }

    /// The receiver's key. A receiver stays one until its connection ends: its deliveries are numbered once and for all.
    fn receiver_key(&mut self, connection: ConnectionId) -> usize {
        if let Some(key) = self.receiver_keys.get(&connection) {
            return *key;
        }
        let key = self.receivers.insert(Receiver::new(connection));
        self.receiver_keys.insert(connection, key);
        key
    }

    /// The name of a channel that there is, shared: so thousands of connections that name one channel hold its name once.
    #[must_use]
    pub fn known_channel(&self, name: &ChannelName) -> Option<ChannelName> {
        self.channel_keys.get_key_value(name).map(|(name, _)| name.clone())
    }

    fn is_subscribed(&self, receiver: usize, name: &ChannelName) -> bool {
        self.receivers[receiver]
            .subscriptions
            .iter()
            .any(|subscription| self.channels[subscription.channel].name == *name)
    }

    /// Notes that a connection sends to a channel, if it receives that channel too, which is the result.
    pub(super) fn note_sender(&mut self, connection: ConnectionId, channel: usize) -> bool {
        let receives = self.receives(connection, channel);
        if receives {
            let key = self.receiver_keys[&connection];
            self.receivers[key].publishes = true;
        }
        receives
    }

    /// Whether a connection receives a channel.
    pub(super) fn receives(&self, connection: ConnectionId, channel: usize) -> bool {
        self.receiver_keys.get(&connection).is_some_and(|key| {
            self.receivers[*key].subscriptions.iter().any(|subscription| subscription.channel == channel)
        })
    }

    /// Leaves every channel that is not among `keep`. What is in flight from it stays so until it is confirmed.
    fn leave_all_but(&mut self, receiver: usize, keep: &[ChannelName]) {
        let subscriptions = std::mem::take(&mut self.receivers[receiver].subscriptions);
        let (stay, leave): (SmallVec<[_; 1]>, SmallVec<[Subscription; 1]>) = subscriptions
            .into_iter()
            .partition(|subscription| keep.contains(&self.channels[subscription.channel].name));
        self.receivers[receiver].subscriptions = stay;
        for subscription in leave {
            self.leave(subscription);
        }
    }

    /// Takes a receiver out of a channel. If it was the last, what waits there is written at once: nobody is about to take it.
    fn leave(&mut self, subscription: Subscription) {
        let channel = &mut self.channels[subscription.channel];
        channel.leave(subscription.order);
        if channel.members.is_empty() {
            let unwritten: Vec<_> =
                channel.waiting.values().filter(|entry| !entry.written).map(|entry| entry.message.id).collect();
            for id in unwritten {
                self.append_unasked(id);
            }
        }
        self.to_pump.push(subscription.channel);
        self.close_if_unused(subscription.channel);
    }

    pub(super) fn disconnected(&mut self, connection: ConnectionId, confirmed: Option<u64>, turn: &mut Turn<'_>) {
        self.ended.remove(&connection);
        self.forget(connection, confirmed, turn);
    }

    /// Ends a connection from this side.
    pub(super) fn end(&mut self, connection: ConnectionId, reason: EndReason, turn: &mut Turn<'_>) {
        self.forget(connection, None, turn);
        self.ended.insert(connection);
        turn.effects.list.push(Effect::End { connection, reason });
    }

    /// Forgets all about a connection; what it has not confirmed goes back to where it was.
    fn forget(&mut self, connection: ConnectionId, confirmed: Option<u64>, turn: &mut Turn<'_>) {
        self.last_sender = None;
        // It is answered no more, not even for what its own end confirms.
        self.connections.remove(&connection);
        if let Some((name, _)) = self.claims.remove(&connection)
            && self.named.get(&name) == Some(&connection)
        {
            self.named.remove(&name);
        }
        let Some(key) = self.receiver_keys.remove(&connection) else { return };
        if let Some(up_to) = confirmed.filter(|_| !self.receivers[key].publishes) {
            self.settle_up_to(key, up_to, turn);
        }
        let receiver = self.receivers.remove(key);
        for subscription in &receiver.subscriptions {
            self.leave(*subscription);
        }
        for flight in receiver.window.flights() {
            self.release_flight(flight, true, turn);
        }
    }
}
