//! What administrators see of the channels. Reads only.

use super::Broker;
use super::channel::Channel;
use crate::message::{ChannelName, ConnectionId, Timestamp};

/// A channel as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelStatus {
    /// Its name.
    pub name: ChannelName,
    /// Whether its messages are kept.
    pub keep: bool,
    /// The number of its receivers.
    pub receivers: usize,
    /// The number of unsettled messages.
    pub backlog: u64,
    /// How many of them only the store has.
    pub stored_only: u64,
    /// The acceptance of the oldest message that waits in memory.
    pub oldest: Option<Timestamp>,
}

impl ChannelStatus {
    fn of(channel: &Channel) -> Self {
        Self {
            name: channel.name.clone(),
            keep: channel.policy.keep,
            receivers: channel.members.len(),
            backlog: channel.unsettled,
            stored_only: channel.paged,
            oldest: channel.waiting.first_key_value().map(|(_, entry)| entry.message.created),
        }
    }
}

impl Broker {
    /// Returns the status of a channel that has receivers or unsettled messages.
    #[must_use]
    pub fn channel_status(&self, name: &str) -> Option<ChannelStatus> {
        self.channel_keys.get(name).map(|key| ChannelStatus::of(&self.channels[*key]))
    }

    /// Calls `see` for the channels at the positions from `from` on, at most `most` positions. Returns the next position, if there is one. Channels that are
    /// opened or closed between two calls may be missing.
    pub fn see_channels(&self, from: usize, most: usize, mut see: impl FnMut(ChannelStatus)) -> Option<usize> {
        let end = from.saturating_add(most);
        (from..end).filter_map(|key| self.channels.get(key)).for_each(|channel| see(ChannelStatus::of(channel)));
        (end < self.channels.capacity()).then_some(end)
    }

    /// Returns the receivers of a channel, at most `most`.
    #[must_use]
    pub fn receivers_of(&self, name: &str, most: usize) -> Vec<ConnectionId> {
        let channel = self.channel_keys.get(name).map(|key| &self.channels[*key]);
        channel
            .map(|channel| channel.members.iter().take(most).map(|member| member.connection).collect())
            .unwrap_or_default()
    }
}
