//! The table of channels: a channel is opened for the user that needs it, and closed when it has neither receivers nor messages.

use std::sync::Arc;

use super::channel::Channel;
use super::holdings::Owner;
use super::{Broker, Subscribe, Turn};
use crate::message::ChannelName;
use crate::policy::ChannelPolicy;

impl Broker {
    fn policy_of(&self, name: &ChannelName) -> Arc<ChannelPolicy> {
        self.policies[self.settings.policies.position(name)].clone()
    }

    /// Returns the key of the channel with this name, and opens the channel if it does not exist. `None` if its owner is refused a further
    /// channel.
    fn open_channel(&mut self, name: &ChannelName, owner: Owner) -> Option<usize> {
        if let Some(key) = self.channel_keys.get(name) {
            return Some(*key);
        }
        (!self.refuses_channels(owner, 1)).then(|| self.make_channel(name, owner))
    }

    /// Like [`Self::open_channel`], for a client. Messages that have expired are removed before anything is refused.
    pub(super) fn open_channel_for(
        &mut self,
        name: &ChannelName,
        user: &Arc<str>,
        turn: &mut Turn<'_>,
    ) -> Option<usize> {
        let owner = self.holdings.owner(user);
        self.open_channel(name, owner).or_else(|| {
            self.expire_due(turn);
            self.open_channel(name, owner)
        })
    }

    /// Makes a channel that does not exist, even if there are too many.
    pub(super) fn make_channel(&mut self, name: &ChannelName, owner: Owner) -> usize {
        let mut channel = Box::new(Channel::new(name.clone(), self.policy_of(name)));
        channel.owner = owner;
        let key = self.channels.insert(channel);
        self.channel_keys.insert(name.clone(), key);
        self.charge_channel(owner);
        key
    }

    /// Removes a channel without receivers and messages.
    pub(super) fn close_if_unused(&mut self, key: usize) {
        if self.channels.get(key).is_some_and(|channel| channel.is_unused()) {
            self.last_sender = None;
            self.disarm_expiry(key);
            let channel = self.channels.remove(key);
            self.channel_keys.remove(&channel.name);
            self.uncharge_channel(channel.owner);
            self.to_pump.retain(|other| *other != key);
        }
    }

    /// Whether a user is refused the channels that a subscription would open.
    pub(super) fn refuses_subscription(&mut self, subscribe: &Subscribe, turn: &mut Turn<'_>) -> bool {
        let names = &subscribe.channels;
        let opened = names.iter().filter(|name| !self.channel_keys.contains_key(*name)).count();
        if opened == 0 {
            return false;
        }
        let named = self.places(names);
        // The channels that the connection leaves make room, if nobody else uses them.
        let closes = |key: usize| self.channels[key].closes_with_last_member() && !named.contains_key(&key);
        let receiver = self.receiver_keys.get(&subscribe.connection).map(|key| &self.receivers[*key]);
        let left = receiver.into_iter().flat_map(|receiver| &receiver.subscriptions);
        let closed = left.filter(|subscription| closes(subscription.channel)).count();
        let more = opened.saturating_sub(closed);
        let owner = self.holdings.owner(&subscribe.user);
        if more == 0 || !self.refuses_channels(owner, more) {
            return false;
        }
        self.expire_due(turn);
        self.refuses_channels(owner, more)
    }
}
